# SPDX-License-Identifier: GPL-2.0-only
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract import IOC_ADD, IOC_CLEAR, IOC_SIZE, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.programs import run_lines

if TYPE_CHECKING:
    from mdriver_tester_c import Device

# A real 32-bit program, compat.m32.c, which lies compiled beside this file in the VM.
PROGRAM = Path(__file__).with_name("compat.m32")

# What the program puts where nothing is to be stored.
UNTOUCHED = hex(0x5A5A_5A5A_5A5A_5A5A)
DELTAS = (0xFEDC_BA98_7654_3210, 0x0123_4567_89AB_CDF0, 5)


def run(module: Module, part: str) -> list[str]:
    """Return what the 32-bit program says of a part of its work."""
    lines = run_lines(PROGRAM, str(module.device_path), part)
    if lines is None:
        pytest.skip("this kernel runs no 32-bit programs")
    return lines


@pytest.mark.rule("R14")
def test_a_32_bit_program_gets_the_same_answers(module: Module, device: "Device") -> None:
    data = make_bytes(SIZE)
    assert device.pwrite(data, 0) == SIZE
    sums = [int.from_bytes(data[8:16], sys.byteorder)]
    for delta in DELTAS:
        sums.append((sums[-1] + delta) % (1 << 64))
    assert run(module, "ioctl") == [
        "open 0",
        # The size of its argument, and bit 31 of its stack's address.
        f"numbers {IOC_SIZE:#x} {IOC_CLEAR:#x} {IOC_ADD:#x} 24 1",
        f"SIZE 0 {UNTOUCHED} {SIZE:#x} {UNTOUCHED}",
        f"SIZE to nowhere {-errno.EFAULT}",
        f"SIZE to a bad address {-errno.EFAULT}",
        f"SIZE to what is not writable {-errno.EFAULT}",
        f"ADD 0 0x8 {DELTAS[0]:#x} {sums[0]:#x}",
        f"ADD again 0 0x8 {DELTAS[1]:#x} {sums[1]:#x}",
        f"ADD between two numbers {-errno.EINVAL} 0xc 0x1 {UNTOUCHED}",
        f"ADD beyond 4 GiB {-errno.EINVAL} {(1 << 32) + 8:#x} 0x1 {UNTOUCHED}",
        f"ADD before the start {-errno.EINVAL} {(1 << 64) - 8:#x} 0x1 {UNTOUCHED}",
        f"ADD from nowhere {-errno.EFAULT}",
        f"ADD from a bad address {-errno.EFAULT}",
        f"ADD from a part {-errno.EFAULT}",
        f"ADD without a place for the answer {-errno.EFAULT}",
        f"ADD after it 0 0x8 0x0 {sums[3]:#x}",
        f"another driver's {-errno.ENOTTY}",
        f"SIZE of 4 bytes {-errno.ENOTTY}",
        "CLEAR 0",
        "ADD at last 0 0x10 0x4567 0x0",
    ]
    number = (0x4567).to_bytes(8, sys.byteorder)
    assert device.pread(SIZE, 0) == bytes(16) + number + bytes(SIZE - 24)


@pytest.mark.rule("R4", "R5", "R7", "R8", "R9")
def test_a_32_bit_program_moves_the_same_bytes(module: Module, device: "Device") -> None:
    model = bytearray(make_bytes(SIZE))
    assert device.pwrite(model, 0) == SIZE
    assert run(module, "move") == [
        "open 0",
        f"lseek {PAGE - 4}",
        "write 10",
        f"lseek to here {PAGE + 6}",
        f"llseek to the end 0 {SIZE:#x}",
        f"llseek beyond 4 GiB {-errno.EINVAL} {UNTOUCHED}",
        "read at the end 0",
        f"write at the end {-errno.ENOSPC}",
        "pread64 6",
        "thirty",
        "pread64 beyond 4 GiB 0",
        f"pwrite64 beyond 4 GiB {-errno.ENOSPC}",
        "pwrite64 6",
        f"lseek back {PAGE - 4}",
        "readv 7",
        "rty-",
        f"read to a bad address {-errno.EFAULT}",
        "read to a part 5",
        f"write from a bad address {-errno.EFAULT}",
        f"lseek to here {PAGE + 8}",
    ]
    model[PAGE - 4 : PAGE + 6] = b"thirty-two"
    model[2 * PAGE - 3 : 2 * PAGE + 3] = b"thirty"
    assert device.pread(SIZE, 0) == model
