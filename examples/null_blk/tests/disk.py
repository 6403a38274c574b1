# SPDX-License-Identifier: GPL-2.0-only
"""The disks of the module under test, and what the block layer shows of them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twinmod.guest.testing import Module, configfs
from twinmod.guest.testing.programs import run_lines

FIO = Path("/usr/bin/fio")

GROUPS = {"null_blk": "nullb", "rnull_mod": "rnull"}


def find_group(module: Module) -> Path:
    """Return the module's folder in configfs, in which each folder is a disk."""
    return configfs.mount() / GROUPS[module.name]


@contextmanager
def make_disk(module: Module, name: str, **attributes: str) -> Iterator[Path]:
    """Make a disk that is not powered; the end of the block removes it.

    The disk has 64 MiB. Further attributes are written in their order.
    """
    with configfs.make_item(find_group(module) / name, {"size": "64", **attributes}) as folder:
        yield folder


def write(attribute: Path, value: str | bytes) -> None:
    """Write an attribute in one call, as `echo` does."""
    data = value.encode() if isinstance(value, str) else value
    descriptor = os.open(attribute, os.O_WRONLY)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def read(attribute: Path) -> str:
    """Return what an attribute shows, without the newline."""
    return attribute.read_text().removesuffix("\n")


def find_block(folder: Path) -> Path:
    """Return what sysfs has of a disk."""
    return Path("/sys/block", folder.name)


def find_node(folder: Path) -> Path:
    """Return a disk's node."""
    return Path("/dev", folder.name)


def read_queue(folder: Path, name: str) -> str:
    """Return a property of a disk's queue."""
    return (find_block(folder) / "queue" / name).read_text().strip()


def read_sectors(folder: Path) -> int:
    """Return the capacity of a disk in sectors of 512 bytes."""
    return int((find_block(folder) / "size").read_text())


def read_completed(folder: Path) -> tuple[int, int]:
    """Return how many reads and writes of a disk have completed, merged ones included."""
    fields = [int(field) for field in (find_block(folder) / "stat").read_text().split()]
    return fields[0] + fields[1], fields[4] + fields[5]


def run_fio(folder: Path, *options: str) -> tuple[int, int]:
    """Run one job of fio on a disk; return how many reads and writes it issued."""
    lines = run_lines(
        FIO,
        "--name=job",
        f"--filename={find_node(folder)}",
        "--direct=1",
        "--size=2M",
        "--output-format=json",
        *options,
    )
    assert lines is not None
    (job,) = json.loads("\n".join(lines))["jobs"]
    assert job["error"] == 0
    return job["read"]["total_ios"], job["write"]["total_ios"]
