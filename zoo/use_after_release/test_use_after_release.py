# SPDX-License-Identifier: GPL-2.0-only
"""What a file had is not used after it was closed."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R18")
def test_the_last_one_may_be_gone(device: Device) -> None:
    with device.open_again() as other:
        assert other.ioctl(0) == 7
    with pytest.raises(OSError, match="No such device"):
        device.ioctl(0)
