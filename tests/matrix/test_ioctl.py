# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from contract import INNER, IOC_ADD, IOC_CLEAR, IOC_SIZE, PAGE, SIZE, make_bytes
from memory import BAD_ADDRESSES, PROT_NONE, PROT_READ, Memory, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

pytestmark = pytest.mark.rule("R14")

# Beside the known ones: other numbers, sizes and directions; another driver's; a terminal's.
UNKNOWN = (0, 0xDC00, 0xDC02, 0xDCFF, 0x8004DC00, 0x4008DC00, 0xC008DC00, 0x8008DC01, 0x5401)


def test_the_tester_has_the_numbers_of_the_contract(tester: Any) -> None:
    assert tester.IOC_SIZE == IOC_SIZE
    assert tester.IOC_CLEAR == IOC_CLEAR
    assert tester.IOC_ADD == IOC_ADD


def test_size_stores_eight_bytes_and_no_more(device: "Device") -> None:
    memory = Memory(1, fill=0x5A)
    assert device.ioctl(IOC_SIZE, memory.address + 16) == 0
    assert int.from_bytes(memory.map[16:24], sys.byteorder) == SIZE
    assert memory.map[:16] == b"\x5a" * 16
    assert memory.map[24:] == b"\x5a" * (PAGE - 24)
    assert device.size() == SIZE


def test_size_to_a_bad_address_is_a_fault(device: "Device") -> None:
    memory = Memory(3, fill=0x5A)
    memory.protect(1, PROT_READ)
    memory.protect(2, PROT_NONE)
    addresses = (memory.address + PAGE, memory.address + 2 * PAGE, memory.address + PAGE - 4)
    for address in (*BAD_ADDRESSES, *addresses):
        assert errno_of(device.ioctl, IOC_SIZE, address) == errno.EFAULT, f"{address:#x}"
    assert memory.map[PAGE : 2 * PAGE] == b"\x5a" * PAGE


def test_clear_makes_every_byte_zero(device: "Device") -> None:
    device.pwrite(make_bytes(SIZE), 0)
    assert device.ioctl(IOC_CLEAR) == 0
    assert device.pread(SIZE, 0).strip(b"\0") == b""
    device.pwrite(make_bytes(PAGE), INNER)
    device.clear()
    assert device.pread(PAGE, INNER).strip(b"\0") == b""


def test_clear_ignores_its_argument(device: "Device") -> None:
    memory = Memory(1, fill=0x5A)
    for argument in (*BAD_ADDRESSES, memory.address, 1):
        assert device.pwrite(b"x", PAGE) == 1
        assert device.ioctl(IOC_CLEAR, argument) == 0, f"{argument:#x}"
        assert device.pread(1, PAGE) == b"\0", f"{argument:#x}"
    assert memory.map[:] == b"\x5a" * PAGE


def test_ioctls_leave_the_position(device: "Device") -> None:
    device.lseek(PAGE + 1, os.SEEK_SET)
    device.size()
    device.clear()
    assert device.lseek(0, os.SEEK_CUR) == PAGE + 1


def test_an_unknown_command_is_refused(device: "Device") -> None:
    memory = Memory(1, fill=0x5A)
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    for number in UNKNOWN:
        for argument in (0, memory.address):
            assert errno_of(device.ioctl, number, argument) == errno.ENOTTY, f"{number:#x}"
    assert memory.map[:] == b"\x5a" * PAGE
    assert device.pread(INNER, 0) == data
