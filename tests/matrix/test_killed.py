# SPDX-License-Identifier: GPL-2.0-only
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.absent import AbsentMemory, wait_for_touch
from twinmod.guest.testing.children import Child, endless
from twinmod.guest.testing.memory import Memory

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R20")

KILLS = 8
# A call of so many bytes is under way for long enough to be killed, at one of the attempts: what
# starts the process that kills may come late. How often the first page is looked at.
LONG = 16 * SIZE
ATTEMPTS = 20
PATIENCE = 100_000
PATTERNS = [bytes([value]) * INNER for value in (0x11, 0x22, 0x33)]


def test_a_killed_write_leaves_a_prefix_in_whole_pages(device: "Device") -> None:
    def write(number: int) -> None:
        device.pwrite(PATTERNS[number % 3], 0)

    for kill in range(KILLS):
        with endless(write):
            device.pread(kill * PAGE, 0)
        data = device.pread(INNER, 0)
        first, last = data[0], data[-1]
        written = data.count(first) if first != last else INNER
        assert written % PAGE == 0, f"kill {kill}: a page is half changed"
        assert data[:written] == bytes([first]) * written, f"kill {kill}"
        assert data[written:] == bytes([last]) * (INNER - written), f"kill {kill}"
        # What is written over what: each pattern after the one before it.
        assert first == last or first - last in (0x11, -0x22), f"kill {kill}"


def test_a_write_killed_between_two_pages_leaves_a_prefix(device: "Device") -> None:
    data = make_bytes(PAGE, seed=1)
    for offset in (0, 1, PAGE - 1, PAGE):
        old = make_bytes(4 * PAGE)
        assert device.pwrite(old, 0) == len(old)

        def write(child: Child, offset: int = offset) -> None:
            with AbsentMemory() as memory:
                memory.memory.map[:PAGE] = data
                child.tell(memory.descriptor)
                device.pwrite_from(memory.address - PAGE, 2 * PAGE, offset)

        child = Child(write)
        wait_for_touch(*child.wait_for_word())
        child.kill()
        came = device.pread(4 * PAGE, 0)
        new = bytearray(old)
        possible = [bytes(new)]
        for length in (PAGE - offset % PAGE, PAGE):
            new[offset : offset + length] = data[:length]
            possible.append(bytes(new))
        assert came in possible, f"at {offset}"


def is_stopped(call: Callable[[], object], look: Callable[[int], bytes]) -> bool:
    """Kill a process whose call has just changed the first page; tell if the last one is as it was.

    Args:
        call: Changes every page.
        look: Returns the page at an offset.
    """

    def work(child: Child) -> None:
        child.tell()
        call()
        signal.pause()

    before = look(0)
    child = Child(work)
    child.wait_for_word()
    assert any(look(0) != before for _ in range(PATIENCE)), "the call did not begin"
    child.kill()
    return look(LONG - PAGE) == before


@pytest.mark.rule("R12")
@pytest.mark.parametrize("name", ["read", "write", "CLEAR"])
def test_a_long_call_that_is_killed_stops_between_two_pages(
    unloaded: Module, open_device: "OpenDevice", mark_step: Callable[[], object], name: str
) -> None:
    unloaded.load(f"size={LONG}")
    memory = Memory(LONG // PAGE)
    full, empty = b"\x5a" * LONG, bytes(LONG)
    with open_device() as device:
        call, look = {
            "read": (
                lambda: device.pread_to(memory.address, LONG, 0),
                lambda offset: memory.map[offset : offset + PAGE],
            ),
            "write": (
                lambda: device.pwrite_from(memory.address, LONG, 0),
                lambda offset: device.pread(PAGE, offset),
            ),
            "CLEAR": (device.clear, lambda offset: device.pread(PAGE, offset)),
        }[name]
        for _ in range(ATTEMPTS):
            # Every page of the device and of the memory differ, or the device is not clear.
            device.clear()
            memory.map[:] = full
            if name != "write":
                device.pwrite_from(memory.address, LONG, 0)
                memory.map[:] = empty
            if is_stopped(call, look):
                return
            mark_step()
    raise AssertionError(f"{ATTEMPTS} times the call went on to its end")


@pytest.mark.parametrize(
    "step",
    [
        lambda device, _: device.pread(INNER, 0),
        lambda device, _: device.clear(),
        lambda device, _: device.add(0, 1),
        lambda device, number: device.pwrite(PATTERNS[number % 3], 0),
    ],
    ids=("read", "CLEAR", "ADD", "write"),
)
def test_a_device_whose_callers_were_killed_is_usable(
    device: "Device", step: "Callable[[Device, int], object]"
) -> None:
    for kill in range(4):
        with endless(lambda number: step(device, number)):
            device.pread(kill * PAGE, 0)
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    assert device.pread(INNER, 0) == data
    device.clear()
    assert device.add(0, 1) == 0
