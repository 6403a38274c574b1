# SPDX-License-Identifier: GPL-2.0-only
"""What a VM's kernel makes of the devices behind its root ports: the VM's side of run.py."""

import mmap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twinmod.guest import waking

SYSFS = Path("/sys/bus/pci/devices")

REGISTER_BYTES = 4


def execute(path: Path, tester: Any, size: int, steps: Iterable[Any]) -> list[Any]:
    """Carry out steps, which are functions of this file; return what each one returned.

    Args:
        path: Of a module under test, which has no part in it.
        tester: As little.
        size: As little.
        steps: (name, arguments), as the host sent them.
    """
    del path, tester, size
    return [STEPS[name](**arguments) for name, arguments in steps]


def look(port: str) -> dict[str, Any] | None:
    """Return what sysfs has of the device behind a port; None: there is none.

    Source: Documentation/ABI/testing/sysfs-bus-pci, Linux 7.3: a line of ``resource`` is begin, end
    and flags of a BAR; the first six are the device's own.
    """
    folder = find_device(port)
    if folder is None:
        return None
    lines = (folder / "resource").read_text().splitlines()[:6]
    bars = [[int(word, 16) for word in line.split()] for line in lines]
    return {
        "address": folder.name,
        "vendor": (folder / "vendor").read_text().strip(),
        "device": (folder / "device").read_text().strip(),
        # (begin, bytes) of those that it has.
        "bars": [(begin, end - begin + 1) for begin, end, flags in bars if flags],
    }


def read_register(port: str, offset: int) -> int:
    """Return a register of a device's first BAR, as soon as the kernel has taken the device."""
    waking.wait_for_devices((port,))
    folder = find_device(port)
    assert folder
    if (folder / "enable").read_text().strip() == "0":
        (folder / "enable").write_text("1")
    with (
        (folder / "resource0").open("r+b") as file,
        mmap.mmap(file.fileno(), mmap.PAGESIZE) as bar,
        memoryview(bar) as raw,
        raw.cast("I") as registers,
    ):
        return registers[offset // REGISTER_BYTES]


def find_device(port: str) -> Path | None:
    """Return the folder of the device behind a port."""
    return next((SYSFS / port).glob("????:??:??.?"), None)


STEPS: dict[str, Callable[..., Any]] = {"look": look, "read_register": read_register}
