# SPDX-License-Identifier: GPL-2.0-only
"""User memory with addresses, some of them bad, for calls that take a raw address."""

import ctypes
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Bytes of a page.
PAGE = mmap.PAGESIZE

# Source: include/uapi/asm-generic/mman-common.h, Linux 7.3.
PROT_NONE = 0
PROT_READ = 1
PROT_WRITE = 2
MREMAP_MAYMOVE = 1
MADV_POPULATE_READ = 22

# Source: Documentation/admin-guide/mm/pagemap.rst, Linux 7.3: 8 bytes a page, the lower 55 bits of
# which are the number of its page frame.
PAGEMAP = Path("/proc/self/pagemap")
FRAME = (1 << 55) - 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.mmap.restype = ctypes.c_void_p
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
_libc.mremap.restype = ctypes.c_void_p
MAP_FAILED = ctypes.c_void_p(-1).value

# What no program can reach on x86_64: null, not canonical, the kernel's half, the very end.
NULL = 0
BAD_ADDRESSES = (NULL, 1, 1 << 47, 0xFFFF_8880_0000_0000, (1 << 64) - PAGE)


class Memory:
    """Whole pages of user memory, writable and readable until protect() says otherwise."""

    def __init__(self, pages: int, fill: int = 0, descriptor: int = -1) -> None:
        self.map = mmap.mmap(descriptor, pages * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        if fill:
            self.map[:] = bytes([fill]) * len(self.map)

    def protect(self, page: int, protection: int, pages: int = 1) -> None:
        """Take rights away from some pages; PROT_NONE makes each of their addresses bad."""
        start = self.address + page * PAGE
        assert _libc.mprotect(start, pages * PAGE, protection) == 0, "mprotect(2) failed"


class Mapping:
    """A mapping of a file; unlike Python's own, it does not keep the file open."""

    def __init__(
        self,
        descriptor: int,
        length: int,
        offset: int = 0,
        flags: int = mmap.MAP_SHARED,
        protection: int = PROT_READ | PROT_WRITE,
    ) -> None:
        address = _libc.mmap(None, length, protection, flags, descriptor, offset)
        _check(address != MAP_FAILED)
        self.address: int = address
        self.length = length
        # No part of it is touched by this.
        self._bytes = memoryview((ctypes.c_char * length).from_address(address)).cast("B")

    def __getitem__(self, part: slice) -> bytes:
        return self._bytes[part].tobytes()

    def __setitem__(self, part: slice, data: bytes) -> None:
        self._bytes[part] = data

    def protect(self, protection: int) -> None:
        """Change the rights to all of it."""
        _check(_libc.mprotect(self.address, self.length, protection) == 0)

    def grow(self, length: int) -> None:
        """Ask for a larger one, wherever there is room."""
        _check(_libc.mremap(self.address, self.length, length, MREMAP_MAYMOVE) != MAP_FAILED)

    def sync(self, flags: int) -> None:
        """Ask for what was stored to be written to a disk."""
        _check(_libc.msync(self.address, self.length, flags) == 0)

    def read_frames(self) -> frozenset[int]:
        """Return the numbers of the page frames that it shows; every page is touched."""
        _check(_libc.madvise(self.address, self.length, MADV_POPULATE_READ) == 0)
        with PAGEMAP.open("rb", buffering=0) as file:
            entries = os.pread(file.fileno(), self.length // PAGE * 8, self.address // PAGE * 8)
        # 0 for a page whose frame the kernel does not tell.
        return frozenset(entry & FRAME for entry in memoryview(entries).cast("Q")) - {0}

    def unmap(self) -> None:
        """Give it back; whoever touches it afterwards dies."""
        _check(_libc.munmap(self.address, self.length) == 0)


def _check(succeeded: bool) -> None:
    if not succeeded:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def errno_of(call: Callable[..., object], *arguments: Any) -> int:
    """Return the errno of a call, 0 when it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or 0
    return 0
