# SPDX-License-Identifier: GPL-2.0-only
"""What mdriver's tests start from: its device, all zero before each test."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from contract import SIZE
from twinmod.guest.testing import Module

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    # Both testers have the same interface: two stubs with one text.
    OpenDevice = Callable[..., Device]


@pytest.fixture
def open_device(module: Module, tester: Any) -> Iterator["OpenDevice"]:
    """A function that opens the device once more; all are closed after the test."""
    with ExitStack() as stack:

        def open_one(flags: int = os.O_RDWR) -> "Device":
            device: Device = stack.enter_context(tester.Device(module.device_path, flags))
            return device

        yield open_one


@pytest.fixture
def device(open_device: "OpenDevice") -> "Device":
    """The open device: all zero, at position 0."""
    device = open_device()
    # How far a write gets is a rule of its own: were it checked here, one fault near the end would
    # fail every rule there is.
    with suppress(OSError):
        device.pwrite(bytes(SIZE), 0)
    return device
