# SPDX-License-Identifier: GPL-2.0-only
"""An ioctl stores its answer."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R14")
def test_the_size_is_stored(device: Device) -> None:
    answer = bytearray(8)
    device.ioctl(0, answer)
    assert int.from_bytes(answer, "little") == 4096
