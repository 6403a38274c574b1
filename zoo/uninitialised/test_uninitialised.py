# SPDX-License-Identifier: GPL-2.0-only
"""What was never written is zero."""

import pytest

from zoo_device import Device

SIZE = 2048


@pytest.mark.rule("R3")
def test_a_new_device_is_all_zero(device: Device) -> None:
    for _ in range(64):
        with device.open_again() as other:
            other.pwrite(b"secret! " * (SIZE // 8), 0)
    with device.open_again() as fresh:
        assert not any(fresh.pread(SIZE, 0))
