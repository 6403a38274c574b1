# SPDX-License-Identifier: GPL-2.0-only
"""R8 to R18: each is broken by a module, as FINDINGS.md says."""

import errno
import mmap
import os
import stat
from pathlib import Path

import pytest

from disk import (
    find_block,
    find_group,
    find_node,
    make_disk,
    read,
    read_queue,
    read_sectors,
    run_fio,
    write,
)
from twinmod.guest.testing import Module
from twinmod.guest.testing.memory import errno_of

MIB_PER_GB = 1024
# What a disk can have: LLONG_MAX >> 9 (block/blk.h).
MOST_SECTORS = (1 << 54) - 1
# DISK_NAME_LEN without the NUL.
LONGEST_NAME = 31


@pytest.mark.rule("R8")
@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("blocksize", "0x200", "512"), ("blocksize", "01000", "512"), ("size", "0100", "64")],
)
def test_a_prefix_says_the_base(module: Module, name: str, text: str, value: str) -> None:
    with make_disk(module, "base") as folder:
        code = errno_of(write, folder / name, text)
        assert (errno.errorcode.get(code), read(folder / name)) == (None, value)


@pytest.mark.rule("R8")
@pytest.mark.parametrize("text", [" 512", "512 ", "512\n\n"])
def test_spaces_are_no_part_of_a_number(module: Module, text: str) -> None:
    with make_disk(module, "spaces") as folder:
        assert errno_of(write, folder / "blocksize", text) == errno.EINVAL


@pytest.mark.rule("R8")
def test_a_number_that_is_too_large_is_out_of_range(module: Module) -> None:
    with make_disk(module, "range") as folder:
        assert errno_of(write, folder / "size", str(1 << 64)) == errno.ERANGE


@pytest.mark.rule("R9")
@pytest.mark.parametrize("value", ["1000", "0", "256", "513", "131072"])
def test_a_block_size_of_no_disk_is_refused(module: Module, value: str) -> None:
    with make_disk(module, "impossible", blocksize="512") as folder:
        code = errno_of(write, folder / "blocksize", value)
        assert (errno.errorcode.get(code), read(folder / "blocksize")) == ("EINVAL", "512")


@pytest.mark.rule("R10")
@pytest.mark.parametrize("value", ["3", "7", "256"])
def test_an_unknown_mode_is_refused(module: Module, value: str) -> None:
    with make_disk(module, "unknown", irqmode="1") as folder:
        code = errno_of(write, folder / "irqmode", value)
        write(folder / "power", "1")
        assert (errno.errorcode.get(code), read(folder / "irqmode")) == ("EINVAL", "1")


@pytest.mark.rule("R11")
def test_irqmode_2_completes_by_a_timer(module: Module) -> None:
    with make_disk(module, "timer") as folder:
        code = errno_of(write, folder / "irqmode", "2")
        assert (errno.errorcode.get(code), read(folder / "irqmode")) == (None, "2")
        write(folder / "power", "1")
        assert sum(run_fio(folder, "--rw=randrw", "--bs=4k")) == 512


@pytest.mark.rule("R12")
@pytest.mark.parametrize(
    ("name", "value"), [("blocksize", "512"), ("size", str(250 * MIB_PER_GB)), ("irqmode", "1")]
)
def test_a_default_is_the_documented_one(module: Module, name: str, value: str) -> None:
    folder = find_group(module) / "default"
    folder.mkdir()
    try:
        assert read(folder / name) == value
    finally:
        folder.rmdir()


@pytest.mark.rule("R12")
def test_the_queue_depth_is_the_documented_one(module: Module) -> None:
    with make_disk(module, "depth") as folder:
        write(folder / "power", "1")
        assert read_queue(folder, "nr_requests") == "64"


@pytest.mark.rule("R13")
def test_fio_finds_what_it_wrote(module: Module) -> None:
    with make_disk(module, "kept", blocksize="4096", irqmode="1") as folder:
        assert (folder / "memory_backed").exists(), "this kernel keeps nothing in memory"
        write(folder / "memory_backed", "1")
        write(folder / "power", "1")
        run_fio(folder, "--rw=randwrite", "--bs=4k", "--verify=crc32c", "--verify_fatal=1")


@pytest.mark.rule("R14")
def test_an_open_disk_holds_its_module(module: Module) -> None:
    """Look at the count alone: where it is 0, an unload would succeed, and the close fault."""
    with make_disk(module, "held") as folder:
        write(folder / "power", "1")
        descriptor = os.open(find_node(folder), os.O_RDONLY)
    try:
        assert int((module.sysfs_path / "refcnt").read_text()) == 1
    finally:
        os.close(descriptor)


@pytest.mark.rule("R15")
def test_the_longest_name_is_whole(module: Module) -> None:
    with make_disk(module, "n" * LONGEST_NAME) as folder:
        write(folder / "power", "1")
        assert find_block(folder).exists()


@pytest.mark.rule("R15")
def test_a_longer_name_is_refused_and_not_cut(module: Module) -> None:
    with make_disk(module, "n" * (LONGEST_NAME + 1)) as folder:
        code = errno_of(write, folder / "power", "1")
        cut = Path("/sys/block", "n" * LONGEST_NAME)
        assert (errno.errorcode.get(code), cut.exists()) == ("EINVAL", False)


@pytest.mark.rule("R16")
@pytest.mark.parametrize("mib", [1 << 43, 1 << 44, (1 << 44) + 1, 1 << 53])
def test_a_large_size_does_not_become_a_small_one(module: Module, mib: int) -> None:
    with make_disk(module, "large", size=str(mib)) as folder:
        write(folder / "power", "1")
        assert read_sectors(folder) == MOST_SECTORS


@pytest.mark.rule("R17")
def test_every_user_may_read_the_attributes(module: Module) -> None:
    with make_disk(module, "modes") as folder:
        found = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (folder / "power", folder / "size", find_group(module) / "features")
        }
        assert found == {"power": 0o644, "size": 0o644, "features": 0o444}


@pytest.mark.rule("R18")
def test_direct_io_needs_two_bytes_of_alignment(module: Module) -> None:
    with make_disk(module, "aligned", blocksize="512") as folder:
        write(folder / "power", "1")
        descriptor = os.open(find_node(folder), os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, mmap.PAGESIZE) as memory, memoryview(memory)[2:514] as buffer:
                assert errno_of(os.preadv, descriptor, [buffer], 0) == 0
        finally:
            os.close(descriptor)
