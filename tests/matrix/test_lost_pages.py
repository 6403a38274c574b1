# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import IOC_ADD, PAGE
from kmod import Module
from memory import NULL, PROT_NONE, Mapping, Memory, errno_of
from pages import count_unaccounted

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

# One page lost each time is twice what the rest of the system may come to use, or give back,
# meanwhile; about ten pages were seen.
WARM_UPS = 5
ROUNDS = 36
TOLERANCE = 18


def count_lost(step: Callable[[], None]) -> int:
    """Return how many pages more are in no known use after many steps than before."""
    for _ in range(WARM_UPS):
        step()
    before = count_unaccounted()
    for _ in range(ROUNDS):
        step()
    return count_unaccounted() - before


@pytest.mark.rule("R19")
def test_no_load_loses_a_page(unloaded: Module, open_device: "OpenDevice") -> None:
    def step() -> None:
        # A small one is loaded soon.
        unloaded.load(f"size={4 * PAGE}")
        with open_device() as device:
            # The write leaves a spare page behind, the read and the mapping a page that is shared.
            device.pwrite(bytes(PAGE + 1), 1)
            assert device.pread_to(Memory(1).address, PAGE, 0) == PAGE
            mapping = Mapping(device.fd, 4 * PAGE)
            mapping[:1] = b"\1"
            mapping.unmap()
        unloaded.unload()

    assert count_lost(step) < TOLERANCE


@pytest.mark.rule("R9", "R20")
def test_no_call_that_fails_loses_a_page(device: "Device") -> None:
    memory = Memory(2)
    memory.protect(1, PROT_NONE)

    def step() -> None:
        errno_of(device.pread_to, NULL, PAGE, 0)
        errno_of(device.pwrite_from, NULL, PAGE, 0)
        errno_of(device.ioctl, IOC_ADD, NULL)
        assert device.pread_to(memory.address + PAGE - 1, PAGE, 0) == 1
        assert device.pwrite_from(memory.address + PAGE - 1, PAGE, 0) == 1

    assert count_lost(step) < TOLERANCE


@pytest.mark.rule("R17")
def test_no_mapping_loses_a_page(device: "Device") -> None:
    def step() -> None:
        mapping = Mapping(device.fd, PAGE)
        mapping[:1] = b"\1"
        # A whole page cannot change places with one that is mapped, and can afterwards.
        device.pwrite(bytes(PAGE), 0)
        mapping.unmap()
        device.pwrite(bytes(PAGE), 0)

    assert count_lost(step) < TOLERANCE
