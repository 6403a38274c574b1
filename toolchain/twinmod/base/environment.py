# SPDX-License-Identifier: GPL-2.0-only
"""Whether a session's environment must be installed again.

Standard library only: nox itself imports this, before anything is installed.
"""

from pathlib import Path

from twinmod.base import files

#: The stamp that an environment carries, in its own folder.
STAMP = "twinmod-inputs"


def read_digest(inputs: tuple[Path, ...], environment_dir: Path) -> str:
    """Return the digest of what an environment is installed from.

    Args:
        inputs: Locks, and the files that describe a distribution.
        environment_dir: Where it lies; a moved checkout is another environment.
    """
    return files.plan_digest(str(environment_dir), ((i.name, i.read_bytes()) for i in inputs))


def is_current(environment_dir: Path, inputs: tuple[Path, ...]) -> bool:
    """Tell whether an environment was installed, to the end, from just these inputs."""
    try:
        stamp = (environment_dir / STAMP).read_text()
    except OSError:
        return False
    return stamp == read_digest(inputs, environment_dir)


def note_current(environment_dir: Path, inputs: tuple[Path, ...]) -> None:
    """Note, after the last install, what an environment was installed from."""
    (environment_dir / STAMP).write_text(read_digest(inputs, environment_dir))


def list_files(*folders: Path) -> tuple[Path, ...]:
    """Return the files below folders that a build would read, sorted."""
    return tuple(path for folder in folders for path in files.list_files(folder))
