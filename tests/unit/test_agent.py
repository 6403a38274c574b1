# SPDX-License-Identifier: GPL-2.0-only
"""The program inside the VM, as far as it goes without a VM: its lines, and its child.

It forks and it takes over standard streams, so it runs in processes of its own here.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from twinmod import agent, process, results
from twinmod.specs import Cell, Command

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
import pytest
from twinmod.agent import Reporter, Stream
marks = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
events = os.dup(1)
os.dup2(2, 1)
pytest.main([sys.argv[1], "-p", "no:cacheprovider", "--tb=short", "-q", "--rootdir", sys.argv[1],
             "-c", os.devnull, "-W", "ignore", *sys.argv[3:]],
            plugins=[Reporter(Stream(events), marks)])
"""


def run_script(script: str, *arguments: str) -> str:
    """Return what a script writes to its standard output alone."""
    command = Command(
        argv=(sys.executable, "-c", script, *arguments), purpose="the script", timeout_s=LIMIT_S,
        environment=(("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"), ("PYTHONDONTWRITEBYTECODE", "1")),
    )  # fmt: skip
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
    """What a Reporter says of one real run of pytest."""
    lines = run_script(RUN, str(folder), str(folder / "marks")).splitlines()
    return [json.loads(line) for line in lines]


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


def test_every_step_is_marked_for_the_process_that_watches(
    events: list[dict[str, Any]], folder: Path
) -> None:
    # The run, the folder and the file are collected, each in a step.
    assert len((folder / "marks").read_bytes()) == 3 + len(events)


def test_the_host_reads_what_the_agent_says(events: list[dict[str, Any]]) -> None:
    lines = [json.dumps(event) for event in events]
    lines.insert(0, json.dumps({"event": "cell", "cell": "c/c"}))
    cells = (Cell(module="m", language="c", tester="c"),)
    transcript = results.parse_transcript(results.parse_events(lines), cells)
    (cell,) = transcript.cells
    assert [test.id for test in cell.tests] == [e["id"] for e in events if e["event"] == "result"]
    assert transcript.running is None


# -- the stream -------------------------------------------------------------------------------


def test_an_event_is_one_line_of_json_whatever_it_holds() -> None:
    reader, writer = os.pipe()
    agent.Stream(writer).emit("result", message="two\nlines \N{SNOWMAN} \udcff", id="x")
    os.close(writer)
    with os.fdopen(reader) as stream:
        (line,) = stream.readlines()
    event = json.loads(line)
    assert event["message"] == "two\nlines \N{SNOWMAN} \udcff"
    assert event["at_s"] > 0
    assert results.parse_events([line]) == (event,)


# -- the child --------------------------------------------------------------------------------

CHILD = """\
import os, signal, sys
from twinmod import agent
agent.HEARTBEAT_S = 0.02
stream = agent.Stream(1)
def stuck(marks):
    os.write(marks, b".")
    signal.pause()
def raising(marks):
    raise ValueError
def dying(marks):
    os.kill(os.getpid(), signal.SIGKILL)
def closing(marks):
    os.close(marks)
    signal.pause()
works = {"done": lambda marks: 0, "failed": lambda marks: 1, "stuck": stuck, "raising": raising,
         "dying": dying, "closing": closing}
child = agent.Child(works[sys.argv[1]])
print("status", child.wait(stream, 0.2), flush=True)
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


@pytest.mark.parametrize("work", ["stuck", "closing"])
def test_a_child_that_makes_no_step_is_given_up_and_said_to_be_alive_until_then(
    work: str,
) -> None:
    *beats, status, left = run_script(CHILD, work).splitlines()
    assert (status, left) == ("status None", "alive")
    assert beats
    assert {json.loads(beat)["event"] for beat in beats} == {"alive"}


def test_a_child_that_makes_steps_is_not_given_up() -> None:
    # A clock that moves when it is read: no machine is too slow for this test. The steps fill
    # the pipe twice, so that the parent looks at it, and at the clock, 16 times at the least.
    script = """\
import os
from types import SimpleNamespace
from twinmod import agent
ticks = iter(range(10**9))
clock = SimpleNamespace(monotonic=lambda: next(ticks), CLOCK_BOOTTIME=0,
                        clock_gettime=lambda clock: 0.0)
agent.time = clock
agent.HEARTBEAT_S = 10**6
def stepping(marks):
    left = 131072
    while left:
        left -= os.write(marks, b"." * left)
    return 0
print("status", agent.Child(stepping).wait(agent.Stream(1), 8), next(ticks) > 8)
"""
    assert run_script(script) == "status 0 True\n"


def test_a_child_that_makes_one_step_after_the_other_is_said_to_be_alive() -> None:
    script = """\
import os
from twinmod import agent
agent.HEARTBEAT_S = 0
def stepping(marks):
    left = 131072
    while left:
        left -= os.write(marks, b"." * left)
    return 0
print("status", agent.Child(stepping).wait(agent.Stream(1), 30))
"""
    *beats, status = run_script(script).splitlines()
    assert status == "status 0"
    assert len(beats) >= 16
    assert {json.loads(beat)["event"] for beat in beats} == {"alive"}


# -- tools ------------------------------------------------------------------------------------


def test_a_tool_that_did_its_work_has_no_complaint() -> None:
    assert agent.run_tool("sh", "-c", "echo noise; exit 0") == ""


@pytest.mark.parametrize(
    ("script", "complaint"),
    [("echo 'insmod: ERROR: File exists' >&2; exit 1", "insmod: ERROR: File exists"),
     ("exit 5", "sh: status 5")],
)  # fmt: skip
def test_a_tool_that_failed_always_has_one(script: str, complaint: str) -> None:
    assert agent.run_tool("sh", "-c", script) == complaint
