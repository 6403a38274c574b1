# SPDX-License-Identifier: GPL-2.0-only
"""What could not be read is given back once."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R9")
def test_a_bad_address_is_refused(device: Device) -> None:
    with pytest.raises(OSError, match="Bad address"):
        device.ioctl(0, 0)
