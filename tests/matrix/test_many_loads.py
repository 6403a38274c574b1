# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract import PAGE, SIZE
from memory import Mapping
from twinmod.guest.modules import Module
from usage import (
    find_growth,
    find_object_growth,
    read_kib,
    read_settled_kib,
    read_shrunk_objects,
)

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R19")

# A load and an unload take 30 to 50 ms when emulated. The first ones are not counted: they fill
# the kernel's own caches.
WARM_UPS = 5
ROUNDS = 2
LOADS = 24
LOADS_LONG = 500

# How much more may be in use afterwards, which is the rest of the system's: objects of one slab
# cache after each round, and KiB after all of them. A driver that loses one object a load loses as
# many in every round; the rest of the system was seen to take 25 of one cache once, for good. One
# that loses a page a load loses 192 KiB, or 4000; 20 were seen, and 16 are the stack of one more
# kernel thread.
OBJECTS = 16
OBJECTS_LONG = 120
KIB = 96


def test_many_loads_leave_no_memory_behind(
    unloaded: Module,
    open_device: "OpenDevice",
    long_run: bool,
    beat: Callable[[], object],
) -> None:
    def load(count: int) -> None:
        for _ in range(count):
            unloaded.load()
            with open_device() as device:
                # The write leaves a spare page behind, the mapping a page that was shared.
                device.pwrite(bytes(PAGE + 1), SIZE - PAGE - 1)
                mapping = Mapping(device.fd, PAGE)
                mapping[:1] = b"\1"
                mapping.unmap()
            unloaded.unload()
            beat()

    load(WARM_UPS)
    kib = read_settled_kib()
    rounds = []
    for _ in range(ROUNDS):
        objects = read_shrunk_objects()
        load(LOADS_LONG if long_run else LOADS)
        rounds.append(find_object_growth(objects, OBJECTS_LONG if long_run else OBJECTS))
    lost = set.intersection(*map(set, rounds))
    assert {name: [grown[name] for grown in rounds] for name in lost} == {}
    assert find_growth(kib, read_kib, KIB) == {}


def test_many_loads_leave_no_device_behind(unloaded: Module) -> None:
    devices = sorted(Path("/dev").iterdir())
    misc = Path("/proc/misc").read_text()
    for _ in range(5):
        unloaded.load()
        unloaded.unload()
    assert sorted(Path("/dev").iterdir()) == devices
    assert Path("/proc/misc").read_text() == misc
