# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
from typing import TYPE_CHECKING

import pytest

from contract import INNER, PAGE, make_bytes
from twinmod.guest.testing.memory import BAD_ADDRESSES, PROT_NONE, PROT_READ, Memory, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

pytestmark = pytest.mark.rule("R9")

PAGES = 6
FILL = b"\x5a"
# Where on the device, and how many bytes of the buffer come before the first bad one.
OFFSETS = (0, 1, PAGE - 3, PAGE, 5 * PAGE + 100)
GOOD = (1, 7, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 9, 3 * PAGE)


@pytest.fixture
def contents(device: "Device") -> bytes:
    """What the device holds: no two pages are equal."""
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    return data


def make_cliff(protection: int) -> Memory:
    """Return memory whose last three pages lack rights; the others are filled."""
    memory = Memory(PAGES, fill=FILL[0])
    memory.protect(3, protection, pages=3)
    return memory


def check_reads(device: "Device", contents: bytes, protection: int) -> None:
    """Read over the edge of a cliff, from many places to many distances before it."""
    memory = make_cliff(protection)
    edge = 3 * PAGE
    for offset in OFFSETS:
        for good in GOOD:
            case = f"{good} good bytes, device offset {offset}"
            memory.map[:edge] = FILL * edge
            moved = device.pread_to(memory.address + edge - good, good + PAGE, offset)
            assert moved == good, case
            assert memory.map[: edge - good] == FILL * (edge - good), case
            assert memory.map[edge - good : edge] == contents[offset : offset + good], case


def test_read_stops_at_memory_without_rights(device: "Device", contents: bytes) -> None:
    check_reads(device, contents, PROT_NONE)


def test_read_stops_at_memory_that_is_read_only(device: "Device", contents: bytes) -> None:
    check_reads(device, contents, PROT_READ)


def test_read_leaves_read_only_memory_as_it_is(device: "Device", contents: bytes) -> None:
    memory = make_cliff(PROT_READ)
    before = memory.map[:]
    for distance in (0, 1, PAGE - 1, PAGE):
        code = errno_of(device.pread_to, memory.address + 3 * PAGE + distance, 2 * PAGE, 0)
        assert code == errno.EFAULT, f"{distance} bytes into it"
    assert memory.map[:] == before
    assert device.pread(INNER, 0) == contents


def test_write_stops_at_memory_without_rights(device: "Device") -> None:
    memory = make_cliff(PROT_NONE)
    edge = 3 * PAGE
    data = make_bytes(edge)
    memory.map[:edge] = data
    for offset in OFFSETS:
        for good in GOOD:
            case = f"{good} good bytes, device offset {offset}"
            assert device.pwrite(FILL * (6 * PAGE), max(0, offset - PAGE)) == 6 * PAGE
            moved = device.pwrite_from(memory.address + edge - good, good + PAGE, offset)
            assert moved == good, case
            start = max(0, offset - PAGE)
            before = FILL * (offset - start)
            after = FILL * (6 * PAGE - len(before) - good)
            came = device.pread(6 * PAGE, start)
            assert came == before + data[edge - good :] + after, case


def test_a_hole_ends_a_call_though_good_memory_follows(device: "Device", contents: bytes) -> None:
    memory = Memory(5, fill=FILL[0])
    memory.protect(2, PROT_NONE)
    assert device.pread_to(memory.address + 1, 4 * PAGE, 3) == 2 * PAGE - 1
    assert memory.map[0:1] == FILL
    assert memory.map[1 : 2 * PAGE] == contents[3 : 2 * PAGE + 2]
    assert memory.map[3 * PAGE :] == FILL * (2 * PAGE)
    assert device.pwrite_from(memory.address + PAGE + 1, 3 * PAGE, INNER // 2) == PAGE - 1
    written = contents[PAGE + 3 : 2 * PAGE + 2]
    expected = contents[: INNER // 2] + written + contents[INNER // 2 + PAGE - 1 :]
    assert device.pread(INNER, 0) == expected


def test_an_address_that_is_bad_at_once_moves_nothing(device: "Device", contents: bytes) -> None:
    memory = Memory(2, fill=FILL[0])
    memory.protect(1, PROT_NONE)
    for address in (*BAD_ADDRESSES, memory.address + PAGE, memory.address + PAGE + 9):
        for size in (1, PAGE, 3 * PAGE):
            for offset in (0, PAGE - 1, INNER - 1):
                case = f"{size} bytes, address {address:#x}, offset {offset}"
                assert errno_of(device.pread_to, address, size, offset) == errno.EFAULT, case
                assert errno_of(device.pwrite_from, address, size, offset) == errno.EFAULT, case
    assert memory.map[:PAGE] == FILL * PAGE
    assert device.pread(INNER, 0) == contents


def test_the_position_moves_by_what_came_before_a_bad_address(device: "Device") -> None:
    memory = make_cliff(PROT_NONE)
    for good in (1, PAGE - 1, PAGE + 1):
        device.lseek(PAGE - 2, os.SEEK_SET)
        assert device.write_from(memory.address + 3 * PAGE - good, 2 * PAGE) == good
        assert device.lseek(0, os.SEEK_CUR) == PAGE - 2 + good
        assert device.read_to(memory.address + 3 * PAGE - good, 2 * PAGE) == good
        assert device.lseek(0, os.SEEK_CUR) == PAGE - 2 + 2 * good


def test_memory_beyond_the_end_of_a_mapped_file_is_bad(device: "Device", contents: bytes) -> None:
    descriptor = os.memfd_create("one page")
    try:
        os.ftruncate(descriptor, 2 * PAGE)
        memory = Memory(2, descriptor=descriptor)
        os.ftruncate(descriptor, PAGE)
    finally:
        os.close(descriptor)
    assert device.pread_to(memory.address + PAGE - 5, 2 * PAGE - 5, 11) == 5
    assert memory.map[PAGE - 5 : PAGE] == contents[11:16]
    assert device.pwrite_from(memory.address + PAGE - 5, 2 * PAGE - 5, 20) == 5
    assert device.pread(8, 18) == contents[18:20] + contents[11:16] + contents[25:26]
    assert errno_of(device.pread_to, memory.address + PAGE, 1, 0) == errno.EFAULT
    assert errno_of(device.pwrite_from, memory.address + PAGE, 1, 0) == errno.EFAULT


def test_read_waits_for_memory_that_was_never_touched(device: "Device", contents: bytes) -> None:
    for offset, size in ((0, PAGE), (PAGE - 1, 3 * PAGE), (1, 5 * PAGE + 7)):
        memory = Memory(PAGES)
        assert device.pread_to(memory.address + 5, size, offset) == size
        assert memory.map[5 : 5 + size] == contents[offset : offset + size], f"at {offset}"
        assert memory.map[5 + size :] == bytes(PAGES * PAGE - 5 - size), f"at {offset}"


def test_read_waits_for_one_absent_page_among_others(device: "Device", contents: bytes) -> None:
    memory = Memory(PAGES)
    memory.map[0] = memory.map[PAGE] = memory.map[3 * PAGE] = 1
    assert device.pread_to(memory.address + 9, 5 * PAGE, PAGE + 1) == 5 * PAGE
    assert memory.map[9 : 5 * PAGE + 9] == contents[PAGE + 1 : 6 * PAGE + 1]


def test_write_waits_for_memory_that_was_never_touched(device: "Device", contents: bytes) -> None:
    memory = Memory(PAGES)
    memory.map[2 * PAGE : 2 * PAGE + 4] = b"here"
    assert device.pwrite_from(memory.address, 3 * PAGE, PAGE - 1) == 3 * PAGE
    written = bytes(2 * PAGE) + b"here" + bytes(PAGE - 4)
    expected = contents[: PAGE - 1] + written + contents[4 * PAGE - 1 :]
    assert device.pread(INNER, 0) == expected


def test_memory_of_a_file_that_is_absent_is_waited_for(device: "Device", contents: bytes) -> None:
    descriptor = os.memfd_create("pages")
    try:
        os.pwrite(descriptor, make_bytes(2 * PAGE, seed=1), 0)
        memory = Memory(2, descriptor=descriptor)
        other = Memory(2, descriptor=descriptor)
    finally:
        os.close(descriptor)
    assert device.pwrite_from(memory.address + 3, PAGE + 5, 0) == PAGE + 5
    assert device.pread(PAGE + 5, 0) == make_bytes(2 * PAGE, seed=1)[3 : PAGE + 8]
    assert device.pread_to(other.address + 3, PAGE + 5, 2 * PAGE) == PAGE + 5
    assert memory.map[3 : PAGE + 8] == contents[2 * PAGE : 3 * PAGE + 5]


def test_readv_counts_the_buffers_before_a_bad_one(device: "Device", contents: bytes) -> None:
    for good in (1, PAGE - 1, PAGE, PAGE + 1):
        buffer, bad, after = bytearray(good), Memory(1), bytearray(9)
        bad.protect(0, PROT_NONE)
        assert os.preadv(device.fd, [buffer, bad.map, after], 3) == good
        assert buffer == contents[3 : 3 + good], f"{good} bytes"
        assert after == bytes(9), f"{good} bytes"


def test_writev_counts_the_buffers_before_a_bad_one(device: "Device", contents: bytes) -> None:
    model = bytearray(contents)
    for good in (1, PAGE - 1, PAGE, PAGE + 1):
        bad = Memory(1)
        bad.protect(0, PROT_NONE)
        assert os.pwritev(device.fd, [FILL * good, bad.map, b"after"], 3) == good
        model[3 : 3 + good] = FILL * good
        assert device.pread(INNER, 0) == model, f"{good} bytes"


def test_readv_waits_for_each_buffer_that_is_absent(device: "Device", contents: bytes) -> None:
    for first in (1, 100, PAGE - 1, PAGE + 100):
        present, absent, last = bytearray(first), Memory(2), bytearray(50)
        total = first + 2 * PAGE + 50
        assert os.preadv(device.fd, [present, absent.map, last], 7) == total
        assert present + absent.map[:] + last == contents[7 : 7 + total], f"{first} bytes first"
