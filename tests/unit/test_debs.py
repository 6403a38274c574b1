# SPDX-License-Identifier: GPL-2.0-only
"""Debian packages in the VM's root: which are fetched, and what lies over the chroot then."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from twinmod.base import cache, process
from twinmod.base.cache import CacheEntry, FoundEntry
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.errors import ConfigError, MissingToolError, TwinmodError
from twinmod.kernels.packages import WORK
from twinmod.userland import debs

#: As dpkg has it, without the fields that nothing reads.
STATUS = """\
Package: bash
Essential: yes
Status: install ok installed
Pre-Depends: libc6 (>= 2.38), libtinfo6 (>= 6)
Description: GNU Bourne Again SHell
 Bash is a shell.

Package: libc6
Status: install ok installed
Depends: libgcc-s1

Package: libgcc-s1
Status: install ok installed

Package: libtinfo6
Status: install ok installed

Package: libaio1t64
Provides: libaio1 (= 0.3.113-8)
Status: install ok installed

Package: gcc
Status: install ok installed
"""

#: Of a package that was fetched.
CONTROL = """\
Package: fio
Version: 3.39-1
Depends: libaio1 (>= 0.3.93), libc6 (>= 2.38), python3:any | perl, libnbd0
Description: flexible I/O tester
"""


@dataclass
class Apt:
    """apt and dpkg as far as a layer needs them."""

    # What each of them prints or raises, by a word of its arguments.
    refusals: dict[str, str] = field(default_factory=dict)
    names: str = "fio\nfping\njq\n"
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, command: Command, *, error: type[TwinmodError], **_: Any) -> str:
        argv = command.argv[command.argv.index("--") + 1 :]
        self.calls.append(argv)
        for word, output in self.refusals.items():
            if word in argv:
                raise error(command.purpose, facts=(("output", output),))
        if "pkgnames" in argv:
            return self.names
        if argv[2] == debs.UNPACK:
            work_dir = self.find_work(command)
            folder = work_dir / debs.CONTROL / "fio_3.39-1_amd64.deb"
            folder.mkdir()
            (folder / "control").write_text(CONTROL)
            (work_dir / debs.ROOT / "usr/bin/fio").write_bytes(b"fio")
        return ""

    def find_work(self, command: Command) -> Path:
        argv = command.argv
        return Path(argv[argv.index(str(WORK)) - 1])

    def find_calls(self, word: str) -> list[tuple[str, ...]]:
        return [argv for argv in self.calls if word in argv]


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> Apt:
    made = Apt()
    monkeypatch.setattr(process, "run", made.run)
    return made


@pytest.fixture
def chroot(root: Chroot, tmp_path: Path) -> Chroot:
    """A root as Debian has it, as far as packages matter."""
    root_dir = tmp_path / "chroot"
    (root_dir / "usr/bin").mkdir(parents=True)
    (root_dir / "bin").symlink_to("usr/bin")
    (root_dir / "vmlinuz").symlink_to("boot/vmlinuz")
    (root_dir / debs.DPKG / "info").mkdir(parents=True)
    (root_dir / debs.DPKG / "status").write_text(STATUS)
    return replace(root, root_dir=root_dir)


def prepare(chroot: Chroot, *names: str) -> CacheEntry:
    return debs.prepare_entry(names or ("fio",), chroot, "")


#: Takes names of packages, and makes their entry.
Ensure = Callable[..., FoundEntry]


@pytest.fixture
def ensure(apt: Apt, chroot: Chroot, progress: Progress, cache_dir: Path) -> Ensure:
    del apt, cache_dir
    return lambda *names: prepare(chroot, *names).ensure(progress)


# -- the entry --------------------------------------------------------------------------------


def test_packages_are_fetched_once_and_lie_over_the_chroot(apt: Apt, ensure: Ensure) -> None:
    found = ensure()
    assert found.kind == "vmroot"
    assert found.record["debs"] == ["fio_3.39-1_amd64.deb"]
    layer = debs.read_layer(found)
    assert (layer.root_dir / "usr/bin/fio").read_bytes() == b"fio"
    assert (layer.root_dir / "bin/fio").read_bytes() == b"fio", "through the link that Debian has"
    assert sorted(path.name for path in found.path.iterdir()) == ["record.json", "root"]
    assert layer.beside == ("bash", "libaio1t64", "libc6", "libgcc-s1", "libtinfo6")
    calls = len(apt.calls)
    assert debs.read_layer(ensure()) == layer
    assert len(apt.calls) == calls, "nobody asks the network again"
    (layer.root_dir / "usr/bin/fio").write_bytes(b"cut short")
    assert debs.read_layer(ensure()) == layer
    assert len(apt.calls) > calls, "an entry that was harmed is made again"


def test_apt_removes_nothing_and_asks_nobody(apt: Apt, ensure: Ensure) -> None:
    ensure("jq", "fio", "jq")
    planned, downloaded = apt.find_calls("install")
    for argv in (planned, downloaded):
        assert {"--no-remove", "--yes", "--no-install-recommends"} <= set(argv)
        assert argv[-2:] == ("fio", "jq")
    assert "--simulate" in planned
    assert "--download-only" in downloaded
    assert apt.calls.index(planned) < apt.calls.index(downloaded)


def test_a_key_follows_from_the_names_and_the_chroot_and_a_layer_from_the_versions(
    chroot: Chroot, ensure: Ensure
) -> None:
    key = prepare(chroot, "fio", "jq").key
    assert prepare(chroot, "jq", "fio").key == key
    assert prepare(chroot, "fio").key != key
    assert prepare(replace(chroot, key="trixie-2"), "fio", "jq").key != key
    layer = debs.read_layer(ensure())
    record = {"debs": ["fio_3.40-1_amd64.deb"], "beside": list(layer.beside)}
    found = ensure()
    assert debs.read_layer(replace(found, record=record)).key != layer.key


@pytest.mark.parametrize(
    ("names", "why", "nearest"),
    [
        (("foi",), "no package foi for amd64", "fio"),
        (("fio", "jqq", "zz"), "no package jqq, zz for amd64", "jq"),
    ],
)
def test_a_package_that_debian_does_not_have_is_refused_with_the_nearest(
    names: tuple[str, ...], why: str, nearest: str, apt: Apt, ensure: Ensure
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        ensure(*names)
    assert caught.value.facts == (("nearest", nearest),)
    assert apt.find_calls("install") == []
    assert not list((cache.find_cache_dir() / debs.KIND).iterdir()), "something half-made is left"


@pytest.mark.parametrize(
    ("word", "output", "error"),
    [
        ("update", "Could not resolve 'mirror.example'", MissingToolError),
        ("--simulate", "fio : Breaks: busybox-static", ConfigError),
        ("--download-only", "Connection failed", MissingToolError),
    ],
)
def test_what_apt_says_is_told_and_nothing_half_made_stays(
    word: str, output: str, error: type[TwinmodError], apt: Apt, ensure: Ensure
) -> None:
    apt.refusals[word] = output
    with pytest.raises(TwinmodError) as caught:
        ensure()
    assert type(caught.value) is error
    assert ("output", output) in caught.value.facts
    assert bool(caught.value.hint) == (error is MissingToolError)
    assert not list((cache.find_cache_dir() / debs.KIND).iterdir())


# -- unpacked ---------------------------------------------------------------------------------


def build_deb(folder: Path, name: str, contents: dict[str, str], target: Path) -> None:
    for path, text in contents.items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_text(text)
    control = folder / name / "DEBIAN/control"
    control.parent.mkdir()
    control.write_text(
        f"Package: {name}\nVersion: 1:2\nArchitecture: amd64\nMaintainer: A <a@b.example>\n"
        "Description: a package\n"
    )
    argv = ("dpkg-deb", "--build", "--root-owner-group", str(folder / name), str(target))
    process.run(Command(argv=argv, purpose="dpkg-deb", timeout_s=60))


@pytest.mark.skipif(process.find_program("dpkg-deb") is None, reason="this host has no dpkg")
def test_a_package_is_unpacked_as_dpkg_does_without_what_nobody_reads(
    chroot: Chroot, tmp_path: Path
) -> None:
    work_dir = tmp_path / "work"
    (work_dir / debs.ARCHIVES).mkdir(parents=True)
    (work_dir / debs.CONTROL).mkdir()
    debs.prepare_links(work_dir / debs.ROOT, chroot.root_dir)
    contents = {"bin/old": "old", "usr/bin/new": "new", "usr/share/doc/x/copyright": "long"}
    build_deb(tmp_path, "x", contents, work_dir / debs.ARCHIVES / "x_1%3a2_amd64.deb")
    build_deb(tmp_path, "y", {"opt/y z": "y"}, work_dir / debs.ARCHIVES / "y_2_all.deb")
    argv = debs.plan_unpack(chroot, work_dir).argv
    inside = tuple(
        str(work_dir) if word == str(WORK) else word for word in argv[argv.index("--") + 1 :]
    )
    process.run(Command(argv=inside, purpose="unpacking", timeout_s=60))
    root_dir = work_dir / debs.ROOT
    found = {name for name in debs.iterate_tree(root_dir) if (root_dir / name).is_file()}
    assert found == {"usr/bin/old", "usr/bin/new", "opt/y z"}
    assert (root_dir / "bin").is_symlink()
    assert not (root_dir / "vmlinuz").is_symlink()
    controls = sorted(path.parent.name for path in (work_dir / debs.CONTROL).glob("*/control"))
    assert controls == ["x_1%3a2_amd64.deb", "y_2_all.deb"]


# -- links ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (
            """\
                update-alternatives --install /usr/sbin/x x /usr/sbin/x-nft 20 \\
                  --slave /usr/sbin/x-save x-save /usr/sbin/x-nft-save
            """,
            (("usr/sbin/x", "usr/sbin/x-nft"), ("usr/sbin/x-save", "usr/sbin/x-nft-save")),
        ),
        (
            "\tupdate-alternatives --quiet --install '/bin/nc' nc /bin/nc.openbsd 50 # a word\n",
            (("bin/nc", "bin/nc.openbsd"),),
        ),
        ("update-alternatives --install /usr/bin/$x x /usr/bin/$x.basic 10\n", ()),
        ("update-alternatives --install /usr/../x x /usr/bin/x.basic 10\n", ()),
        ("update-alternatives --install /usr/bin/x x\n", ()),
        ("update-alternatives --remove x /usr/bin/x.basic\n", ()),
        ("update-alternatives --install '/usr/bin/x\n", ()),
        ("#!/bin/sh\nset -e\n", ()),
    ],
)
def test_alternatives_in_plain_words_are_found(
    script: str, found: tuple[tuple[str, str], ...]
) -> None:
    assert debs.parse_alternatives(script) == found


@pytest.fixture
def add(chroot: Chroot, tmp_path: Path) -> Callable[..., Path]:
    """Takes files of a layer and a postinst, returns the layer's root when it is complete."""

    def make(files: dict[str, str], postinst: str = "") -> Path:
        root_dir = tmp_path / "work" / debs.ROOT
        for name, text in files.items():
            (root_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (root_dir / name).write_text(text)
        script = tmp_path / "work" / debs.CONTROL / "x_1_amd64.deb/postinst"
        script.parent.mkdir(parents=True)
        script.write_text(postinst)
        debs.complete(tmp_path / "work", chroot.root_dir)
        return root_dir

    return make


def test_an_alternative_is_a_link_where_the_root_has_none(
    add: Callable[..., Path], chroot: Chroot
) -> None:
    (chroot.root_dir / "usr/bin/awk").write_text("mawk")
    lines = (
        f"update-alternatives --install /usr/bin/{link} {link} /usr/bin/{target} 1\n"
        for link, target in (("nc", "nc.x"), ("awk", "gawk"), ("vi", "vim"))
    )
    root_dir = add({"usr/bin/nc.x": "nc", "usr/bin/gawk": "gawk"}, "".join(lines))
    assert (root_dir / "usr/bin/nc").readlink() == Path("/usr/bin/nc.x")
    assert not os.path.lexists(root_dir / "usr/bin/awk"), "the chroot has one"
    assert not os.path.lexists(root_dir / "usr/bin/vi"), "of a package that is not there"


def test_the_loader_finds_a_library_in_a_folder_of_its_own(add: Callable[..., Path]) -> None:
    root_dir = add(
        {
            "etc/ld.so.conf.d/own.conf": "# a comment\n/usr/lib/own\ninclude /x/*.conf\n",
            "usr/lib/own/libown.so.1": "library",
            "usr/lib/other/libother.so.1": "library",
        }
    )
    folder = root_dir / debs.LOADER_DIR
    assert (folder / "libown.so.1").readlink() == Path("/usr/lib/own/libown.so.1")
    assert [path.name for path in folder.iterdir()] == ["libown.so.1"]


# -- in memory --------------------------------------------------------------------------------


def test_a_vm_in_memory_has_the_layer_and_what_it_needs_of_the_chroot(
    chroot: Chroot, tmp_path: Path
) -> None:
    (tmp_path / "layer/usr/bin").mkdir(parents=True)
    (tmp_path / "layer/usr/bin/fio").write_text("fio")
    lists = {
        "bash.list": "/.\n/usr\n/usr/bin/bash\n",
        "libc6:amd64.list": "/usr/lib/libc.so.6\n/usr/lib/x86_64-linux-gnu/gconv/IBM037.so\n",
        "bash-completion.list": "/usr/share/completion\n",
        "libc6:i386.list": "/usr/lib32/libc.so.6\n",
    }
    for name, text in lists.items():
        (chroot.root_dir / debs.DPKG / "info" / name).write_text(text)
    layer = debs.Layer(key="1", root_dir=tmp_path / "layer", beside=("bash", "gone", "libc6"))
    assert list(debs.iterate_names(layer, chroot.root_dir)) == [
        "usr",
        "usr/bin",
        "usr/bin/fio",
        *debs.GENERATED,
        ".",
        "usr",
        "usr/bin/bash",
        "usr/lib/libc.so.6",
    ]
