# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from contract import INNER, IOC_ADD, PAGE, SIZE, make_bytes
from twinmod.guest.testing.memory import BAD_ADDRESSES, PROT_NONE, PROT_READ, Memory, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

pytestmark = pytest.mark.rule("R14")

# struct mdriver_add: offset, delta, before.
ADD = struct.Struct("=QQQ")
MODULUS = 1 << 64

OFFSETS = (0, 8, PAGE - 8, PAGE, SIZE // 2 + 16, INNER - 8)
DELTAS = (0, 1, 0x0123_4567_89AB_CDEF, 1 << 63, MODULUS - 1)
# Not aligned; at the end and beyond; where a sum of 64 bits would come around to the start.
REFUSED = (
    *(1, 4, 7, PAGE - 4, PAGE + 1, SIZE - 7, SIZE - 1),
    *(SIZE, SIZE + 8, SIZE + PAGE, 1 << 32, 1 << 63, MODULUS - PAGE, MODULUS - 8, MODULUS - 1),
)


def number_at(device: "Device", offset: int) -> int:
    """Return the 8 bytes at an offset as a number."""
    return int.from_bytes(device.pread(8, offset), sys.byteorder)


def test_add_adds_and_returns_the_number_before(device: "Device") -> None:
    model = bytearray(make_bytes(INNER))
    assert device.pwrite(model, 0) == INNER
    for offset in OFFSETS:
        for delta in DELTAS:
            before = int.from_bytes(model[offset : offset + 8], sys.byteorder)
            assert device.add(offset, delta) == before, f"{delta:#x} at {offset}"
            after = (before + delta) % MODULUS
            model[offset : offset + 8] = after.to_bytes(8, sys.byteorder)
        assert device.pread(INNER, 0) == model, f"after the last at {offset}"


def test_add_wraps_around(device: "Device") -> None:
    device.pwrite(b"\xff" * 8 + b"\x5a" * 8, 0)
    assert device.add(0, 1) == MODULUS - 1
    assert device.add(0, MODULUS - 1) == 0
    assert device.add(0, 2) == MODULUS - 1
    assert number_at(device, 0) == 1
    assert device.pread(8, 8) == b"\x5a" * 8, "the carry went beyond the number"


def test_add_reaches_the_last_eight_bytes(device: "Device") -> None:
    assert device.add(SIZE - 8, 69) == 0
    assert device.add(SIZE - 8, 1) == 69
    assert number_at(device, SIZE - 8) == 70


def test_add_writes_its_answer_and_no_more(device: "Device") -> None:
    device.add(PAGE, 5)
    for start in (16, 17, PAGE - ADD.size, PAGE - 12, PAGE - 4):
        memory = Memory(2, fill=0x5A)
        memory.map[start : start + ADD.size] = ADD.pack(PAGE, 3, MODULUS - 1)
        before = number_at(device, PAGE)
        assert device.ioctl(IOC_ADD, memory.address + start) == 0
        assert memory.map[start : start + ADD.size] == ADD.pack(PAGE, 3, before)
        assert memory.map[:start].strip(b"\x5a") == b""
        assert memory.map[start + ADD.size :].strip(b"\x5a") == b""
        assert number_at(device, PAGE) == before + 3


def test_add_outside_and_between_is_invalid(device: "Device") -> None:
    data = make_bytes(SIZE)
    assert device.pwrite(data, 0) == SIZE
    memory = Memory(1)
    for offset in REFUSED:
        argument = ADD.pack(offset, 1, 0x5A)
        memory.map[: ADD.size] = argument
        code = errno_of(device.ioctl, IOC_ADD, memory.address)
        assert code == errno.EINVAL, f"at {offset:#x}"
        assert memory.map[: ADD.size] == argument, f"at {offset:#x}"
    assert device.pread(SIZE, 0) == data


def test_add_from_a_bad_address_adds_nothing(device: "Device") -> None:
    memory = Memory(2)
    # An offset and a delta: all that is asked, where there is no place for the answer.
    memory.map[PAGE - 16 : PAGE] = ADD.pack(0, 1, 0)[:16]
    memory.protect(1, PROT_NONE)
    edge = memory.address + PAGE
    for address in (*BAD_ADDRESSES, edge, edge - 8, edge - 16, edge - ADD.size + 1):
        assert errno_of(device.ioctl, IOC_ADD, address) == errno.EFAULT, f"{address:#x}"
    assert device.pread(PAGE, 0) == bytes(PAGE)


def test_add_stays_added_when_the_answer_cannot_be_written(device: "Device") -> None:
    memory = Memory(2)
    edge = PAGE
    memory.map[edge : edge + ADD.size] = ADD.pack(8, 5, 0x5A)
    memory.protect(1, PROT_READ)
    assert errno_of(device.ioctl, IOC_ADD, memory.address + edge) == errno.EFAULT
    assert number_at(device, 8) == 5
    assert memory.map[edge : edge + ADD.size] == ADD.pack(8, 5, 0x5A)
    assert errno_of(device.ioctl, IOC_ADD, memory.address + edge) == errno.EFAULT
    assert number_at(device, 8) == 10


def test_add_leaves_the_position(device: "Device") -> None:
    device.lseek(PAGE + 1, os.SEEK_SET)
    device.add(0, 1)
    assert errno_of(device.add, 1, 1) == errno.EINVAL
    assert device.lseek(0, os.SEEK_CUR) == PAGE + 1


def test_add_writes_to_the_last_eight_bytes_alone(device: "Device") -> None:
    memory = Memory(2)
    start = PAGE - 16
    memory.map[start : start + ADD.size] = ADD.pack(8, 5, 0x5A)
    memory.protect(0, PROT_READ)
    device.add(8, 69)
    assert device.ioctl(IOC_ADD, memory.address + start) == 0
    assert memory.map[start : start + ADD.size] == ADD.pack(8, 5, 69)
