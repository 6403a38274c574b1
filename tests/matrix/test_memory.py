# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, LENGTHS, OFFSETS, PAGE, SIZE, make_bytes
from twinmod.guest.modules import Module

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R3")


def test_all_is_zero_after_a_load(unloaded: Module, open_device: "OpenDevice") -> None:
    unloaded.load()
    with open_device() as device:
        assert device.pread(SIZE, 0).strip(b"\0") == b""


def test_the_contents_are_gone_at_unload(unloaded: Module, open_device: "OpenDevice") -> None:
    unloaded.load()
    with open_device() as device:
        device.pwrite(make_bytes(SIZE), 0)
    unloaded.unload()
    # The pages are likely to be the same ones again.
    unloaded.load()
    with open_device() as device:
        assert device.pread(SIZE, 0).strip(b"\0") == b""


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
