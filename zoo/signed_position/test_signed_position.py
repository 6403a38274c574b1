# SPDX-License-Identifier: GPL-2.0-only
"""There is nothing beyond the end, however far."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R4")
def test_nothing_is_read_far_beyond_the_end(device: Device) -> None:
    assert device.pread(16, 4096) == b""
    assert device.pread(16, (1 << 32) - 16) == b""
