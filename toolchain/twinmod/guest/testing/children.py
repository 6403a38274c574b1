# SPDX-License-Identifier: GPL-2.0-only
"""Child processes that call the device at the same time, and end when they are told to."""

import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from twinmod.guest import child as guest_child

# What a child may take to come so far; far more than it needs, and less than a test may take.
PATIENCE_S = 8

# Short, so that it is often over while another process is inside of a call.
PAUSE_S = 0.0001


class Child:
    """A process that runs a function, which can tell its parent how far it is."""

    def __init__(self, work: Callable[["Child"], object]) -> None:
        self._socket, theirs = socket.socketpair()

        def run() -> int:
            self._socket.close()
            self._socket = theirs
            work(self)
            return 0

        self.pid = guest_child.fork(run)
        theirs.close()
        self._socket.settimeout(PATIENCE_S)
        self._process = os.pidfd_open(self.pid)

    def tell(self, *descriptors: int) -> None:
        """Say to the parent that it is so far, and give it some descriptors."""
        socket.send_fds(self._socket, [b"!"], descriptors)

    def begin(self) -> None:
        """Let it go on from wait_to_begin()."""
        self._socket.send(b".")

    def wait_to_begin(self) -> None:
        """Wait, in the child, until its parent lets it begin."""
        assert self._socket.recv(1) == b"."

    def wait_for_word(self) -> list[int]:
        """Wait until the child says that it is so far; return the descriptors it gave."""
        word, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        assert word == b"!", "the child ended before it was so far"
        return list(descriptors)

    def kill(self) -> None:
        """End it with SIGKILL, and see that it goes."""
        signal.pidfd_send_signal(self._process, signal.SIGKILL)
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        gone = poll.poll(PATIENCE_S * 1000)
        assert gone, "SIGKILL does not end the process"
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._process)
        self._socket.close()
        assert status == -signal.SIGKILL, f"the child had ended with {status}"


class Endless(Child):
    """A process that calls a function with 0, 1, 2 and so on."""

    def __init__(self, step: Callable[[int], object]) -> None:
        self._steps = steps = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

        def work(child: Child) -> None:
            for number in count():
                step(number)
                steps[0] = number + 1
                if number == 0:
                    child.tell()

        super().__init__(work)

    @property
    def steps(self) -> int:
        """How many of its calls have returned."""
        return int(self._steps[0])

    def is_busy(self) -> bool:
        """Tell whether it has gone on since the block of endless() began."""
        return self.steps > 1


def rounds(enough: Callable[[], bool], least: int) -> Iterator[int]:
    """Count from 0 on: at least so far, and until there is enough, but not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    for number in count():
        if number >= least and (enough() or time.monotonic() > deadline):
            return
        yield number


@contextmanager
def endless(step: Callable[[int], object]) -> Iterator[Endless]:
    """Call a function in a child, with 0, 1, 2 and so on, until the block ends.

    The block begins after the first call.
    """
    child = Endless(step)
    try:
        child.wait_for_word()
        yield child
    finally:
        child.kill()


@contextmanager
def interrupting(step: Callable[[int], object]) -> Iterator[Endless]:
    """Call a function as endless() does, in a child that comes between what this process does.

    Both have one processor, and the child goes first whenever its pause is over: in the middle
    of a call of ours, or, while that holds a lock, as soon as it lets go of it. So what two
    processors would do within a moment of each other by chance, this does again and again.
    """

    def work(number: int) -> None:
        if number == 0:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        began = time.monotonic()
        step(number)
        # As long as the step at least: else this process would hardly run where steps are slow.
        time.sleep(max(PAUSE_S, time.monotonic() - began))

    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        with endless(work) as child:
            yield child
    finally:
        os.sched_setaffinity(0, processors)
