# SPDX-License-Identifier: GPL-2.0-only
"""What a driver shows in debugfs."""

from pathlib import Path

import pytest

from twinmod.guest.leaks import DEBUGFS


def find_folder(name: str) -> Path:
    """Return a driver's folder; a kernel without debugfs skips the test.

    Raises:
        AssertionError: The driver has made none of that name.
    """
    if not DEBUGFS.is_dir() or not any(DEBUGFS.iterdir()):
        pytest.skip("this kernel has no debugfs")
    folder = DEBUGFS / name
    assert folder.is_dir(), f"{folder} is missing"
    return folder
