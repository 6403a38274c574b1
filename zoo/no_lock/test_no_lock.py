# SPDX-License-Identifier: GPL-2.0-only
"""Nothing that is counted is lost."""

import pytest

from zoo_device import Device

# KCSAN looks at one access in thousands.
COUNTS = 50_000


@pytest.mark.rule("R24")
def test_every_count_counts(device: Device) -> None:
    def count() -> None:
        for _ in range(COUNTS):
            device.ioctl(0)

    device.in_parallel(count)
    assert int.from_bytes(device.pread(8, 0), "little") == 2 * COUNTS
