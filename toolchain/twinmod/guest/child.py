# SPDX-License-Identifier: GPL-2.0-only
"""A cell's work in a child that may never return."""

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


#: What a cell's process exits with after an exception.
BROKEN = 120


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

    def wait(self, stream: Stream, log: KernelLog, limit_s: float) -> int | GivenUp:
        """Return the child's exit status, or why it was not waited for any longer."""
        poll = select.poll()
        poll.register(self.marks, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        poll.register(log.descriptor, select.POLLIN)
        last_mark = last_beat = now = time.monotonic()
        while now - last_mark < limit_s:
            ready = dict(poll.poll(HEARTBEAT_S * 1000))
            if log.descriptor in ready and log.read() and log.has_fault():
                return GivenUp.FAULT
            if self.pidfd in ready:
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            now = time.monotonic()
            if self.marks in ready and os.read(self.marks, 4096):
                last_mark = now
            elif self.marks in ready:
                poll.unregister(self.marks)
            if now - last_beat >= HEARTBEAT_S:
                stream.emit(Alive())
                last_beat = now
        return GivenUp.STUCK


def _run_guarded(work: Callable[[int], int], marks: int) -> int:
    try:
        status = work(marks)
    except BaseException:
        traceback.print_exc()
        status = BROKEN
    # os._exit() writes nothing that is left.
    sys.stdout.flush()
    return status
