# SPDX-License-Identifier: GPL-2.0-only
"""The tests of a driver that has none of its own: what holds for every module.

The agent looks for faults of the kernel and for leaked objects by itself, in every cell.
"""

from collections.abc import Callable
from pathlib import Path

from twinmod.guest import devices as guest_devices
from twinmod.guest.testing import Module, log
from twinmod.guest.testing.usage import (
    find_kib_lost,
    find_lost,
    find_object_growth,
    read_shrunk_objects,
)

LOADS = 48
LOADS_LONG = 1000

# Of what each load lost an object, so many more would be in use; the rest of the system was seen
# to take 27 of one slab cache for a while.
OBJECTS_PER_LOAD = 0.8

# Between two loads whose devices are compared.
FEW_LOADS = 5


def read_state(module: Module) -> str:
    """Return what /proc/modules says of a module's state: Live, Loading, Unloading, or ""."""
    lines = Path("/proc/modules").read_text().splitlines()
    states = {line.split()[0]: line.split()[4] for line in lines}
    return states.get(module.name, "")


def test_it_is_live(module: Module) -> None:
    assert read_state(module) == "Live"
    assert module.is_loaded()


def test_it_unloads_and_loads_again(unloaded: Module) -> None:
    assert read_state(unloaded) == ""
    assert not unloaded.is_loaded()
    unloaded.load()
    assert read_state(unloaded) == "Live"


def test_it_says_nothing_that_is_an_error(unloaded: Module) -> None:
    with log.follow_records() as read_records:
        unloaded.load()
        unloaded.unload()
        records = read_records()
    errors = [r.text for r in records if r.facility == log.KERNEL and r.level <= log.ERROR]
    assert errors == []


def test_many_loads_leave_no_device_behind(
    unloaded: Module, mark_step: Callable[[], object]
) -> None:
    before = guest_devices.read_devices()
    for _ in range(FEW_LOADS):
        unloaded.load()
        unloaded.unload()
        mark_step()
    left = guest_devices.find_new(before)
    assert (left.nodes, left.class_devices) == ((), ())


def test_many_loads_leave_no_memory_behind(
    unloaded: Module, long_run: bool, mark_step: Callable[[], object]
) -> None:
    loads = LOADS_LONG if long_run else LOADS

    def load() -> None:
        for _ in range(loads):
            unloaded.load()
            unloaded.unload()
            mark_step()

    def measure(patience_s: float) -> dict[str, int]:
        objects = read_shrunk_objects()
        kib = find_kib_lost(load, patience_s)
        mark_step()
        return kib or find_object_growth(objects, int(OBJECTS_PER_LOAD * loads), patience_s)

    assert find_lost(measure) == {}
