# SPDX-License-Identifier: GPL-2.0-only
"""The project that verbs work on: a person's own, configured or not, or the one shipped."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from twinmod.base import cache, commands, templates, versions
from twinmod.base import files as base_files
from twinmod.base.progress import Progress
from twinmod.errors import ConfigError, MissingToolError, NoProjectError
from twinmod.project import config as project_config
from twinmod.project import kbuild
from twinmod.project.config import FILE, OUT, TABLE, Config

#: What a project has beside that which its configuration names.
BESIDE = ("LICENSE", versions.FILE, "tests/bench", "tests/mutation", "zoo")

#: Names and suffixes of files that make a folder a project of somebody else's.
FOREIGN_NAMES = frozenset(
    (
        "CMakeLists.txt",
        "Cargo.toml",
        "GNUmakefile",
        "Kbuild",
        "Kconfig",
        "Makefile",
        "dkms.conf",
        "makefile",
        "meson.build",
        "pyproject.toml",
        FILE,
    )
)
FOREIGN_SUFFIXES = frozenset((".S", ".c", ".h", ".mk", ".rs"))

#: How many of them an error names.
SHOWN_FILES = 3


def read_project(start: Path, progress: Progress) -> Config:
    """Read the nearest project from a folder upwards; else take the folder's own module.

    An empty folder is worked in with the project that twinmod ships with.

    Args:
        start: The folder that a person works in; the shipped project's results go to its "out".
        progress: Told when it is not one that a person configured.

    Raises:
        ConfigError: Its configuration is not valid, or this copy of twinmod is not whole; or no
            folder configures twinmod and this one holds somebody's sources and no Kbuild.
    """
    try:
        return project_config.read_config(project_config.find_project_dir(start))
    except NoProjectError:
        path = kbuild.find_build_file(start)
        if path is not None:
            return read_unconfigured(path, progress)
        refuse_foreign(start)
        shipped = project_config.read_config(templates.find_shipped_dir(), start / OUT)
    progress.note(
        f"no {FILE} and no {TABLE} here or above: working on mdriver, the project that twinmod "
        f"ships with; results go to {OUT}/"
    )
    return shipped


def read_unconfigured(path: Path, progress: Progress) -> Config:
    """Return the configuration that a folder's Kbuild stands for, and say so.

    Raises:
        ConfigError: See kbuild.read_config.
    """
    found = kbuild.read_config(path)
    modules = ", ".join(driver.modules[0].name or driver.name for driver in found.drivers)
    progress.note(
        f"no {FILE} and no {TABLE} here or above: working on {modules}, which this folder's "
        f"{path.name} builds; results go to {OUT}/"
    )
    return found


def refuse_foreign(folder: Path) -> None:
    """Refuse to build the shipped drivers in a folder that holds somebody's own.

    Raises:
        ConfigError: It, or a folder in it, holds sources or a build's description.
    """
    found = tuple(iterate_foreign(folder))
    if not found:
        return
    projects = [name for name in found if project_config.has_table(folder / name)]
    if projects:
        inner = str(Path(projects[0]).parent)
        raise ConfigError(
            f"no {FILE} and no {TABLE} here or above, but in {inner}",
            facts=(("folder", str(folder)),),
            hint=f"cd {shlex.quote(inner)}",
        )
    more = f" and {len(found) - SHOWN_FILES} more" if len(found) > SHOWN_FILES else ""
    raise ConfigError(
        f"this folder holds sources, and no Kbuild, no {FILE} and no {TABLE}: twinmod would build "
        "its own mdriver here, not these",
        facts=(("folder", str(folder)), ("found", ", ".join(found[:SHOWN_FILES]) + more)),
        hint=f"write a Kbuild with `obj-m`, or {FILE}; or {commands.render('new', 'NAME')}",
    )


def iterate_foreign(folder: Path) -> Iterator[str]:
    """Yield the paths, in a folder, of files that make it a project of somebody else's.

    Folders in it count, one level deep; hidden ones and the folder of results do not.
    """
    inner = (
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name != OUT and not path.name.startswith(".")
    )
    for path in (file for one in (folder, *inner) for file in _list_files(one)):
        if path.name in FOREIGN_NAMES or path.suffix in FOREIGN_SUFFIXES:
            yield str(path.relative_to(folder))


def _list_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a folder, sorted; none of one that this user may not read."""
    try:
        return tuple(path for path in sorted(folder.iterdir()) if path.is_file())
    except OSError:
        return ()


def plan_parts(config: Config) -> tuple[str, ...]:
    """Return what a project consists of beside its pyproject.toml: files and folders in it."""
    driver = config.driver
    named = (
        driver.contract,
        driver.tests,
        *(module.sources for module in driver.modules),
        *(tester.project for tester in driver.testers),
    )
    return tuple(sorted({*filter(None, named), *BESIDE}))


def read_part(root_dir: Path, part: str) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the project, content) of the files of one of plan_parts, sorted."""
    path = root_dir / part
    if path.is_file():
        return ((part, path.read_bytes()),)
    return tuple((f"{part}/{name}", content) for name, content in base_files.read_files(path))


def read_shipped() -> tuple[tuple[str, bytes], ...]:
    """Return (path, content) of all files of the project that twinmod ships with.

    Raises:
        ConfigError: This copy of twinmod is not whole.
    """
    shipped_dir = templates.find_shipped_dir()
    config = project_config.read_config(shipped_dir)
    parts = plan_parts(config)
    lacking = [part for part in parts if not (shipped_dir / part).exists()]
    if lacking:
        raise ConfigError(
            f"this copy of twinmod lacks {', '.join(lacking)}",
            facts=(("folder", str(shipped_dir)),),
            hint=templates.REINSTALL,
        )
    text = project_config.render_project((shipped_dir / "pyproject.toml").read_text())
    # A copy is not of the commit that a wheel between two releases has in its version.
    version = versions.plan_base(versions.read_version(shipped_dir))
    files = (
        (name, f"{version}\n".encode() if name == versions.FILE else content)
        for part in parts
        for name, content in read_part(shipped_dir, part)
    )
    return (("pyproject.toml", text.encode()), *files)


def write_new(target_dir: Path, files: tuple[tuple[str, bytes], ...]) -> None:
    """Make a folder with a new project, whole or not at all.

    Args:
        target_dir: It.
        files: (path, content) of what the project consists of.

    Raises:
        ConfigError: The folder is there and not empty.
        MissingToolError: It cannot be written.
    """
    if target_dir.exists() and not (target_dir.is_dir() and not any(target_dir.iterdir())):
        raise ConfigError(
            "a new project needs a new or an empty folder",
            facts=(("folder", str(target_dir)),),
            hint=commands.render("new", "ANOTHER-FOLDER"),
        )
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
            facts=(("folder", str(target_dir)),),
            hint=commands.render("new", "ANOTHER-FOLDER"),
        ) from error
    finally:
        cache.remove_tree(partial_dir)
