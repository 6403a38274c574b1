# SPDX-License-Identifier: GPL-2.0-only
import errno
import fcntl
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from contract import (
    FIGETBSZ,
    FIOASYNC,
    FIOCLEX,
    FIONBIO,
    FIONCLEX,
    INNER,
    IOC_ADD,
    IOC_CLEAR,
    IOC_SIZE,
    PAGE,
    SIZE,
    make_bytes,
)
from twinmod.guest.testing.memory import BAD_ADDRESSES, PROT_NONE, PROT_READ, Memory, errno_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R14")

# Beside the known ones: other numbers, sizes and directions; another driver's; a terminal's.
UNKNOWN = (0, 0xDC00, 0xDC02, 0xDCFF, 0x8004DC00, 0x4008DC00, 0xC008DC00, 0x8008DC01, 0x5401)

# Those that the kernel has for files of some kinds only: FIBMAP, FIONREAD, FIOQSIZE, BLKGETSIZE64.
OTHER_FILES = (0x1, 0x541B, 0x5460, 0x80081272)

# By type and number, without size and direction: all that there can be.
PLAIN = 0x10000


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
    for number in UNKNOWN + OTHER_FILES:
        for argument in (0, memory.address):
            assert errno_of(device.ioctl, number, argument) == errno.ENOTTY, f"{number:#x}"
    assert memory.map[:] == b"\x5a" * PAGE
    assert device.pread(INNER, 0) == data


def test_the_kernel_answers_few_numbers_itself(device: "Device") -> None:
    answers = device.ioctls(0, PLAIN)
    known = {number: code for number, code in enumerate(answers) if code != errno.ENOTTY}
    assert known == {
        FIGETBSZ: errno.EFAULT,
        FIONBIO: errno.EFAULT,
        FIONCLEX: 0,
        FIOCLEX: 0,
        FIOASYNC: errno.EFAULT,
        IOC_CLEAR: 0,
    }


def test_close_on_exec_is_set_and_cleared(device: "Device") -> None:
    for _ in range(2):
        assert device.ioctl(FIONCLEX) == 0
        assert fcntl.fcntl(device.fd, fcntl.F_GETFD) == 0
        assert device.ioctl(FIOCLEX, BAD_ADDRESSES[1]) == 0
        assert fcntl.fcntl(device.fd, fcntl.F_GETFD) == fcntl.FD_CLOEXEC


def test_nonblock_is_set_and_cleared(device: "Device") -> None:
    memory = Memory(1)
    for on in (1, 0, 1):
        memory.map[:4] = on.to_bytes(4, sys.byteorder)
        assert device.ioctl(FIONBIO, memory.address) == 0
        assert bool(fcntl.fcntl(device.fd, fcntl.F_GETFL) & os.O_NONBLOCK) == bool(on)
    assert errno_of(device.pwrite, b"x", SIZE) == errno.ENOSPC


def test_async_cannot_be_changed(device: "Device", open_device: "OpenDevice") -> None:
    memory = Memory(1)
    memory.map[8] = 1
    off, on = memory.address, memory.address + 8
    for flag, kept, changed in ((0, off, on), (os.O_ASYNC, on, off)):
        other = open_device(os.O_RDWR | flag)
        assert other.ioctl(FIOASYNC, kept) == 0
        assert errno_of(other.ioctl, FIOASYNC, changed) == errno.ENOTTY
        assert fcntl.fcntl(other.fd, fcntl.F_GETFL) & os.O_ASYNC == flag
    # Accepted, without an effect.
    fcntl.fcntl(device.fd, fcntl.F_SETFL, os.O_ASYNC)
    assert fcntl.fcntl(device.fd, fcntl.F_GETFL) & os.O_ASYNC == 0


def test_the_file_system_tells_a_number_of_its_own(device: "Device") -> None:
    memory = Memory(1, fill=0x5A)
    assert device.ioctl(FIGETBSZ, memory.address + 8) == 0
    stored = int.from_bytes(memory.map[8:12], sys.byteorder)
    assert stored == os.statvfs(device.fd).f_bsize
    assert memory.map[:8] + memory.map[12:] == b"\x5a" * (PAGE - 4)


def test_no_command_asks_how_the_file_was_opened(
    device: "Device", open_device: "OpenDevice"
) -> None:
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY)):
        other = open_device(flags)
        assert other.size() == SIZE
        assert other.add(PAGE, 69) == 0
        assert device.pread(8, PAGE) == (69).to_bytes(8, sys.byteorder), f"open {number}"
        other.clear()
        assert device.pread(8, PAGE) == bytes(8), f"open {number}"
