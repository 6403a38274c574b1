# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract import PAGE, SIZE, SIZE_MAX, SIZE_MIN
from kmod import Module, open_log
from memory import errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R2")

# As text: decimal, hexadecimal, octal.
GOOD = {
    str(SIZE_MIN): SIZE_MIN,
    str(3 * PAGE): 3 * PAGE,
    hex(2 * PAGE): 2 * PAGE,
    f"0{2 * PAGE:o}": 2 * PAGE,
    str(32 * SIZE): 32 * SIZE,
}
OUTSIDE = (
    *(0, 1, SIZE_MIN - 1, SIZE_MIN + 1, SIZE + PAGE // 2),
    *(SIZE_MAX + PAGE, (1 << 32) + PAGE, (1 << 64) - PAGE),
)


def read_counter(path: str, name: str) -> int:
    """Return a figure of /proc/meminfo (KiB) or /proc/vmstat (events)."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(name)


def refuse(module: Module, parameters: str) -> tuple[int, list[str]]:
    """Try to load; return the errno (0: it did load) and what the module wrote to the log."""
    with open_log() as log:
        code = errno_of(module.load, parameters)
        lines = [line for line in log.read_lines() if line.startswith(f"{module.name}: ")]
    if code == 0:
        module.unload()
    return code, lines


def test_the_default_is_one_mebibyte(device: "Device") -> None:
    assert device.size() == SIZE
    assert device.lseek(0, os.SEEK_END) == SIZE


def test_a_good_size_is_the_size(unloaded: Module, open_device: "OpenDevice") -> None:
    for text, size in GOOD.items():
        unloaded.load(f"size={text}")
        with open_device() as device:
            assert device.size() == size, text
            assert device.lseek(0, os.SEEK_END) == size, text
            assert device.pwrite(b"page", size - PAGE) == 4, text
            assert device.pread(4, size - PAGE) == b"page", text
        unloaded.unload()


def test_a_size_outside_the_limits_is_refused(unloaded: Module) -> None:
    for text in map(str, OUTSIDE):
        code, lines = refuse(unloaded, f"size={text}")
        assert code == errno.EINVAL, text
        assert len(lines) == 1, lines
        assert text in lines[0], "the line must say which size was refused"


def test_what_is_no_number_is_refused(unloaded: Module) -> None:
    for text in ("", "many", "-4096", "4096k", "0x", str(1 << 64)):
        code, lines = refuse(unloaded, f"size={text}")
        assert code == errno.EINVAL, text
        assert len(lines) == 1, lines
        assert "invalid for parameter `size'" in lines[0]


def test_more_than_is_available_is_refused(unloaded: Module) -> None:
    available = read_counter("/proc/meminfo", "MemAvailable:") * 1024
    if available - available // 8 >= SIZE_MAX:
        pytest.skip("this VM has memory for the largest device")
    killed = read_counter("/proc/vmstat", "oom_kill")
    code, lines = refuse(unloaded, f"size={SIZE_MAX}")
    assert code == errno.ENOMEM
    assert len(lines) == 1, lines
    assert read_counter("/proc/vmstat", "oom_kill") == killed
    left = read_counter("/proc/meminfo", "MemAvailable:") * 1024
    assert left > available - 32 * SIZE, "a refused load kept memory"


def test_an_eighth_of_what_is_available_is_left_to_others(unloaded: Module) -> None:
    available = read_counter("/proc/meminfo", "MemAvailable:") * 1024
    size = (available - available // 16) // PAGE * PAGE
    if size > SIZE_MAX:
        pytest.skip("this VM has memory for the largest device")
    code, lines = refuse(unloaded, f"size={size}")
    assert code == errno.ENOMEM
    assert len(lines) == 1, lines
    assert f"{size} refused" in lines[0], lines


def test_a_refused_load_leaves_nothing(unloaded: Module) -> None:
    for text in ("1", "many", str(SIZE_MAX + PAGE)):
        assert errno_of(unloaded.load, f"size={text}") == errno.EINVAL, text
        assert not unloaded.is_loaded(), text
        assert not unloaded.device_path.exists(), text
        assert not (Path("/sys/class/misc") / unloaded.name).exists(), text


def test_the_parameter_is_not_in_sysfs(module: Module) -> None:
    assert module.is_loaded()
    assert not (module.sysfs_path / "parameters").exists()
