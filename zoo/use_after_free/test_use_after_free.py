# SPDX-License-Identifier: GPL-2.0-only
"""What is read was not given back before."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R3")
def test_after_a_reset_there_is_nothing_but_zeros(device: Device) -> None:
    assert device.ioctl(0) == 0
    assert not any(device.pread(64, 0))
