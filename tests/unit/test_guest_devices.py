# SPDX-License-Identifier: GPL-2.0-only
"""Which devices there are, and which of them are new."""

from pathlib import Path

import pytest

from twinmod.guest import devices
from twinmod.guest.devices import Devices


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a /dev and a /sys/class in it."""
    for name in ("dev/pts", "dev/input", "class/misc", "class/zram-control"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("dev/null", "dev/pts/0", "dev/input/event0", "class/zram-control/hot_add"):
        (tmp_path / name).touch()
    (tmp_path / "dev/fd").symlink_to("/proc/self/fd")
    (tmp_path / "class/misc/loop-control").symlink_to("../../devices/virtual/misc/loop-control")
    monkeypatch.setattr(devices, "DEV", tmp_path / "dev")
    monkeypatch.setattr(devices, "CLASSES", tmp_path / "class")
    return tmp_path


def test_devices_are_nodes_and_links_of_a_class(system: Path) -> None:
    found = devices.read_devices()
    assert found.nodes == (system / "dev/input/event0", system / "dev/null")
    assert found.class_devices == (system / "class/misc/loop-control",)


def test_what_appears_is_new_and_what_goes_is_not(system: Path) -> None:
    before = devices.read_devices()
    (system / "dev/snd").mkdir()
    for name in ("toy1", "toy0", "snd/timer", "pts/1"):
        (system / "dev" / name).touch()
    (system / "class/toys").mkdir()
    (system / "class/toys/toy0").symlink_to("../../devices/virtual/toys/toy0")
    (system / "class/misc/loop-control").unlink()
    found = devices.find_new(before)
    assert found.nodes == tuple(system / "dev" / name for name in ("snd/timer", "toy0", "toy1"))
    assert found.class_devices == (system / "class/toys/toy0",)
    assert found.node == system / "dev/snd/timer"


def test_a_kernel_without_classes_has_no_device_of_one(system: Path) -> None:
    for path in sorted((system / "class").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (system / "class").rmdir()
    assert devices.read_devices().class_devices == ()


def test_a_driver_without_a_node_has_none_that_is_the_first() -> None:
    with pytest.raises(LookupError, match="no device node appeared"):
        _ = Devices().node
