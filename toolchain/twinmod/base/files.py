# SPDX-License-Identifier: GPL-2.0-only
"""The files of a folder that count: what a build or an editor leaves there does not."""

import shutil
from pathlib import Path

#: Left by builds in a checkout; no part of a project.
IGNORED = ("target", "build", "dist", "__pycache__", "*.so", "*.egg-info", ".*")


def read_files(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return (relative path, content) of a folder's files, sorted, without what builds leave."""
    ignored = shutil.ignore_patterns(*IGNORED)
    found: list[tuple[str, bytes]] = []

    def read(inner: Path) -> None:
        names = sorted(path.name for path in inner.iterdir())
        skipped = ignored(str(inner), names)
        for name in names:
            path = inner / name
            if name in skipped:
                continue
            if path.is_dir():
                read(path)
            else:
                found.append((str(path.relative_to(folder)), path.read_bytes()))

    read(folder)
    return tuple(found)
