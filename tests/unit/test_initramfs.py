# SPDX-License-Identifier: GPL-2.0-only
"""What a VM has in memory: an archive that a kernel can read, and a root that Python runs in."""

import importlib.util
import os
import py_compile
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.errors import ConfigError
from twinmod.vm import initramfs

# -- the archive ------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewcEntry:
    """One entry of an archive, as the kernel would read it."""

    name: str
    inode: int
    mode: int
    links: int
    content: bytes


def parse_newc(archive: bytes) -> tuple[NewcEntry, ...]:
    """Read an archive back, as strictly as buffer-format.rst describes it."""
    entries: list[NewcEntry] = []
    offset = 0
    while True:
        assert offset % 4 == 0, "a header that is not aligned"
        header = archive[offset : offset + 110]
        assert re.fullmatch(rb"070701[0-9A-Fa-f]{104}", header)
        fields = [int(header[at : at + 8], 16) for at in range(6, 110, 8)]
        size, name_size = fields[6], fields[11]
        name = archive[offset + 110 : offset + 110 + name_size]
        assert name.endswith(b"\0")
        begin = offset + 110 + name_size
        padding = -begin % 4
        assert archive[begin : begin + padding] == b"\0" * padding
        begin += padding
        content = archive[begin : begin + size]
        assert len(content) == size, "an archive that is cut off"
        entries.append(NewcEntry(name[:-1].decode(), fields[0], fields[1], fields[4], content))
        offset = begin + size + (-size % 4)
        if entries[-1].name == "TRAILER!!!":
            assert not archive[offset:].strip(b"\0")
            return tuple(entries)


FILES = st.lists(
    st.tuples(st.text("abc./é", min_size=1).filter(lambda n: n != "."), st.binary(max_size=9)),
    unique_by=lambda pair: pair[0],
)


@given(FILES, st.lists(st.text("xyz", min_size=1), unique=True))
def test_an_initramfs_holds_what_it_was_given_in_that_order(
    files: list[tuple[str, bytes]], folders: list[str]
) -> None:
    content = initramfs.Content(files=tuple(files), folders=tuple(folders))
    archive = initramfs.plan_archive(content)
    *entries, trailer = parse_newc(archive)
    assert [(e.name, e.content) for e in entries] == [(name, b"") for name in folders] + files
    assert (trailer.mode, trailer.content) == (0, b"")
    assert len({entry.inode for entry in entries}) == len(entries)
    assert archive == initramfs.plan_archive(content)


def test_folders_are_folders_files_can_be_run_and_links_lead_on() -> None:
    content = initramfs.Content(
        files=(("usr/bin/x", b"y"),), folders=("usr", "usr/bin"), links=(("bin", "usr/bin"),)
    )
    folder, _, link, file, _ = parse_newc(initramfs.plan_archive(content))
    assert stat.S_ISDIR(folder.mode)
    assert folder.links == 2
    assert stat.S_ISLNK(link.mode)
    assert link.content == b"usr/bin"
    assert stat.S_ISREG(file.mode)
    assert stat.S_IMODE(file.mode) == 0o755


# -- a whole root ------------------------------------------------------------------------------


def run(*argv: str, working_dir: Path | None = None) -> str:
    command = Command(argv=argv, purpose="a test's program", timeout_s=60, working_dir=working_dir)
    return process.run(command)


@pytest.fixture
def chroot_dir(tmp_path: Path) -> Path:
    """A small root as Debian has it: merged /usr, links, a program with a library of its own."""
    root = tmp_path / "root"
    for name in (
        "usr/bin",
        "usr/sbin",
        "usr/lib64",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib/python3.13/test",
        "usr/lib/python3.13/__pycache__",
        "usr/lib/python3.13/config-3.13",
        "usr/lib/locale/C.utf8",
    ):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    source = tmp_path / "library.c"
    source.write_text("int f(void) { return 3; }")
    library = root / "usr/lib/x86_64-linux-gnu/libf.so.1"
    run("gcc", "-shared", "-nostdlib", "-Wl,-soname,libf.so.1", "-o", f"{library}.2", str(source))
    library.symlink_to("libf.so.1.2")
    loader = root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    loader.write_bytes(b"the loader")
    (root / "usr/lib64/ld-linux-x86-64.so.2").symlink_to(f"../lib/x86_64-linux-gnu/{loader.name}")
    source.write_text("int f(void); void _start(void) { f(); }")
    python = root / "usr/bin/python3.13"
    run(
        "gcc",
        "-nostdlib",
        "-pie",
        "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2",
        "-o",
        str(python),
        str(source),
        str(library),
    )
    (root / "usr/bin/python3").symlink_to("python3.13")
    (root / "usr/bin/bash").write_bytes(b"bash")
    (root / "usr/lib/locale/C.utf8/LC_CTYPE").write_bytes(b"characters")
    (root / "usr/sbin/busybox").write_bytes(b"busybox")
    (root / "usr/bin/busybox").symlink_to("/usr/sbin/busybox")
    for name in ("os.py", "test/t.py", "config-3.13/Makefile"):
        (root / "usr/lib/python3.13" / name).write_text("pass")
    header = b"MAGC" + bytes(4) + (1_700_000_000).to_bytes(4, "little") + b"SIZE"
    (root / "usr/lib/python3.13/__pycache__/os.cpython-313.pyc").write_bytes(header + b"code")
    return root


def test_a_whole_root_has_what_its_programs_load_and_no_more(
    chroot_dir: Path, tmp_path: Path
) -> None:
    package_dir = tmp_path / "package"
    package_dir.mkdir()
    (package_dir / "agent.py").write_text("agent")
    (tmp_path / "x.ko").write_bytes(b"module")
    additions = (
        (PurePosixPath("/twinmod/package"), package_dir),
        (PurePosixPath("/twinmod/module/x.ko"), tmp_path / "x.ko"),
    )
    content = initramfs.read_root(chroot_dir, additions).plan_content()
    assert {name for name, _ in content.files} == {
        "usr/bin/python3.13",
        "usr/sbin/busybox",
        "usr/bin/bash",
        "usr/lib/locale/C.utf8/LC_CTYPE",
        "usr/lib/x86_64-linux-gnu/libf.so.1.2",
        "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "usr/lib/python3.13/os.py",
        "usr/lib/python3.13/__pycache__/os.cpython-313.pyc",
        "twinmod/package/agent.py",
        "twinmod/module/x.ko",
    }
    assert dict(content.links) == {
        "bin": "usr/bin",
        "sbin": "usr/sbin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "usr/bin/busybox": "/usr/sbin/busybox",
        "usr/bin/python3": "python3.13",
        "usr/lib/x86_64-linux-gnu/libf.so.1": "libf.so.1.2",
        "usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    }
    made: set[str] = set()
    for name in content.folders:
        assert str(PurePosixPath(name).parent) in made | {"."}, "a folder before its parent"
        made.add(name)
    for name, _ in (*content.files, *content.links):
        assert str(PurePosixPath(name).parent) in made | {"."}


def test_what_lies_over_a_chroot_comes_first_with_all_that_it_needs(
    chroot_dir: Path, tmp_path: Path
) -> None:
    over_dir, beside = tmp_path / "over", chroot_dir / "usr/share/beside"
    library = over_dir / "usr/lib/x86_64-linux-gnu/libf.so.1.2"
    for folder in (library.parent, over_dir / "usr/bin", over_dir / "var/lib/x", beside):
        folder.mkdir(parents=True)
    (over_dir / "bin").symlink_to("usr/bin")
    library.write_bytes(b"a newer library")
    (over_dir / "usr/bin/x").write_text("#!/usr/bin/env perl\nprint 1\n")
    (over_dir / "usr/bin/y").symlink_to("../share/y")
    (over_dir / "usr/bin/loop").symlink_to("loop")
    for name in ("usr/bin/env", "usr/bin/perl", "usr/share/y", "usr/share/unasked"):
        (chroot_dir / name).write_text(name)
    (beside / "file").write_text("beside")
    names = ("bin", "usr/bin/x", "usr/bin/y", "usr/bin/loop", "var/lib/x", "gone")
    content = initramfs.read_root(
        chroot_dir, (), over_dir, (*names, "usr/share/beside/file", ".")
    ).plan_content()
    files, links = dict(content.files), dict(content.links)
    assert files["usr/lib/x86_64-linux-gnu/libf.so.1.2"] == b"a newer library"
    assert files["usr/bin/x"].startswith(b"#!/usr/bin/env perl")
    assert {"usr/bin/env", "usr/bin/perl", "usr/share/y", "usr/share/beside/file"} <= files.keys()
    assert "usr/share/unasked" not in files
    assert links["usr/bin/y"] == "../share/y"
    assert links["bin"] == "usr/bin"
    assert "var/lib/x" in content.folders
    assert not {"", ".", "gone"} & {*files, *links, *content.folders}


def test_compiled_python_is_taken_for_that_of_a_source_of_one_known_time(
    chroot_dir: Path, tmp_path: Path
) -> None:
    files = dict(initramfs.read_root(chroot_dir, ()).plan_content().files)
    compiled = files["usr/lib/python3.13/__pycache__/os.cpython-313.pyc"]
    time = initramfs.SOURCE_TIME.to_bytes(4, "little")
    assert compiled == b"MAGC" + bytes(4) + time + b"SIZE" + b"code"
    source = tmp_path / "known.py"
    source.write_text("VALUE = 1")
    cached = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), cfile=str(cached), doraise=True)
    cached.write_bytes(initramfs.plan_compiled(cached.read_bytes()))
    # Other code of the same size: only what is compiled still has the old value.
    source.write_text("VALUE = 2")
    os.utime(source, (initramfs.SOURCE_TIME, initramfs.SOURCE_TIME))
    argv = (sys.executable, "-c", "import known; print(known.VALUE)")
    assert run(*argv, working_dir=tmp_path) == "1\n"


def test_a_root_without_a_program_is_refused(chroot_dir: Path) -> None:
    (chroot_dir / "usr/bin/busybox").unlink()
    with pytest.raises(ConfigError, match="no /usr/"):
        initramfs.read_root(chroot_dir, ())
