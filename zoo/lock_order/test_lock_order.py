# SPDX-License-Identifier: GPL-2.0-only
"""Two callers never wait for each other."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R12")
def test_both_ways_return(device: Device) -> None:
    assert device.ioctl(0) == 0
    assert device.ioctl(1) == 0
