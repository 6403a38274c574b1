# SPDX-License-Identifier: GPL-2.0-only
"""User memory that is absent until a test provides it: who touches it stands still."""

import ctypes
import fcntl
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from twinmod.guest.testing.memory import PAGE, Memory

# Source: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/linux/userfaultfd.h, Linux 7.3.
NR_USERFAULTFD = 323
UFFD_API = 0xAA
UFFD_EVENT_PAGEFAULT = 0x12
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_COPY = 0xC028AA03
REGISTER_MODE_MISSING = 1
MESSAGE_SIZE = 32

# What a call may take to touch the memory; far more than it needs, and less than a test may take.
PATIENCE_MS = 8000

_libc = ctypes.CDLL(None, use_errno=True)


def wait_for_touch(descriptor: int) -> None:
    """Wait until somebody stands still on absent memory."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(PATIENCE_MS), "nobody touched the memory"
    message = os.read(descriptor, MESSAGE_SIZE)
    assert message[0] == UFFD_EVENT_PAGEFAULT


class AbsentMemory:
    """One page of user memory that is absent until provide(), after a page that is there."""

    def __init__(self) -> None:
        self.memory = Memory(2)
        self.memory.map[:PAGE] = bytes(PAGE)
        self.address = self.memory.address + PAGE
        self.arrived = False
        self.descriptor = _libc.syscall(
            ctypes.c_long(NR_USERFAULTFD), ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK)
        )
        assert self.descriptor >= 0, os.strerror(ctypes.get_errno())
        fcntl.ioctl(self.descriptor, UFFDIO_API, struct.pack("=QQQ", UFFD_API, 0, 0))
        argument = struct.pack("=QQQQ", self.address, PAGE, REGISTER_MODE_MISSING, 0)
        fcntl.ioctl(self.descriptor, UFFDIO_REGISTER, argument)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the kernel provide it, with zeros: who stands still goes on."""
        os.close(self.descriptor)

    def provide(self, data: bytes) -> None:
        """Let it arrive, with a page of data: who stands still goes on."""
        source = ctypes.create_string_buffer(data, PAGE)
        argument = struct.pack("=QQQQq", self.address, ctypes.addressof(source), PAGE, 0, 0)
        fcntl.ioctl(self.descriptor, UFFDIO_COPY, argument)
        self.arrived = True


@contextmanager
def standing_still(call: Callable[[int], object], name: str = "the call") -> Iterator[AbsentMemory]:
    """In the block, a thread stands still in a call; after it, it has gone on.

    Args:
        call: Is given the address of the absent page, and touches it.
        name: Of the call, for what the test says when it fails.
    """
    results = []
    with AbsentMemory() as memory:
        thread = threading.Thread(target=lambda: results.append(call(memory.address)))
        thread.start()
        wait_for_touch(memory.descriptor)
        yield memory
        assert memory.arrived or thread.is_alive(), f"{name} did not wait"
    thread.join(PATIENCE_MS / 1000)
    assert results, f"{name} did not go on"
