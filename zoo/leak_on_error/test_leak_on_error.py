# SPDX-License-Identifier: GPL-2.0-only
"""What could not be read is given back."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R9")
def test_bad_addresses_are_refused(device: Device) -> None:
    for _ in range(200):
        with pytest.raises(OSError, match="Bad address"):
            device.ioctl(0, 0)
