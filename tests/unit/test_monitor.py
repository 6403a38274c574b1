# SPDX-License-Identifier: GPL-2.0-only
"""The conversation with QEMU, with a program in its place that speaks as it does."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.errors import VmLostError
from twinmod.vm import machine, monitor
from twinmod.vm.monitor import Monitor

#: Answers each command with the next of its answers, and writes the commands to its output. An
#: event among them is said at once.
QEMU = """\
import json, os, socket, sys
folder, answers = sys.argv[1], json.loads(sys.argv[2])
os.chdir(folder)
connection = socket.socket(socket.AF_UNIX)
connection.connect("monitor.sock")
stream = connection.makefile("rw")
def say(message):
    print(json.dumps(message), file=stream, flush=True)
say({"QMP": {"version": {}}})
for answer in [{"return": {}}, *answers]:
    if "event" not in answer:
        print(stream.readline().strip(), flush=True)
        say({"event": "STOP"})
    print(answer.get("raw") or json.dumps(answer), end=answer.get("end", "\\n"), file=stream)
    stream.flush()
"""


@contextmanager
def speak(folder: Path, *answers: object) -> Iterator[tuple[Monitor, process.Process]]:
    """Speak with a program that gives some answers and then ends."""
    command = Command(
        argv=(sys.executable, "-c", QEMU, str(folder), json.dumps(answers)),
        purpose="QEMU's stand-in",
        timeout_s=30.0,
    )
    with (
        monitor.listen(folder) as listener,
        process.start(command) as qemu,
        monitor.accept(listener, qemu) as found,
    ):
        assert found is not None
        yield found, qemu


def read_commands(qemu: process.Process) -> list[dict[str, object]]:
    output, _ = qemu.communicate(timeout=30.0)
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose path is longer than the address of a socket may be."""
    path = tmp_path / ("x" * 120)
    path.mkdir()
    return path


DONE: dict[str, Any] = {"return": {}}
RESUME = {"event": "RESUME"}
SAVED = {"return": {"status": "completed"}}


def test_a_vm_is_saved_without_its_memory(folder: Path) -> None:
    active = {"return": {"status": "active"}}
    with speak(folder, DONE, DONE, active, SAVED, DONE) as (qemu, process_of_it):
        monitor.save(qemu, "/state")
        commands = read_commands(process_of_it)
    assert [command["execute"] for command in commands] == [
        "qmp_capabilities",
        "migrate-set-capabilities",
        "migrate",
        "query-migrate",
        "query-migrate",
        "quit",
    ]
    assert commands[1]["arguments"] == {
        "capabilities": [{"capability": "x-ignore-shared", "state": True}]
    }
    assert commands[2]["arguments"] == {"uri": "file:/state"}
    assert not (folder / machine.MONITOR).exists()


def test_a_clone_goes_on_from_a_state(folder: Path) -> None:
    with speak(folder, DONE, DONE, RESUME) as (qemu, process_of_it):
        monitor.restore(qemu, "/state")
        commands = read_commands(process_of_it)
    assert commands[-1] == {"execute": "migrate-incoming", "arguments": {"uri": "file:/state"}}


def test_a_clone_goes_on_although_that_is_said_before_the_answer(folder: Path) -> None:
    with speak(folder, DONE, RESUME, DONE) as (qemu, _):
        monitor.restore(qemu, "/state")


def test_a_clone_that_does_not_go_on_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "ANSWER_TIMEOUT_S", 0.3)
    why = "the VM did not go on within 0.3 s"
    # It waits for one more command.
    with speak(folder, DONE, DONE, DONE) as (qemu, _), pytest.raises(VmLostError, match=why):
        monitor.restore(qemu, "/state")


def test_a_qemu_that_ends_of_a_state_says_more_than_we_do(folder: Path) -> None:
    with speak(folder, DONE, DONE) as (qemu, _), pytest.raises(monitor.QemuEndedError):
        monitor.restore(qemu, "/state")


def test_an_event_is_waited_for_by_what_it_says(folder: Path) -> None:
    gone = [
        {"event": "DEVICE_DELETED", "data": {"path": "/machine/peripheral/device-1/backend"}},
        {"event": "DEVICE_DELETED", "data": {"device": "device-2", "path": "/machine"}},
        {"event": "DEVICE_DELETED", "data": {"device": "device-1", "path": "/machine"}},
    ]
    with speak(folder, *gone) as (qemu, _):
        for name in ("device-1", "device-2"):
            assert qemu.wait_for(("X", "DEVICE_DELETED"), 30.0, device=name) == "DEVICE_DELETED"
        # Each is said once.
        with pytest.raises(monitor.QemuEndedError, match="did not answer: DEVICE_DELETED"):
            qemu.wait_for(("DEVICE_DELETED",), 30.0, device="device-1")


@pytest.mark.parametrize("said", ["{", "\0", " "])
def test_a_qemu_that_says_no_json_is_an_error(folder: Path, said: str) -> None:
    with speak(folder, {"raw": said}) as (qemu, _):
        with pytest.raises(VmLostError, match="QEMU's answer is not JSON: stop") as failure:
            qemu.execute("stop")
        assert failure.value.facts == (("said", said),)


def test_half_a_line_is_no_answer(folder: Path) -> None:
    why = "QEMU ended, and did not answer: stop"
    half = {**DONE, "end": ""}
    with speak(folder, half) as (qemu, _), pytest.raises(monitor.QemuEndedError, match=why):
        qemu.execute("stop")


def test_a_qemu_that_does_not_finish_its_line_is_not_waited_for_longer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with speak(folder, {**DONE, "end": ""}, DONE) as (qemu, _):
        monkeypatch.setattr(monitor, "ANSWER_TIMEOUT_S", 0.3)
        with pytest.raises(VmLostError, match=r"QEMU did not answer within 0\.3 s: cont"):
            qemu.execute("cont")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"error": {"desc": "nvme cannot be saved"}}, "QEMU refuses migrate: nvme cannot be saved"),
        (None, "QEMU ended, and did not answer"),
    ],
)
def test_a_qemu_that_does_not_save_is_an_error(folder: Path, answer: object, why: str) -> None:
    answers = (DONE, answer) if answer else (DONE,)
    with speak(folder, *answers) as (qemu, _), pytest.raises(VmLostError, match=why):
        monitor.save(qemu, "/state")


def test_a_state_that_was_not_written_is_an_error(folder: Path) -> None:
    failed = {"return": {"status": "failed", "error-desc": "No space left on device"}}
    with speak(folder, DONE, DONE, failed) as (qemu, _), pytest.raises(VmLostError) as failure:
        monitor.save(qemu, "/state")
    assert str(failure.value) == "QEMU did not save the VM: No space left on device"


def test_a_qemu_that_ends_before_it_says_anything_is_not_waited_for(folder: Path) -> None:
    command = Command(argv=("true",), purpose="QEMU's stand-in", timeout_s=30.0)
    with (
        monitor.listen(folder) as listener,
        process.start(command) as qemu,
        monitor.accept(listener, qemu) as found,
    ):
        assert found is None


def test_a_qemu_that_hangs_up_before_its_greeting_is_one_that_ended(folder: Path) -> None:
    script = QEMU.replace('say({"QMP": {"version": {}}})', "sys.exit(1)")
    argv = (sys.executable, "-c", script, str(folder), "[]")
    command = Command(argv=argv, purpose="QEMU's stand-in", timeout_s=30.0)
    with (
        monitor.listen(folder) as listener,
        process.start(command) as qemu,
        monitor.accept(listener, qemu) as found,
    ):
        assert found is None


def test_a_vm_is_saved_although_qemu_is_gone_before_it_answers(folder: Path) -> None:
    with speak(folder, DONE, DONE, SAVED) as (qemu, process_of_it):
        monitor.save(qemu, "/state")
        assert read_commands(process_of_it)[-1]["execute"] == "query-migrate"
