# SPDX-License-Identifier: GPL-2.0-only
"""The devices that the kernel shows to programs, and which of them are new."""

import os
from dataclasses import dataclass
from pathlib import Path

DEV = Path("/dev")
CLASSES = Path("/sys/class")

#: File systems of their own below /dev, whose files are not devices of a driver.
MOUNTED = ("pts", "shm", "mqueue", "hugepages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Device nodes, and devices of a class; paths, sorted."""

    # Below /dev.
    nodes: tuple[Path, ...] = ()
    # /sys/class/CLASS/NAME
    class_devices: tuple[Path, ...] = ()

    @property
    def node(self) -> Path:
        """The first device node.

        Raises:
            LookupError: There is none.
        """
        if not self.nodes:
            raise LookupError("no device node appeared when the module was loaded")
        return self.nodes[0]


def read_devices() -> Devices:
    """Return all devices that there are now."""
    return Devices(nodes=_read_nodes(DEV), class_devices=_read_class_devices())


def find_new(before: Devices) -> Devices:
    """Return the devices that there are now and were not before."""
    now = read_devices()
    return Devices(
        nodes=tuple(sorted({*now.nodes} - {*before.nodes})),
        class_devices=tuple(sorted({*now.class_devices} - {*before.class_devices})),
    )


def _read_nodes(folder: Path) -> tuple[Path, ...]:
    found: list[Path] = []
    # Of each entry the kernel says what it is: nothing is looked at a second time.
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            # A link, as /dev/fd, leads to what is listed elsewhere.
            if entry.is_symlink() or entry.name in MOUNTED:
                continue
            path = folder / entry.name
            found += _read_nodes(path) if entry.is_dir() else (path,)
    return tuple(found)


def _read_class_devices() -> tuple[Path, ...]:
    if not CLASSES.is_dir():
        return ()
    found: list[Path] = []
    for folder in sorted(path for path in CLASSES.iterdir() if path.is_dir()):
        with os.scandir(folder) as entries:
            # A class has files of its own too, as /sys/class/zram-control/hot_add.
            found += sorted(folder / entry.name for entry in entries if entry.is_symlink())
    return tuple(found)
