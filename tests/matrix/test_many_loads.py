# SPDX-License-Identifier: GPL-2.0-only
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract import PAGE, SIZE
from kmod import Module

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R19")

# Not a thousand: a load and an unload take 30 to 50 ms when emulated. The first ones are not
# counted: they fill the kernel's own caches.
WARM_UPS = 5
LOADS = 40

# How much may be used up by the rest of the system meanwhile, in KiB; a few times what was seen.
# A module leaks 1024 KiB a load if it leaks its pages, and 4 KiB if it leaks what lists them.
TOLERANCE_KIB = {"MemFree": 16384, "Slab": 96, "VmallocUsed": 96}


def read_meminfo() -> dict[str, int]:
    """Return the figures of /proc/meminfo, in KiB; free is also what waits for a processor."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    waiting = re.findall(r"^ +count: +(\d+)$", Path("/proc/zoneinfo").read_text(), re.MULTILINE)
    kib["MemFree"] += sum(map(int, waiting)) * PAGE // 1024
    return kib


def test_many_loads_leave_no_memory_behind(unloaded: Module, open_device: "OpenDevice") -> None:
    before = read_meminfo()
    for load in range(WARM_UPS + LOADS):
        if load == WARM_UPS:
            before = read_meminfo()
        unloaded.load()
        with open_device() as device:
            device.pwrite(bytes(PAGE + 1), SIZE - PAGE - 1)
        unloaded.unload()
    after = read_meminfo()
    grown = {name: abs(after[name] - before[name]) for name in TOLERANCE_KIB}
    assert {name: kib for name, kib in grown.items() if kib > TOLERANCE_KIB[name]} == {}


def test_many_loads_leave_no_device_behind(unloaded: Module) -> None:
    devices = sorted(Path("/dev").iterdir())
    misc = Path("/proc/misc").read_text()
    for _ in range(5):
        unloaded.load()
        unloaded.unload()
    assert sorted(Path("/dev").iterdir()) == devices
    assert Path("/proc/misc").read_text() == misc
