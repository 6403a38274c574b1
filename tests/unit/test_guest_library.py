# SPDX-License-Identifier: GPL-2.0-only
"""The library for tests in a VM, as far as it goes without one."""

import ctypes
import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from twinmod.guest import door
from twinmod.guest.door import GuestError, Started
from twinmod.guest.testing import Module, configfs, debugfs, log, programs, sysfs


def test_attributes_are_files_that_can_be_read(tmp_path: Path) -> None:
    for name, text in {"size": "4096\n", "name": "a\nb\n", "empty": "", "key": "x\n"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "key").chmod(0o200)
    (tmp_path / "inner").mkdir()
    (tmp_path / "device").symlink_to("size")
    assert sysfs.read_all(tmp_path) == {"empty": "", "name": "a\nb", "size": "4096"}
    assert sysfs.read(tmp_path / "size") == "4096"
    with pytest.raises(FileNotFoundError):
        sysfs.read(tmp_path / "none")


def test_an_attribute_that_its_driver_refuses_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> str:
        if path.name == "speed":
            raise OSError(errno.EINVAL, "the link is down")
        return "1"

    monkeypatch.setattr(sysfs, "read", read)
    (tmp_path / "speed").touch()
    (tmp_path / "mtu").touch()
    assert sysfs.read_all(tmp_path) == {"mtu": "1"}
    assert sysfs.read_all(tmp_path / "none") == {}


def test_a_module_without_parameters_shows_none() -> None:
    assert sysfs.read_parameters(Module(name="no_such_module", ko_path=Path("x.ko"))) == {}


def test_a_kernel_without_debugfs_skips_a_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debugfs, "DEBUGFS", tmp_path)
    with pytest.raises(pytest.skip.Exception, match="no debugfs"):
        debugfs.find_folder("toy")
    (tmp_path / "toy").mkdir()
    assert debugfs.find_folder("toy") == tmp_path / "toy"
    with pytest.raises(AssertionError, match="other is missing"):
        debugfs.find_folder("other")


def test_configfs_is_mounted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfs, "CONFIGFS", tmp_path / "config")
    with pytest.raises(pytest.skip.Exception, match="no configfs"):
        configfs.mount()
    (tmp_path / "config").mkdir()
    codes = [0, errno.EBUSY, errno.EPERM]
    mounted: list[tuple[object, ...]] = []

    def mount(*arguments: object) -> int:
        mounted.append(arguments)
        ctypes.set_errno(codes.pop(0))
        return -1 if ctypes.get_errno() else 0

    monkeypatch.setattr(configfs, "_libc", SimpleNamespace(mount=mount))
    assert [configfs.mount() for _ in range(2)] == [tmp_path / "config"] * 2
    assert mounted[0] == (b"none", os.fsencode(tmp_path / "config"), b"configfs", 0, None)
    with pytest.raises(PermissionError):
        configfs.mount()


class Item(type(Path())):  # type: ignore[misc]
    """A folder as configfs has it: its attributes go with it."""

    def rmdir(self) -> None:
        for path in self.iterdir():
            path.unlink()
        super().rmdir()


def test_an_object_of_configfs_is_there_for_a_block(tmp_path: Path) -> None:
    folder = Item(tmp_path / "disk")
    with configfs.make_item(folder, {"size": "8", "power": "1"}) as made:
        assert sysfs.read_all(made) == {"power": "1", "size": "8"}
    assert not folder.exists()
    with pytest.raises(FileExistsError):
        configfs.make_item(tmp_path, {}).__enter__()
    # A driver that refuses a value leaves no object.
    with pytest.raises(FileNotFoundError), configfs.make_item(folder, {"no/such": "1"}):
        pass
    assert not folder.exists()


# -- programs that a test calls ---------------------------------------------------------------


def test_a_program_gives_its_lines_to_a_test() -> None:
    assert programs.run_lines(Path("/bin/echo"), "one", "two") == ["one two"]
    with pytest.raises(AssertionError, match="exited with status 1: "):
        programs.run_lines(Path("/bin/false"))
    with pytest.raises(GuestError, match="is not installed"):
        programs.run_lines(Path("/no/such/program"))


def test_a_program_that_the_kernel_cannot_run_is_none(tmp_path: Path) -> None:
    path = tmp_path / "compat.m32"
    path.write_bytes(b"\x7fELF" + bytes(60))
    path.chmod(0o755)
    assert programs.run_lines(path) is None


@pytest.mark.parametrize(
    ("name", "source", "argv"),
    [
        ("x.sh", "echo\n", ("sh", "/t/x.sh")),
        ("x.sh", "#!/bin/bash -eu\necho\n", ("/bin/bash", "-eu", "/t/x.sh")),
        ("x.sh", "#! /usr/bin/env  bash\n", ("/usr/bin/env", "bash", "/t/x.sh")),
        ("x.sh", "#!/bin/sh -e -u\n", ("/bin/sh", "-e -u", "/t/x.sh")),
        ("x.sh", "", ("sh", "/t/x.sh")),
        ("x.sh", "#!\necho\n", ("sh", "/t/x.sh")),
        ("x.c", "#include <stdio.h>\n", ("/t/x",)),
    ],
)
def test_a_script_is_run_by_the_program_that_it_names(
    name: str, source: str, argv: tuple[str, ...]
) -> None:
    assert programs.plan_argv(Path("/t", name), source) == argv


def test_a_program_that_is_watched_gives_each_line_and_inherits_what_it_is_given(
    tmp_path: Path,
) -> None:
    seen: list[str] = []
    read_end, write_end = os.pipe()
    script = "import os, sys; print('out', flush=True); os.write(2, b'err\\xff\\n'); "
    script += (
        "os.write(int(sys.argv[1]), os.getcwd().encode()); print(os.environ['X']); sys.exit(7)"
    )
    started = Started(
        argv=(sys.executable, "-I", "-c", script, str(write_end)),
        working_dir=tmp_path,
        environment={"X": "value"},
        descriptors=(write_end,),
    )
    status, output = door.run_watched(started, seen.append)
    os.close(write_end)
    assert (status, output) == (7, "out\nerr\ufffd\nvalue\n")
    assert seen == ["out\n", "err\ufffd\n", "value\n"]
    assert os.read(read_end, 4096) == os.fsencode(tmp_path)
    os.close(read_end)


def test_a_record_of_the_log_has_a_level() -> None:
    levels = [log.parse_record(f"{priority},1,1,-;x").level for priority in (3, 4, 12, 131)]
    assert levels == [log.ERROR, 4, 4, log.ERROR]
    assert log.parse_record("cut").level == log.DEBUG
