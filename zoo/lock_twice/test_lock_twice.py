# SPDX-License-Identifier: GPL-2.0-only
"""A call returns."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R12")
def test_to_add_returns_the_total(device: Device) -> None:
    assert device.ioctl(0) == 1
