# SPDX-License-Identifier: GPL-2.0-only
"""The configuration that a folder with a Kbuild of its own stands for."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from twinmod.base import cache, templates
from twinmod.base.files import is_left
from twinmod.errors import ConfigError, MissingToolError
from twinmod.project import config as project_config
from twinmod.project import names
from twinmod.project.config import FILE, OUT, Config
from twinmod.project.model import Language

TEMPLATE = "twinmod.toml.j2"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A module that a folder's Kbuild builds, which is a driver of its own."""

    driver: str
    label: str
    # The kernel's name of it; "" where only make knows it.
    name: str


def find_build_file(folder: Path) -> Path | None:
    """Return the file of a folder that kbuild reads, None when it names no object.

    A Makefile without `obj-m` is one of any other program. A Kbuild is nobody else's.
    """
    path = names.find_build_file(folder)
    if path is None:
        return None
    if path.name == names.BUILD_FILES[0] or names.has_objects(path.read_text(errors="replace")):
        return path
    return None


def find_modules(path: Path) -> tuple[Found, ...]:
    """Return the modules that a folder's Kbuild builds.

    Args:
        path: From find_build_file.

    Raises:
        ConfigError: It builds none.
    """
    text = path.read_text(errors="replace")
    if not names.has_objects(text):
        raise ConfigError(
            f"this folder's {path.name} builds no module: no `obj-m` in it names an object",
            facts=(("file", str(path)),),
            hint=f"obj-m += NAME.o in {path.name}",
        )
    languages = find_languages(path.parent)
    found = []
    for name in names.parse_modules(text) or ("",):
        driver = (name or path.parent.name).lower()
        label = languages[0].value if len(languages) == 1 else driver
        found.append(Found(driver=driver, label=label, name=name))
    return tuple(found)


def find_languages(folder: Path) -> tuple[Language, ...]:
    """Return the languages of the sources in a folder and in those below it."""
    suffixes = {".c": Language.C, ".rs": Language.RUST}
    found: set[Language] = set()
    for inner, folders, files in os.walk(folder):
        out = OUT if Path(inner) == folder else ""
        folders[:] = [name for name in folders if name != out and not is_left(name)]
        found |= {
            suffixes[suffix]
            for name in files
            if (suffix := Path(name).suffix) in suffixes and not is_left(name)
        }
    return tuple(sorted(found))


def _plan_module(found: Found) -> dict[str, str]:
    return {"sources": ".", **({"name": found.name} if found.name else {})}


def plan_document(modules: tuple[Found, ...]) -> Mapping[str, object]:
    """Return the tables of a configuration, as TOML has them."""
    return {
        "drivers": {
            found.driver: {"modules": {found.label: _plan_module(found)}} for found in modules
        }
    }


def read_config(path: Path) -> Config:
    """Return the configuration that a folder with a Kbuild stands for.

    Args:
        path: From find_build_file.

    Raises:
        ConfigError: It builds no module, or one whose name cannot be that of a driver.
    """
    return project_config.make_config(plan_document(find_modules(path)), path.parent, None, path)


def render_config(modules: tuple[Found, ...]) -> str:
    """Return the configuration of some modules as the text of a twinmod.toml."""
    return templates.render_template(TEMPLATE, {"modules": modules})


def write_config(folder: Path) -> None:
    """Write the configuration that a folder stands for into it.

    Raises:
        ConfigError: It has one, or no Kbuild; see read_config.
        MissingToolError: It cannot be written to.
    """
    found = project_config.list_files(folder)
    if found:
        raise ConfigError(
            f"this folder has a configuration: {found[0].name}",
            facts=(("file", str(found[0])),),
        )
    path = find_build_file(folder)
    if path is None:
        raise ConfigError(
            "this folder has no Kbuild, and no Makefile with `obj-m`",
            facts=(("folder", str(folder)),),
        )
    # What cannot be a driver is refused before anything is written.
    read_config(path)
    text = render_config(find_modules(path))
    try:
        cache.write_atomically(folder / FILE, text)
    except OSError as error:
        raise MissingToolError(
            f"{FILE} cannot be written: {error.strerror}", facts=(("folder", str(folder)),)
        ) from error
