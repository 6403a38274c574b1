# SPDX-License-Identifier: GPL-2.0-only
"""The figures of DEVICE.md, each of them once, and bytes at its boundaries."""

from functools import cache
from random import Random

# R2: the parameter `size`, in bytes.
PAGE = 4096
SIZE_MIN = 4096
SIZE_MAX = 1 << 30
SIZE = 1 << 20

# R14: the ioctl numbers.
IOC_SIZE = 0x8008DC00
IOC_CLEAR = 0x0000DC01
IOC_ADD = 0xC018DC02

# R14: ioctl numbers that the kernel answers itself. Source: include/uapi/linux/fs.h and
# include/uapi/asm-generic/ioctls.h, Linux 7.3.
FIGETBSZ = 0x2
FIONBIO = 0x5421
FIONCLEX = 0x5450
FIOCLEX = 0x5451
FIOASYNC = 0x5452

# R22: what a module says of itself, beside what the kernel's build adds.
MODINFO = {
    "author": ["The twinmod authors"],
    "depends": [""],
    "description": ["twinmod memory driver"],
    "license": ["GPL"],
    "parm": [
        f"size:bytes of memory: whole pages, {SIZE_MIN} to {SIZE_MAX} (default {SIZE})",
    ],
    "parmtype": ["size:u64"],
}

# All but the last page. Tests of other rules than those of the end stay in it, so that a fault at
# the end fails the rules that it breaks, and no others.
INNER = SIZE - PAGE

# Lengths around one page and two, and offsets around the pages' borders and the end.
LENGTHS = (1, 7, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 1)
OFFSETS = (0, 1, PAGE - 1, PAGE, PAGE + 1, SIZE // 2 + 5, INNER - 2 * PAGE - 1)
BEYOND = (SIZE, SIZE + 1, SIZE + PAGE, 2 * SIZE, 1 << 32, (1 << 63) - 1 - 2 * SIZE)


@cache
def make_bytes(length: int, seed: int = 0) -> bytes:
    """Return bytes with no pattern that a misplaced page could hide in; equal for equal seeds."""
    return Random(seed).randbytes(length)  # noqa: S311 - not a secret
