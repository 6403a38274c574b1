# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, LENGTHS, OFFSETS, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.memory import Mapping
from twinmod.guest.testing.usage import one_processor

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R3")


def read_frames(device: "Device") -> frozenset[int]:
    """Return the page frames that hold a device's contents, but for its last page."""
    mapping = Mapping(device.fd, device.size() - PAGE)
    frames = mapping.read_frames()
    mapping.unmap()
    return frames


def test_all_is_zero_after_a_load(unloaded: Module, open_device: "OpenDevice") -> None:
    # Memory that nobody has used since the machine booted is zero, whatever the driver does. On one
    # processor: each of them keeps some of the pages that were freed on it.
    with one_processor():
        unloaded.load()
        with open_device() as device:
            device.pwrite(b"\x5a" * SIZE, 0)
            dirty = read_frames(device)
        unloaded.unload()
        unloaded.load()
        with open_device() as device:
            assert device.pread(SIZE, 0).strip(b"\0") == b""
            again = read_frames(device)
    assert len(dirty & again) > len(again) // 2, "few pages were dirty: this proves little"


def test_all_opens_see_the_same_bytes(device: "Device", open_device: "OpenDevice") -> None:
    other = open_device()
    for seed, offset in enumerate(OFFSETS):
        for length in LENGTHS:
            data = make_bytes(length, seed)
            assert device.pwrite(data, offset) == length
            assert other.pread(length, offset) == data, f"{length} bytes at {offset}"
    assert other.pwrite(b"back", PAGE - 2) == 4
    assert device.pread(4, PAGE - 2) == b"back"


def test_the_contents_are_kept_when_the_last_file_is_closed(
    device: "Device", open_device: "OpenDevice"
) -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    device.close()
    assert open_device().pread(INNER, 0) == data
