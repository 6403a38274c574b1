# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract import PAGE, SIZE, SIZE_MAX, SIZE_MIN
from twinmod.guest.testing import Module, log
from twinmod.guest.testing.memory import Memory, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R2")

# As text: decimal, hexadecimal, octal, each with and without what may stand before it.
GOOD = {
    str(SIZE_MIN): SIZE_MIN,
    f"+{3 * PAGE}": 3 * PAGE,
    hex(2 * PAGE): 2 * PAGE,
    f"+0X00{3 * PAGE:X}": 3 * PAGE,
    f"000{2 * PAGE:o}": 2 * PAGE,
    str(32 * SIZE): 32 * SIZE,
}
# What a C compiler, a person or Rust takes for a number, and the kernel does not.
NO_NUMBERS = (
    *("", "+", "-0", "-4096", "0x", "0x+1000", "0b1000000000000", "0o10000", "08192"),
    *("4_096", "4096k", '"4096 "', "many", str(1 << 64)),
)
OUTSIDE = (
    *(0, 1, SIZE_MIN - 1, SIZE_MIN + 1, SIZE + PAGE // 2),
    *(SIZE_MAX + PAGE, (1 << 32) + PAGE, (1 << 64) - PAGE),
)

# Bytes that are left available where most must be taken, and how far two readings of what is
# available may be apart: while a module is loaded, the kernel has 2 MiB for the code of modules.
# Source: execmem_cache_populate() in mm/execmem.c, Linux 7.3.
LITTLE = 96 << 20
MARGIN = 6 << 20

# How often the largest device is refused, whose array of pages takes 2 MiB.
REFUSED = 8

# A processor may keep no more than this part of all pages at hand, or as few as the kernel lets it.
# It comes down to that by an eighth each time that its counters are refreshed.
FEW = 1 << 20
DECAYS = 32


def read_counter(path: str, name: str) -> int:
    """Return a figure of /proc/meminfo (KiB) or /proc/vmstat (events)."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(name)


def refuse(module: Module, parameters: str) -> tuple[int, list[str]]:
    """Try to load; return the errno (0: it did load) and what the module wrote to the log."""
    with log.follow() as read_log:
        code = errno_of(module.load, parameters)
        lines = [line for line in read_log() if line.startswith(f"{module.name}: ")]
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
    for text in NO_NUMBERS:
        code, lines = refuse(unloaded, f"size={text}")
        assert code == errno.EINVAL, text
        assert len(lines) == 1, f"{text}: {lines}"
        assert "invalid for parameter `size'" in lines[0], text


def test_a_size_without_a_value_is_refused(unloaded: Module) -> None:
    code, lines = refuse(unloaded, "size")
    assert code == errno.EINVAL
    assert len(lines) == 1, lines


def test_of_several_sizes_the_last_one_counts(unloaded: Module, open_device: "OpenDevice") -> None:
    unloaded.load(f'size=1 \t size="{2 * PAGE}\n"\nsize={3 * PAGE} ')
    with open_device() as device:
        assert device.size() == 3 * PAGE
    unloaded.unload()
    assert refuse(unloaded, f"size={2 * PAGE} size=1")[0] == errno.EINVAL
    assert refuse(unloaded, f"size=many size={2 * PAGE}")[0] == errno.EINVAL


def test_an_unknown_parameter_is_ignored(unloaded: Module, open_device: "OpenDevice") -> None:
    with log.follow() as read_log:
        unloaded.load(f"sizes=1 size={2 * PAGE} Size=1")
        lines = [line for line in read_log() if line.startswith(f"{unloaded.name}: ")]
    with open_device() as device:
        assert device.size() == 2 * PAGE
    assert lines == [
        f"{unloaded.name}: unknown parameter 'sizes' ignored",
        f"{unloaded.name}: unknown parameter 'Size' ignored",
        f"{unloaded.name}: {2 * PAGE} bytes",
    ]


# What a test sets of the kernel's memory management.
MIN_FREE = Path("/proc/sys/vm/min_free_kbytes")
HIGH_FRACTION = Path("/proc/sys/vm/percpu_pagelist_high_fraction")
STAT_REFRESH = Path("/proc/sys/vm/stat_refresh")


@pytest.fixture
def little_memory(unloaded: Module) -> Iterator[None]:
    """Leave so little available that a device that takes most of it is soon made.

    The kernel keeps the rest for itself: nobody has to fill it. And each processor keeps few free
    pages at hand: one that has taken few so far takes thousands at a time, and those are not
    available any more. What a load takes for good, and what processors then keep, a load has taken
    that was refused.

    Source: Documentation/admin-guide/sysctl/vm.rst (min_free_kbytes,
    percpu_pagelist_high_fraction), nr_pcp_alloc() and decay_pcp_high() in mm/page_alloc.c,
    Linux 7.3; the high watermark, above which memory is available, is half as much again.
    """
    usual = {path: path.read_text() for path in (MIN_FREE, HIGH_FRACTION)}
    HIGH_FRACTION.write_text(str(FEW))
    for _ in range(DECAYS):
        STAT_REFRESH.write_text("1")
    kept = max(0, read_available() - LITTLE) * 2 // 3
    MIN_FREE.write_text(str(int(usual[MIN_FREE]) + kept // 1024))
    refuse(unloaded, f"size={SIZE_MAX}")
    yield
    for path, text in usual.items():
        path.write_text(text)


def read_available() -> int:
    """Return how many bytes are available."""
    return read_counter("/proc/meminfo", "MemAvailable:") * 1024


def read_killed() -> int:
    """Return how many processes the OOM killer has ended."""
    return read_counter("/proc/vmstat", "oom_kill")


@pytest.mark.usefixtures("little_memory")
def test_more_than_is_available_is_refused(unloaded: Module) -> None:
    killed, available = read_killed(), read_available()
    # What one refused load keeps is less than MARGIN.
    for size in (*[SIZE_MAX] * REFUSED, available, available - available // 8 + MARGIN):
        code, lines = refuse(unloaded, f"size={size // PAGE * PAGE}")
        assert code == errno.ENOMEM, size
        assert len(lines) == 1, lines
        (said,) = re.findall(r"(\d+) bytes are available", lines[0])
        assert abs(int(said) - available) < MARGIN, lines[0]
    assert read_killed() == killed
    assert read_available() > available - MARGIN, "a refused load kept memory"


@pytest.mark.usefixtures("little_memory")
def test_as_much_as_seven_eighths_can_be_had(
    unloaded: Module, open_device: "OpenDevice", mark_step: Callable[[], object]
) -> None:
    killed, available = read_killed(), read_available()
    size = (available - available // 8 - MARGIN) // PAGE * PAGE
    unloaded.load(f"size={size}")
    mark_step()
    with open_device() as device:
        assert device.size() == size
        assert device.pwrite(b"last", size - 4) == 4
        # Others find some of the eighth that was left to them.
        assert Memory(SIZE // PAGE, fill=0x5A).map[-1] == 0x5A
        assert device.pread(4, size - 4) == b"last"
    unloaded.unload()
    assert read_killed() == killed


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
