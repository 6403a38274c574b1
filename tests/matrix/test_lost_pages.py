# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import IOC_ADD, PAGE
from memory import NULL, PROT_NONE, Mapping, Memory, errno_of
from usage import find_growth, read_kib, read_settled_kib

if TYPE_CHECKING:
    from mdriver_tester_c import Device

# One page lost each time is twice what the rest of the system may come to use meanwhile.
WARM_UPS = 5
ROUNDS = 50
KIB = ROUNDS * PAGE // 1024 // 2


def find_lost(step: Callable[[], None]) -> dict[str, int]:
    """Return what many steps have used up, in KiB."""
    for _ in range(WARM_UPS):
        step()
    before = read_settled_kib()
    for _ in range(ROUNDS):
        step()
    return find_growth(before, read_kib, KIB)


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

    assert find_lost(step) == {}


@pytest.mark.rule("R17")
def test_no_mapping_loses_a_page(device: "Device") -> None:
    def step() -> None:
        mapping = Mapping(device.fd, PAGE)
        mapping[:1] = b"\1"
        # A whole page cannot change places with one that is mapped, and can afterwards.
        device.pwrite(bytes(PAGE), 0)
        mapping.unmap()
        device.pwrite(bytes(PAGE), 0)

    assert find_lost(step) == {}
