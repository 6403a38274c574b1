# SPDX-License-Identifier: GPL-2.0-only
"""R1 to R7: what both modules keep."""

import errno
import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from disk import (
    find_block,
    find_group,
    find_node,
    make_disk,
    read,
    read_completed,
    read_queue,
    read_sectors,
    run_fio,
    write,
)
from twinmod.guest.testing import Module
from twinmod.guest.testing.children import endless
from twinmod.guest.testing.memory import errno_of
from twinmod.guest.testing.usage import find_kib_lost, find_lost

BLOCK_SIZES = ("512", "1024", "2048", "4096")
IRQ_MODES = ("0", "1")
SECTORS_PER_MIB = 2048

# Of each kind, so that a leak of one page each time is seen.
REMOVALS = 24
REMOVALS_LONG = 500


@pytest.mark.rule("R1")
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_power_makes_the_disk_that_the_attributes_say(module: Module, block_size: str) -> None:
    with make_disk(module, "made", blocksize=block_size, size="3", rotational="1") as folder:
        assert not find_block(folder).exists()
        for _ in range(2):
            write(folder / "power", "1")
            assert read(folder / "power") == "1"
            assert find_node(folder).is_block_device()
            assert read_queue(folder, "logical_block_size") == block_size
            assert read_queue(folder, "physical_block_size") == block_size
            assert read_queue(folder, "rotational") == "1"
            assert read_sectors(folder) == 3 * SECTORS_PER_MIB
        for _ in range(2):
            write(folder / "power", "0")
            assert read(folder / "power") == "0"
            assert not find_block(folder).exists()


@pytest.mark.rule("R1")
def test_a_disk_can_be_made_again_with_other_attributes(module: Module) -> None:
    with make_disk(module, "again", blocksize="512", rotational="1") as folder:
        write(folder / "power", "1")
        write(folder / "power", "0")
        for name, value in (("blocksize", "4096"), ("rotational", "0"), ("size", "5")):
            write(folder / name, value)
        write(folder / "power", "1")
        assert read_queue(folder, "logical_block_size") == "4096"
        assert read_queue(folder, "rotational") == "0"
        assert read_sectors(folder) == 5 * SECTORS_PER_MIB


@pytest.mark.rule("R1")
def test_two_folders_are_two_disks(module: Module) -> None:
    with make_disk(module, "one", size="1") as one, make_disk(module, "two", size="2") as two:
        write(one / "power", "1")
        write(two / "power", "1")
        assert (read_sectors(one), read_sectors(two)) == (SECTORS_PER_MIB, 2 * SECTORS_PER_MIB)
        write(one / "power", "0")
        assert not find_block(one).exists()
        assert find_block(two).exists()


@pytest.mark.rule("R1")
def test_a_disk_may_have_no_sectors(module: Module) -> None:
    with make_disk(module, "empty", size="0") as folder:
        write(folder / "power", "1")
        assert read_sectors(folder) == 0


@pytest.mark.rule("R2")
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("blocksize", BLOCK_SIZES),
        ("size", ("0", "1", "4095", "18446744073709551615")),
        ("irqmode", IRQ_MODES),
        ("rotational", ("0", "1")),
    ],
)
def test_an_attribute_shows_what_was_written(
    module: Module, name: str, values: tuple[str, ...]
) -> None:
    with make_disk(module, "values") as folder:
        for value, end in itertools.product(values, ("", "\n")):
            write(folder / name, value + end)
            assert read(folder / name) == value


@pytest.mark.rule("R2")
@pytest.mark.parametrize(
    ("words", "shown"), [("y Y t T 1 on On yes true", "1"), ("n N f F 0 off OF no false", "0")]
)
def test_rotational_takes_what_kstrtobool_takes(module: Module, words: str, shown: str) -> None:
    with make_disk(module, "words") as folder:
        for word in words.split():
            write(folder / "rotational", "0" if shown == "1" else "1")
            write(folder / "rotational", word)
            assert read(folder / "rotational") == shown, word


@pytest.mark.rule("R3")
def test_a_powered_disk_cannot_be_changed(module: Module) -> None:
    others = {"blocksize": "1024", "size": "9", "irqmode": "0", "rotational": "1"}
    with make_disk(module, "busy", blocksize="512", irqmode="1", rotational="0") as folder:
        write(folder / "power", "1")
        before = {name: read(folder / name) for name in others}
        for name, value in others.items():
            assert errno_of(write, folder / name, value) == errno.EBUSY
        assert {name: read(folder / name) for name in others} == before
        write(folder / "power", "0")
        for name, value in others.items():
            write(folder / name, value)
        assert {name: read(folder / name) for name in others} == others


@pytest.mark.rule("R4")
@pytest.mark.parametrize("name", ["blocksize", "size", "irqmode", "rotational", "power"])
def test_what_is_no_value_is_refused(module: Module, name: str) -> None:
    flags = ("x", "2", "o", "\n", "\0", b"\xff1")
    numbers = ("x", "-1", "3.5", "0x", "\n", "\0", b"\xff1")
    with make_disk(module, "refused", blocksize="512", irqmode="1") as folder:
        before = read(folder / name)
        for value in flags if name in ("rotational", "power") else numbers:
            assert errno_of(write, folder / name, value) == errno.EINVAL, value
            assert read(folder / name) == before


@pytest.mark.rule("R5")
@pytest.mark.parametrize("irq_mode", IRQ_MODES)
@pytest.mark.parametrize("block_size", ["512", "4096"])
@pytest.mark.parametrize(
    "options", [("--rw=randrw", "--iodepth=32", "--ioengine=libaio"), ("--rw=rw",)]
)
def test_fio_sees_every_request_complete(
    module: Module, irq_mode: str, block_size: str, options: tuple[str, ...]
) -> None:
    with make_disk(module, "fio", irqmode=irq_mode, blocksize=block_size) as folder:
        write(folder / "power", "1")
        before = read_completed(folder)
        issued = run_fio(folder, "--bs=4k", *options)
        after = read_completed(folder)
        assert sum(issued) == 512
        assert after[1] - before[1] == issued[1]
        # udev or the partition scan may read as well.
        assert after[0] - before[0] >= issued[0]


@pytest.mark.rule("R5")
def test_no_data_is_kept(module: Module) -> None:
    with make_disk(module, "nothing", blocksize="4096", irqmode="1") as folder:
        write(folder / "power", "1")
        with pytest.raises(AssertionError, match=r"(?s)exited with status 1\b.*verify"):
            run_fio(folder, "--rw=write", "--bs=4k", "--verify=crc32c", "--verify_fatal=1")


@pytest.mark.rule("R6")
def test_the_folder_takes_a_powered_disk_with_it(module: Module) -> None:
    with make_disk(module, "taken") as folder:
        write(folder / "power", "1")
        assert find_block(folder).exists()
    assert not find_block(folder).exists()
    assert not find_node(folder).exists()
    assert list(find_group(module).iterdir()) == [find_group(module) / "features"]


@pytest.mark.rule("R6")
@pytest.mark.parametrize("by_power", [True, False], ids=["power", "rmdir"])
def test_who_has_the_disk_open_gets_no_more_of_it(module: Module, by_power: bool) -> None:
    with make_disk(module, "open", blocksize="512") as folder:
        write(folder / "power", "1")
        descriptor = os.open(find_node(folder), os.O_RDWR)
        assert os.pwrite(descriptor, bytes(4096), 0) == 4096
        if by_power:
            write(folder / "power", "0")
    try:
        assert os.pread(descriptor, 4096, 8192) == b""
        assert errno_of(os.pwrite, descriptor, bytes(4096), 8192) == errno.ENOSPC
    finally:
        os.close(descriptor)


@pytest.mark.rule("R6")
def test_removals_lose_no_memory(
    module: Module, long_run: bool, mark_step: Callable[[], object]
) -> None:
    def come_and_go() -> None:
        for _ in range(REMOVALS_LONG if long_run else REMOVALS):
            with make_disk(module, "leak", size="1") as folder:
                write(folder / "power", "1")
            mark_step()

    assert find_lost(partial(find_kib_lost, come_and_go)) == {}


@pytest.mark.rule("R6")
def test_a_disk_can_go_while_another_program_opens_it(
    module: Module, mark_step: Callable[[], object]
) -> None:
    node = Path("/dev/raced")

    def look(_: int) -> None:
        # It is there, or just gone, or about to go.
        assert errno_of(node.read_bytes) in (0, errno.ENOENT, errno.ENXIO)

    with endless(look) as child:
        for _ in range(REMOVALS):
            with make_disk(module, "raced", size="0") as folder:
                write(folder / "power", "1")
            mark_step()
        assert child.is_busy()


@pytest.mark.rule("R7")
def test_features_names_attributes(module: Module) -> None:
    features = read(find_group(module) / "features").split(",")
    assert {"blocksize", "size", "rotational", "irqmode"} <= set(features)
    with make_disk(module, "named") as folder:
        assert {name for name in features if not (folder / name).exists()} == set()
