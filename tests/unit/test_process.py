# SPDX-License-Identifier: GPL-2.0-only
"""The one door to other processes, held to its promises with real, small processes.

A FIFO proves that processes are gone: its reader sees the end when the last writer died.
"""

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.errors import BuildError, ConfigError, MissingToolError, TwinmodError

#: Far above what anything here takes; a test that runs into it has failed.
LIMIT_S = 20.0


def plan_sh(
    script: str,
    *,
    timeout_s: float = LIMIT_S,
    log_path: Path | None = None,
    environment: tuple[tuple[str, str], ...] = (),
) -> Command:
    return Command(
        argv=("sh", "-c", script),
        purpose="the script did not run",
        timeout_s=timeout_s,
        log_path=log_path,
        environment=environment,
    )


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def read_to_end(descriptor: int) -> bytes:
    """Return what a FIFO's writers wrote, once all of them are gone."""
    text = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], LIMIT_S)
        assert ready, "a writer of the FIFO is still alive"
        chunk = os.read(descriptor, 4096)
        if not chunk:
            return text
        text += chunk


# -- a process that ends by itself ------------------------------------------------------------


def test_output_and_errors_come_in_the_order_in_which_they_were_written() -> None:
    assert process.run(plan_sh("echo a; echo b >&2; echo c; echo d >&2")) == "a\nb\nc\nd\n"


def test_output_that_is_not_utf8_is_kept_as_far_as_it_is_text() -> None:
    assert process.run(plan_sh(r"printf 'a\377b'")) == "a\N{REPLACEMENT CHARACTER}b"


def test_a_status_is_returned_as_it_is() -> None:
    assert process.run_unchecked(plan_sh("echo no; exit 3")) == (3, "no\n")


def test_a_signal_is_a_negative_status() -> None:
    assert process.run_unchecked(plan_sh("kill -SEGV $$")) == (-signal.SIGSEGV, "")


def test_a_failure_says_what_for_and_shows_command_and_output() -> None:
    with pytest.raises(BuildError) as caught:
        process.run(plan_sh("echo why; exit 7", environment=(("A", "b c"),)))
    assert caught.value.message == "the script did not run: sh exited with status 7"
    facts = dict(caught.value.facts)
    assert facts["command"] == "env A='b c' sh -c 'echo why; exit 7'"
    assert facts["output"].endswith("\nwhy")


def test_a_failure_by_a_signal_names_it() -> None:
    with pytest.raises(BuildError, match="was ended by signal 9"):
        process.run(plan_sh("kill -KILL $$"))


def test_a_failure_is_of_the_class_that_the_caller_names() -> None:
    with pytest.raises(ConfigError):
        process.run(plan_sh("exit 1"), error=ConfigError)


def test_a_failure_shows_as_many_of_the_last_lines_as_its_command_says() -> None:
    with pytest.raises(BuildError) as caught:
        process.run(replace(plan_sh("seq 1000; exit 1"), tail_lines=3))
    assert dict(caught.value.facts)["output"].splitlines()[1:] == ["998", "999", "1000"]


def test_a_failure_inside_a_chroot_names_the_program_inside() -> None:
    command = Command(argv=("bwrap", "--unshare-all", "--", "make", "x"), purpose="x", timeout_s=1)
    error = process.plan_failure(command, "exited with status 2", "")
    assert error.message == "x: make exited with status 2"


def test_a_program_that_is_missing_is_an_environment_that_is_not_ready() -> None:
    command = Command(argv=("twinmod-no-such-program",), purpose="it did not run", timeout_s=1)
    with pytest.raises(MissingToolError, match="twinmod-no-such-program is not installed"):
        process.run(command)


def test_a_rendered_command_runs_the_same_way_in_a_shell() -> None:
    command = plan_sh('printf "%s|" "$A" "$0"', environment=(("A", "it's $HOME; `x`"),))
    again = plan_sh(process.render_command(command))
    assert process.run(again) == process.run(command) == "it's $HOME; `x`|sh|"


# -- environment, input, place ----------------------------------------------------------------


def test_nothing_of_the_callers_environment_gets_through_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWINMOD_SECRET", "token")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    command = Command(argv=("env",), purpose="env", timeout_s=LIMIT_S, environment=(("A", "b"),))
    lines = set(process.run(command).splitlines())
    assert {"A=b", "LC_ALL=C.UTF-8", "https_proxy=http://proxy:3128"} <= lines
    names = {line.partition("=")[0] for line in lines}
    assert names <= {*process.INHERITED, "LC_ALL", "A"}


def test_a_command_can_set_what_is_otherwise_fixed() -> None:
    command = plan_sh("echo $LC_ALL $HOME", environment=(("LC_ALL", "C"), ("HOME", "/x")))
    assert process.run(command) == "C /x\n"


def test_there_is_no_standard_input_to_wait_for() -> None:
    assert process.run(plan_sh("cat; echo end")) == "end\n"


def test_a_process_starts_in_the_folder_it_was_given(tmp_path: Path) -> None:
    command = Command(argv=("pwd",), purpose="pwd", timeout_s=LIMIT_S, working_dir=tmp_path)
    assert process.run(command) == f"{tmp_path.resolve()}\n"


# -- logs -------------------------------------------------------------------------------------


def test_a_log_is_written_while_the_process_runs(tmp_path: Path) -> None:
    log_path = tmp_path / "new/folder/build.log"
    # The process itself waits until it can read its own first line in the log.
    script = f"echo first; until grep -qs first {log_path}; do :; done; echo last"
    assert process.run(plan_sh(script, log_path=log_path)) == "first\nlast\n"
    assert log_path.read_text() == "first\nlast\n"


def test_the_error_of_a_logged_process_names_the_log(tmp_path: Path) -> None:
    log_path = tmp_path / "build.log"
    with pytest.raises(BuildError) as caught:
        process.run(plan_sh("echo why; exit 1", log_path=log_path))
    assert ("log", str(log_path)) in caught.value.facts
    assert log_path.read_text() == "why\n"


# -- limits -----------------------------------------------------------------------------------


def test_a_limit_ends_the_process_and_all_that_it_started(fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    # The grandchild does not listen to SIGTERM, and holds the FIFO only.
    script = f"exec 3>{fifo}; (trap '' TERM; echo up >&3; exec sleep 100 >/dev/null 2>&1) & wait"
    with pytest.raises(BuildError):
        process.run(plan_sh(script, timeout_s=0.5))
    assert read_to_end(reader) == b"up\n"
    os.close(reader)


def test_a_process_that_ignores_sigterm_is_killed(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.05)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = f"trap '' TERM; exec 3>{fifo}; echo up >&3; while :; do sleep 100; done"
    with pytest.raises(BuildError):
        process.run(plan_sh(script, timeout_s=0.5))
    assert read_to_end(reader) == b"up\n"
    os.close(reader)


def test_an_error_in_the_caller_ends_the_process(fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    class CallerError(Exception):
        pass

    def fail() -> None:
        with process.start(plan_sh(f"exec 3>{fifo}; echo up >&3; echo; exec sleep 100")) as child:
            assert child.stdout is not None
            child.stdout.readline()
            raise CallerError

    with pytest.raises(CallerError):
        fail()
    assert read_to_end(reader) == b"up\n"
    os.close(reader)


def test_sigterm_cleans_up_like_ctrl_c(fifo: Path, tmp_path: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log_path = tmp_path / "log"
    # "up" is said when the caller is known to be reading: it has written the log.
    inner = (
        f"echo in; until grep -qs in {log_path}; do :; done; "
        f"exec 3>{fifo}; echo up >&3; exec sleep 100"
    )
    script = (
        "import pathlib\n"
        "from twinmod.base import process\n"
        "from twinmod.base.process import Command\n"
        f"command = Command(argv=('sh', '-c', {inner!r}), purpose='x', timeout_s=90,\n"
        f"                  log_path=pathlib.Path({str(log_path)!r}))\n"
        "try:\n"
        "    with process.interrupt_on_sigterm():\n"
        "        process.run(command)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    command = Command(argv=(sys.executable, "-c", script), purpose="x", timeout_s=LIMIT_S)
    with process.start(command) as caller:
        ready, _, _ = select.select([reader], [], [], LIMIT_S)
        assert ready
        caller.send_signal(signal.SIGTERM)
        assert read_to_end(reader) == b"up\n"
        output, _ = caller.communicate(timeout=LIMIT_S)
    assert (output, caller.returncode) == (b"interrupted\n", 0)
    os.close(reader)


def test_sigterm_means_again_what_it_meant_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with process.interrupt_on_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_waiting_for_the_end_has_a_limit() -> None:
    with process.start(plan_sh("exec sleep 100")) as child, pytest.raises(TimeoutError):
        process.wait_for_end(child, 0.05)
    assert child.returncode == -signal.SIGTERM


# -- lines as they come -----------------------------------------------------------------------


def test_lines_come_whole_and_without_their_ends() -> None:
    script = r"printf 'one\ntw'; printf 'o\n\nlast'"
    with process.start(plan_sh(script)) as child:
        assert list(process.read_lines(child, lambda: LIMIT_S)) == ["one", "two", "", "last"]


def test_each_line_comes_before_the_next_one_is_written(fifo: Path) -> None:
    # The process says the second line only when the first one has been read here.
    with process.start(plan_sh(f"echo one; cat {fifo} > /dev/null; echo two")) as child:
        lines = process.read_lines(child, lambda: LIMIT_S)
        assert next(lines) == "one"
        fifo.write_text("go\n")
        assert list(lines) == ["two"]


def test_a_line_that_does_not_come_ends_the_patience() -> None:
    limits = iter((LIMIT_S, 0.05))
    with process.start(plan_sh("echo one; exec sleep 100")) as child:
        lines = process.read_lines(child, lambda: next(limits))
        assert next(lines) == "one"
        with pytest.raises(TimeoutError):
            next(lines)


def test_half_a_line_does_not_buy_more_patience(fifo: Path) -> None:
    script = f"while printf .; do read x < {fifo}; done"
    with process.start(plan_sh(script)) as child, pytest.raises(TimeoutError):
        list(process.read_lines(child, lambda: 0.05))


# -- pipelines --------------------------------------------------------------------------------


def test_a_pipeline_carries_every_byte(tmp_path: Path) -> None:
    target = tmp_path / "out"
    producer = plan_sh("head -c 1000000 /dev/zero; echo said >&2", log_path=tmp_path / "log")
    process.run_pipeline(producer, plan_sh(f"cat > {target}"))
    assert target.stat().st_size == 1_000_000
    assert (tmp_path / "log").read_text() == "said\n"


def test_a_producer_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    producer = plan_sh("echo why >&2; exit 4", log_path=tmp_path / "new/log")
    with pytest.raises(MissingToolError, match="sh exited with status 4") as caught:
        process.run_pipeline(producer, plan_sh("cat > /dev/null"))
    assert dict(caught.value.facts)["output"].endswith("\nwhy")


def test_a_consumer_that_fails_is_named_with_its_output(tmp_path: Path) -> None:
    producer = plan_sh("echo x", log_path=tmp_path / "log")
    consumer = Command(
        argv=("sh", "-c", "cat > /dev/null; echo full; exit 5"),
        purpose="it was not unpacked",
        timeout_s=LIMIT_S,
    )
    with pytest.raises(MissingToolError, match="it was not unpacked: sh exited") as caught:
        process.run_pipeline(producer, consumer)
    assert dict(caught.value.facts)["output"].rstrip().endswith("\nfull")


def test_a_pipeline_ends_when_its_consumer_is_gone(tmp_path: Path) -> None:
    producer = plan_sh("exec yes", log_path=tmp_path / "log")
    with pytest.raises(MissingToolError):
        process.run_pipeline(producer, plan_sh("exit 1"))


def test_a_pipeline_has_a_limit(tmp_path: Path) -> None:
    producer = plan_sh("exec sleep 100", log_path=tmp_path / "log", timeout_s=0.1)
    with pytest.raises(MissingToolError):
        process.run_pipeline(producer, plan_sh("cat > /dev/null"))


@pytest.mark.parametrize("missing", ["producer", "consumer"])
def test_a_pipeline_without_one_of_its_programs_leaves_nothing_behind(
    missing: str, tmp_path: Path
) -> None:
    gone = Command(
        argv=("twinmod-no-such-program",), purpose="x", timeout_s=1, log_path=tmp_path / "log"
    )
    there = plan_sh("exec sleep 100", log_path=tmp_path / "log")
    began = time.monotonic()
    with pytest.raises(MissingToolError, match="is not installed"):
        process.run_pipeline(*((gone, there) if missing == "producer" else (there, gone)))
    assert time.monotonic() - began < LIMIT_S


# -- the caller's own terminal, and its programs ----------------------------------------------


def test_an_interactive_process_has_the_callers_own_streams() -> None:
    script = (
        "from twinmod.base import process\n"
        "from twinmod.base.process import Command\n"
        "command = Command(argv=('sh', '-c', 'read x; echo $x $SECRET$TERM; exit 3'),\n"
        "                  purpose='x', timeout_s=1)\n"
        "print(process.run_interactive(command))\n"
    )
    command = Command(
        argv=(sys.executable, "-u", "-c", script),
        purpose="x",
        timeout_s=LIMIT_S,
        environment=(("TERM", "vt100"), ("SECRET", "token")),
    )
    with process.start(command, stdin=subprocess.PIPE) as caller:
        output, _ = caller.communicate(b"typed\n", timeout=LIMIT_S)
    assert output == b"typed vt100\n3\n"


def test_a_program_is_found_where_the_path_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"/nonexistent:{tmp_path}")
    program = tmp_path / "twinmod-tool"
    program.write_text("")
    assert process.find_program("twinmod-tool") is None
    program.chmod(0o755)
    assert process.find_program("twinmod-tool") == str(program)


def test_a_folder_of_the_path_that_cannot_be_looked_into_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No folder can have such a name; another user's home is as little to be looked into.
    monkeypatch.setenv("PATH", f"/{'x' * 300}:{tmp_path}")
    program = tmp_path / "twinmod-tool"
    program.write_text("")
    program.chmod(0o755)
    assert process.find_program("twinmod-tool") == str(program)


# -- what was found wrong once ----------------------------------------------------------------


@pytest.mark.parametrize("error", [BuildError, MissingToolError])
def test_a_limit_is_named_in_an_error_of_the_callers_class(error: type[TwinmodError]) -> None:
    with pytest.raises(error, match="took more than 0 s"):
        process.run(plan_sh("exec sleep 9", timeout_s=0.3), error=error)


@pytest.mark.parametrize("status", [0, 2])
def test_a_process_that_ends_politely_at_its_limit_did_not_succeed(status: int) -> None:
    with pytest.raises(BuildError, match="took more than"):
        process.run(plan_sh(f"trap 'exit {status}' TERM; sleep 9 & wait", timeout_s=0.3))


def test_a_consumer_that_died_first_is_the_one_that_is_named(tmp_path: Path) -> None:
    producer = plan_sh("exec yes", log_path=tmp_path / "log")
    consumer = replace(plan_sh("echo no space; exit 2"), purpose="it was not unpacked")
    with pytest.raises(MissingToolError, match="it was not unpacked") as caught:
        process.run_pipeline(producer, consumer)
    assert "no space" in dict(caught.value.facts)["output"]


def test_a_pipelines_consumer_has_a_limit(tmp_path: Path) -> None:
    producer = plan_sh("echo x", log_path=tmp_path / "log", timeout_s=0.3)
    with pytest.raises(MissingToolError, match="took more than"):
        process.run_pipeline(producer, plan_sh("sleep 9"))


def test_an_interrupt_while_the_limit_is_set_leaves_no_timer() -> None:
    script = (
        "import threading\n"
        "from twinmod.base import process\n"
        "from twinmod.base.process import Command\n"
        "real = threading.Timer.start\n"
        "def start(timer):\n"
        "    real(timer)\n"
        "    raise KeyboardInterrupt\n"
        "threading.Timer.start = start\n"
        "try:\n"
        f"    process.run(Command(argv=('sleep', '99'), purpose='x', timeout_s={LIMIT_S}))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    argv = (sys.executable, "-c", script)
    command = Command(argv=argv, purpose="it lingers", timeout_s=LIMIT_S / 2)
    assert process.run(command) == "interrupted\n"


def test_a_program_that_may_not_be_run_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\n")
    with pytest.raises(MissingToolError, match="may not be run"):
        process.run(Command(argv=(str(path),), purpose="x", timeout_s=LIMIT_S))


def test_a_missing_folder_is_not_a_missing_program(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(MissingToolError, match="cannot be entered"):
        process.run(Command(argv=("true",), purpose="x", timeout_s=LIMIT_S, working_dir=gone))


def test_a_folder_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "twinmod-make").mkdir()
    assert process.find_program("twinmod-make") is None


def test_what_enters_a_chroot_is_not_the_program_that_failed() -> None:
    command = Command(argv=("bwrap", "--proc", "/proc", "--", "make", "x"), purpose="", timeout_s=1)
    assert process.find_program_name(command) == "make"
