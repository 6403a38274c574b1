# SPDX-License-Identifier: GPL-2.0-only
import mmap
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest

from contract import PAGE, make_bytes
from twinmod.guest.testing.children import Child, interrupting

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    Method = Literal["lock", "add"]

START = 69

# After so many interruptions, or so many numbers of its own, a process has met an ADD that gives a
# number twice. It is interrupted once in two to ten of its calls.
INTERRUPTIONS = 1500
ADDS = 10000

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
    count = device.count_up(4, 50000, method="add")
    assert count.actual == count.target


@pytest.mark.rule("R24")
def test_each_number_is_the_one_before_of_one_add(device: "Device") -> None:
    # Processes: the threads of one Python take turns, and two of their calls hardly ever meet.
    processes, increments = 3, 2000
    device.add(0, START)
    memory = mmap.mmap(-1, processes * increments * 8)
    numbers = memoryview(memory).cast("Q")

    def count(child: Child, first: int) -> None:
        child.wait_to_begin()
        for index in range(first, first + increments):
            numbers[index] = device.add(0, 1)
        child.tell()
        signal.pause()

    children = [Child(partial(count, first=process * increments)) for process in range(processes)]
    for child in children:
        child.begin()
    for child in children:
        child.wait_for_word()
        child.kill()
    before = numbers.tolist()
    for first in range(0, len(before), increments):
        own = before[first : first + increments]
        assert own == sorted(own)
    end = START + processes * increments
    assert sorted(before) == list(range(START, end))
    assert device.add(0, 0) == end


@pytest.mark.rule("R24")
def test_no_number_is_the_one_before_of_two_adds(device: "Device") -> None:
    numbers = memoryview(mmap.mmap(-1, ADDS * 8)).cast("Q")
    device.add(0, START)

    def add(number: int) -> None:
        before = device.add(0, 1)
        if number < ADDS:
            numbers[number] = before

    own: list[int] = []
    with interrupting(add) as other:
        # How often a host lets the two take turns is up to the host: what counts is how often.
        while other.steps < INTERRUPTIONS and len(own) < ADDS:
            own.append(device.add(0, 1))
    before = own + [number for number in numbers if number]
    assert len(before) > len(own), "nobody else added"
    assert len(set(before)) == len(before)
