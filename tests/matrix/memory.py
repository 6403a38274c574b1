# SPDX-License-Identifier: GPL-2.0-only
"""User memory with addresses, some of them bad, for calls that take a raw address."""

import ctypes
import mmap
from collections.abc import Callable
from typing import Any

from contract import PAGE

# Source: include/uapi/asm-generic/mman-common.h, Linux 7.3.
PROT_NONE = 0
PROT_READ = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

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


def errno_of(call: Callable[..., object], *arguments: Any) -> int:
    """Return the errno of a call, 0 when it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or 0
    return 0
