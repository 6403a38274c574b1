# SPDX-License-Identifier: GPL-2.0-only
"""The device ends where its size says."""

import pytest

from zoo_device import Device

SIZE = 64


@pytest.mark.rule("R5")
def test_nothing_is_written_at_the_end(device: Device) -> None:
    assert device.pwrite(b"z", SIZE - 1) == 1
    with pytest.raises(OSError, match="No space left"):
        device.pwrite(b"z", SIZE)
