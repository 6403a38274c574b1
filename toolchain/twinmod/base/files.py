# SPDX-License-Identifier: GPL-2.0-only
"""The files of a folder that count: what a build or an editor leaves there does not.

Standard library only: nox itself imports this, before anything is installed.
"""

import errno
import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Left by kbuild beside a module's sources, where a person ran make there.
KBUILD = ("*.o", "*.ko", "*.mod", "*.mod.c", "Module.symvers", "modules.order")

#: Left by builds in a checkout, as patterns of names.
LEFT = (*KBUILD, "target", "build", "dist", "__pycache__", "*.so", "*.egg-info")

#: Left by builds, and by editors; no part of a project.
IGNORED = (*LEFT, ".*")


def is_left(name: str) -> bool:
    """Whether a file or a folder of this name was left by a build or an editor."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in IGNORED)


def list_files(folder: Path) -> tuple[Path, ...]:
    """Return the paths of a folder's files, sorted, without what builds leave."""
    found: list[Path] = []

    def look_into(inner: Path) -> None:
        for path in (path for path in sorted(inner.iterdir()) if not is_left(path.name)):
            if path.is_dir():
                look_into(path)
            elif path.is_file():
                found.append(path)

    look_into(folder)
    return tuple(found)


def read_files(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return (relative path, content) of a folder's files, sorted, without what builds leave."""
    return tuple((str(path.relative_to(folder)), path.read_bytes()) for path in list_files(folder))


def list_executables(folder: Path) -> tuple[str, ...]:
    """Return the relative paths of a folder's files that their owner may execute, sorted."""
    return tuple(
        str(path.relative_to(folder))
        for path in list_files(folder)
        if path.stat().st_mode & stat.S_IXUSR
    )


def plan_digest(beginning: str, files: Iterable[tuple[str, bytes]]) -> str:
    """Return the SHA-256 of files and of what else counts, in hexadecimal.

    Args:
        beginning: What counts beside the files.
        files: (name, content), in an order that is always the same.
    """
    total = hashlib.sha256(beginning.encode())
    for name, content in files:
        total.update(f"{len(name)} {name} {len(content)} ".encode() + content)
    return total.hexdigest()


def read_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_sparsely(source: Path, target: Path) -> None:
    """Copy a file, holes as holes, to one that its owner alone may read.

    Raises:
        OSError: The target exists, or the disk is full.
    """
    with (
        source.open("rb") as original,
        os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as copy,
    ):
        size = os.fstat(original.fileno()).st_size
        for begin, end in iterate_data(original.fileno(), size):
            os.lseek(copy.fileno(), begin, os.SEEK_SET)
            done = begin
            while done < end:
                sent = os.sendfile(copy.fileno(), original.fileno(), done, end - done)
                if not sent:
                    raise OSError(errno.EIO, "it was cut short", str(source))
                done += sent
        os.ftruncate(copy.fileno(), size)


def iterate_data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each part of a file that has data.

    Source: lseek(2): SEEK_DATA ends with ENXIO where only a hole is left.
    """
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end
