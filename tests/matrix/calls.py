# SPDX-License-Identifier: GPL-2.0-only
"""The calls of DEVICE.md that touch memory of their caller, which may be absent."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from contract import IOC_ADD, IOC_SIZE, PAGE
from twinmod.guest.testing import absent
from twinmod.guest.testing.absent import AbsentMemory

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    Call = Callable[[Device, int], int]

# Calls that stand still on the page of the caller at an address; all on the device's first page.
CALLS: "dict[str, Call]" = {
    "read": lambda device, address: device.pread_to(address, PAGE, 0),
    "a read that begins well": lambda device, address: device.pread_to(address - 9, PAGE, 0),
    "write": lambda device, address: device.pwrite_from(address, PAGE, 0),
    "a write that begins well": lambda device, address: device.pwrite_from(address - 9, PAGE, 0),
    "SIZE": lambda device, address: device.ioctl(IOC_SIZE, address),
    "ADD": lambda device, address: device.ioctl(IOC_ADD, address),
    "an ADD that begins well": lambda device, address: device.ioctl(IOC_ADD, address - 8),
}


def standing_still(device: "Device", name: str) -> AbstractContextManager[AbsentMemory]:
    """In the block, a thread stands still in one of CALLS; after it, it has gone on."""
    return absent.standing_still(partial(CALLS[name], device), name)
