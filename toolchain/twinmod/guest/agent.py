# SPDX-License-Identifier: GPL-2.0-only
"""The program inside the VM: load, run, unload, and say each step on one line.

Process 1 of the guest. It does its work in a child, so that a call that never returns cannot
keep it from saying so. Standard library only, but for what a cell itself needs.
"""

import ctypes
import gc
import importlib
import os
import select
import signal
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn, assert_never

from twinmod.guest import (
    applets,
    collection,
    devices,
    faults,
    fwcfg,
    leaks,
    measure,
    modules,
    output,
    plugging,
    protocol,
    waking,
)
from twinmod.guest import child as guest_child
from twinmod.guest import log as guest_log
from twinmod.guest import stream as guest_stream
from twinmod.guest.child import BROKEN, HEARTBEAT_S, GivenUp, Guard, Heartbeat
from twinmod.guest.collection import Collection
from twinmod.guest.door import GuestError
from twinmod.guest.leaks import CodeRange
from twinmod.guest.log import KERNELS_WORDS, KernelLog
from twinmod.guest.modules import Module
from twinmod.guest.protocol import (
    Answered,
    Booted,
    CellBegan,
    CellEnded,
    Count,
    CountJob,
    CountTaken,
    DifferentialJob,
    Ended,
    FigureTaken,
    FileWritten,
    Job,
    LoopTaken,
    MatrixJob,
    MeasureJob,
    Outcome,
    Plan,
    PlannedCell,
    Ready,
    Request,
    SectionBegan,
    Segments,
    TurnsJob,
    TurnsTaken,
    Waiting,
    WrittenByProgram,
)
from twinmod.guest.stream import Stream

PLAN_PATH = Path("/results/plan.json")

#: Where what a cell leaves for the host goes.
RESULTS = Path("/results")

#: How the name of the file ends that a cell's process writes to, by its work.
LOGS = {
    Job.MATRIX: ".pytest.log",
    Job.COUNT: ".count.log",
    Job.MEASURE: ".measure.log",
    Job.TURNS: ".measure.log",
    Job.DIFFERENTIAL: ".log",
}

#: How much of its end a problem repeats.
LOG_LINES = 12
LOG_BYTES = 4096

#: What pytest's exit status says beside that tests passed or failed; pytest.ExitCode.
PYTEST_ENDS = {
    2: "pytest was interrupted, or could not collect the tests",
    3: "pytest itself failed",
    4: "pytest was called in a way that it refuses",
    5: "pytest collected no test",
}

#: What the kernel says of every module that no distribution built, whether it loads or not.
#: Source: kernel/module/main.c, Linux 7.3.
TAINTS = (
    ": loading out-of-tree module taints kernel.",
    ": module verification failed: signature and/or required key missing - tainting kernel",
)

#: linux/reboot.h
LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC


def run_job(
    plan: Plan, cell: PlannedCell, held: Collection, stream: Stream, heartbeat: Heartbeat
) -> int:
    """Do what a cell is there for, in this process; return 0, 1 or pytest's exit status."""
    output.redirect(plan_log_path(cell))
    match cell.job:
        case MatrixJob() as job:
            return held.run(cell, job, heartbeat)
        case CountJob() as job:
            return run_count(plan, cell, job, stream)
        case MeasureJob() as job:
            return run_measure(plan, cell, job, stream, heartbeat)
        case TurnsJob() as job:
            return run_turns(plan, job, stream, heartbeat)
        case DifferentialJob() as job:
            return run_differential(plan, job, stream, heartbeat)
        case _:
            assert_never(cell.job)


def run_count(plan: Plan, cell: PlannedCell, job: CountJob, stream: Stream) -> int:
    """Count up with one cell's tester on its module, and say what it took."""
    tester = importlib.import_module(plan.testers[cell.tester])
    with tester.Device(f"/dev/{cell.module}") as device:
        count = device.count_up(job.threads, job.increments, method=job.method)
    values = Count(
        target=count.target,
        actual=count.actual,
        real_s=count.real_s,
        user_s=count.user_s,
        system_s=count.system_s,
    )
    stream.emit(CountTaken(values=values))
    # Without a lock and without ADD nothing is promised: what is lost is shown.
    return 0 if count.actual == count.target or job.method == "racy" else 1


def run_differential(plan: Plan, job: DifferentialJob, stream: Stream, heartbeat: Heartbeat) -> int:
    """Carry out the host's sequences of steps on every module, until it says that it is done."""
    gc.enable()
    sys.path.insert(0, plan.matrix)
    executor = importlib.import_module(f"{job.package}.executor")
    loaded_size = None
    stream.emit(Ready())
    for request in read_requests(stream.descriptor, heartbeat.beat):
        size = request.size
        if size != loaded_size:
            for module in list_modules(plan):
                reload(module, f"size={size}" if size else "")
            loaded_size = size
        package = plan.testers.get(request.tester, "")
        tester = importlib.import_module(package) if package else None
        answers = {
            name: executor.execute(Path("/dev") / name, tester, size, request.steps)
            for name in plan.modules
        }
        stream.emit(Answered(answers=answers))
    return 0


def run_measure(
    plan: Plan, cell: PlannedCell, job: MeasureJob, stream: Stream, heartbeat: Heartbeat
) -> int:
    """Make the calls that QEMU counts, after each of several loads of the module."""
    gc.disable()
    measurement = job.measurement
    tester = importlib.import_module(plan.testers[cell.tester])
    library = ctypes.CDLL(plan.magic)
    parameters = f"size={measurement.device_bytes}" if measurement.device_bytes else ""
    for load_number in range(1, measurement.loads + 1):
        loader = None
        if cell.module:
            module = Module(name=cell.module, ko_path=Path(cell.path))
            reload(module, parameters)
            loader = measure.Loader(module, parameters)
        if loader and measurement.loop and load_number == 1:
            device_path = f"/dev/{cell.module}"
            for passes in measure.iterate_loops(device_path, plan.loop, measurement.loop):
                stream.emit(LoopTaken(values=passes))
                heartbeat.beat()
        profiler = measure.Profiler(library)
        stream.emit(SectionBegan())
        profiler.read_symbols()
        for timing, first, faults_of in measure.iterate_timings(
            profiler, measurement, cell.module, tester, loader
        ):
            values = Segments(
                timing=timing,
                cell=cell.name,
                load=load_number,
                first=first,
                lengths=measure.plan_lengths(timing),
                faults=faults_of,
            )
            stream.emit(FigureTaken(values=values))
            heartbeat.beat()
    return 0


def run_turns(plan: Plan, job: TurnsJob, stream: Stream, heartbeat: Heartbeat) -> int:
    """Let a clock tell what the calls of all modules take, in turns, with each tester."""
    gc.disable()
    measurement = job.measurement
    library = ctypes.CDLL(plan.magic)
    parameters = f"size={measurement.device_bytes}" if measurement.device_bytes else ""
    loaders = {}
    for module in list_modules(plan):
        reload(module, parameters)
        loaders[module.name] = measure.Loader(module, parameters)
    for tester_name, package in plan.testers.items():
        tester = importlib.import_module(package)
        for turns in measure.iterate_turns(measurement, tester_name, tester, library, loaders):
            stream.emit(TurnsTaken(values=turns))
            heartbeat.beat()
    return 0


def list_modules(plan: Plan) -> tuple[Module, ...]:
    """Return the modules under test."""
    return tuple(
        Module(name=name, ko_path=Path(module.path)) for name, module in plan.modules.items()
    )


def give_parameters(plan: Plan) -> None:
    """Note what each module of a plan is given at each of its loads."""
    known = {**plan.needed, **plan.modules}
    modules.give({name: module.parameters for name, module in known.items()})


def load_needed(plan: Plan) -> str:
    """Load what the modules under test need; return why one did not load, or ""."""
    return modules.load_needed({name: Path(m.path) for name, m in plan.needed.items()})


def reload(module: Module, parameters: str) -> None:
    """Load a module with parameters, after it was unloaded if it was there.

    Raises:
        GuestError: Either did not succeed.
    """
    problem = modules.find_refusal(module.unload) if module.is_loaded() else ""
    problem = problem or modules.find_refusal(partial(module.load, parameters))
    if problem:
        raise GuestError(f"{module.name} was not loaded again: {problem}")


def read_requests(descriptor: int, beat: Callable[[], object]) -> Iterator[Request]:
    """Yield the host's requests, one a line, until it says that there are no more.

    Args:
        descriptor: The port.
        beat: Called before each request, and every HEARTBEAT_S while there is none.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rest = b""
    while True:
        line, newline, after = rest.partition(b"\n")
        if newline:
            rest = after
            request = protocol.parse_request(line)
            if request is None:
                return
            beat()
            yield request
            continue
        beat()
        if poll.poll(HEARTBEAT_S * 1000):
            rest += os.read(descriptor, 1 << 16)


def plan_log_path(cell: PlannedCell) -> Path:
    """Return the file that a cell's process writes to."""
    return RESULTS / (cell.name.replace("/", "-") + LOGS[cell.job.KIND])


def find_problem(cell: PlannedCell, status: int) -> str:
    """Return why a cell's process ended other than it should, with the end of its log; or "".

    Args:
        cell: Of the plan.
        status: Its exit status, negative for a signal. 0 and 1 are what its work came to.
    """
    if status in (0, 1):
        return ""
    if status < 0:
        how = f"signal {-status} ended the cell's process ({signal.strsignal(-status)})"
    else:
        why = {**(PYTEST_ENDS if isinstance(cell.job, MatrixJob) else {}), BROKEN: "an exception"}
        how = f"the cell's process ended with status {status}"
        how += f": {why[status]}" if status in why else ""
    log_path = plan_log_path(cell)
    lines = read_tail(log_path)
    return "\n".join((f"{how}; {log_path.name} ends with", *lines)) if lines else how


def read_tail(path: Path) -> tuple[str, ...]:
    """Return the last lines of a log that say something; () for a log that is not there."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-LOG_LINES:]


def find_reasons(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the last of the kernel's lines that may say why it refused a module, as texts."""
    texts = (faults.parse_line(line).text for line in lines)
    return tuple(text for text in texts if not text.endswith(TAINTS))[-KERNELS_WORDS:]


def run_cell(plan: Plan, cell: PlannedCell, held: Collection, stream: Stream) -> bool:
    """Run one cell; return whether this VM can be trusted with another one."""
    stream.emit(CellBegan(cell=cell.name))
    log = KernelLog(
        guest_log.open_log(),
        tuple(plan.modules),
        lambda line: stream.emit(WrittenByProgram(line=line)),
    )
    guard = Guard(stream, log, plan.limit_s)
    module = Module(name=cell.module, ko_path=Path(cell.path))
    problem = load(plan, cell, held, module, guard)
    if isinstance(problem, GivenUp):
        return give_up(problem, f"{cell.module} did not load", guard)
    if problem:
        log.read()
        said = "; ".join(find_reasons(log.lines))
        why = f"{problem}; the kernel says: {said}" if said else problem
        end_cell(stream, Outcome.FAILED, (f"did not load: {why}",))
        return True
    code = CodeRange(cell.module)
    status = guard.wait(lambda heartbeat: run_job(plan, cell, held, stream, heartbeat))
    if isinstance(status, GivenUp):
        return give_up(status, "no step", guard)
    problem = find_problem(cell, status)
    problems = [problem] if problem else []
    loaded = [module] if cell.module else [m for m in list_modules(plan) if m.is_loaded()]
    said = guard.ask(lambda: "\n".join(unload(loaded)))
    if isinstance(said, GivenUp):
        return give_up(said, f"{', '.join(m.name for m in loaded)} did not unload", guard)
    left = said.splitlines()
    if cell.module and not left:
        leaks.tell_leaks(code)
    if log.read() and log.has_fault():
        problems += [*left, log.complaint]
        end_cell(stream, Outcome.CRASHED, tuple(problems))
        return False
    outcome = Outcome.PASSED if status == 0 and not problems + left else Outcome.FAILED
    end_cell(stream, outcome, (*problems, *left))
    return not left


def load(
    plan: Plan, cell: PlannedCell, held: Collection, module: Module, guard: Guard
) -> str | GivenUp:
    """Load what a cell's module needs, and then it; return why one did not load, or ""."""
    give_parameters(plan)
    plugging.give(plan, guard.stream)
    problem = guard.ask(lambda: load_needed(plan)) if plan.needed else ""
    if isinstance(cell.job, MatrixJob):
        held.devices_before = devices.read_devices()
    # The differential loads what it needs, as it needs it.
    if problem or not cell.path:
        return problem
    return guard.ask(lambda: modules.find_refusal(module.load))


def give_up(why: GivenUp, what: str, guard: Guard) -> bool:
    """End a cell that nobody waits for any longer; return that its VM cannot be trusted.

    Args:
        why: The kernel reported a fault, or it took too long.
        what: What did not come.
        guard: Waited for it.
    """
    match why:
        case GivenUp.FAULT:
            end_cell(guard.stream, Outcome.CRASHED, (guard.log.complaint,))
        case GivenUp.STUCK:
            write_stacks(guard.pid)
            problem = f"{what} within {guard.limit_s:.0f} s"
            end_cell(guard.stream, Outcome.TIMEOUT, (problem,))
        case _:
            assert_never(why)
    return False


def end_cell(stream: Stream, outcome: Outcome, problems: tuple[str, ...]) -> None:
    """Say how a cell ended, after the files that it left where its host does not see them."""
    if not os.path.ismount(RESULTS):
        # The plan of a VM that waited is not what it does.
        for path in sorted(set(RESULTS.iterdir()) - {PLAN_PATH}):
            content = b64encode(path.read_bytes()).decode()
            stream.emit(FileWritten(name=path.name, content=content))
            path.unlink()
    stream.emit(CellEnded(outcome=outcome, problems=problems))


def unload(loaded: Iterable[Module]) -> list[str]:
    """Unload modules; return a problem for each that stays."""
    refusals = ((module.name, modules.find_refusal(module.unload)) for module in loaded)
    return [f"{name} did not unload: {why}" for name, why in refusals if why]


def write_stacks(pid: int) -> None:
    """Write what a stuck process is doing to the console: its stack, and every processor's."""
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*/stack")):
        try:
            text = thread.read_text()
        except OSError as error:
            text = str(error)
        guest_log.say(f"twinmod: {thread}: {' '.join(text.split())}")
    Path("/proc/sysrq-trigger").write_text("l")


def run_cells(plan: Plan, stream: Stream) -> None:
    """Run the cells of a plan; in a VM that waits, of the last plan that is delivered."""
    if plan.mode == Job.WAIT and not plan.matrix:
        if not plan.counted:
            collection.rehearse()
        plan = receive(plan, {}, stream)
    held = Collection(plan, stream)

    def run() -> None:
        own = receive(plan, held.rules, stream) if plan.mode == Job.WAIT else plan
        if own.mode == Job.SHELL:
            run_shell(own)
        else:
            serve(own, held, stream)

    if plan.mode == Job.WAIT or any(isinstance(cell.job, MatrixJob) for cell in plan.cells):
        held.hold(run)
    else:
        run()
    stream.emit(Ended())


def receive(plan: Plan, tests: Mapping[str, tuple[str, ...]], stream: Stream) -> Plan:
    """Wait until the host delivers a plan, and return it: the VM may be another one then.

    Args:
        plan: Of the VM while it waits.
        tests: The rules of every test that was collected, by its name.
        stream: To the host.
    """
    leaks.forget_leaks()
    stream.emit(Waiting(tests=tests))
    delivery = protocol.parse_delivery(read_delivery(plan, stream))
    stream.begin()
    try:
        waking.wake(delivery)
    except GuestError as error:
        guest_log.say(f"twinmod: {error}")
        power_off()
        raise
    greet(stream)
    return delivery.plan


def read_delivery(plan: Plan, stream: Stream) -> bytes:
    """Wait until there is a delivery, and return its line."""
    if plan.counted:
        return fwcfg.wait_for_file(ctypes.CDLL(plan.magic), fwcfg.DELIVERY)
    return guest_stream.read_line(stream.descriptor)


def greet(stream: Stream) -> None:
    """Say that the agent runs, and on what."""
    stream.emit(Booted(release=os.uname().release, python=sys.version.split()[0]))


def serve(plan: Plan, held: Collection, stream: Stream) -> None:
    """Run the cells of a plan, until one leaves the VM in doubt."""
    for cell in plan.cells:
        if not run_cell(plan, cell, held, stream):
            break


def run_shell(plan: Plan) -> None:
    """Load every module and give the console to a person."""
    give_parameters(plan)
    if problem := load_needed(plan):
        print(problem)
    for module in list_modules(plan):
        before = devices.read_devices()
        problem = modules.find_refusal(module.load)
        nodes = ", ".join(map(str, devices.find_new(before).nodes))
        loaded = f"{module.name} is loaded: {nodes or 'it made no device node'}"
        print(f"{module.name} did not load: {problem}" if problem else loaded)
    if plan.testers:
        print("the testers:", ", ".join(plan.testers.values()), "(import them in python3)")
    print("exit, or Ctrl-A x, ends the VM", flush=True)
    os.waitpid(guest_child.fork(become_shell), 0)


def become_shell() -> NoReturn:
    """Let a person's shell take this process over, with the console as its terminal."""
    os.setsid()
    console = os.open("/dev/ttyS0", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(console, descriptor)
    applets.install()
    os.execv("/bin/bash", ["bash", "--norc", "-i"])


def power_off() -> None:
    """End the VM at once; its root is read-only and its results are with the host."""
    os.sync()
    ctypes.CDLL(None).reboot(LINUX_REBOOT_CMD_POWER_OFF)


def main() -> None:
    """Do what the plan says, then end the VM."""
    plan = protocol.parse_plan(PLAN_PATH.read_bytes())
    if plan.counted or plan.mode in (Job.MEASURE, Job.TURNS):
        measure.reserve()
        measure.become_threaded()
    if plan.mode == Job.SHELL:
        run_shell(plan)
    else:
        stream = Stream(guest_stream.open_port(plan.port))
        greet(stream)
        run_cells(plan, stream)
    power_off()


if __name__ == "__main__":
    main()
