# SPDX-License-Identifier: GPL-2.0-only
"""A range that does not lie in the device is refused."""

import pytest

from zoo_device import Device


def plan_range(offset: int, length: int) -> bytearray:
    return bytearray(offset.to_bytes(8, "little") + length.to_bytes(8, "little"))


@pytest.mark.rule("R14")
def test_a_range_that_wraps_around_is_refused(device: Device) -> None:
    assert device.ioctl(0, plan_range(0, 4096)) == 0
    with pytest.raises(OSError, match="Invalid argument"):
        device.ioctl(0, plan_range((1 << 64) - 8, 16))
