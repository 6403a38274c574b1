# SPDX-License-Identifier: GPL-2.0-only
"""A module that is in use stays."""

import pytest

from twinmod.guest.testing import Module
from zoo_device import Device


@pytest.mark.rule("R18")
def test_an_open_device_outlives_an_unload(device: Device, module: Module) -> None:
    refused = False
    try:
        module.unload()
    except OSError:
        refused = True
    assert device.pread(4, 0) == b"zoo\n"
    assert refused
