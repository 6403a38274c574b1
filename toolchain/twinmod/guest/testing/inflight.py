# SPDX-License-Identifier: GPL-2.0-only
"""Faults while a request is posted: its caller is killed, its driver goes, its reply is late.

A request is posted when its caller sleeps in the kernel for it.
"""

import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twinmod.guest.testing import hardware
from twinmod.guest.testing.children import PATIENCE_S, Child

#: What proc(5) says of a process that is in no system call.
NOT_CALLING = ("running", "-1")

#: How often a caller that sleeps is looked at, to believe that it sleeps until it is answered.
LOOKS = 10


class Caller(Child):
    """A process that makes one call and ends."""

    def __init__(self, call: Callable[[], object]) -> None:
        # Both processes have it.
        self._begun = begun = mmap.mmap(-1, mmap.PAGESIZE)

        def work(_: Child) -> None:
            begun[0] = 1
            call()

        super().__init__(work)
        # None while it runs.
        self.status: int | None = None
        self.killed = False

    def find_place(self) -> tuple[str, ...]:
        """Return where it sleeps in a system call of its call, () where it does not.

        It is another place when it has slept since.

        Raises:
            AssertionError: It ended.

        Source: proc_pid_syscall(5) and proc_pid_status(5).
        """
        assert self.read_status() is None, f"the caller did not wait; it ended with {self.status}"
        if not self._begun[0]:
            return ()
        folder = Path(f"/proc/{self.pid}")
        try:
            called = (folder / "syscall").read_text()
            status = (folder / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return ()
        slept = next(line for line in status if line.startswith("voluntary_ctxt_switches"))
        return () if called.split()[0] in NOT_CALLING else (called, slept)

    def kill(self) -> None:
        """End it with SIGKILL, in its call, and see that it goes."""
        self.status, self.killed = -signal.SIGKILL, True
        super().kill()

    def stop(self) -> None:
        """End it if it has not ended, and keep nothing open."""
        self._begun.close()
        if self.read_status() is None:
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
            self.wait_for_end()
        if not self.killed:
            os.close(self._process)
            self._socket.close()

    def read_status(self) -> int | None:
        """Return its exit status, negative for a signal, if it has ended; else None."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait_for_end(self) -> int:
        """Return its exit status: 0 when the call returned, 120 when it raised."""
        hardware.wait_until(lambda: self.read_status() is not None, "the end of the call")
        assert self.status is not None
        return self.status


@contextmanager
def posted(
    call: Callable[[], object], is_posted: Callable[[], bool] = lambda: True
) -> Iterator[Caller]:
    """In the block, another process is in a call, and its request is posted.

    When the block ends, the caller is killed, unless it was, or its call has returned.

    Args:
        call: Is made in a process of its own, once; it must sleep until somebody answers.
        is_posted: What must be so as well, as a register of the device that says that it is busy.
    """
    caller = Caller(call)
    try:
        hardware.wait_until(lambda: is_steady(caller) and is_posted(), "a posted request")
        yield caller
    finally:
        caller.stop()


def is_steady(caller: Caller) -> bool:
    """Tell whether a caller sleeps at one place of one system call, for as long as it is looked at.

    It sleeps on its way too, as for a page of a file; not for so long.
    """
    place = caller.find_place()
    for _ in range(LOOKS):
        time.sleep(hardware.POLL_S)
        if not place or caller.find_place() != place:
            return False
    return True


def finish(act: Callable[[], object], name: str, limit_s: float = PATIENCE_S) -> None:
    """Do something that may wait for a posted request, and see that it returns.

    Args:
        act: As an unbind or an unload.
        name: Of it, for what the test says when it fails.
        limit_s: How long it may take, in seconds.

    Raises:
        BaseException: What the act raised.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert not thread.is_alive(), f"{name} did not return within {limit_s:g} s"
    if raised:
        raise raised[0]


def reply_after_kill(device: Path, call: Callable[[], object]) -> int:
    """Kill a caller whose request is posted, and let the device's reply come after that.

    Args:
        device: The folder in sysfs of a device on PCI, which replies by an interrupt.
        call: Posts the request, and sleeps until the reply.

    Returns:
        How many interrupts came after the caller was gone: at least one.
    """
    with hardware.stalled(device):
        with posted(call) as caller:
            caller.kill()
        before = hardware.count_interrupts(device)
    hardware.wait_until(lambda: hardware.count_interrupts(device) > before, "the late reply")
    return hardware.count_interrupts(device) - before
