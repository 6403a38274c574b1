# SPDX-License-Identifier: GPL-2.0-only
"""The project that verbs work on: a person's own, the one twinmod ships with, or a copy of it."""

import os
from pathlib import Path

from twinmod import cache, commands, resources, userland
from twinmod.config import MARK, OUT, Config, find_project_dir, read_config, render_project
from twinmod.errors import ConfigError, MissingToolError, NoProjectError
from twinmod.specs import Progress

#: What a project has beside that which its configuration names.
BESIDE = ("LICENSE", "tests/bench", "zoo")


def read_project(start: Path, progress: Progress) -> Config:
    """Read the nearest project from a folder upwards, or the one that twinmod ships with.

    Args:
        start: The folder that a person works in; the shipped project's results go to its "out".
        progress: Told when it is the shipped one.

    Raises:
        ConfigError: Its configuration is not valid, or this copy of twinmod is not whole.
    """
    try:
        return read_config(find_project_dir(start))
    except NoProjectError:
        shipped = read_config(resources.find_shipped_dir(), start / OUT)
    progress.note(f"no {MARK} here or above: this is the project that twinmod ships with")
    return shipped


def plan_parts(config: Config) -> tuple[str, ...]:
    """Return what a project consists of beside its pyproject.toml: files and folders in it."""
    named = (
        config.contract_path, config.matrix_dir, config.lock_path,
        *(config.root_dir / module.sources for module in config.modules),
        *(config.root_dir / tester.project for tester in config.testers),
    )  # fmt: skip
    return tuple(sorted({*(str(path.relative_to(config.root_dir)) for path in named), *BESIDE}))


def read_part(root_dir: Path, part: str) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the project, content) of the files of one of plan_parts, sorted."""
    path = root_dir / part
    if path.is_file():
        return ((part, path.read_bytes()),)
    return tuple((f"{part}/{name}", content) for name, content in userland.read_files(path))


def read_shipped() -> tuple[tuple[str, bytes], ...]:
    """Return (path, content) of all files of the project that twinmod ships with.

    Raises:
        ConfigError: This copy of twinmod is not whole.
    """
    shipped_dir = resources.find_shipped_dir()
    config = read_config(shipped_dir)
    parts = plan_parts(config)
    lacking = [part for part in parts if not (shipped_dir / part).exists()]
    if lacking:
        raise ConfigError(
            f"this copy of twinmod lacks {', '.join(lacking)}",
            facts=(("folder", str(shipped_dir)),), hint=resources.REINSTALL,
        )  # fmt: skip
    text = render_project((shipped_dir / "pyproject.toml").read_text())
    files = (file for part in parts for file in read_part(shipped_dir, part))
    return (("pyproject.toml", text.encode()), *files)


def write_new(target_dir: Path) -> None:
    """Make a folder with a copy of the shipped project, whole or not at all.

    Raises:
        ConfigError: The folder is there and not empty.
        MissingToolError: It cannot be written.
    """
    if target_dir.exists() and not (target_dir.is_dir() and not any(target_dir.iterdir())):
        raise ConfigError(
            "a new project needs a new or an empty folder", facts=(("folder", str(target_dir)),),
            hint=commands.render("new", "ANOTHER-FOLDER"),
        )  # fmt: skip
    files = read_shipped()
    # An empty folder stays the one that a person may be in; it may be a mount, too.
    empty = target_dir.exists()
    partial_dir = (target_dir if empty else target_dir.parent) / f".new.{os.getpid()}"
    try:
        for name, content in files:
            path = partial_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if empty:
            for path in partial_dir.iterdir():
                path.rename(target_dir / path.name)
        else:
            partial_dir.rename(target_dir)
    except OSError as error:
        raise MissingToolError(
            f"the new project cannot be written: {error.strerror}",
            facts=(("folder", str(target_dir)),), hint=commands.render("new", "ANOTHER-FOLDER"),
        ) from error  # fmt: skip
    finally:
        cache.remove_tree(partial_dir)
