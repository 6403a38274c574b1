# SPDX-License-Identifier: GPL-2.0-only
"""What a VM has in memory when it boots: a first program, or a whole root with Python in it.

Source: Documentation/driver-api/early-userspace/buffer-format.rst, Linux 7.3.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from twinmod.errors import ConfigError
from twinmod.kernels import elf

# S_IFDIR, S_IFREG and S_IFLNK with the permissions of an archive's entries.
_FOLDER_MODE = 0o040755
_FILE_MODE = 0o100755
_LINK_MODE = 0o120777

#: What the agent runs, beside Python's own library, and the shell of a person.
PROGRAMS = ("usr/bin/python3", "usr/bin/busybox", "usr/bin/bash")

#: The text of LC_ALL: without it a shell and Python complain.
LOCALE = "usr/lib/locale/C.utf8"

#: Lets a program have its memory in the same order in every VM.
SETARCH = "usr/bin/setarch"

#: Parts of Python's library that no test of a driver needs: half of it.
UNUSED = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "tkinter", "turtledemo")

#: Where a program's libraries are, below a root.
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib")

#: How many links a path leads over at most, and how long the first line of a script may be.
#: Source: MAXSYMLINKS in include/linux/namei.h and BINPRM_BUF_SIZE in binfmts.h, Linux 7.3.
MAX_LINKS, MAX_INTERPRETER = 40, 256

#: The time of every source in a whole root, in seconds: Python takes compiled code only when it
#: knows the time of its source, and not every kernel keeps the times of an archive.
SOURCE_TIME = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an archive holds: paths are relative to its root."""

    # A parent before what is in it.
    folders: tuple[str, ...] = ()
    # (path, content), each executable.
    files: tuple[tuple[str, bytes], ...] = ()
    # (path, target)
    links: tuple[tuple[str, str], ...] = ()


def plan_archive(content: Content) -> bytes:
    """Return an archive in the format newc; the same content gives the same bytes."""
    entries = [(name, _FOLDER_MODE, b"") for name in content.folders]
    entries += [(name, _LINK_MODE, target.encode()) for name, target in content.links]
    entries += [(name, _FILE_MODE, data) for name, data in content.files]
    parts = [
        _plan_entry(number, name, mode, data)
        for number, (name, mode, data) in enumerate((*entries, ("TRAILER!!!", 0, b"")), 1)
    ]
    return b"".join(parts)


def _plan_entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if mode == _FOLDER_MODE else 1
    numbers = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in numbers)
    head = header + encoded
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)


def plan_compiled(content: bytes) -> bytes:
    """Return compiled Python whose source is of SOURCE_TIME.

    Source: importlib._bootstrap_external._classify_pyc, CPython 3.13: magic, flags, time, size.
    """
    return content[:8] + SOURCE_TIME.to_bytes(4, "little") + content[12:]


# -- a whole root ------------------------------------------------------------------------------


@dataclass(slots=True)
class Root:
    """A root that grows: what is added brings along its folders, its links, and its libraries.

    Args:
        root_dir: What it is a part of.
        over_dir: What lies over that, None for nothing.
    """

    root_dir: Path
    over_dir: Path | None = None
    folders: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, name: str) -> None:
        """Add a file of the root, and where a link on the way to it leads.

        Raises:
            ConfigError: The root has no such file.
        """
        path = self._follow(name)
        if path in self.files:
            return
        try:
            self.add_content(path, self.find(path).read_bytes())
        except OSError as error:
            raise ConfigError(f"the chroot has no /{name}: {error.strerror}") from error

    def add_present(self, name: str) -> None:
        """Add what a package has at a path: a folder, a file, or a link and where it leads."""
        path = self._follow(name)
        found = self.find(path)
        if found.is_dir():
            self.add_folder(path)
        elif found.is_file():
            self.add(path)
            self._add_interpreter(self.files[path])

    def find(self, name: str) -> Path:
        """Return where on the host a path of the root is, there or not."""
        if self.over_dir and os.path.lexists(self.over_dir / name):
            return self.over_dir / name
        return self.root_dir / name

    def add_content(self, name: str, content: bytes) -> None:
        """Add a file of whatever origin."""
        self._add_folders(PurePosixPath(name).parent)
        self.files[name] = plan_compiled(content) if name.endswith(".pyc") else content
        if not content.startswith(elf.MAGIC):
            return
        interpreter, needed = elf.parse_needed(content)
        if interpreter:
            self.add(interpreter.lstrip("/"))
        beside = str(PurePosixPath(name).parent)
        for library in needed:
            self._add_library(library, beside)

    def add_folder(self, name: str) -> None:
        """Add an empty folder."""
        self._add_folders(PurePosixPath(name))

    def plan_content(self) -> Content:
        """Return what it holds, as an archive wants it."""
        return Content(
            folders=tuple(sorted(self.folders)),
            files=tuple(sorted(self.files.items())),
            links=tuple(sorted(self.links.items())),
        )

    def _add_library(self, library: str, beside: str) -> None:
        found = (f"{folder}/{library}" for folder in (*LIBRARIES, beside))
        name = next((n for n in found if os.path.lexists(self.find(n))), "")
        # One that a package brings along for itself is found by its own means, beside it.
        if name:
            self.add(name)

    def _add_interpreter(self, content: bytes) -> None:
        """Add what runs a script. Source: execve(2), "Interpreter scripts"."""
        line = content[2:MAX_INTERPRETER].split(b"\n")[0] if content.startswith(b"#!") else b""
        words = line.decode(errors="replace").split()
        # What /usr/bin/env looks for.
        for name in (*words[:1], *(f"/usr/bin/{word}" for word in words[1:2])):
            path = self._follow(name.lstrip("/"))
            if path not in self.files and self.find(path).is_file():
                self.add(path)

    def _add_folders(self, path: PurePosixPath) -> None:
        names = (str(part) for part in (path, *path.parents))
        self.folders.update(name for name in names if name != "." and name not in self.links)

    def _follow(self, name: str) -> str:
        """Return where a path leads, without a link in it; every link on the way is added."""
        reached: list[str] = []
        parts, followed = list(PurePosixPath(name).parts), 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                reached = reached[:-1]
                continue
            here = "/".join((*reached, part))
            target = self._read_target(here)
            if not target or followed == MAX_LINKS:
                reached.append(part)
                continue
            followed += 1
            self._add_folders(PurePosixPath(*reached))
            self.links[here] = target
            if target.startswith("/"):
                reached = []
            parts = [*PurePosixPath(target.lstrip("/")).parts, *parts]
        return "/".join(reached)

    def _read_target(self, name: str) -> str:
        """Return where a link leads, "" for what is none; a folder is asked for once."""
        if name not in self.targets:
            found = self.find(name)
            self.targets[name] = str(found.readlink()) if found.is_symlink() else ""
        return self.targets[name]


def iterate_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (relative path, file) of everything in a folder that a program may need, sorted."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in UNUSED and not n.startswith("config-"))
        for name in sorted(names):
            path = Path(parent) / name
            # As Debian links sitecustomize.py: to /etc, where nothing says anything.
            if path.is_file():
                yield str(path.relative_to(folder)), path


def read_root(
    root_dir: Path,
    additions: Iterable[tuple[PurePosixPath, Path]],
    over_dir: Path | None = None,
    present: Iterable[str] = (),
) -> Root:
    """Return a root with Python, what the agent runs, and more.

    Args:
        root_dir: A chroot, to take programs and libraries from.
        additions: (absolute path in the root, a file or a folder of the host).
        over_dir: What lies over the chroot.
        present: What is taken of both, as paths relative to the root.

    Raises:
        ConfigError: The chroot lacks a program.
    """
    root = Root(root_dir, over_dir)
    for name in PROGRAMS:
        root.add(name)
    library = next(root_dir.glob("usr/lib/python3.*/os.py"), None)
    if library is None:
        raise ConfigError("the chroot has no library of Python")
    parent = PurePosixPath("/", library.parent.relative_to(root_dir))
    locale = root_dir / LOCALE
    own = ((PurePosixPath("/", LOCALE), locale),) if locale.is_dir() else ()
    for target, source in ((parent, library.parent), *own, *additions):
        found = iterate_files(source) if source.is_dir() else ((".", source),)
        for name, path in found:
            root.add_content(str((target / name).relative_to("/")), path.read_bytes())
    for name in present:
        root.add_present(name)
    # What leads from the old places to those that are in use since.
    for path in root_dir.iterdir():
        if path.is_symlink():
            root.links[path.name] = str(path.readlink())
    return root
