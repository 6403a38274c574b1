# SPDX-License-Identifier: GPL-2.0-only
import mmap
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from children import PATIENCE_S, Child
from contract import PAGE, SIZE
from kmod import Module

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R12", "R20")

# A call over all of it takes a hundred times what it takes to kill a process.
PIECES = 64
LENGTH = PIECES * SIZE
# A kill may come too late, when this machine has something else to do; not each time.
KILLS = 5

# A call, and a look at whether it came to the first byte, and to the last one.
Call = Callable[["Device", mmap.mmap], object]
Look = Callable[["Device", mmap.mmap], tuple[bool, bool]]


def write(device: "Device", memory: mmap.mmap) -> None:
    os.pwritev(device.fd, [memoryview(memory)[:SIZE]] * PIECES, 0)


def written(device: "Device", memory: mmap.mmap) -> tuple[bool, bool]:
    del memory
    return device.pread(1, 0) != b"\0", device.pread(1, LENGTH - 1) != b"\0"


def clear(device: "Device", memory: mmap.mmap) -> None:
    del memory
    device.clear()


def cleared(device: "Device", memory: mmap.mmap) -> tuple[bool, bool]:
    first, last = written(device, memory)
    return not first, not last


def read(device: "Device", memory: mmap.mmap) -> None:
    view = memoryview(memory)
    os.preadv(device.fd, [view[:SIZE]] * (PIECES - 1) + [view[SIZE:]], 0)


def came(device: "Device", memory: mmap.mmap) -> tuple[bool, bool]:
    del device
    return memory[0] == 0x22, memory[-1] == 0x22


def kill_early(device: "Device", memory: mmap.mmap, call: "Call", look: "Look") -> bool:
    """Kill a process as soon as its call has begun; return whether it went on to its end."""

    def work(child: Child) -> None:
        child.tell()
        call(device, memory)
        signal.pause()

    child = Child(work)
    child.wait_for_word()
    deadline = time.monotonic() + PATIENCE_S
    while not look(device, memory)[0]:
        assert time.monotonic() < deadline, "the call did not begin"
    child.kill()
    return look(device, memory)[1]


@pytest.mark.parametrize(
    ("call", "look", "device_fill", "memory_fill"),
    [
        pytest.param(write, written, b"\0", b"\x11", id="write"),
        pytest.param(clear, cleared, b"\x11", b"\x11", id="CLEAR"),
        pytest.param(read, came, b"\x22", b"\x11", id="read"),
    ],
)
def test_a_long_call_that_is_killed_stops_on_its_way(
    unloaded: Module, open_device: "OpenDevice", call: "Call", look: "Look", device_fill: bytes,
    memory_fill: bytes,
) -> None:  # fmt: skip
    unloaded.load(f"size={LENGTH}")
    memory = mmap.mmap(-1, 2 * SIZE)
    with open_device() as device:
        ends: list[bool] = []
        while len(ends) < KILLS and all(ends):
            os.pwritev(device.fd, [device_fill * SIZE] * PIECES, 0)
            memory[:] = memory_fill * (2 * SIZE)
            ends.append(kill_early(device, memory, call, look))
        assert not all(ends), f"{len(ends)} calls of killed processes went on to their end"
        assert device.pwrite(b"usable", PAGE) == 6
        assert device.pread(6, PAGE) == b"usable"
