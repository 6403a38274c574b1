# SPDX-License-Identifier: GPL-2.0-only
"""The one door to other processes.

Every process starts in a session of its own, with a fixed environment, no standard input,
and a limit; whatever ends the caller (a timeout, Ctrl-C, an error) ends its whole group.
"""

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from twinmod.base import commands
from twinmod.errors import BuildError, MissingToolError, TwinmodError


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to start: everything the one door needs, and nothing has happened yet."""

    argv: tuple[str, ...]
    # What the process is for, as an error would say it: "the C module did not build".
    purpose: str
    # Added to the fixed environment.
    environment: tuple[tuple[str, str], ...] = ()
    working_dir: Path | None = None
    # Output goes here, whole, while the process runs; None keeps it in memory.
    log_path: Path | None = None
    timeout_s: float
    # How many of its last lines an error shows; a compiler's are shown as good as whole.
    tail_lines: int = 25


#: What a process may see of the caller's environment: how to find programs and the network.
INHERITED = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LOGNAME",
    "USER",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)

#: How long a process may take to go after SIGTERM before it is killed; mmdebstrap removes what
#: it made so far.
GRACE_S = 10.0

Process = subprocess.Popen[bytes]
PIPE = subprocess.PIPE


def render_command(command: Command) -> str:
    """Return the command as one line that a shell would run the same way."""
    settings = tuple(f"{name}={shlex.quote(value)}" for name, value in command.environment)
    prefix = ("env", *settings) if settings else ()
    return " ".join((*prefix, shlex.join(command.argv)))


def find_program_name(command: Command) -> str:
    """Return the program that a person thinks of: inside a chroot, not what enters it."""
    argv = command.argv
    return argv[argv.index("--") + 1] if argv[0] == "bwrap" and "--" in argv else argv[0]


def plan_environment(command: Command, inherited: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process: fixed, but for what INHERITED names."""
    kept = {name: inherited[name] for name in INHERITED if name in inherited}
    return {"LC_ALL": "C.UTF-8", **kept, **dict(command.environment)}


def kill_group(process: Process) -> None:
    """End a process and all that it started; returns when the process is gone."""
    for number, grace_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_s)
            break
    # A child of the group can outlive its leader.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


#: Those that live, for whoever must end what other threads wait for.
_alive: set[Process] = set()


def kill_all() -> None:
    """End every process that a context of start() holds, in whatever thread."""
    for process in tuple(_alive):
        kill_group(process)


@contextmanager
def start(
    command: Command,
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.STDOUT,
) -> Iterator[Process]:
    """Start a process that lives no longer than the context.

    Raises:
        MissingToolError: The program does not exist or may not be run.
    """
    try:
        process = subprocess.Popen(
            command.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=plan_environment(command, dict(os.environ)),
            cwd=command.working_dir,
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        here = str(error.filename) == str(command.working_dir)
        why = (
            f"the folder {command.working_dir} cannot be entered"
            if here
            else f"{command.argv[0]} is not installed"
            if isinstance(error, FileNotFoundError)
            else f"{command.argv[0]} may not be run"
        )
        raise MissingToolError(
            f"{command.purpose}: {why}",
            facts=(("command", render_command(command)),),
            hint=commands.render("doctor"),
        ) from error
    _alive.add(process)
    try:
        yield process
    finally:
        _alive.discard(process)
        if process.poll() is None:
            kill_group(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def read_lines(process: Process, patience: Callable[[], float]) -> Iterator[str]:
    """Yield what a process prints, line by line, without the line ends, until it closes.

    Args:
        process: With a pipe as its standard output.
        patience: Tells, before each wait, how many seconds the next line may take.

    Raises:
        TimeoutError: It took longer.
    """
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    rest = b""
    deadline = time.monotonic() + patience()
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        if lines:
            deadline = time.monotonic() + patience()
    if rest:
        yield rest.decode(errors="replace")


def send_line(process: Process, text: str) -> None:
    """Send one line to a process, with a pipe as its standard input; nothing when it is gone."""
    assert process.stdin is not None
    data = text.encode() + b"\n"
    with suppress(BrokenPipeError):
        while data:
            data = data[os.write(process.stdin.fileno(), data) :]


def wait_for_end(process: Process, limit_s: float) -> None:
    """Wait for a process that said it would end.

    Raises:
        TimeoutError: It did not.
    """
    try:
        process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error


def plan_failure(
    command: Command, why: str, output: str, *, error: type[TwinmodError] = BuildError
) -> TwinmodError:
    """Return the error of a command that did not do what it is for."""
    tail = render_tail(output, command.tail_lines)
    facts = [("command", render_command(command))]
    if command.log_path is not None:
        facts.append(("log", str(command.log_path)))
    if tail:
        facts.append(("output", "(its last lines)\n" + tail))
    return error(f"{command.purpose}: {find_program_name(command)} {why}", facts=tuple(facts))


def render_tail(output: str, lines: int) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(output.splitlines()[-lines:])


class Limit:
    """Ends processes when their time is up, for as long as its context lasts."""

    def __init__(self, limit_s: float, *processes: Process) -> None:
        self.processes = processes
        self.expired = False
        self.timer = threading.Timer(limit_s, self._expire)
        self.timer.daemon = True

    def _expire(self) -> None:
        self.expired = True
        for process in self.processes:
            kill_group(process)

    def __enter__(self) -> Self:
        """Start the clock."""
        try:
            self.timer.start()
        except BaseException:
            self.timer.cancel()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the clock; wait for a kill that has begun."""
        self.timer.cancel()
        self.timer.join()


def run(
    command: Command,
    *,
    error: type[TwinmodError] = BuildError,
    watch: Callable[[str], None] | None = None,
) -> str:
    """Run a process to its end and return what it printed.

    Args:
        command: What to run. Its output goes to its log as it comes, when it has one.
        error: What to raise when it fails.
        watch: Called with every line of its output, as it comes.

    Returns:
        Standard output and standard error, in the order in which they were written.

    Raises:
        TwinmodError: Of the given class, when it exits with another status than 0 or runs
            into its limit; the last lines of its output are among the facts.
    """
    status, output = run_unchecked(command, error=error, watch=watch)
    if status != 0:
        raise plan_failure(command, _render_status(status), output, error=error)
    return output


def _render_status(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"


def run_unchecked(
    command: Command,
    *,
    error: type[TwinmodError] = BuildError,
    watch: Callable[[str], None] | None = None,
) -> tuple[int, str]:
    """Run a process to its end; return its status (negative for a signal) and its output.

    See run() for the arguments.

    Raises:
        MissingToolError: The program does not exist.
        TwinmodError: Of the given class, when it runs into its limit, however it then ends.
    """
    with start(command) as process, Limit(command.timeout_s, process) as limit:
        output = _drain(process, command.log_path, watch)
        status = process.wait()
    if limit.expired:
        why = f"took more than {command.timeout_s:.0f} s"
        raise plan_failure(command, why, output, error=error)
    return status, output


def _drain(process: Process, log_path: Path | None, watch: Callable[[str], None] | None) -> str:
    assert process.stdout is not None
    chunks = []
    with ExitStack() as stack:
        log = None
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context(log_path.open("wb"))
        for line in process.stdout:
            if log is not None:
                log.write(line)
                log.flush()
            if watch is not None:
                watch(line.decode(errors="replace").rstrip("\n"))
            chunks.append(line)
    return b"".join(chunks).decode(errors="replace")


def run_pipeline(producer: Command, consumer: Command) -> None:
    """Run two processes, the first one's standard output into the second one.

    The producer's standard error goes to its log, and its limit is that of both.

    Raises:
        MissingToolError: Either fails, or they run into the limit. The environment is at
            fault: pipelines fetch and unpack.
    """
    assert producer.log_path is not None
    producer.log_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        producer.log_path.open("wb") as log,
        start(producer, stderr=log) as first,
        start(consumer, stdin=first.stdout or subprocess.DEVNULL) as second,
        Limit(producer.timeout_s, first, second) as limit,
    ):
        # Only the consumer may hold the read end, or the producer never sees it go.
        if first.stdout is not None:
            first.stdout.close()
        assert second.stdout is not None
        consumer_output = second.stdout.read().decode(errors="replace")
        consumer_status, producer_status = second.wait(), first.wait()
    producer_output = producer.log_path.read_text(errors="replace")
    if limit.expired:
        why = f"took more than {producer.timeout_s:.0f} s"
        raise plan_failure(producer, why, producer_output, error=MissingToolError)
    # A consumer that goes early ends its producer by SIGPIPE; that one is not at fault.
    if producer_status not in (0, -signal.SIGPIPE):
        output = producer_output + consumer_output
        raise plan_failure(
            producer, _render_status(producer_status), output, error=MissingToolError
        )
    if consumer_status != 0:
        raise plan_failure(
            consumer, _render_status(consumer_status), consumer_output, error=MissingToolError
        )


#: Standard output and standard error.
OUTPUTS = (1, 2)


def find_unread() -> tuple[int, ...]:
    """Return which of OUTPUTS are pipes whose reader has closed them."""
    poll = select.poll()
    for descriptor in OUTPUTS:
        poll.register(descriptor, 0)
    return tuple(descriptor for descriptor, event in poll.poll(0) if event & select.POLLERR)


def drop_unwritable() -> None:
    """Write what is left of our output, and let the null device have it where that fails.

    What stays in a stream fails once more when the program ends, and changes its exit status.
    """
    failed = set(find_unread())
    for descriptor, stream in zip(OUTPUTS, (sys.stdout, sys.stderr), strict=True):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            failed.add(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in failed:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program the way Ctrl-C does: with everything cleaned up."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def run_interactive(command: Command) -> int:
    """Run a process on the caller's own terminal, without a limit; return its status."""
    with suppress(KeyboardInterrupt):
        return subprocess.run(
            command.argv,
            env=plan_environment(command, dict(os.environ)) | _terminal(),
            cwd=command.working_dir,
            check=False,
        ).returncode
    return 128 + signal.SIGINT


def _terminal() -> dict[str, str]:
    return {"TERM": os.environ.get("TERM", "dumb")}


def find_program(name: str) -> str | None:
    """Return the path of a program of the host, or None."""
    # Debian keeps some of what is needed where an ordinary user's PATH does not look.
    folders = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")
    return shutil.which(name, path=os.pathsep.join(folders))
