# SPDX-License-Identifier: GPL-2.0-only
"""Who holds a spinlock does not sleep."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R21")
def test_the_kernel_has_nothing_to_say(device: Device) -> None:
    for number in range(8):
        assert device.ioctl(0, number) == 0
