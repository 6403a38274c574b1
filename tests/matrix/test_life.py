# SPDX-License-Identifier: GPL-2.0-only
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.memory import errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R18")


def test_an_open_file_prevents_the_unload(
    module: Module, device: "Device", open_device: "OpenDevice"
) -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    assert errno_of(module.unload) == errno.EWOULDBLOCK
    assert module.is_loaded()
    assert device.pread(INNER, 0) == data
    assert device.pwrite(b"on", PAGE) == 2
    assert open_device().pread(2, PAGE) == b"on"


def test_each_open_file_counts(unloaded: Module, open_device: "OpenDevice") -> None:
    unloaded.load()
    files = [open_device() for _ in range(3)]
    for file in files:
        assert errno_of(unloaded.unload) == errno.EWOULDBLOCK
        file.close()
    unloaded.unload()


def test_after_the_unload_the_device_is_gone(unloaded: Module, open_device: "OpenDevice") -> None:
    assert not unloaded.is_loaded()
    assert not unloaded.device_path.exists()
    assert errno_of(open_device) == errno.ENOENT
    assert errno_of(unloaded.unload) == errno.ENOENT


def test_it_can_be_loaded_again(unloaded: Module, open_device: "OpenDevice") -> None:
    for _ in range(3):
        unloaded.load()
        with open_device() as device:
            assert device.pwrite(b"again", INNER - 5) == 5
        unloaded.unload()


def test_it_cannot_be_loaded_twice(module: Module, device: "Device") -> None:
    assert device.pwrite(b"first", 0) == 5
    assert errno_of(module.load) == errno.EEXIST
    assert errno_of(module.load, f"size={2 * SIZE}") == errno.EEXIST
    assert device.pread(5, 0) == b"first"
    assert device.size() == SIZE
