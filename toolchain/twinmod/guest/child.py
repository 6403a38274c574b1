# SPDX-License-Identifier: GPL-2.0-only
"""Work in child processes, one of which has a heartbeat: a cell's, which may never return."""

import os
import select
import sys
import time
import traceback
from collections.abc import Callable
from enum import StrEnum

from twinmod.guest.log import KernelLog
from twinmod.guest.protocol import Alive
from twinmod.guest.stream import Stream

HEARTBEAT_S = 1.0


class GivenUp(StrEnum):
    """Why a child was not waited for to its end."""

    # It made no step within the limit.
    STUCK = "stuck"
    # The kernel reported a fault.
    FAULT = "fault"


#: What a child exits with after an exception.
BROKEN = 120


def fork(work: Callable[[], int]) -> int:
    """Do some work in a child; return the child's process ID.

    The child exits with what the work returns, or with BROKEN after an exception, which it prints.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(_run_guarded(work))
    return pid


class Heartbeat:
    """What a process gives to the one that waits for it, at every step that it makes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def beat(self) -> None:
        """Make a step."""
        os.write(self.descriptor, b".")


class Child:
    """A forked child that does a cell's work, with a heartbeat."""

    def __init__(self, work: Callable[[Heartbeat], int]) -> None:
        read_end, write_end = os.pipe()

        def run() -> int:
            os.close(read_end)
            return work(Heartbeat(write_end))

        self.pid = fork(run)
        os.close(write_end)
        self.beats = read_end
        self.pidfd = os.pidfd_open(self.pid)

    def wait(self, stream: Stream, log: KernelLog, limit_s: float) -> int | GivenUp:
        """Return the child's exit status, or why it was not waited for any longer."""
        poll = select.poll()
        poll.register(self.beats, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        poll.register(log.descriptor, select.POLLIN)
        last_step = last_event = now = time.monotonic()
        while now - last_step < limit_s:
            ready = dict(poll.poll(HEARTBEAT_S * 1000))
            if log.descriptor in ready and log.read() and log.has_fault():
                return GivenUp.FAULT
            if self.pidfd in ready:
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            now = time.monotonic()
            if self.beats in ready and os.read(self.beats, 4096):
                last_step = now
            elif self.beats in ready:
                poll.unregister(self.beats)
            if now - last_event >= HEARTBEAT_S:
                stream.emit(Alive())
                last_event = now
        return GivenUp.STUCK


class Guard:
    """Waits for children whose work may never return.

    Args:
        stream: Told that the agent is alive.
        log: Of the kernel, whose faults end each wait.
        limit_s: What a child may take without a step.
    """

    def __init__(self, stream: Stream, log: KernelLog, limit_s: float) -> None:
        self.stream = stream
        self.log = log
        self.limit_s = limit_s
        # Of the last child.
        self.pid = 0

    def wait(self, work: Callable[[Heartbeat], int]) -> int | GivenUp:
        """Do some work in a child; return its exit status, or why nobody waits any longer."""
        child = Child(work)
        self.pid = child.pid
        return child.wait(self.stream, self.log, self.limit_s)

    def ask(self, work: Callable[[], str]) -> str | GivenUp:
        """Do some work in a child; return what it says, or why nobody waits any longer."""
        read_end, write_end = os.pipe()

        def say(_: Heartbeat) -> int:
            os.write(write_end, work().encode())
            return 0

        try:
            status = self.wait(say)
        finally:
            os.close(write_end)
        with os.fdopen(read_end, "rb") as said:
            if isinstance(status, GivenUp):
                return status
            return said.read().decode() if status == 0 else f"its process ended with {status}"


def _run_guarded(work: Callable[[], int]) -> int:
    try:
        status = work()
    except BaseException:
        traceback.print_exc()
        status = BROKEN
    # os._exit() writes nothing that is left.
    sys.stdout.flush()
    return status
