# SPDX-License-Identifier: GPL-2.0-only
import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from calls import CALLS, standing_still
from contract import INNER, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.absent import AbsentMemory, wait_for_touch
from twinmod.guest.testing.children import Child, endless
from twinmod.guest.testing.usage import find_kib_lost, find_lost

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

# How many callers are killed that have a page of their own from the device, of those that read and
# of those that write: one lost by each is much more than TOLERATED_KIB.
KILLS = 64


def use(device: "Device", offset: int) -> None:
    """Make every call that there is, with success."""
    data = make_bytes(2 * PAGE)
    assert device.pwrite(data, offset) == len(data)
    assert device.pread(len(data), offset) == data
    before = device.add(offset, 1)
    assert device.add(offset, 1) == before + 1
    assert device.size() == SIZE


@pytest.mark.rule("R11")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_stands_still_does_not_stop_others_elsewhere(
    device: "Device", open_device: "OpenDevice", name: str
) -> None:
    with standing_still(device, name):
        # The same open file, another one, and another process.
        for other in (device, open_device()):
            use(other, PAGE)
            use(other, INNER - 2 * PAGE)
        with endless(lambda _: use(device, 5 * PAGE)):
            pass


@pytest.mark.rule("R11", "R12")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_stands_still_does_not_stop_others_on_its_page(
    device: "Device", open_device: "OpenDevice", name: str
) -> None:
    with standing_still(device, name):
        for other in (device, open_device()):
            use(other, 0)
            other.clear()
            assert other.pread(2 * PAGE, 0) == bytes(2 * PAGE)


@pytest.mark.rule("R12")
def test_several_may_stand_still_at_once(device: "Device") -> None:
    with (
        standing_still(device, "read"),
        standing_still(device, "write"),
        standing_still(device, "write"),
        standing_still(device, "ADD"),
    ):
        use(device, 0)


@pytest.mark.rule("R12")
def test_a_read_goes_on_when_the_page_arrives(device: "Device") -> None:
    data = make_bytes(PAGE)
    device.pwrite(data, 0)
    with standing_still(device, "read") as memory:
        memory.provide(b"\xa5" * PAGE)
    assert memory.memory.map[PAGE:] == data


@pytest.mark.rule("R12")
def test_a_write_goes_on_when_the_page_arrives(device: "Device") -> None:
    device.pwrite(b"\x11" * PAGE, 0)
    data = make_bytes(PAGE)
    with standing_still(device, "write") as memory:
        assert device.pread(PAGE, 0) == b"\x11" * PAGE, "written before it was there"
        memory.provide(data)
    assert device.pread(PAGE, 0) == data


@pytest.mark.rule("R10")
def test_a_write_that_stands_still_has_changed_nothing_of_its_page(device: "Device") -> None:
    device.pwrite(b"\x11" * PAGE, 0)
    with standing_still(device, "a write that begins well"):
        assert device.pread(PAGE, 0) == b"\x11" * PAGE


@pytest.mark.rule("R10")
def test_a_read_that_stands_still_returns_one_state_of_its_page(device: "Device") -> None:
    device.pwrite(b"\x11" * PAGE, 0)
    with standing_still(device, "a read that begins well") as memory:
        device.pwrite(b"\x22" * PAGE, 0)
        memory.provide(bytes(PAGE))
    data = memory.memory.map[PAGE - 9 : 2 * PAGE - 9]
    assert data in (b"\x11" * PAGE, b"\x22" * PAGE)


def stand_still(device: "Device", name: str) -> Child:
    """Return a process that stands still in a call, and stays there."""

    def work(child: Child) -> None:
        with AbsentMemory() as memory:
            child.tell(memory.descriptor)
            CALLS[name](device, memory.address)

    child = Child(work)
    (descriptor,) = child.wait_for_word()
    wait_for_touch(descriptor)
    os.close(descriptor)
    return child


def stand_still_often(device: "Device", name: str, child: Child) -> None:
    """Stand still in many calls at once, each of them a thread's."""
    with ExitStack() as stack:
        memories = [stack.enter_context(AbsentMemory()) for _ in range(KILLS)]
        for memory in memories:
            threading.Thread(target=CALLS[name], args=(device, memory.address)).start()
        for memory in memories:
            wait_for_touch(memory.descriptor)
        child.tell()
        signal.pause()


@pytest.mark.rule("R12", "R20")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_stands_still_can_be_killed(device: "Device", name: str) -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    stand_still(device, name).kill()
    # Of a write that began well, the nine bytes that were there.
    assert device.pread(INNER, 0) in (data, bytes(9) + data[9:])
    use(device, 0)


@pytest.mark.rule("R20")
def test_a_killed_caller_does_not_hold_the_module(
    unloaded: Module, open_device: "OpenDevice"
) -> None:
    for name in ("read", "write", "ADD"):
        unloaded.load()
        with open_device() as device:
            stand_still(device, name).kill()
        unloaded.unload()


@pytest.mark.rule("R20")
def test_killed_callers_lose_no_page(device: "Device", mark_step: Callable[[], object]) -> None:
    def kill() -> None:
        for name in ("read", "write"):
            child = Child(partial(stand_still_often, device, name))
            child.wait_for_word()
            child.kill()
            mark_step()

    assert find_lost(partial(find_kib_lost, kill)) == {}
