# SPDX-License-Identifier: GPL-2.0-only
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import PAGE
from twinmod.guest.testing.children import endless, interrupting, rounds
from twinmod.guest.testing.memory import Memory

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]
    Write = Callable[[Device, int], object]
    Read = Callable[[Device], bytes]

pytestmark = pytest.mark.rule("R10")

PAGES = 32
LENGTH = PAGES * PAGE
READS = 120
# Each of them is interrupted hundreds of times, and a fault of R10 shows in each.
INTERRUPTED_READS = 4

VALUES = (0x11, 0x22, 0x33, 0x44)
PATTERNS = [bytes([value]) * LENGTH for value in VALUES]
# Where the parts of two pages begin that are written by one each; the last one ends with them.
SLOTS = (0, 1001, PAGE - 3, PAGE + 1500, 2 * PAGE)
# No piece begins or ends with a page.
PIECE = PAGE // 2 + 5


def pieces(data: bytes) -> list[bytes]:
    """Return data in many pieces."""
    return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]


PIECES = [pieces(pattern) for pattern in PATTERNS]


def write_at_once(device: "Device", number: int) -> None:
    device.pwrite(PATTERNS[number % 4], 0)


def write_one_page(device: "Device", number: int) -> None:
    device.pwrite(PATTERNS[number % 4][:PAGE], 0)


def write_pieces(device: "Device", number: int) -> None:
    os.pwritev(device.fd, PIECES[number % 4], 0)


def write_and_clear(device: "Device", number: int) -> None:
    if number % 2:
        device.clear()
    else:
        device.pwrite(PATTERNS[0], 0)


def read_at_once(device: "Device") -> bytes:
    return device.pread(LENGTH, 0)


def read_pieces(device: "Device") -> bytes:
    buffers = [bytearray(piece) for piece in PIECES[0]]
    assert os.preadv(device.fd, buffers, 0) == LENGTH
    return b"".join(buffers)


def read_to_absent_memory(device: "Device") -> bytes:
    memory = Memory(PAGES)
    assert device.pread_to(memory.address, LENGTH, 0) == LENGTH
    return memory.map[:]


def read_to_half_absent_memory(device: "Device") -> bytes:
    memory = Memory(PAGES)
    came = b""
    for start in range(0, LENGTH, PAGE):
        # Two buffers: without a fault, the kernel copies to one whole or not at all.
        present, absent = bytearray(PAGE // 2), memoryview(memory.map)[start : start + PAGE // 2]
        assert os.preadv(device.fd, [present, absent], 0) == PAGE
        came += present + absent
    return came


def count_torn(data: bytes, unit: int) -> int:
    """Return how many units of data hold more than one value."""
    return sum(
        data[start : start + unit] != data[start : start + 1] * unit
        for start in range(0, len(data), unit)
    )


def differ(seen: set[int]) -> Callable[[], bool]:
    """Return what tells whether several values were seen: somebody wrote meanwhile."""
    return lambda: len(seen) > 1


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (write_at_once, read_at_once),
        (write_pieces, read_pieces),
        (write_at_once, read_to_absent_memory),
        (write_and_clear, read_at_once),
    ],
)
def test_no_read_sees_a_part_of_a_page_written(
    device: "Device", open_device: "OpenDevice", write: "Write", read: "Read"
) -> None:
    seen: set[int] = set()
    # Another open file: what is atomic is a page, whoever has it open.
    other = open_device()
    with endless(lambda number: write(other, number)):
        for _ in rounds(differ(seen), READS):
            data = read(device)
            assert count_torn(data, PAGE) == 0
            seen.add(data[0])
    assert len(seen) > 1, "nothing was written meanwhile"


def test_a_read_whose_buffer_is_half_absent_sees_one_state_of_a_page(
    device: "Device", mark_step: Callable[[], object]
) -> None:
    seen: set[int] = set()
    with interrupting(lambda number: write_one_page(device, number)):
        for _ in rounds(differ(seen), INTERRUPTED_READS):
            data = read_to_half_absent_memory(device)
            assert count_torn(data, PAGE) == 0
            seen.add(data[0])
            mark_step()
    assert len(seen) > 1, "nothing was written meanwhile"


def test_no_write_lands_inside_another(device: "Device") -> None:
    with endless(lambda number: write_at_once(device, number)) as other:
        for number in rounds(other.is_busy, READS):
            write_pieces(device, number + 2)
            assert count_torn(device.pread(LENGTH, 0), PAGE) == 0
    assert other.is_busy(), "nothing was written meanwhile"


def test_no_read_sees_half_of_eight_bytes(device: "Device") -> None:
    offset = 3 * PAGE - 16
    seen: set[int] = set()
    with endless(lambda number: device.pwrite(PATTERNS[number % 4][:8], offset)):
        for _ in rounds(differ(seen), READS):
            data = device.pread(24, offset - 8)
            assert data[:8] == data[16:] == bytes(8)
            assert count_torn(data[8:16], 8) == 0
            seen.add(data[8])
    assert len(seen) > 1, "nothing was written meanwhile"


def test_no_call_comes_into_an_add(device: "Device", open_device: "OpenDevice") -> None:
    another = open_device()
    with endless(lambda number: another.pwrite(PATTERNS[number % 4][:PAGE], 0)) as other:
        for number in rounds(other.is_busy, 5 * READS):
            before = device.add(8 * number % PAGE, 0)
            assert before % int.from_bytes(b"\x11" * 8) == 0, "half of a number"
            assert count_torn(device.pread(PAGE, 0), PAGE) == 0, "an old number came back"
    assert other.is_busy(), "nothing was written meanwhile"


def keep_a_slot(device: "Device", slot: int, number: int) -> None:
    """Write a part of two pages, in which others write the other parts, and find it as written."""
    start, end = SLOTS[slot : slot + 2]
    data = bytes([number % 255 + 1]) * (end - start)
    assert device.pwrite(data, start) == len(data)
    assert device.pread(len(data), start) == data, f"slot {slot} is not as it was written"


def test_neighbours_do_not_write_over_each_other(
    device: "Device", open_device: "OpenDevice"
) -> None:
    other = open_device()
    done = []

    def keep(slot: int) -> None:
        for number in range(READS):
            keep_a_slot(device, slot, number)
        done.append(slot)

    # Two processes, each with an open file of its own, and two threads that share one.
    with (
        endless(lambda number: keep_a_slot(device, 0, number)),
        endless(lambda number: keep_a_slot(other, 1, number)),
    ):
        thread = threading.Thread(target=keep, args=(2,))
        thread.start()
        keep(3)
        thread.join()
    assert sorted(done) == [2, 3]
