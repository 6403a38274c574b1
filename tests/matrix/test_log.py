# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, IOC_SIZE, PAGE, SIZE
from twinmod.guest.testing import Module
from twinmod.guest.testing.memory import NULL, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R21")


ReadLog = Callable[[], list[str]]


def own_lines(kernel_log: ReadLog, module: Module) -> list[str]:
    """Return what the log says of the module; other parts of the kernel may speak too."""
    return [line for line in kernel_log() if module.name in line]


def test_a_load_writes_one_line(unloaded: Module, kernel_log: ReadLog) -> None:
    unloaded.load()
    assert own_lines(kernel_log, unloaded) == [f"{unloaded.name}: {SIZE} bytes"]


def test_the_line_has_the_size(unloaded: Module, kernel_log: ReadLog) -> None:
    unloaded.load(f"size={3 * PAGE}")
    assert own_lines(kernel_log, unloaded) == [f"{unloaded.name}: {3 * PAGE} bytes"]


def test_an_unload_writes_nothing(module: Module, unloaded: Module, kernel_log: ReadLog) -> None:
    unloaded.load()
    own_lines(kernel_log, module)
    unloaded.unload()
    assert own_lines(kernel_log, module) == []


def test_normal_use_writes_nothing(
    module: Module, device: "Device", open_device: "OpenDevice", kernel_log: ReadLog
) -> None:
    device.write(bytes(3 * PAGE))
    device.lseek(1, os.SEEK_SET)
    device.read(3 * PAGE)
    device.pwrite(b"x", INNER - 1)
    device.pread(PAGE, SIZE)
    device.size()
    device.clear()
    device.add(0, 1)
    device.count_up(2, 5)
    open_device(os.O_RDONLY).close()
    assert own_lines(kernel_log, module) == []


def test_errors_write_nothing(module: Module, device: "Device", kernel_log: ReadLog) -> None:
    codes = [
        errno_of(device.pwrite, b"x", SIZE),
        errno_of(device.pread, 1, -1),
        errno_of(device.lseek, -1, os.SEEK_SET),
        errno_of(device.pread_to, NULL, PAGE, 0),
        errno_of(device.pwrite_from, NULL, PAGE, 0),
        errno_of(device.ioctl, 0),
        errno_of(device.ioctl, IOC_SIZE, NULL),
        errno_of(device.add, 1, 1),
        errno_of(module.unload),
    ]
    assert codes == [
        errno.ENOSPC,
        errno.EINVAL,
        errno.EINVAL,
        errno.EFAULT,
        errno.EFAULT,
        errno.ENOTTY,
        errno.EFAULT,
        errno.EINVAL,
        errno.EWOULDBLOCK,
    ]
    assert own_lines(kernel_log, module) == []
