# SPDX-License-Identifier: GPL-2.0-only
"""The device of one of the zoo's modules, as its tests use it."""

import ctypes
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twinmod.guest import child

_libc = ctypes.CDLL(None, use_errno=True)


class Device:
    """An open device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR)

    def ioctl(self, number: int, argument: int | bytearray = 0) -> int:
        """Return what the device's ioctl with a number returned."""
        return fcntl.ioctl(self.descriptor, (ord("z") << 8) | number, argument)

    def pread(self, count: int, offset: int) -> bytes:
        """Return up to some bytes at an offset."""
        return os.pread(self.descriptor, count, offset)

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write at an offset; return how many bytes the device took."""
        return os.pwrite(self.descriptor, data, offset)

    def write_from(self, address: int, count: int) -> int:
        """Write from an address that need not be ours."""
        done = _libc.write(self.descriptor, ctypes.c_void_p(address), ctypes.c_size_t(count))
        if done < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return int(done)

    @contextmanager
    def open_again(self) -> Iterator["Device"]:
        """Open the same device once more."""
        other = Device(self.path)
        try:
            yield other
        finally:
            os.close(other.descriptor)

    def in_parallel(self, work: Callable[[], None]) -> None:
        """Do some work in two processes at once: threads of Python wait for each other."""

        def run() -> int:
            work()
            return 0

        pid = child.fork(run)
        work()
        assert os.waitpid(pid, 0)[1] == 0
