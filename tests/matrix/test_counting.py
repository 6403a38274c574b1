# SPDX-License-Identifier: GPL-2.0-only
import sys
from typing import TYPE_CHECKING

import pytest

from contract import PAGE, make_bytes

if TYPE_CHECKING:
    from mdriver_tester_c import Device

pytestmark = pytest.mark.rule("R23")

START = 69


def test_no_increment_is_lost(device: "Device") -> None:
    for threads, increments in ((1, 1), (2, 100), (4, 500)):
        count = device.count_up(threads, increments)
        assert count.target == START + threads * increments
        assert count.actual == count.target, f"{threads} threads, {increments} increments each"
        value = int.from_bytes(device.pread(8, 0), sys.byteorder)
        assert value == count.target, f"{threads} threads, {increments} increments each"


def test_counting_changes_eight_bytes_only(device: "Device") -> None:
    data = make_bytes(PAGE)
    assert device.pwrite(data, 0) == PAGE
    device.count_up(4, 50)
    assert device.pread(PAGE - 8, 8) == data[8:]


def test_a_carry_reaches_all_eight_bytes(device: "Device") -> None:
    count = device.count_up(2, 3, start=(1 << 56) - 3)
    assert count.actual == count.target == (1 << 56) + 3
    count = device.count_up(2, 3, start=(1 << 64) - 3)
    assert count.actual == count.target == 3
