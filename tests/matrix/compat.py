# SPDX-License-Identifier: GPL-2.0-only
"""An ioctl(2) as a 32-bit program makes it, from a 64-bit one."""

import ctypes
import mmap
import os
import signal

from contract import PAGE

# Source: arch/x86/entry/syscalls/syscall_32.tbl and include/uapi/asm-generic/mman.h, Linux 7.3.
NR_IOCTL = 54
MAP_32BIT = 0x40

# int ioctl32(int fd, unsigned request, unsigned argument), by the 64-bit calling convention.
CODE = bytes.fromhex(
    "53"  # push %rbx
    "89fb"  # mov %edi, %ebx: the descriptor
    "89f1"  # mov %esi, %ecx: the request; the argument is in %edx already
    f"b8{NR_IOCTL:02x}000000"  # mov $54, %eax
    "cd80"  # int $0x80: the 32-bit entry
    "5b"  # pop %rbx
    "c3"  # ret
)


def make_low_memory() -> tuple[mmap.mmap, int]:
    """Return a page that a 32-bit address reaches, shared with children, and that address."""
    memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_32BIT)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def ioctl32(descriptor: int, request: int, argument: int) -> int | None:
    """Make the call in a child; return its errno, 0 when it succeeds.

    None: this kernel runs no 32-bit programs.
    """
    child = os.fork()
    if child == 0:
        code = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(CODE)
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
        call = prototype(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        os._exit(-call(descriptor, request, argument))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if status == -signal.SIGSEGV else status
