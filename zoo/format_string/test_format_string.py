# SPDX-License-Identifier: GPL-2.0-only
"""A text is read as it was written."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R4")
def test_a_text_is_kept_as_it_is(device: Device) -> None:
    device.pwrite(b"%x %x 100%%", 0)
    assert device.pread(64, 0) == b"%x %x 100%%"
