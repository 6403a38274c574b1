# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, LENGTHS, OFFSETS, PAGE, SIZE, make_bytes
from twinmod.guest.testing.memory import NULL, Memory, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

OFFSET_MAX = (1 << 63) - 1


def position(device: "Device") -> int:
    """Return the file position, which this does not move."""
    return device.lseek(0, os.SEEK_CUR)


@pytest.mark.rule("R7")
def test_read_and_write_move_the_position(device: "Device") -> None:
    for offset in OFFSETS:
        for length in LENGTHS:
            device.lseek(offset, os.SEEK_SET)
            assert device.write(make_bytes(length)) == length
            assert position(device) == offset + length, f"wrote {length} at {offset}"
            device.lseek(offset, os.SEEK_SET)
            assert device.read(length) == make_bytes(length)
            assert position(device) == offset + length, f"read {length} at {offset}"


@pytest.mark.rule("R7")
def test_readv_and_writev_move_the_position(device: "Device") -> None:
    data = make_bytes(2 * PAGE + 8)
    pieces = [data[:3], data[3 : PAGE + 4], data[PAGE + 4 :]]
    device.lseek(PAGE - 1, os.SEEK_SET)
    assert os.writev(device.fd, pieces) == len(data)
    assert position(device) == PAGE - 1 + len(data)
    device.lseek(PAGE - 1, os.SEEK_SET)
    buffers = [bytearray(PAGE), bytearray(1), bytearray(len(data) - PAGE - 1)]
    assert os.readv(device.fd, buffers) == len(data)
    assert b"".join(buffers) == data
    assert position(device) == PAGE - 1 + len(data)


@pytest.mark.rule("R7")
def test_at_the_end_the_position_moves_by_what_was_moved(device: "Device") -> None:
    # How much is moved there is for R4 and R5 to say.
    for tail in (7, PAGE - 1, PAGE, PAGE + 1):
        start = SIZE - tail
        device.lseek(start, os.SEEK_SET)
        moved = device.write(bytes(2 * PAGE))
        assert 0 < moved < 2 * PAGE
        assert position(device) == start + moved, f"wrote {tail} bytes before the end"
        device.lseek(start, os.SEEK_SET)
        moved = len(device.read(2 * PAGE))
        assert 0 < moved < 2 * PAGE
        assert position(device) == start + moved, f"read {tail} bytes before the end"
    device.lseek(SIZE - 3, os.SEEK_SET)
    moved = os.writev(device.fd, [b"ab", b"cd"])
    assert position(device) == SIZE - 3 + moved


@pytest.mark.rule("R7")
def test_a_call_that_fails_does_not_move_the_position(device: "Device") -> None:
    for offset in (0, 1, PAGE, INNER - 1):
        device.lseek(offset, os.SEEK_SET)
        assert errno_of(device.read_to, NULL, PAGE) == errno.EFAULT
        assert position(device) == offset, f"after a read at {offset}"
        assert errno_of(device.write_from, NULL, PAGE) == errno.EFAULT
        assert position(device) == offset, f"after a write at {offset}"
    device.lseek(SIZE, os.SEEK_SET)
    assert errno_of(device.write, b"x") == errno.ENOSPC
    assert device.read(1) == b""
    assert position(device) == SIZE


@pytest.mark.rule("R7")
def test_calls_with_an_offset_leave_the_position(device: "Device") -> None:
    device.lseek(PAGE + 3, os.SEEK_SET)
    data = make_bytes(PAGE + 9)
    for offset in OFFSETS:
        assert device.pwrite(data, offset) == len(data)
        assert device.pread(len(data), offset) == data
        assert os.pwritev(device.fd, [data[:5], data[5:]], offset + 1) == len(data)
        buffers = [bytearray(PAGE), bytearray(9)]
        assert os.preadv(device.fd, buffers, offset + 1) == len(data)
        assert b"".join(buffers) == data, f"at {offset + 1}"
        assert position(device) == PAGE + 3, f"after calls at {offset}"


@pytest.mark.rule("R7")
def test_an_offset_that_cannot_be_is_invalid(device: "Device") -> None:
    for offset in (-1, -PAGE, -(1 << 63)):
        assert errno_of(device.pread, 1, offset) == errno.EINVAL, f"read at {offset}"
        assert errno_of(device.pwrite, b"x", offset) == errno.EINVAL, f"write at {offset}"
    memory = Memory(1)
    for offset in (OFFSET_MAX, OFFSET_MAX - PAGE + 1):
        code = errno_of(device.pread_to, memory.address, PAGE, offset)
        assert code == errno.EINVAL, f"read at {offset}"
        code = errno_of(device.pwrite_from, memory.address, PAGE, offset)
        assert code == errno.EINVAL, f"write at {offset}"
    assert device.pread_to(memory.address, PAGE, OFFSET_MAX - PAGE) == 0


@pytest.mark.rule("R7")
def test_each_open_file_has_its_own_position(device: "Device", open_device: "OpenDevice") -> None:
    device.lseek(PAGE, os.SEEK_SET)
    other = open_device()
    assert position(other) == 0
    other.read(5)
    assert (position(device), position(other)) == (PAGE, 5)
    shared = os.dup(device.fd)
    try:
        os.lseek(shared, 7, os.SEEK_SET)
        assert position(device) == 7
    finally:
        os.close(shared)


@pytest.mark.rule("R8")
def test_lseek_reaches_every_offset_up_to_the_end(device: "Device") -> None:
    for offset in (0, 1, PAGE - 1, PAGE, SIZE // 2 + 1, SIZE - 1, SIZE):
        assert device.lseek(offset, os.SEEK_SET) == offset
        assert device.lseek(0, os.SEEK_CUR) == offset
        assert device.lseek(-offset, os.SEEK_CUR) == 0
        assert device.lseek(offset, os.SEEK_CUR) == offset
        assert device.lseek(offset - SIZE, os.SEEK_END) == offset
        assert device.lseek(0, os.SEEK_CUR) == offset


@pytest.mark.rule("R8")
def test_lseek_decides_where_read_and_write_start(device: "Device") -> None:
    assert device.pwrite(make_bytes(INNER), 0) == INNER
    for offset in OFFSETS:
        device.lseek(offset - SIZE, os.SEEK_END)
        assert device.read(9) == make_bytes(INNER)[offset : offset + 9], f"at {offset}"
    device.lseek(PAGE - 1, os.SEEK_SET)
    assert device.write(b"xy") == 2
    assert device.pread(2, PAGE - 1) == b"xy"


@pytest.mark.rule("R8")
def test_lseek_outside_is_invalid_and_moves_nothing(device: "Device") -> None:
    for start in (0, PAGE + 1, SIZE):
        outside = (
            *((offset, os.SEEK_SET) for offset in (-1, SIZE + 1, 1 << 32, OFFSET_MAX, -(1 << 63))),
            *((offset, os.SEEK_CUR) for offset in (-start - 1, SIZE - start + 1, OFFSET_MAX)),
            *((offset, os.SEEK_END) for offset in (1, PAGE, -SIZE - 1, OFFSET_MAX, -(1 << 63))),
        )
        device.lseek(start, os.SEEK_SET)
        for offset, whence in outside:
            code = errno_of(device.lseek, offset, whence)
            assert code == errno.EINVAL, f"from {start}: {offset}, whence {whence}"
            assert position(device) == start, f"from {start}: {offset}, whence {whence}"


@pytest.mark.rule("R8")
def test_lseek_knows_three_kinds_of_whence(device: "Device") -> None:
    device.lseek(5, os.SEEK_SET)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE, 5, 99, -1):
        assert errno_of(device.lseek, 0, whence) == errno.EINVAL, f"whence {whence}"
        assert position(device) == 5, f"whence {whence}"
