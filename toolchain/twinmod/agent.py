# SPDX-License-Identifier: GPL-2.0-only
"""The program inside the VM: load, run, unload, and say each step on one line.

Process 1 of the guest. It does its work in a child, so that a call that never returns cannot
keep it from saying so. Standard library only, but for what a cell itself needs.
"""

import ctypes
import gc
import importlib
import json
import os
import re
import select
import signal
import sys
import time
import traceback
import tty
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twinmod import faults, measure, process
from twinmod.errors import TwinmodError
from twinmod.specs import Command

PLAN_PATH = Path("/results/plan.json")
SYMBOLS_PATH = Path("/results/symbols")
PORT_NAME = "twinmod"
HEARTBEAT_S = 1.0

#: A report is whole when the kernel said nothing more for so long; most take a moment.
REPORT_PAUSE_S = 0.5
REPORT_TIMEOUT_S = 5.0

DEBUGFS = Path("/sys/kernel/debug")
KMEMLEAK = DEBUGFS / "kmemleak"

#: kmemleak tells of nothing that is younger; MSECS_MIN_AGE in mm/kmemleak.c, Linux 7.3.
LEAK_AGE_S = 5.0

#: Where modules are on x86-64: Documentation/arch/x86/x86_64/mm.rst, Linux 7.3. They begin 512 MiB
#: later on a kernel with CONFIG_RANDOMIZE_BASE; what lies between has names there.
MODULES = range(0xFFFF_FFFF_A000_0000, 0xFFFF_FFFF_FF00_0000)

#: What Child.wait returns beside an exit status.
STUCK = "stuck"
FAULT = "fault"
MODULE_TIMEOUT_S = 20.0

#: Parts of pytest that the matrix does not need; together they are half of what a test costs
#: beside its own work, and an emulated processor makes each twenty times dearer.
PYTEST_SAVINGS = (
    "--capture=no",
    *(
        f"-pno:{name}"
        for name in (
            "debugging",
            "doctest",
            "faulthandler",
            "junitxml",
            "logging",
            "pastebin",
            "setuponly",
            "setupplan",
            "stepwise",
            "threadexception",
            "unraisableexception",
            "warnings",
        )
    ),
)

#: Where what a cell leaves for the host goes.
RESULTS = Path("/results")

#: How the name of the file ends that a cell's process writes to, by its work.
LOGS = {
    "matrix": ".pytest.log",
    "count": ".count.log",
    "measure": ".measure.log",
    "turns": ".measure.log",
    "differential": ".log",
}

#: How much of its end a problem repeats.
LOG_LINES = 12
LOG_BYTES = 4096

#: What a cell's process exits with after an exception.
BROKEN = 120

#: What pytest's exit status says beside that tests passed or failed; pytest.ExitCode.
PYTEST_ENDS = {
    2: "pytest was interrupted, or could not collect the tests",
    3: "pytest itself failed",
    4: "pytest was called in a way that it refuses",
    5: "pytest collected no test",
}

#: linux/reboot.h
LINUX_REBOOT_CMD_POWER_OFF = 0x4321FEDC


class Stream:
    """The way out: one JSON object a line, written whole before the next thing happens."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def emit(self, event: str, **values: object) -> None:
        """Write one event. The port accepts it only when the host has taken it over."""
        at_s = round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)
        line = json.dumps({"event": event, "at_s": at_s, **values}) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self.descriptor, data) :]


def find_port(name: str) -> Path:
    """Return the device of a virtio serial port.

    Source: drivers/char/virtio_console.c, Linux 7.3: the attribute ``name`` of a port.
    """
    for path in Path("/sys/class/virtio-ports").iterdir():
        if (path / "name").read_text().strip() == name:
            return Path("/dev") / path.name
    raise TwinmodError(f"the VM has no port {name!r}")


def open_port(serial_path: str) -> int:
    """Return a descriptor of the way out: a serial line, or the virtio port for "".

    A line must change no byte of what it is given.
    """
    if not serial_path:
        return os.open(find_port(PORT_NAME), os.O_RDWR)
    descriptor = os.open(serial_path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    return descriptor


#: How many of the kernel's last lines say why it refused a module.
KERNELS_WORDS = 2


# -- kernel modules ---------------------------------------------------------------------------


def run_tool(*argv: str) -> str:
    """Run one of kmod's programs; return what it complained of, "" when it did its work."""
    command = Command(argv=argv, purpose=argv[0], timeout_s=MODULE_TIMEOUT_S)
    status, output = process.run_unchecked(command)
    return "" if status == 0 else output.strip() or f"{argv[0]}: status {status}"


def load(path: str, *parameters: str) -> str:
    """Load a module; return why it did not load, or ""."""
    return run_tool("insmod", path, *parameters)


def is_loaded(name: str) -> bool:
    """Tell whether the kernel has a module."""
    return Path("/sys/module", name).exists()


def unload(name: str) -> str:
    """Unload a module; return why it did not unload, or ""."""
    return run_tool("rmmod", name)


# -- what the kernel says ----------------------------------------------------------------------


class KernelLog:
    """What the kernel says from now on: many faults it survives, and a cell must not.

    Args:
        descriptor: Of /dev/kmsg, that does not block.
        modules: Those under test; a data race of the kernel's own code is no fault of theirs.
        tell: Called with each line that a program wrote to /dev/kmsg and that looks like the first
            one of a report. On the console nothing tells it from the kernel's own.
    """

    def __init__(
        self,
        descriptor: int,
        modules: tuple[str, ...],
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.descriptor = descriptor
        self.modules = modules
        self.tell = tell
        self.lines: list[str] = []
        # What the fault that has_fault found is, in one line.
        self.complaint = ""

    def read(self) -> bool:
        """Read what is new; return whether a report of the kernel begins in it."""
        begun = False
        while True:
            try:
                record = os.read(self.descriptor, 8192)
            except BlockingIOError:
                return begun
            except BrokenPipeError:
                # The ring buffer went round; what comes next is the oldest that is left.
                continue
            if not record:
                return begun
            text = record.decode(errors="replace")
            lines = parse_record(text).split("\n")
            firsts = [line for line in lines if faults.find_kind(faults.parse_line(line).text)]
            if find_facility(text) not in (KERNEL, AGENT):
                for line in firsts:
                    self.tell(line)
                continue
            self.lines += lines
            begun = begun or bool(firsts)

    def has_fault(self) -> bool:
        """Wait until the reports that have begun are whole, and tell whether one ends a cell."""
        deadline = time.monotonic() + REPORT_TIMEOUT_S
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while time.monotonic() < deadline and poll.poll(REPORT_PAUSE_S * 1000):
            self.read()
        found = faults.parse_faults("\n".join(self.lines))
        bad = [fault for fault in found if not faults.is_tolerated(fault, self.modules)]
        self.complaint = faults.render_complaint(bad[0]) if bad else ""
        return bool(bad)


#: Facilities of syslog(3), which a record of /dev/kmsg has: 0 is the kernel, and programs have 1
#: unless they name another one, as the agent does with LOG_LOCAL0.
KERNEL, AGENT = 0, 16

#: How /dev/kmsg writes a byte that is not printable, and a backslash.
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


def open_log() -> int:
    """Return a descriptor of the kernel's log, after all that it has said so far."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(descriptor, 0, os.SEEK_END)
    return descriptor


def parse_record(record: str) -> str:
    """Return a record of /dev/kmsg as the lines of the console that it is.

    Source: Documentation/ABI/testing/dev-kmsg, Linux 7.3.
    """
    head, _, text = record.partition(";")
    fields = head.split(",")
    at_us = int(fields[2]) if len(fields) > 2 else 0
    caller = next((f.removeprefix("caller=") for f in fields if f.startswith("caller=")), "")
    stamp = f"[{at_us // 1_000_000:5d}.{at_us % 1_000_000:06d}]"
    prefix = f"{stamp}[{caller:>6}] " if caller else f"{stamp} "
    said = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text.partition("\n")[0])
    # Each escape is a byte of UTF-8.
    said = said.encode("latin-1", "replace").decode(errors="replace")
    return "\n".join(prefix + line for line in said.split("\n"))


def find_facility(record: str) -> int:
    """Return who wrote a record of /dev/kmsg. A program cannot say that it is the kernel.

    Source: devkmsg_write() in kernel/printk/printk.c, Linux 7.3.
    """
    priority = record.partition(",")[0]
    return int(priority) >> 3 if priority.isdecimal() else KERNEL


def say(text: str) -> None:
    """Put a line into the kernel's log as a warning, where the console shows it."""
    Path("/dev/kmsg").write_text(f"<{AGENT << 3 | 4}>{text}\n")


def scan_leaks() -> str:
    """Return what kmemleak knows after a scan that sees each object a second time."""
    for _ in range(2):
        KMEMLEAK.write_text("scan")
    return KMEMLEAK.read_text(errors="replace")


def tell_leaks(place: "Place") -> None:
    """Copy, after a module is unloaded, what it left behind into the kernel's log."""
    if not KMEMLEAK.exists():
        return
    time.sleep(LEAK_AGE_S)
    for leak, count in count_leaks(scan_leaks()):
        lines = [place.name_line(line) for line in leak]
        if any(f"[{place.module}]" in line for line in lines):
            for line in (lines[0], f"  {count} objects from this place", *lines[1:]):
                say(line)
    KMEMLEAK.write_text("clear")


def count_leaks(text: str) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return the lines of the first object from each place, and how many kmemleak tells of."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("unreferenced object "):
            found.append([])
        if found:
            found[-1].append(line)
    first: dict[tuple[str, ...], tuple[str, ...]] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for lines in found:
        begin = next((i for i, line in enumerate(lines) if "backtrace" in line), 0)
        place = tuple(lines[begin + 1 :])
        first.setdefault(place, tuple(lines))
        counts[place] += 1
    return tuple((lines, counts[place]) for place, lines in first.items())


class Place:
    """Where a module's code was: once it is unloaded, the kernel has only numbers for it."""

    def __init__(self, module: str) -> None:
        self.module = module
        folder = Path("/sys/module", module)
        section = folder / "sections/.text"
        self.start = int(section.read_text(), 16) if section.exists() else 0
        size = folder / "coresize"
        self.size = int(size.read_text()) if size.exists() else 0

    def name_line(self, line: str) -> str:
        """Return a stack's line with an address of unloaded code as a place in the module."""
        text = line.strip()
        if not text.startswith("0xffffffff") or int(text, 16) not in MODULES:
            return line
        offset = int(text, 16) - self.start
        known = 0 <= offset < self.size
        where = f".text+{offset:#x}/{self.size:#x}" if known else "unloaded+0x0/0x0"
        return f"    {where} [{self.module}]"


# -- a child that may never return ------------------------------------------------------------


class Child:
    """A forked child that does a cell's work and marks each step in a pipe."""

    def __init__(self, work: Callable[[int], int]) -> None:
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read_end)
            os._exit(_run_guarded(work, write_end))
        os.close(write_end)
        self.marks = read_end
        self.pidfd = os.pidfd_open(self.pid)

    def wait(self, stream: Stream, log: KernelLog, limit_s: float) -> int | str:
        """Return the child's exit status, STUCK when it made no step within the limit, or FAULT."""
        poll = select.poll()
        poll.register(self.marks, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        poll.register(log.descriptor, select.POLLIN)
        last_mark = last_beat = now = time.monotonic()
        while now - last_mark < limit_s:
            ready = dict(poll.poll(HEARTBEAT_S * 1000))
            if log.descriptor in ready and log.read() and log.has_fault():
                return FAULT
            if self.pidfd in ready:
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            now = time.monotonic()
            if self.marks in ready and os.read(self.marks, 4096):
                last_mark = now
            elif self.marks in ready:
                poll.unregister(self.marks)
            if now - last_beat >= HEARTBEAT_S:
                stream.emit("alive")
                last_beat = now
        return STUCK


def _run_guarded(work: Callable[[int], int], marks: int) -> int:
    try:
        status = work(marks)
    except BaseException:
        traceback.print_exc()
        status = BROKEN
    # os._exit() writes nothing that is left.
    sys.stdout.flush()
    return status


class Reporter:
    """A pytest plugin: says when a test begins and how it ended."""

    def __init__(self, stream: Stream, marks: int) -> None:
        self.stream = stream
        self.marks = marks
        self.rules: dict[str, list[str]] = {}
        self.spent: dict[str, float] = {}

    def pytest_itemcollected(self, item: Any) -> None:
        """Note the rules of a test."""
        self.rules[item.nodeid] = [
            rule for marker in item.iter_markers("rule") for rule in marker.args
        ]

    def pytest_collectreport(self) -> None:
        """Mark a step for each file: to read them all takes long on a busy machine."""
        os.write(self.marks, b".")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say that a test begins, before it can do any harm."""
        self.spent[nodeid] = 0.0
        self.stream.emit("test", id=nodeid, rules=self.rules[nodeid])
        os.write(self.marks, b".")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Say how a test ended: at the first phase that failed, or after its last."""
        self.spent[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            return
        if report.when == "setup" and report.passed:
            return
        if report.nodeid not in self.rules:
            return
        message = "" if report.passed else _find_message(report)
        rules = self.rules.pop(report.nodeid)
        self.stream.emit(
            "result",
            id=report.nodeid,
            rules=rules,
            outcome=report.outcome,
            duration_s=round(self.spent[report.nodeid], 4),
            message=message,
        )
        os.write(self.marks, b".")


def _find_message(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return f"{Path(crash.path).name}:{crash.lineno}: {crash.message}"
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return str(report.longrepr)[-500:]


# -- the work of a cell -----------------------------------------------------------------------


def run_pytest(plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream, marks: int) -> int:
    """Run the matrix in this process against one cell; return pytest's exit status."""
    pytest = importlib.import_module("pytest")
    redirect_output(plan_log_path(cell))
    arguments = [
        *([f"{plan['matrix']}/{name}" for name in cell["files"]] or [plan["matrix"]]),
        "--rootdir",
        plan["matrix"],
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--strict-markers",
        "-q",
        "--no-header",
        "--color=no",
        *PYTEST_SAVINGS,
        "--module",
        cell["module"],
        "--module-path",
        cell["path"],
        "--tester",
        cell["tester"],
        "--marks",
        str(marks),
        "--module-version",
        plan["version"],
        *plan["pytest_args"],
        *(f"--rule={rule}" for rule in cell["rules"]),
    ]
    return int(pytest.main(arguments, plugins=[Reporter(stream, marks)]))


def run_count(plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream, marks: int) -> int:
    """Count up with one cell's tester on its module, and say what it took."""
    del marks
    redirect_output(plan_log_path(cell))
    tester = importlib.import_module(plan["testers"][cell["tester"]])
    with tester.Device(f"/dev/{cell['module']}") as device:
        count = device.count_up(plan["threads"], plan["increments"], method=plan["method"])
    names = ("target", "actual", "real_s", "user_s", "system_s")
    stream.emit("count", values={name: getattr(count, name) for name in names})
    # Without a lock and without ADD nothing is promised: what is lost is shown.
    return 0 if count.actual == count.target or plan["method"] == "racy" else 1


def run_differential(
    plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream, marks: int
) -> int:
    """Carry out the host's sequences of steps on every module, until it says that it is done."""
    redirect_output(plan_log_path(cell))
    gc.enable()
    sys.path.insert(0, plan["matrix"])
    executor = importlib.import_module(f"{plan['differential']}.executor")
    loaded_size = 0
    stream.emit("ready")
    for request in read_requests(stream.descriptor, lambda: os.write(marks, b".")):
        size = request["size"]
        if size != loaded_size:
            for name, module in plan["modules"].items():
                reload(module["path"], name, f"size={size}")
            loaded_size = size
        tester = importlib.import_module(plan["testers"][request["tester"]])
        answers = {
            name: executor.execute(Path("/dev") / name, tester, size, request["steps"])
            for name in plan["modules"]
        }
        stream.emit("answer", answers=answers)
    return 0


def run_measure(
    plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream, marks: int
) -> int:
    """Make the calls that QEMU counts, after each of several loads of the module."""
    redirect_output(plan_log_path(cell))
    gc.disable()
    measurement = measure.parse_measurement(plan["measurement"])
    tester = importlib.import_module(plan["testers"][cell["tester"]])
    library = ctypes.CDLL(plan["marks"])
    parameters = f"size={measurement.device_bytes}" if measurement.device_bytes else ""
    for load_number in range(1, measurement.loads + 1):
        loader = None
        if cell["module"]:
            reload(cell["path"], cell["module"], *parameters.split())
            loader = measure.Loader(cell["module"], cell["path"], parameters)
        if loader and measurement.loop and load_number == 1:
            for values in measure.iterate_loops(f"/dev/{cell['module']}", plan["loop"]):
                stream.emit("loop", values=values)
                os.write(marks, b".")
        profiler = measure.Profiler(library, SYMBOLS_PATH)
        stream.emit("symbols")
        profiler.read_symbols()
        for values in measure.iterate_timings(
            profiler, measurement, cell["module"], tester, loader
        ):
            stream.emit("figure", values={"cell": cell["name"], "load": load_number, **values})
            os.write(marks, b".")
    return 0


def run_turns(plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream, marks: int) -> int:
    """Let a clock tell what the calls of all modules take, in turns, with each tester."""
    redirect_output(plan_log_path(cell))
    gc.disable()
    measurement = measure.parse_measurement(plan["measurement"])
    library = ctypes.CDLL(plan["marks"])
    parameters = f"size={measurement.device_bytes}" if measurement.device_bytes else ""
    loaders = {}
    for name, module in plan["modules"].items():
        reload(module["path"], name, *parameters.split())
        loaders[name] = measure.Loader(name, module["path"], parameters)
    for tester_name, package in plan["testers"].items():
        tester = importlib.import_module(package)
        for values in measure.iterate_turns(measurement, tester, library, loaders):
            stream.emit("turns", values={"tester": tester_name, **values})
            os.write(marks, b".")
    return 0


def reload(path: str, name: str, *parameters: str) -> None:
    """Load a module with parameters, after it was unloaded if it was there.

    Raises:
        TwinmodError: Either did not succeed.
    """
    problem = unload(name) if is_loaded(name) else ""
    problem = problem or load(path, *parameters)
    if problem:
        raise TwinmodError(f"{name} was not loaded again: {problem}")


def read_requests(descriptor: int, mark: Callable[[], object]) -> Iterator[Any]:
    """Yield the host's requests, one JSON value a line, until it sends ``null``.

    Args:
        descriptor: The port.
        mark: Called before each request, and every HEARTBEAT_S while there is none.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    rest = b""
    while True:
        line, newline, after = rest.partition(b"\n")
        if newline:
            rest = after
            request = json.loads(line)
            if request is None:
                return
            mark()
            yield request
            continue
        mark()
        if poll.poll(HEARTBEAT_S * 1000):
            rest += os.read(descriptor, 1 << 16)


def redirect_output(path: Path) -> None:
    """Let standard output and standard error go to a file."""
    with path.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def plan_log_path(cell: Mapping[str, str]) -> Path:
    """Return the file that a cell's process writes to."""
    return RESULTS / (cell["name"].replace("/", "-") + LOGS[cell["work"]])


def find_problem(cell: Mapping[str, str], status: int) -> str:
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
        why = {**(PYTEST_ENDS if cell["work"] == "matrix" else {}), BROKEN: "an exception"}
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


WORKS = {
    "matrix": run_pytest,
    "count": run_count,
    "measure": run_measure,
    "turns": run_turns,
    "differential": run_differential,
}


def run_cell(plan: Mapping[str, Any], cell: Mapping[str, str], stream: Stream) -> bool:
    """Run one cell; return whether this VM can be trusted with another one."""
    stream.emit("cell", cell=cell["name"])
    log = KernelLog(
        open_log(), tuple(plan["modules"]), lambda line: stream.emit("by_program", line=line)
    )
    # The differential loads what it needs, as it needs it.
    problem = load(cell["path"]) if cell["path"] else ""
    if problem:
        log.read()
        said = "; ".join(faults.parse_line(line).text for line in log.lines[-KERNELS_WORDS:])
        why = f"{problem}; the kernel says: {said}" if said else problem
        stream.emit("cell_end", outcome="failed", problems=[f"did not load: {why}"])
        return True
    place = Place(cell["module"])
    work = WORKS[cell["work"]]
    child = Child(lambda marks: work(plan, cell, stream, marks))
    status = child.wait(stream, log, plan["limit_s"])
    if status == FAULT:
        stream.emit("cell_end", outcome="crashed", problems=[log.complaint])
        return False
    if status == STUCK:
        write_stacks(child.pid)
        problem = f"no step within {plan['limit_s']:.0f} s"
        stream.emit("cell_end", outcome="timeout", problems=[problem])
        return False
    assert isinstance(status, int), "neither stuck nor at fault"
    problem = find_problem(cell, status)
    problems = [problem] if problem else []
    names = [cell["module"]] if cell["module"] else [n for n in plan["modules"] if is_loaded(n)]
    left = [f"did not unload: {problem}" for problem in map(unload, names) if problem]
    if cell["module"] and not left:
        tell_leaks(place)
    if log.read() and log.has_fault():
        problems += [*left, log.complaint]
        stream.emit("cell_end", outcome="crashed", problems=problems)
        return False
    outcome = "passed" if status == 0 and not problems + left else "failed"
    stream.emit("cell_end", outcome=outcome, problems=problems + left)
    return not left


def write_stacks(pid: int) -> None:
    """Write what a stuck process is doing to the console: its stack, and every processor's."""
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*/stack")):
        try:
            text = thread.read_text()
        except OSError as error:
            text = str(error)
        say(f"twinmod: {thread}: {' '.join(text.split())}")
    Path("/proc/sysrq-trigger").write_text("l")


def run_cells(plan: Mapping[str, Any], stream: Stream) -> None:
    """Run the cells of a plan, until one leaves the VM in doubt."""
    if any(cell["work"] == "matrix" for cell in plan["cells"]):
        # Imported once: the cells fork from here, and pure Python is slow when emulated.
        gc.disable()
        importlib.import_module("pytest")
        gc.freeze()
    for cell in plan["cells"]:
        if not run_cell(plan, cell, stream):
            break
    stream.emit("end")


def run_shell(plan: Mapping[str, Any]) -> None:
    """Load every module and give the console to a person."""
    for name, module in plan["modules"].items():
        problem = load(module["path"])
        print(problem or f"/dev/{name} is there")
    print("the testers:", ", ".join(plan["testers"].values()), "(import them in python3)")
    print("exit, or Ctrl-A x, ends the VM", flush=True)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        console = os.open("/dev/ttyS0", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(console, descriptor)
        os.execv("/bin/bash", ["bash", "--norc", "-i"])
    os.waitpid(pid, 0)


def power_off() -> None:
    """End the VM at once; its root is read-only and its results are with the host."""
    os.sync()
    ctypes.CDLL(None).reboot(LINUX_REBOOT_CMD_POWER_OFF)


def main() -> None:
    """Do what the plan says, then end the VM."""
    plan = json.loads(PLAN_PATH.read_text())
    if plan["mode"] in ("measure", "turns"):
        measure.reserve()
    if plan["mode"] == "shell":
        run_shell(plan)
    else:
        stream = Stream(open_port(plan["port"]))
        stream.emit("boot", release=os.uname().release, python=sys.version.split()[0])
        run_cells(plan, stream)
    power_off()


if __name__ == "__main__":
    main()
