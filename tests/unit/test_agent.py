# SPDX-License-Identifier: GPL-2.0-only
"""The program inside the VM, as far as it goes without a VM: its lines, and its child.

It forks and it takes over standard streams, so it runs in processes of its own here.
"""

import ctypes
import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.cells import transcript as cells_transcript
from twinmod.cells.model import Cell
from twinmod.guest import agent, leaks, modules, protocol
from twinmod.guest import log as guest_log
from twinmod.guest import stream as guest_stream
from twinmod.guest.door import GuestError
from twinmod.guest.modules import Module
from twinmod.guest.protocol import (
    CellBegan,
    CellJob,
    CountJob,
    MatrixJob,
    Outcome,
    PlannedCell,
    TestEnded,
)

LIMIT_S = 30.0

TESTS = """\
import pytest

@pytest.fixture
def broken():
    raise OSError("no device")

@pytest.fixture
def leaving():
    yield
    raise OSError("still open")

@pytest.mark.rule("R1")
def test_passes():
    pass

@pytest.mark.rule("R2", "R3")
def test_fails():
    assert 1 + 1 == 3

@pytest.mark.rule("R4")
def test_setup(broken):
    pass

@pytest.mark.rule("R5")
def test_teardown(leaving):
    pass

@pytest.mark.rule("R5")
def test_fails_twice(leaving):
    assert False, "first"

@pytest.mark.rule("R6")
@pytest.mark.skip(reason="no swap here")
def test_marked():
    pass

@pytest.mark.rule("R6")
def test_skips():
    pytest.skip("not now")

@pytest.mark.rule("R7")
@pytest.mark.parametrize("size", [1, 2])
def test_sizes(size):
    assert size == 1

def test_without_a_rule():
    pass
"""

RUN = """\
import os, sys
from pathlib import Path
from twinmod.guest import collection, protocol
from twinmod.guest.child import Heartbeat
from twinmod.guest.collection import Collection
from twinmod.guest.stream import Stream
folder, beats_path = sys.argv[1:]
collection.LOG = Path(folder, "collection.log")
job = protocol.MatrixJob(pytest_args=(), rules=(), files=(), tests=())
cell = protocol.PlannedCell(name="c/c", module="mdriver_c", tester="c", path="/mdriver_c.ko",
                            job=job)
plan = protocol.Plan(mode=protocol.Job.MATRIX, port="", cells=(cell,), modules={},
                     testers={"c": "tester"}, matrix=folder, version="0.1", limit_s=9.0,
                     magic="", loop="")
heartbeat = Heartbeat(os.open(beats_path, os.O_WRONLY | os.O_CREAT))
events = os.dup(1)
os.dup2(2, 1)
held = Collection(plan, Stream(events))
held.hold(lambda: held.run(cell, job, heartbeat))
"""


def run_script(script: str, *arguments: str) -> str:
    """Return what a script writes to its standard output alone."""
    command = Command(
        argv=(sys.executable, "-c", script, *arguments),
        purpose="the script",
        timeout_s=LIMIT_S,
        environment=(("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"), ("PYTHONDONTWRITEBYTECODE", "1")),
    )
    with Path(os.devnull).open("wb") as nowhere, process.start(command, stderr=nowhere) as child:
        output, _ = child.communicate(timeout=LIMIT_S)
    assert child.returncode == 0
    return str(output, "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrix")
    (path / "test_x.py").write_text(TESTS)
    return path


@pytest.fixture(scope="module")
def events(folder: Path) -> list[dict[str, Any]]:
    """What is said of one real run of pytest, once the matrix is collected."""
    lines = run_script(RUN, str(folder), str(folder / "beats")).splitlines()
    said = [json.loads(line) for line in lines]
    # The run, the folder and the file are collected, each in a step.
    assert [event["event"] for event in said[:3]] == ["alive"] * 3
    return said[3:]


def find_results(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = [event for event in events if event["event"] == "result"]
    by_name = {event["id"].partition("::")[2]: event for event in found}
    assert len(by_name) == len(found), "a test ended twice"
    return by_name


@pytest.mark.parametrize(
    ("name", "rules", "outcome", "message"),
    [
        ("test_passes", ["R1"], "passed", ""),
        ("test_fails", ["R2", "R3"], "failed", "test_x.py:18: assert (1 + 1) == 3"),
        ("test_setup", ["R4"], "failed", "OSError: no device"),
        ("test_teardown", ["R5"], "failed", "OSError: still open"),
        ("test_fails_twice", ["R5"], "failed", "AssertionError: first"),
        ("test_marked", ["R6"], "skipped", "no swap here"),
        ("test_skips", ["R6"], "skipped", "not now"),
        ("test_sizes[1]", ["R7"], "passed", ""),
        ("test_sizes[2]", ["R7"], "failed", "assert 2 == 1"),
        ("test_without_a_rule", [], "passed", ""),
    ],
)
def test_a_test_ends_once_with_its_rules_its_outcome_and_its_reason(
    events: list[dict[str, Any]], name: str, rules: list[str], outcome: str, message: str
) -> None:
    event = find_results(events)[name]
    assert event["rules"] == rules
    assert event["outcome"] == outcome
    assert message in event["message"]
    assert bool(event["message"]) == bool(message)
    assert event["duration_s"] >= 0


def test_every_test_is_announced_before_it_ends_and_before_the_next_one(
    events: list[dict[str, Any]],
) -> None:
    said = [(event["event"], event["id"]) for event in events]
    assert [kind for kind, _ in said] == ["test", "result"] * (len(said) // 2)
    assert all(said[at][1] == said[at + 1][1] for at in range(0, len(said), 2))


def test_every_step_is_a_beat_for_the_process_that_watches(
    events: list[dict[str, Any]], folder: Path
) -> None:
    assert (folder / "beats").read_bytes() == b"." * len(events)


def test_the_host_reads_what_the_agent_says(events: list[dict[str, Any]]) -> None:
    lines = [json.dumps(event) for event in events]
    lines.insert(0, protocol.render_event(CellBegan(cell="c/c"), 0.0))
    cells = (Cell(module="m", label="c", tester="c"),)
    transcript = cells_transcript.parse_transcript(cells_transcript.parse_events(lines), cells)
    (cell,) = transcript.cells
    assert [test.id for test in cell.tests] == [e["id"] for e in events if e["event"] == "result"]
    assert transcript.running is None


# -- the collection ---------------------------------------------------------------------------

CELLS = """\
import json, os, sys
from dataclasses import replace
from pathlib import Path
from twinmod.guest import collection, protocol
from twinmod.guest.child import Heartbeat
from twinmod.guest.collection import Collection
from twinmod.guest.stream import Stream
folder, asked = sys.argv[1], json.loads(sys.argv[2])
collection.LOG = Path(folder, "collection.log")
cell = protocol.PlannedCell(name="c/c", module="mdriver_c", tester="c", path="/mdriver_c.ko",
                            job=protocol.MatrixJob(pytest_args=(), rules=(), files=(), tests=()))
plan = protocol.Plan(mode=protocol.Job.MATRIX, port="", cells=(cell,), modules={},
                     testers={"c": "tester"}, matrix=folder, version="0.1", limit_s=9.0,
                     magic="", loop="")
out = os.dup(1)
os.dup2(2, 1)
heartbeat = Heartbeat(os.open(os.devnull, os.O_WRONLY))
def run_one(fields, job):
    child = os.fork()
    if child == 0:
        job = replace(cell.job, **{name: tuple(value) for name, value in job.items()})
        status = held.run(replace(cell, job=job, **fields), job, heartbeat)
        sys.stdout.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(out, f"{status}\\n".encode())
held = Collection(plan, Stream(os.open(os.devnull, os.O_WRONLY)))
held.hold(lambda: [run_one(*one) for one in asked])
"""

SEEN = """\
import pytest

def test_seen(pytestconfig):
    names = ("module", "module_path", "tester", "module_version", "rule")
    with open("SEEN", "a") as seen:
        print(*map(pytestconfig.getoption, names), file=seen)

@pytest.mark.rule("R1")
def test_ruled(pytestconfig):
    test_seen(pytestconfig)

def test_fails():
    assert False
"""


#: What a cell has instead of the usual: of itself, and of its job.
Asked = tuple[dict[str, str], dict[str, list[str]]]


def run_cells(folder: Path, asked: list[Asked]) -> list[str]:
    """Return what the cells of one collection ended with."""
    (folder / "test_seen.py").write_text(SEEN.replace("SEEN", str(folder / "seen")))
    (folder / "test_other.py").write_text("def test_other():\n    pass\n")
    return run_script(CELLS, str(folder), json.dumps(asked)).splitlines()


def test_each_cell_of_one_collection_has_options_of_its_own(tmp_path: Path) -> None:
    first: Asked = ({}, {"pytest_args": ["-k", "seen"]})
    other: Asked = (
        {"module": "mdriver_rust", "path": "/r.ko", "tester": "rust"},
        {"rules": ["R1"]},
    )
    assert run_cells(tmp_path, [first, other, first]) == ["1", "0", "1"]
    seen = "mdriver_c /mdriver_c.ko c 0.1 []"
    assert (tmp_path / "seen").read_text().splitlines() == [
        *[seen] * 2,
        "mdriver_rust /r.ko rust 0.1 ['R1']",
        *[seen] * 2,
    ]


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ({"pytest_args": ["-k", "ruled or other"]}, 0),
        ({"pytest_args": ["-k", "fails"]}, 1),
        ({"pytest_args": ["-k", "nothing_such"]}, 5),
        ({"pytest_args": ["--maxfail=1"]}, 1),
        ({"files": ["test_other.py"]}, 0),
        ({"files": ["test_seen.py"]}, 1),
        ({"rules": ["R9"]}, 5),
    ],
)
def test_a_cell_ends_with_pytests_own_status(
    tmp_path: Path, job: dict[str, list[str]], status: int
) -> None:
    assert run_cells(tmp_path, [({}, job)]) == [str(status)]


def test_what_goes_wrong_while_the_matrix_is_held_is_not_pytests_to_forgive(tmp_path: Path) -> None:
    script = CELLS.replace(
        "held.hold(lambda: [run_one(*one) for one in asked])",
        """
try:
    held.hold(lambda: 1 / 0)
except ZeroDivisionError as error:
    os.write(out, str(error).encode())
""",
    )
    (tmp_path / "test_x.py").write_text(TESTS)
    assert run_script(script, str(tmp_path), "[]") == "division by zero"


def test_every_cell_of_a_matrix_that_is_not_collected_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nothing_such\n")
    assert run_cells(tmp_path, [({}, {}), ({}, {})]) == ["2", "2"]
    script = CELLS.replace("os.dup2(2, 1)\n", "")
    assert "No module named 'nothing_such'" in run_script(script, str(tmp_path), "[[{}, {}]]")


# -- the stream -------------------------------------------------------------------------------


def test_an_event_is_one_line_of_json_whatever_it_holds() -> None:
    reader, writer = os.pipe()
    said = TestEnded(
        id="x",
        rules=("R1",),
        outcome=Outcome.FAILED,
        duration_s=0.5,
        message="two\nlines \N{SNOWMAN} \udcff",
    )
    guest_stream.Stream(writer).emit(said)
    os.close(writer)
    with os.fdopen(reader) as stream:
        (line,) = stream.readlines()
    (event,) = cells_transcript.parse_events([line])
    assert event == replace(said, at_s=event.at_s)
    assert event.at_s > 0


# -- the child --------------------------------------------------------------------------------

CHILD = """\
import os, signal, sys
from twinmod.guest import child as guest_child
from twinmod.guest import log as guest_log
from twinmod.guest import stream as guest_stream
guest_child.HEARTBEAT_S = 0.02
guest_log.SPLAT_PAUSE_S = 0.02
stream = guest_stream.Stream(1)
records, kernel = os.pipe()
os.set_blocking(records, False)
log = guest_log.KernelLog(records, ("mdriver_c",))
def stuck(heartbeat):
    heartbeat.beat()
    signal.pause()
def raising(heartbeat):
    raise ValueError
def dying(heartbeat):
    os.kill(os.getpid(), signal.SIGKILL)
def closing(heartbeat):
    os.close(heartbeat.descriptor)
    signal.pause()
def crashing(line):
    def work(heartbeat):
        os.write(kernel, f"4,1,12345678,-,caller=T7;{line}\\n".encode())
        heartbeat.beat()
        signal.pause()
    return work
works = {"done": lambda heartbeat: 0, "failed": lambda heartbeat: 1, "stuck": stuck,
         "raising": raising, "dying": dying, "closing": closing,
         "atomic": crashing("BUG: scheduling while atomic: cat/7/0x2"),
         "race": crashing("BUG: KCSAN: data-race in vfs_read / vfs_write"),
         "own race": crashing("BUG: KCSAN: data-race in a [mdriver_c] / vfs_write"),
         "chatter": crashing("mdriver_c: hello")}
child = guest_child.Child(works[sys.argv[1]])
print("status", child.wait(stream, log, 0.2), flush=True)
try:
    os.kill(child.pid, signal.SIGKILL)
    print("alive", flush=True)
except ProcessLookupError:
    pass
"""


@pytest.mark.parametrize(
    ("work", "status"),
    [("done", 0), ("failed", 1), ("raising", 120), ("dying", -9)],
)
def test_a_child_that_ends_gives_its_status(work: str, status: int) -> None:
    assert f"status {status}\n" in run_script(CHILD, work)


@pytest.mark.parametrize("work", ["atomic", "own race"])
def test_a_fault_that_the_kernel_survives_ends_a_cell(work: str) -> None:
    assert "status fault\n" in run_script(CHILD, work)


@pytest.mark.parametrize("work", ["stuck", "closing", "chatter", "race"])
def test_a_child_that_makes_no_step_is_given_up_and_said_to_be_alive_until_then(
    work: str,
) -> None:
    *beats, status, left = run_script(CHILD, work).splitlines()
    assert (status, left) == ("status stuck", "alive")
    assert beats
    assert {json.loads(beat)["event"] for beat in beats} == {"alive"}


def test_a_child_that_makes_steps_is_not_given_up() -> None:
    # A clock that moves when it is read: no machine is too slow for this test. The steps fill
    # the pipe twice, so that the parent looks at it, and at the clock, 16 times at the least.
    script = """\
import os
from types import SimpleNamespace
from twinmod.guest import stream
from twinmod.guest import child
from twinmod.guest import log as guest_log
ticks = iter(range(10**9))
clock = SimpleNamespace(monotonic=lambda: next(ticks), CLOCK_BOOTTIME=0,
                        clock_gettime=lambda clock: 0.0)
child.time = stream.time = clock
child.HEARTBEAT_S = 10**6
def stepping(heartbeat):
    left = 131072
    while left:
        left -= os.write(heartbeat.descriptor, b"." * left)
    return 0
log = guest_log.KernelLog(os.pipe()[0], ())
print("status", child.Child(stepping).wait(stream.Stream(1), log, 8), next(ticks) > 8)
"""
    assert run_script(script) == "status 0 True\n"


# -- the kernel's log -------------------------------------------------------------------------


def test_a_record_of_the_log_is_a_line_of_the_console() -> None:
    record = "4,339,5140900,-,caller=T17;mdriver_c: hello\n SUBSYSTEM=x\n"
    assert guest_log.parse_record(record).lines == ["[    5.140900][   T17] mdriver_c: hello"]
    assert guest_log.parse_record("4,339,5140900,-;x").lines == ["[    5.140900] x"]
    assert guest_log.parse_record("cut").lines == ["[    0.000000] "]


def test_a_record_of_several_lines_has_a_stamp_before_each() -> None:
    record = "4,339,5140900,-,caller=T17;\\x0aother\\x09caf\\xc3\\xa9 \\xff\n SUBSYSTEM=x\n"
    stamp = "[    5.140900][   T17] "
    assert guest_log.parse_record(record).lines == [stamp, f"{stamp}other\tcaf\xe9 \ufffd"]
    assert guest_log.parse_record(record).text == "\nother\tcaf\xe9 \ufffd"


class Ring:
    """A descriptor of /dev/kmsg, as os.read sees it: what each read gives, or fails with."""

    def __init__(self, *reads: bytes | type[OSError]) -> None:
        self.reads = list(reads)

    def __call__(self, descriptor: int, count: int) -> bytes:
        del descriptor, count
        found = self.reads.pop(0)
        if isinstance(found, bytes):
            return found
        raise found


def test_a_log_that_lost_its_oldest_records_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(b"6,1,1,-;a\n", BrokenPipeError, b"6,9,1,-;b\n", BlockingIOError, b"6,10,1,-;c\n")
    monkeypatch.setattr(guest_log, "open_log", lambda: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(os, "read", ring)
    with guest_log.follow() as read_log:
        assert read_log() == ["a", "b"]
    assert len(ring.reads) == 1


@pytest.mark.parametrize(
    ("priority", "begins", "told"), [(4, True, 0), (12, False, 1), (4 | 3 << 3, False, 1)]
)
def test_only_what_the_kernel_itself_says_ends_a_cell(
    priority: int, begins: bool, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_log, "SPLAT_PAUSE_S", 0.02)
    records, kernel = os.pipe()
    os.set_blocking(records, False)
    by_programs: list[str] = []
    log = guest_log.KernelLog(records, ("mdriver_c",), by_programs.append)
    for text in ("kernel BUG at x.c:1!", "hello"):
        os.write(kernel, f"{priority},339,5140900,-;{text}\n".encode())
        assert log.read() is (begins and text != "hello")
    assert log.has_fault() is begins
    assert log.complaint == ("the kernel complained: kernel BUG at x.c:1!" if begins else "")
    assert by_programs == ["[    5.140900] kernel BUG at x.c:1!"] * told
    os.close(records)
    os.close(kernel)


def test_what_the_agent_copies_into_the_log_is_taken_as_the_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guest_log, "Path", lambda _: tmp_path / "kmsg")
    guest_log.say("unreferenced object 0xffff888004f33200 (size 256):")
    prefix, _, text = (tmp_path / "kmsg").read_text().removeprefix("<").partition(">")
    records, kernel = os.pipe()
    os.set_blocking(records, False)
    os.write(kernel, f"{prefix},339,5140900,-;{text}".encode())
    assert guest_log.KernelLog(records, ()).read()
    os.close(records)
    os.close(kernel)


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ("unreferenced object 0xffff888004f33200 (size 256):", True),
        ("BUG kmalloc-64 (Tainted: G           OE      ): Right Redzone overwritten", True),
        ("mdriver_c: unreferenced object 0x1", False),
    ],
)
def test_a_splat_begins_where_the_kernels_text_does_and_not_its_stamp(
    said: str, begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_log, "SPLAT_PAUSE_S", 0.02)
    records, kernel = os.pipe()
    os.set_blocking(records, False)
    log = guest_log.KernelLog(records, ("mdriver_c",))
    os.write(kernel, f"4,339,5140900,-,caller=T17;{said}\n".encode())
    assert log.read() is begins
    assert log.has_fault() is begins
    os.close(records)
    os.close(kernel)


LEAKS = """\
unreferenced object 0xffff888006cb71e0 (size 64):
  comm "insmod", pid 7, jiffies 1
  backtrace (crc 6b0d):
    kmalloc_noprof+0x1/0x2
    0xffffffffc0201010
unreferenced object 0xffff888006cb7200 (size 64):
  backtrace (crc 6b0d):
    vfs_read+0x1/0x2
"""


def test_the_objects_that_leaked_are_counted_by_where_they_were_allocated() -> None:
    (first, count), (second, other) = leaks.count_leaks("kmemleak: 2 new\n" + LEAKS + LEAKS)
    assert (first[0][-10:], first[-1], second[-1]) == (
        "(size 64):",
        "    0xffffffffc0201010",
        "    vfs_read+0x1/0x2",
    )
    assert (count, other) == (2, 2)


@pytest.mark.parametrize("address", ["0xffffffffa000005d", "0xffffffffc0201010"])
def test_modules_are_where_a_kernel_of_either_kind_has_them(address: str) -> None:
    code = leaks.CodeRange("no_such_module")
    assert code.name_line(f"    {address}") == "    unloaded+0x0/0x0 [no_such_module]"


def test_an_address_of_unloaded_code_is_a_place_of_its_module() -> None:
    code = leaks.CodeRange("no_such_module")
    code.start, code.size = 0xFFFF_FFFF_C020_1000, 0x2000
    assert code.name_line("    0xffffffffc0201010") == "    .text+0x10/0x2000 [no_such_module]"
    assert code.name_line("    0xffffffffc0901010") == "    unloaded+0x0/0x0 [no_such_module]"
    for line in ("    0xffffffff81000000", "    vfs_read+0x1/0x2", "    0xffff888006cb71e0"):
        assert code.name_line(line) == line


class Kmemleak:
    """The kernel's file: it shows what two scans have seen, until it is cleared."""

    def __init__(self) -> None:
        self.scans = 0

    @staticmethod
    def exists() -> bool:
        return True

    def write_text(self, text: str) -> None:
        self.scans = {"scan": self.scans + 1, "clear": 0}[text]

    def read_text(self, errors: str) -> str:
        del errors
        return LEAKS if self.scans == 2 else ""


def test_what_a_module_left_behind_is_said_in_the_kernels_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    file = Kmemleak()
    monkeypatch.setattr(leaks, "KMEMLEAK", file)
    monkeypatch.setattr(leaks, "LEAK_AGE_S", 0.0)
    monkeypatch.setattr(guest_log, "say", said.append)
    code = leaks.CodeRange("no_such_module")
    code.start, code.size = 0xFFFF_FFFF_C020_1000, 0x2000
    leaks.tell_leaks(code)
    first, *_ = LEAKS.splitlines()
    assert said[:2] == [first, "  1 objects from this place"]
    assert said[-1] == "    .text+0x10/0x2000 [no_such_module]"
    assert not any("vfs_read" in line for line in said), "that is another's"
    assert file.scans == 0, "the next module is told of this one's"


# -- requests ---------------------------------------------------------------------------------


def test_requests_are_lines_however_they_arrive_until_the_host_is_done() -> None:
    script = """\
import json, os
from twinmod.guest import agent as guest_agent
from twinmod.guest import child
child.HEARTBEAT_S = 0.001
reader, writer = os.pipe()
rest = b'"tester": "c", "steps": []}'
parts = [b'{"size": 1, ' + rest + b'\\n{"si', b'', b'ze": 2, ' + rest, b'\\n',
         b'null\\n{"size": 3}\\n']
beats = []
def beat():
    beats.append(1)
    # A beat for each time that nothing came: the next part comes only then.
    if parts:
        os.write(writer, parts.pop(0))
print([request.size for request in guest_agent.read_requests(reader, beat)], len(beats) >= 5)
"""
    assert run_script(script) == "[1, 2] True\n"


def test_a_child_that_makes_one_step_after_the_other_is_said_to_be_alive() -> None:
    script = """\
import os
from twinmod.guest import stream
from twinmod.guest import child
from twinmod.guest import log as guest_log
child.HEARTBEAT_S = 0
def stepping(heartbeat):
    left = 131072
    while left:
        left -= os.write(heartbeat.descriptor, b"." * left)
    return 0
log = guest_log.KernelLog(os.pipe()[0], ())
print("status", child.Child(stepping).wait(stream.Stream(1), log, 30))
"""
    *beats, status = run_script(script).splitlines()
    assert status == "status 0"
    assert len(beats) >= 16
    assert {json.loads(beat)["event"] for beat in beats} == {"alive"}


# -- why a cell's process ended ----------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the process of a cell writes to."""
    monkeypatch.setattr(agent, "RESULTS", tmp_path)
    return tmp_path / "rust-c.pytest.log"


CELL = PlannedCell(
    name="rust/c",
    module="mdriver_rust",
    tester="c",
    path="/twinmod/module/mdriver_rust.ko",
    job=MatrixJob(pytest_args=(), rules=(), files=(), tests=()),
)

JOBS: dict[str, CellJob] = {
    "matrix": CELL.job,
    "count": CountJob(threads=1, increments=1, method="lock"),
}

USAGE_ERROR = """\
ERROR: usage: python3 -m pytest [options] [file_or_dir] [file_or_dir] [...]
python3 -m pytest: error: unrecognized arguments: --module mdriver_rust

"""


def test_a_process_that_pytest_refused_to_begin_says_so_in_pytests_words(log: Path) -> None:
    log.write_text(USAGE_ERROR)
    first, *rest = agent.find_problem(CELL, 4).splitlines()
    assert first == (
        "the cell's process ended with status 4: pytest was called in a way that it refuses; "
        "rust-c.pytest.log ends with"
    )
    assert rest == [
        "ERROR: usage: python3 -m pytest [options] [file_or_dir] [file_or_dir] [...]",
        "python3 -m pytest: error: unrecognized arguments: --module mdriver_rust",
    ]


@pytest.mark.parametrize(
    ("job", "status", "words"),
    [
        ("matrix", 2, "status 2: pytest was interrupted"),
        ("matrix", 3, "status 3: pytest itself failed"),
        ("matrix", 5, "status 5: pytest collected no test"),
        ("matrix", 120, "status 120: an exception"),
        ("count", 120, "status 120: an exception"),
        ("count", 5, "status 5"),
        ("matrix", -9, "signal 9 ended the cell's process (Killed)"),
    ],
)
def test_a_status_is_said_in_words(log: Path, job: str, status: int, words: str) -> None:
    problem = agent.find_problem(replace(CELL, name="c/c", job=JOBS[job]), status)
    assert words in problem
    assert problem.count("\n") == 0, "there is no log"
    assert ("pytest" in problem) == ("pytest" in words)


@pytest.mark.parametrize("status", [0, 1])
def test_tests_that_failed_are_no_problem_of_the_process(log: Path, status: int) -> None:
    log.write_text("noise")
    assert agent.find_problem(CELL, status) == ""


def test_the_end_of_a_log_is_what_is_repeated(log: Path) -> None:
    log.write_bytes(b"first\n" * 10_000 + b"\n\xff\n  last\n\n")
    lines = agent.read_tail(log)
    assert len(lines) == agent.LOG_LINES
    assert lines[-2:] == ("\N{REPLACEMENT CHARACTER}", "  last")


def test_an_exception_of_the_work_is_in_the_log_whole(log: Path) -> None:
    script = f"""
import os
from pathlib import Path
from twinmod.guest import agent, child, output, stream
from twinmod.guest.log import KernelLog
from twinmod.guest.protocol import PlannedCell, from_json
agent.RESULTS = Path({str(log.parent)!r})
cell = from_json(PlannedCell, {json.loads(json.dumps(CELL, default=protocol.to_fields))!r})
def break_off(heartbeat):
    output.redirect(agent.plan_log_path(cell))
    print("before")
    raise OSError(19, "No such device")
log = KernelLog(os.pipe()[0], ())
status = child.Child(break_off).wait(stream.Stream(1), log, 30)
print(agent.find_problem(cell, status))
"""
    first, *rest = run_script(script).splitlines()
    assert first.endswith("ended with status 120: an exception; rust-c.pytest.log ends with")
    assert "before" in rest
    assert "OSError: [Errno 19] No such device" in rest


# -- a module --------------------------------------------------------------------------------


class Kernel:
    """The system calls that load and unload modules, all refused with one errno unless it is 0."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.calls: list[tuple[str, object]] = []

    def syscall(self, number: int, *arguments: Any) -> int:
        if number == modules.NR_FINIT_MODULE:
            descriptor, parameters, flags = arguments
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
            self.calls.append((name, (parameters, flags)))
        else:
            assert number == modules.NR_DELETE_MODULE
            self.calls.append(("unload", arguments))
        ctypes.set_errno(self.code)
        return -1 if self.code else 0


def give_kernel(monkeypatch: pytest.MonkeyPatch, code: int) -> Kernel:
    kernel = Kernel(code)
    monkeypatch.setattr(modules, "_libc", kernel)
    return kernel


@pytest.fixture
def module(tmp_path: Path) -> Module:
    (tmp_path / "m.ko").write_bytes(b"")
    return Module(name="no_such_module", ko_path=tmp_path / "m.ko")


def test_a_module_is_loaded_from_its_file_and_unloaded_without_waiting(
    monkeypatch: pytest.MonkeyPatch, module: Module
) -> None:
    kernel = give_kernel(monkeypatch, 0)
    module.load("size=4096")
    module.unload()
    assert kernel.calls == [
        ("m.ko", (b"size=4096", 0)),
        ("unload", (b"no_such_module", os.O_NONBLOCK)),
    ]


@pytest.mark.parametrize("code", [errno.EEXIST, errno.EAGAIN, errno.EBUSY])
def test_a_load_that_the_kernel_refuses_has_its_errno_and_its_usual_words(
    monkeypatch: pytest.MonkeyPatch, module: Module, code: int
) -> None:
    give_kernel(monkeypatch, code)
    with pytest.raises(OSError, match=os.strerror(code)) as failure:
        module.load()
    assert failure.value.errno == code
    assert modules.find_refusal(module.load) == os.strerror(code)


def test_a_load_of_a_file_that_is_not_there_is_refused_too(module: Module) -> None:
    module.ko_path.unlink()
    assert modules.find_refusal(module.load) == "No such file or directory"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, []),
        (errno.EWOULDBLOCK, ["no_such_module did not unload: it is in use"]),
        (errno.ENOENT, ["no_such_module did not unload: No such file or directory"]),
    ],
)
def test_a_module_that_stays_is_a_problem_that_names_it(
    monkeypatch: pytest.MonkeyPatch, module: Module, code: int, words: list[str]
) -> None:
    give_kernel(monkeypatch, code)
    assert agent.unload([module]) == words


def test_a_module_that_cannot_be_loaded_again_ends_the_work(
    monkeypatch: pytest.MonkeyPatch, module: Module
) -> None:
    give_kernel(monkeypatch, errno.ENOMEM)
    with pytest.raises(GuestError, match="no_such_module was not loaded again: Cannot allocate"):
        agent.reload(module, "")
