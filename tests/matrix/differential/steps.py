# SPDX-License-Identifier: GPL-2.0-only
"""What the model and the devices have in common: steps, answers, and the data that they name.

A step is a name and its arguments, numbers only, so that it fits on a line of text and means the
same to everybody who carries it out. An answer is what a program can see of a step.
"""

import zlib
from collections.abc import Mapping
from random import Random
from typing import Any, TypedDict

from contract import PAGE, SIZE

Arguments = Mapping[str, Any]

# (name, arguments)
Step = tuple[str, Arguments]

# (result, errno, file position, what was read): the result is -1 where there is an errno; the
# position is -1 for a step that names no file; see tell().
Answer = tuple[int, int, int, str]


class Rights(TypedDict):
    """What a mapping is made with."""

    private: bool
    writable: bool


# Descriptors that are open at all times; mappings that there can be at once.
FILES = 3
MAPPINGS = 2

# What a pipe holds, and so what one splice can move.
PIPE = 16 * PAGE

# A buffer at a cliff: pages that are there, then pages that lack rights.
CLIFF_PAGES = 3
CLIFF = CLIFF_PAGES * PAGE

SEEDS = 4096
_POOL = Random(69).randbytes(SIZE + 4 * PAGE + SEEDS)  # noqa: S311 - not a secret


def make_data(seed: int, size: int) -> bytes:
    """Return bytes to write: other ones for each seed below SEEDS."""
    return _POOL[seed : seed + size]


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    """Return data cut into parts."""
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return parts


def tell(data: bytes | bytearray | memoryview) -> str:
    """Return bytes as an answer has them: all of a few, of many their number and checksum."""
    if len(data) <= 16:
        return bytes(data).hex()
    return f"{len(data)} bytes, crc32 {zlib.crc32(data):08x}"
