# SPDX-License-Identifier: GPL-2.0-only
"""How a throwaway root is made and asked; nothing is installed here."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base.sandbox import Chroot
from twinmod.errors import MissingToolError
from twinmod.release import root as release_root
from twinmod.release.root import KernelRecord, ModuleState

#: As dkms 3.2.2 prints it.
STATUS = """mdriver-c/0.1.0, 7.3.4+deb13-amd64, x86_64: installed
mdriver-rust/0.1.0+git20261127030026.g1a2b3c4d5e6f, 7.3.4+deb13-amd64, x86_64: built
mdriver-old/1: added
Warning: something else
mdriver-c/0.1.0, 6.12.117+deb13-amd64, x86_64: installed (Original modules exist)
"""

RECORD = """state: skipped
key: 
reason: linux-source-7.3 is 7.3.5-1, the headers are 7.3.4-1: they differ
help: apt install linux-source-7.3=7.3.4-1
"""  # noqa: W291


@pytest.fixture(name="root")
def throwaway(root: Chroot, tmp_path: Path) -> Chroot:
    return replace(root, root_dir=tmp_path)


def test_the_status_of_dkms_is_read_for_each_module_and_kernel() -> None:
    assert release_root.parse_status(STATUS) == (
        ModuleState(
            name="mdriver-c", version="0.1.0", release="7.3.4+deb13-amd64", state="installed"
        ),
        ModuleState(
            name="mdriver-rust",
            version="0.1.0+git20261127030026.g1a2b3c4d5e6f",
            release="7.3.4+deb13-amd64",
            state="built",
        ),
        ModuleState(name="mdriver-old", version="1", release="", state="added"),
        ModuleState(
            name="mdriver-c", version="0.1.0", release="6.12.117+deb13-amd64", state="installed"
        ),
    )


def test_records_are_read_with_reason_and_help(root: Chroot) -> None:
    assert release_root.read_records(root) == ()
    path = root.root_dir / "var/lib/mdriver-rust-dkms/6.12.1/record"
    path.parent.mkdir(parents=True)
    path.write_text(RECORD)
    assert release_root.read_records(root) == (
        KernelRecord(
            release="6.12.1",
            state="skipped",
            reason="linux-source-7.3 is 7.3.5-1, the headers are 7.3.4-1: they differ",
            help="apt install linux-source-7.3=7.3.4-1",
        ),
    )


def test_what_is_left_is_what_was_not_there_before(root: Chroot) -> None:
    for name in ("etc/kept", "var/cache/apt/x", "var/cache/other/x", "tmp/x"):
        (root.root_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (root.root_dir / name).touch()
    before = release_root.read_files(root)
    assert "etc/kept" in before
    assert not [path for path in before if path.startswith(("tmp", "var/cache/apt"))]
    (root.root_dir / "etc/kept").unlink()
    (root.root_dir / "var/cache/other/y").touch()
    assert release_root.read_files(root) - before == {"var/cache/other/y"}


def test_a_root_has_backports_and_settings_for_its_mirror() -> None:
    command = release_root.plan_root(
        "trixie",
        "http://mirror.example/debian",
        (("Acquire::Check-Date", "false"),),
        Path("/x/root"),
        ("dkms",),
    )
    assert command.argv[-3:] == (
        "/x/root",
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-backports main",
    )
    assert '--aptopt=Acquire::Check-Date "false"' in command.argv
    assert "--include=dkms" in command.argv


def test_a_root_is_changed_from_inside_with_the_network_for_apt_alone(root: Chroot) -> None:
    argv = release_root.prepare_inside(root, ("dkms", "status"), "it").argv
    assert "--unshare-net" in argv
    # dpkg gives files to several users.
    assert not [word for word in argv if "user" in word or word == "--unshare-all"]
    assert argv[argv.index("/") - 2 : argv.index("/") + 1] == ("--bind", str(root.root_dir), "/")
    apt = release_root.plan_apt("install", "x", suite="trixie-backports")
    argv = release_root.prepare_inside(root, apt, "it", debs_dir=Path("/d"), online=True).argv
    assert "--unshare-net" not in argv
    assert argv[argv.index("/d") - 1 : argv.index("/d") + 2] == ("--ro-bind", "/d", "/twinmod/debs")
    assert argv[-5:] == (
        "--yes",
        "--no-install-recommends",
        "--target-release",
        "trixie-backports",
        "x",
    )


def test_an_ordinary_user_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingToolError, match="root alone"):
        release_root.make_root("trixie", "http://mirror.example/debian", (), tmp_path / "root")
