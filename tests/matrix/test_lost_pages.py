# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from contract import IOC_ADD, PAGE
from twinmod.guest.testing import Module
from twinmod.guest.testing.memory import NULL, PROT_NONE, Mapping, Memory, errno_of
from twinmod.guest.testing.usage import find_kib_lost, find_lost

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

# How often a call fails, and how many pages are mapped: one lost each time is much more than
# TOLERATED_KIB.
TIMES = 80


@pytest.mark.rule("R9", "R20")
def test_no_call_that_fails_loses_a_page(device: "Device") -> None:
    memory = Memory(2)
    memory.protect(1, PROT_NONE)

    def fail() -> None:
        for _ in range(TIMES):
            errno_of(device.pread_to, NULL, PAGE, 0)
            errno_of(device.pwrite_from, NULL, PAGE, 0)
            errno_of(device.ioctl, IOC_ADD, NULL)
            assert device.pread_to(memory.address + PAGE - 1, PAGE, 0) == 1
            assert device.pwrite_from(memory.address + PAGE - 1, PAGE, 0) == 1

    assert find_lost(partial(find_kib_lost, fail)) == {}


@pytest.mark.rule("R17")
def test_no_mapping_loses_a_page(unloaded: Module, open_device: "OpenDevice") -> None:
    length = TIMES * PAGE

    def map_pages() -> None:
        unloaded.load()
        with open_device() as device:
            mapping = Mapping(device.fd, length)
            mapping[:] = b"\1" * length
            # A whole page cannot change places with one that is mapped, and can afterwards.
            device.pwrite(bytes(length), 0)
            mapping.unmap()
            device.pwrite(bytes(length), 0)
        # A page that somebody else is said to have stays behind.
        unloaded.unload()

    assert find_lost(partial(find_kib_lost, map_pages)) == {}
