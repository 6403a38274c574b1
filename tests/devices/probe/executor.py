# SPDX-License-Identifier: GPL-2.0-only
"""What a VM's kernel makes of the devices behind its root ports: the VM's side of run.py."""

import ctypes
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twinmod.guest import waking

SYSFS = Path("/sys/bus/pci/devices")

REGISTER_BYTES = 4

#: How long a device on USB may take, whose driver was just loaded.
LIMIT_S = 5.0

I2C_SLAVE, I2C_SMBUS = 0x0703, 0x0720
I2C_SMBUS_READ, I2C_SMBUS_BYTE_DATA = 1, 2


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


def read_attribute(bus: str, name: str, wanted: str) -> bool:
    """Tell whether a device of a bus comes that has an attribute of some value.

    Args:
        bus: As sysfs has it.
        name: Of the attribute.
        wanted: Its value.
    """
    folder = Path("/sys/bus", bus, "devices")
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        paths = folder.glob(f"*/{name}")
        if any(path.read_text(errors="replace").strip() == wanted for path in paths):
            return True
        time.sleep(waking.POLL_S)
    return False


def read_port(address: int) -> int:
    """Return the byte at an I/O port."""
    with Path("/dev/port").open("rb", buffering=0) as file:
        return os.pread(file.fileno(), 1, address)[0]


def read_smbus(address: int, count: int) -> list[int]:
    """Return the first bytes that a device on the SMBus has.

    Source: include/uapi/linux/i2c.h and i2c-dev.h, Linux 7.3: struct i2c_smbus_ioctl_data.
    """
    (adapter,) = (
        path.parent.name
        for path in Path("/sys/class/i2c-dev").glob("*/name")
        if path.read_text().startswith("SMBus I801")
    )
    descriptor = os.open(f"/dev/{adapter}", os.O_RDWR)
    fcntl.ioctl(descriptor, I2C_SLAVE, address)
    found = []
    for register in range(count):
        data = ctypes.create_string_buffer(34)
        asked = struct.pack(
            "=BBxxIQ", I2C_SMBUS_READ, register, I2C_SMBUS_BYTE_DATA, ctypes.addressof(data)
        )
        fcntl.ioctl(descriptor, I2C_SMBUS, asked)
        found.append(data.raw[0])
    os.close(descriptor)
    return found


def find_device(port: str) -> Path | None:
    """Return the folder of the device behind a port."""
    return next((SYSFS / port).glob("????:??:??.?"), None)


STEPS: dict[str, Callable[..., Any]] = {
    step.__name__: step for step in (look, read_register, read_attribute, read_port, read_smbus)
}
