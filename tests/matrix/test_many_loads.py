# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract import PAGE, SIZE
from twinmod.guest.testing import Module
from twinmod.guest.testing.memory import Mapping
from twinmod.guest.testing.usage import (
    find_kib_lost,
    find_lost,
    find_object_growth,
    read_shrunk_objects,
)

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R19")

# A load and an unload take 30 to 50 ms when emulated.
LOADS = 48
LOADS_LONG = 1000

# How many more objects of one slab cache may be in use afterwards, which are the rest of the
# system's: it was seen to take 27 of one for a while, and once 25 of one for good. A page that each
# load loses is twice TOLERATED_KIB.
OBJECTS = 24
OBJECTS_LONG = 240


def test_many_loads_leave_no_memory_behind(
    unloaded: Module,
    open_device: "OpenDevice",
    long_run: bool,
    mark_step: Callable[[], object],
) -> None:
    def load() -> None:
        for _ in range(LOADS_LONG if long_run else LOADS):
            unloaded.load()
            with open_device() as device:
                # The write leaves a spare page behind, the mapping a page that was shared.
                device.pwrite(bytes(PAGE + 1), SIZE - PAGE - 1)
                mapping = Mapping(device.fd, PAGE)
                mapping[:1] = b"\1"
                mapping.unmap()
            unloaded.unload()
            mark_step()

    def measure(patience_s: float) -> dict[str, int]:
        objects = read_shrunk_objects()
        kib = find_kib_lost(load, patience_s)
        tolerance = OBJECTS_LONG if long_run else OBJECTS
        return kib or find_object_growth(objects, tolerance, patience_s)

    assert find_lost(measure) == {}


def test_many_loads_leave_no_device_behind(unloaded: Module) -> None:
    devices = sorted(Path("/dev").iterdir())
    misc = Path("/proc/misc").read_text()
    for _ in range(5):
        unloaded.load()
        unloaded.unload()
    assert sorted(Path("/dev").iterdir()) == devices
    assert Path("/proc/misc").read_text() == misc
