# SPDX-License-Identifier: GPL-2.0-only
"""The files of a folder that count: what a build or an editor leaves there does not.

Standard library only: nox itself imports this, before anything is installed.
"""

import fnmatch
import hashlib
from collections.abc import Iterable
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
