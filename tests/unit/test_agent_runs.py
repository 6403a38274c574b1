# SPDX-License-Identifier: GPL-2.0-only
"""The agent from its plan to the end of its VM: every job, in a world of files on this host."""

import errno
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from guestworld import KERNEL, Said, World
from twinmod.guest import agent, measure, protocol
from twinmod.guest.protocol import (
    Caller,
    CountJob,
    DifferentialJob,
    Job,
    LoopShape,
    MatrixJob,
    MeasureJob,
    Measurement,
    Operation,
    Outcome,
    PlannedModule,
    Request,
    Timing,
    TurnsJob,
)

REBOOT = "reboot 1126301404"

MATRIX = MatrixJob(pytest_args=(), rules=(), files=(), tests=())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def find_ends(said: Said) -> list[tuple[Outcome, tuple[str, ...]]]:
    assert said.status == 0, said.output
    assert isinstance(said.events[0], protocol.Booted)
    assert isinstance(said.events[-1], protocol.Ended)
    return [(e.outcome, e.problems) for e in said.find(protocol.CellEnded)]


# -- the matrix -------------------------------------------------------------------------------


def test_every_cell_of_the_matrix_is_loaded_run_and_unloaded(world: World) -> None:
    said = world.run(world.plan(MATRIX, "toy_c/c", "toy_rust/rust"))
    assert find_ends(said) == [("passed", ()), ("passed", ())]
    assert [event.cell for event in said.find(protocol.CellBegan)] == ["toy_c/c", "toy_rust/rust"]
    ended = [(e.id.partition("::")[2], e.rules, e.outcome) for e in said.find(protocol.TestEnded)]
    assert ended == [("test_device", ("R1",), "passed"), ("test_behaviour", ("R2",), "passed")] * 2
    assert world.called == [
        "finit_module toy_c",
        "delete_module toy_c",
        "finit_module toy_rust",
        "delete_module toy_rust",
        REBOOT,
    ]
    assert "2 passed" in (world.folder / "results/toy_c-c.pytest.log").read_text()


def test_what_is_needed_is_loaded_once_and_a_module_has_its_parameters_at_each_load(
    world: World,
) -> None:
    for name in ("mc", "videodev"):
        world.write(f"{name}.ko", "")
    plan = world.plan(MATRIX, "toy_c/c", "toy_c/rust")
    given = replace(plan.modules["toy_c"], parameters="line=80 name=a")
    needed = {
        name: PlannedModule(path=str(world.folder / f"{name}.ko"), parameters=own)
        for name, own in (("mc", ""), ("videodev", "debug=1"))
    }
    said = world.run(replace(plan, modules={"toy_c": given}, needed=needed))
    assert find_ends(said) == [("passed", ()), ("passed", ())]
    assert world.called == [
        "finit_module mc",
        "finit_module videodev debug=1",
        *("finit_module toy_c line=80 name=a", "delete_module toy_c") * 2,
        REBOOT,
    ]


def test_what_is_needed_and_does_not_load_fails_the_cell_by_its_name(world: World) -> None:
    plan = world.plan(MATRIX, "toy_c/c")
    missing = {"videodev": PlannedModule(path=str(world.folder / "videodev.ko"))}
    said = world.run(replace(plan, needed=missing))
    ((outcome, problems),) = find_ends(said)
    assert outcome == "failed"
    why = "videodev, which is needed first, did not load: No such file or directory"
    assert problems == (f"did not load: {why}",)
    assert world.called == [REBOOT]


def test_a_cell_has_only_its_own_files_and_rules(world: World) -> None:
    head = 'import pytest\n@pytest.mark.rule("R7")\n'
    world.write(
        "matrix/test_other.py", f"{head}def test_other(): pass\ndef test_other_too(): pass\n"
    )
    job = MatrixJob(files=("test_other.py",), rules=("R7",), pytest_args=("-k", "other"), tests=())
    said = world.run(world.plan(job, "toy_c/c"))
    assert find_ends(said) == [("passed", ())]
    assert [event.id for event in said.find(protocol.TestEnded)] == ["test_other.py::test_other"]


def test_a_test_that_fails_fails_its_cell_and_the_next_one_is_run(world: World) -> None:
    said = world.run(world.plan(MATRIX, "toy_c/c", "toy_rust/c"), behaviour="fail")
    assert find_ends(said) == [("failed", ()), ("failed", ())]


def test_a_module_that_does_not_load_fails_its_cell_with_the_kernels_words(world: World) -> None:
    world.refuse("finit_module", errno.ENOEXEC)
    words = ("version magic differs", *(f"toy_c{taint}" for taint in agent.TAINTS))
    world.write("finit_module.log", "".join(f"{KERNEL}{text}\n" for text in words))
    said = world.run(world.plan(MATRIX, "toy_c/c", "toy_rust/c"))
    (outcome, problems), second = find_ends(said)
    assert outcome == second[0] == "failed"
    said_of_it = "Exec format error; the kernel says: version magic differs"
    assert problems == (f"did not load: {said_of_it}",)
    assert not said.find(protocol.TestBegan)


def test_a_module_that_does_not_unload_is_the_last_of_its_vm(world: World) -> None:
    world.refuse("delete_module", errno.EWOULDBLOCK)
    said = world.run(world.plan(MATRIX, "toy_c/c", "toy_rust/c"))
    assert find_ends(said) == [("failed", ("toy_c did not unload: it is in use",))]
    assert world.called[-1] == REBOOT


def test_a_test_that_goes_on_for_too_long_ends_the_vm_with_its_stacks(world: World) -> None:
    plan = world.plan(MATRIX, "toy_c/c", "toy_rust/c", limit_s=1.0)
    said = world.run(plan, behaviour="stuck")
    assert find_ends(said) == [("timeout", ("no step within 1 s",))]
    assert said.find(protocol.Alive)
    assert (world.folder / "proc/sysrq-trigger").read_text() == "l"


@pytest.mark.parametrize(
    ("call", "what"), [("finit_module", "did not load"), ("delete_module", "did not unload")]
)
def test_a_load_and_an_unload_that_never_return_end_the_vm_as_a_test_does(
    world: World, call: str, what: str
) -> None:
    world.write(call, "stuck")
    said = world.run(world.plan(MATRIX, "toy_c/c", "toy_rust/c", limit_s=1.0))
    assert find_ends(said) == [("timeout", (f"toy_c {what} within 1 s",))]
    assert said.find(protocol.Alive)
    assert (world.folder / "proc/sysrq-trigger").read_text() == "l"
    assert world.called[-1] == REBOOT


BUG = "kernel BUG at mm/slub.c:1!"


def test_a_fault_of_the_kernel_ends_the_vm(world: World) -> None:
    said = world.run(
        world.plan(MATRIX, "toy_c/c", "toy_rust/c"), behaviour=f"kernel {KERNEL}{BUG}\n"
    )
    assert find_ends(said) == [("crashed", (f"the kernel complained: {BUG}",))]


def test_a_fault_while_a_module_is_unloaded_is_its_cells(world: World) -> None:
    world.write("delete_module.log", f"{KERNEL}{BUG}\n")
    said = world.run(world.plan(MATRIX, "toy_c/c", "toy_rust/c"))
    assert find_ends(said) == [("crashed", (f"the kernel complained: {BUG}",))]


def test_what_a_program_writes_to_the_log_is_said_and_ends_nothing(world: World) -> None:
    world.write("delete_module.log", f"12{KERNEL[1:]}{BUG}\n")
    said = world.run(world.plan(MATRIX, "toy_c/c"))
    assert find_ends(said) == [("passed", ())]
    (written,) = said.find(protocol.WrittenByProgram)
    assert BUG in written.line


# -- other works ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "method", "outcome", "actual"),
    [
        ("", "lock", "passed", 6),
        ("lose", "lock", "failed", 5),
        # Nothing is promised: what is lost is shown.
        ("lose", "racy", "passed", 5),
    ],
)
def test_a_count_is_said(
    world: World, behaviour: str, method: str, outcome: str, actual: int
) -> None:
    job = CountJob(threads=2, increments=3, method=method)
    said = world.run(world.plan(job, "toy_c/c"), behaviour=behaviour)
    assert find_ends(said) == [(outcome, ())]
    (count,) = said.find(protocol.CountTaken)
    values = count.values
    assert (values.target, values.actual, values.real_s) == (6, actual, 0.5)


def test_the_differential_answers_for_every_module_until_there_is_no_request_left(
    world: World,
) -> None:
    plan = world.plan(DifferentialJob(package="adding"), "differential", port="/dev/ttyS1")
    requests = tuple(
        Request(size=size, tester="rust", steps=(("read", {}), ("seek", {"at": 1})))
        for size in (4096, 4096, 8192)
    )
    said = world.run(plan, requests)
    assert find_ends(said) == [("passed", ())]
    assert len(said.find(protocol.Ready)) == 1
    answers = [
        (name, answer)
        for event in said.find(protocol.Answered)
        for name, answer in event.answers.items()
    ]
    assert answers == [
        (name, [[size, "read"], [size, "seek"]])
        for size in (4096, 4096, 8192)
        for name in ("toy_c", "toy_rust")
    ]
    assert world.called == [
        "finit_module toy_c size=4096",
        "finit_module toy_rust size=4096",
        "delete_module toy_c",
        "finit_module toy_c size=8192",
        "delete_module toy_rust",
        "finit_module toy_rust size=8192",
        "delete_module toy_c",
        "delete_module toy_rust",
        REBOOT,
    ]


def test_a_differential_without_a_tester_and_a_size_loads_modules_as_they_are(
    world: World,
) -> None:
    plan = world.plan(DifferentialJob(package="adding"), "differential", port="/dev/ttyS1")
    request = Request(size=0, tester="", steps=(("read", {}),))
    said = world.run(plan, (request,))
    assert find_ends(said) == [("passed", ())]
    (answered,) = said.find(protocol.Answered)
    assert answered.answers == {"toy_c": [[0, "read"]], "toy_rust": [[0, "read"]]}
    assert world.called[:2] == ["finit_module toy_c", "finit_module toy_rust"]


def test_an_agent_waits_for_a_host_for_longer_than_for_a_step(world: World) -> None:
    plan = world.plan(
        DifferentialJob(package="adding"), "differential", port="/dev/ttyS1", limit_s=1.0
    )
    assert find_ends(world.run(plan, pause=30)) == [("passed", ())], "it ended before 1.5 s"


READ = Timing(operation=Operation.PREAD, size_bytes=1)
MEASUREMENT = Measurement(
    timings=(
        READ,
        Timing(operation=Operation.OPEN),
        Timing(operation=Operation.ADD),
        Timing(operation=Operation.LOAD),
        replace(READ, loop=Caller.BARE),
        replace(READ, path="/dev/zero"),
    ),
    loads=2,
    rounds=1,
    turns=2,
    loop=LoopShape(size_bytes=4096, passes=2),
    device_bytes=8192,
)


@pytest.fixture
def _zero(world: World) -> None:
    world.write("dev/zero", "")


@pytest.mark.usefixtures("_zero")
def test_calls_are_made_between_magic_instructions_after_each_load(world: World) -> None:
    said = world.run(world.plan(MeasureJob(measurement=MEASUREMENT), "toy_c/c"))
    assert find_ends(said) == [("passed", ())]
    assert len(said.find(protocol.SectionBegan)) == 2
    figures = [(e.values.load, e.values.timing.operation) for e in said.find(protocol.FigureTaken)]
    operations = ("pread", "open", "add", "load", "pread")
    assert figures == [(load, operation) for load in (1, 2) for operation in operations]
    first, *_ = said.find(protocol.FigureTaken)
    assert first.values.first == 2 * measure.WARM_SEGMENTS + 1, "Python was not warm"
    assert {event.values.cell for event in said.find(protocol.FigureTaken)} == {"toy_c/c"}
    loops = [event.values for event in said.find(protocol.LoopTaken)]
    assert [(one.buffers, one.read_ns) for one in loops] == [
        ("fresh", (10, 11)),
        ("reused", (10, 11)),
    ]
    assert world.called.count("magic_symbols") == 2
    assert world.called.count("magic_counts") > 2 * len(figures)
    assert not (world.folder / "results/symbols").exists(), "QEMU reads them from memory"


@pytest.mark.usefixtures("_zero")
def test_yardsticks_have_no_module(world: World) -> None:
    plan = world.plan(MeasureJob(measurement=MEASUREMENT), "yardsticks")
    said = world.run(replace(plan, cells=(replace(plan.cells[0], tester="c"),)))
    assert find_ends(said) == [("passed", ())]
    assert [e.values.timing.path for e in said.find(protocol.FigureTaken)] == ["/dev/zero"] * 2
    assert not any("module" in line for line in world.called)


@pytest.mark.usefixtures("_zero")
def test_turns_are_taken_by_every_module_with_each_tester(world: World) -> None:
    timings = (READ, Timing(operation=Operation.COUNT, threads=2), MEASUREMENT.timings[-1])
    job = TurnsJob(measurement=replace(MEASUREMENT, timings=timings))
    said = world.run(world.plan(job, "turns"))
    assert find_ends(said) == [("passed", ())]
    turns = [(e.values.tester, e.values.module) for e in said.find(protocol.TurnsTaken)]
    each = ["toy_c", "toy_rust", "toy_c", "toy_rust", ""]
    assert turns == [(tester, module) for tester in ("c", "rust") for module in each]
    assert all(len(e.values.latency_ns) == 2 for e in said.find(protocol.TurnsTaken))
    assert world.called[-3:] == ["delete_module toy_c", "delete_module toy_rust", REBOOT]


def test_a_loop_that_fails_ends_its_cell_with_an_exception(world: World) -> None:
    world.write("broken", "")
    said = world.run(world.plan(MeasureJob(measurement=MEASUREMENT), "toy_c/c"))
    ((outcome, (problem,)),) = find_ends(said)
    assert outcome == "failed"
    assert "status 120: an exception; toy_c-c.measure.log ends with" in problem
    assert "the loop ended with status 3: no such device" in problem


def test_a_module_that_is_not_loaded_again_ends_its_cell_with_an_exception(world: World) -> None:
    world.refuse("delete_module", errno.EBUSY)
    said = world.run(world.plan(MeasureJob(measurement=MEASUREMENT), "toy_c/c"))
    ((outcome, (problem, stays)),) = find_ends(said)
    why = "it has no exit function, or the kernel is loading or unloading it"
    assert outcome == "failed"
    assert f"GuestError: toy_c was not loaded again: {why}" in problem
    assert stays == f"toy_c did not unload: {why}"


def test_a_vm_that_waits_does_what_is_delivered_and_sends_what_its_cells_left(
    world: World,
) -> None:
    world.write("unshared", "")
    world.write("dev/urandom", "")
    plan = world.plan(MATRIX, "toy_c/c", "toy_rust/c")
    path = world.folder / "delivered/file"
    delivery = protocol.Delivery(
        time_s=1.5,
        entropy="00ff",
        files={str(path): "aGVsbG8="},
        links={str(path.with_name("link")): "file"},
        source_time=1,
        ports=(),
        plan=plan,
    )
    said = world.run(replace(plan, mode=Job.WAIT, cells=()), (delivery,))
    assert said.status == 0, said.output
    kinds = [type(event) for event in said.events if not isinstance(event, protocol.Alive)]
    assert kinds[:3] == [protocol.Booted, protocol.Waiting, protocol.Booted]
    assert [event.outcome for event in said.find(protocol.CellEnded)] == ["passed", "passed"]
    files = said.find(protocol.FileWritten)
    assert [file.name for file in files] == ["toy_c-c.pytest.log", "toy_rust-c.pytest.log"]
    assert "2 passed" in b64decode(files[0].content).decode()
    assert world.called[:3] == ["clock_settime 0 1.5", "ioctl 0x40085203", "ioctl 0x5207"]
    assert path.read_text() == "hello"


def plan_device(world: World, power: str) -> protocol.Delivery:
    """Return what is delivered to a VM whose kernel has a device, or not yet."""
    world.write("unshared", "")
    world.write("dev/urandom", "")
    world.write("sys/bus/pci/devices/0000:00:10.0/secondary_bus_number", "1\n")
    world.write("sys/bus/pci/slots/0/address", "0000:01:00\n")
    world.write("sys/bus/pci/slots/0/power", f"{power}\n")
    plan, ports = world.plan(MATRIX, "toy_c/c"), ("0000:00:10.0",)
    return protocol.Delivery(
        time_s=1.5, entropy="00ff", files={}, links={}, source_time=1, ports=ports, plan=plan
    )


def test_a_vm_that_waits_runs_its_cells_when_it_has_its_devices(world: World) -> None:
    delivery = plan_device(world, "1")
    said = world.run(replace(delivery.plan, mode=Job.WAIT, cells=()), (delivery,))
    assert find_ends(said) == [("passed", ())]


def test_a_vm_that_waits_says_of_a_device_that_it_does_not_come(world: World) -> None:
    delivery = plan_device(world, "0")
    log_path = world.folder / "dev/kmsg"
    log_path.unlink()
    log_path.touch()
    said = world.run(replace(delivery.plan, mode=Job.WAIT, cells=()), (delivery,))
    assert len(said.find(protocol.Booted)) == 1
    assert not said.find(protocol.CellBegan)
    why = "twinmod: the kernel took no device behind port 0000:00:10.0 within 0 s"
    assert log_path.read_text() == f"<132>{why}\n"
    assert world.called[-1] == REBOOT


@pytest.mark.usefixtures("_zero")
def test_a_vm_whose_clones_count_takes_what_qemu_holds_and_reads_no_port(world: World) -> None:
    world.write("unshared", "")
    world.write("dev/urandom", "")
    plan = world.plan(MeasureJob(measurement=MEASUREMENT), "toy_c/c")
    delivery = protocol.Delivery(
        time_s=1.5, entropy="00", files={}, links={}, source_time=1, ports=(), plan=plan
    )
    world.write("held", protocol.render_delivery(delivery))
    said = world.run(replace(plan, mode=Job.WAIT, matrix="", counted=True, cells=()))
    assert said.status == 0, said.output
    kinds = [type(event) for event in said.events if not isinstance(event, protocol.Alive)]
    assert kinds[:4] == [
        protocol.Booted,
        protocol.Waiting,
        protocol.Booted,
        protocol.CellBegan,
    ]
    assert find_ends(said) == [("passed", ())]
    assert len(said.find(protocol.FigureTaken)) == 10
    assert world.called[:4] == [*["read_config 0x19"] * 3, "read_config 0x20"]


def test_a_shell_has_every_module_loaded(world: World) -> None:
    said = world.run(world.plan(None))
    assert (said.status, said.events) == (0, ())
    loaded = "toy_c is loaded: /dev/toy_c\ntoy_rust is loaded: /dev/toy_rust\n"
    assert said.output.startswith(f"{loaded}the testers: toy_tester_c, toy_tester_rust (import")
    assert world.called[-2:] == ["a shell: --norc -i", REBOOT]


def test_a_shell_names_neither_a_device_nor_a_tester_that_is_not_there(world: World) -> None:
    world.write("bare", "toy_rust")
    said = world.run(replace(world.plan(None), testers={}))
    assert said.output == (
        "toy_c is loaded: /dev/toy_c\n"
        "toy_rust is loaded: it made no device node\n"
        "exit, or Ctrl-A x, ends the VM\n"
    )


def test_a_shell_in_a_root_of_tests_alone_has_the_programs_of_a_person(world: World) -> None:
    (world.folder / "usr/bin/ls").unlink()
    assert world.run(world.plan(None)).status == 0
    wanted = ["busybox: --install -s /usr/bin", "a shell: --norc -i", REBOOT]
    assert world.called[-3:] == wanted


def test_a_vm_without_a_port_ends_its_agent(world: World) -> None:
    world.write("sys/class/virtio-ports/vport1p1/name", "another\n")
    said = world.run(world.plan(MATRIX, "toy_c/c"))
    assert said.status != 0
    assert "the VM has no port 'twinmod'" in said.output
    assert not said.events


def test_a_shell_says_which_modules_it_has_not(world: World) -> None:
    world.refuse("finit_module", errno.ENOMEM)
    said = world.run(world.plan(None))
    assert said.status == 0
    assert "toy_c did not load: Cannot allocate memory\ntoy_rust did not load:" in said.output
    assert world.called[-2:] == ["a shell: --norc -i", REBOOT]
