# SPDX-License-Identifier: GPL-2.0-only
"""A total that somebody reads is one that there was."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R10")
def test_the_total_only_grows(device: Device) -> None:
    # KCSAN looks at one access in thousands.
    def use() -> None:
        seen = 0
        for _ in range(50_000):
            device.ioctl(0)
            total = device.ioctl(1)
            assert total >= seen
            seen = total

    device.in_parallel(use)
