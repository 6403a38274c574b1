# SPDX-License-Identifier: GPL-2.0-only
"""Objects that a driver makes when a program makes their folder in configfs."""

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIGFS = Path("/sys/kernel/config")

_libc = ctypes.CDLL(None, use_errno=True)


def mount() -> Path:
    """Return where configfs is, mounted if it was not; a kernel without it skips the test.

    Raises:
        OSError: It cannot be mounted.
    """
    if not CONFIGFS.is_dir():
        pytest.skip("this kernel has no configfs")
    if _libc.mount(b"none", bytes(CONFIGFS), b"configfs", 0, None) < 0:
        code = ctypes.get_errno()
        # It is mounted.
        if code != errno.EBUSY:
            raise OSError(code, os.strerror(code), str(CONFIGFS))
    return CONFIGFS


@contextmanager
def make_item(folder: Path, attributes: Mapping[str, str]) -> Iterator[Path]:
    """Make an object, and set its attributes in their order; the end of the block removes it.

    Args:
        folder: Its folder, below one of a driver: ``mount() / "nullb/disk"``.
        attributes: By name, what is written.

    Raises:
        OSError: The driver refused.
    """
    folder.mkdir()
    try:
        for name, value in attributes.items():
            (folder / name).write_text(value)
        yield folder
    finally:
        folder.rmdir()
