# SPDX-License-Identifier: GPL-2.0-only
"""An index that the table does not have is refused."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R14")
def test_an_index_behind_the_end_is_refused(device: Device) -> None:
    assert device.ioctl(0, 2) == 3
    with pytest.raises(OSError, match="Invalid argument"):
        device.ioctl(0, 20)
