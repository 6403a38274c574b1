# SPDX-License-Identifier: GPL-2.0-only
import sys
import threading
from itertools import chain
from typing import TYPE_CHECKING, Literal

import pytest

from contract import PAGE, make_bytes

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    Method = Literal["lock", "add"]

START = 69

# How the threads count, and by which rule no increment is lost.
METHODS = pytest.mark.parametrize(
    "method",
    [
        pytest.param("lock", marks=pytest.mark.rule("R23")),
        pytest.param("add", marks=pytest.mark.rule("R24")),
    ],
)


@METHODS
def test_no_increment_is_lost(device: "Device", method: "Method") -> None:
    for threads, increments in ((1, 1), (2, 100), (4, 500)):
        count = device.count_up(threads, increments, method=method)
        assert count.target == START + threads * increments
        assert count.actual == count.target, f"{threads} threads, {increments} increments each"
        value = int.from_bytes(device.pread(8, 0), sys.byteorder)
        assert value == count.target, f"{threads} threads, {increments} increments each"


@METHODS
def test_counting_changes_eight_bytes_only(device: "Device", method: "Method") -> None:
    data = make_bytes(PAGE)
    assert device.pwrite(data, 0) == PAGE
    device.count_up(4, 50, method=method)
    assert device.pread(PAGE - 8, 8) == data[8:]


@METHODS
def test_a_carry_reaches_all_eight_bytes(device: "Device", method: "Method") -> None:
    count = device.count_up(2, 3, start=(1 << 56) - 3, method=method)
    assert count.actual == count.target == (1 << 56) + 3
    count = device.count_up(2, 3, start=(1 << 64) - 3, method=method)
    assert count.actual == count.target == 3


@pytest.mark.rule("R24")
def test_no_add_of_many_is_lost(device: "Device") -> None:
    # An ADD that is not atomic loses few, and of a few none.
    count = device.count_up(4, 20000, method="add")
    assert count.actual == count.target


@pytest.mark.rule("R24")
def test_each_number_is_the_one_before_of_one_add(device: "Device") -> None:
    threads, increments = 4, 200
    device.add(0, START)
    before: list[list[int]] = [[] for _ in range(threads)]

    def count(numbers: list[int]) -> None:
        numbers.extend(device.add(0, 1) for _ in range(increments))

    workers = [threading.Thread(target=count, args=(numbers,)) for numbers in before]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(numbers == sorted(numbers) for numbers in before)
    end = START + threads * increments
    assert sorted(chain(*before)) == list(range(START, end))
    assert device.add(0, 0) == end
