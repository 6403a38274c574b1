# SPDX-License-Identifier: GPL-2.0-only
"""A write says how much of it arrived."""

import pytest

from zoo_device import Device


@pytest.mark.rule("R9")
def test_a_bad_address_is_refused(device: Device) -> None:
    with pytest.raises(OSError, match="Bad address"):
        device.write_from(0, 64)
