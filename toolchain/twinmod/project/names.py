# SPDX-License-Identifier: GPL-2.0-only
"""The names of modules: what sources say, and what may be a name.

Source: Documentation/kbuild/modules.rst, Linux 7.3; Debian Policy 4.7, 5.6.1.
"""

import re
from pathlib import Path

#: What makes a folder say itself which modules it has.
BUILD_FILES = ("Kbuild", "Makefile")

#: What a module may be compiled from.
SUFFIXES = (".c", ".rs")

#: A Debian package is called like the driver and the modules, with a dash and a word behind.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*")

#: Of a package that Debian has. Source: Debian Policy 4.7, 5.6.7.
_DEBIAN = re.compile(r"[a-z0-9][a-z0-9+.-]+")

#: The kernel's own rule: a .ko's name is one word.
_MODULE = re.compile(r"[A-Za-z0-9_-]+")

#: What stands in the name of a cell, on a command line, and in the name of a file.
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_OBJECTS = re.compile(
    r"^[ \t]*obj-([my]|\$[({]\w+[)}])[ \t]*[:+?]*=[ \t]*(.*)$",
    re.MULTILINE,
)
_VARIABLE = re.compile(
    r"^[ \t]*(?:export[ \t]+)?(\w+)[ \t]*[:?]*=[ \t]*([\w-]+)[ \t]*$",
    re.MULTILINE,
)
_USE = re.compile(r"\$[({](\w+)[)}]")


def is_package(name: str) -> bool:
    """Tell whether Debian's packages may be named after a driver or a module."""
    return _PACKAGE.fullmatch(plan_package(name)) is not None


def plan_package(name: str) -> str:
    """Return what Debian's packages call a driver or a module: they have no capital and no _."""
    return name.replace("_", "-").lower()


def is_debian(name: str) -> bool:
    """Tell whether Debian can have a package of a name, which then is no option of apt either."""
    return _DEBIAN.fullmatch(name) is not None


def is_label(name: str) -> bool:
    """Tell whether a module or a tester may be called so by a person."""
    return _LABEL.fullmatch(name) is not None


def is_module(name: str) -> bool:
    """Tell whether the kernel can have a module of a name."""
    return _MODULE.fullmatch(name) is not None


def normalize(name: str) -> str:
    """Return a module's name as the kernel has it once the module is loaded."""
    return name.replace("-", "_")


def find_build_file(folder: Path) -> Path | None:
    """Return the file of a folder that kbuild reads: its Kbuild, else its Makefile, else None."""
    paths = (folder / name for name in BUILD_FILES)
    return next((path for path in paths if path.is_file()), None)


def list_modules(folder: Path) -> tuple[str, ...]:
    """Return the names of the modules that a folder of sources makes, as far as its files say.

    Args:
        folder: With a Kbuild or a Makefile, whose `obj-m` is read; or with sources alone, of which
            each is a module.
    """
    path = find_build_file(folder)
    if path is not None:
        return parse_modules(path.read_text(errors="replace"))
    names = (path.stem for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES)
    return tuple(dict.fromkeys(name for name in names if not name.endswith(".mod")))


def is_kbuild(text: str) -> bool:
    """Tell whether a makefile names what kbuild builds, be it a module or a part of the kernel."""
    return bool(_list_objects(_join(text)))


def has_objects(text: str) -> bool:
    """Tell whether a makefile is one of kbuild's that builds a module.

    Its `obj-m` names something, or an `obj-$(CONFIG_X)` names an object. The Linux tree's own has
    folders alone.
    """
    found = _list_objects(_join(text))
    return any(words and (kind == "m" or (kind != "y" and ".o" in words)) for kind, words in found)


def parse_modules(text: str) -> tuple[str, ...]:
    """Return the names of the modules in the `obj-m` of a Kbuild.

    A variable that is not set to one word in the same text stands for nothing.
    """
    joined = _join(text)
    values = dict(_VARIABLE.findall(joined))
    words = (
        _USE.sub(lambda use: values.get(use[1], use[0]), word)
        for kind, found in _list_objects(joined)
        for word in found.split()
        if kind != "y"
    )
    names = (word.removesuffix(".o") for word in words if word.endswith(".o"))
    return tuple(dict.fromkeys(name for name in names if is_module(name)))


def _join(text: str) -> str:
    """Return a makefile with each of its lines on one."""
    return text.replace("\\\n", " ")


def _list_objects(text: str) -> list[tuple[str, str]]:
    """Return what follows each `obj-`: m, y or a variable, and its words without a comment."""
    return [(kind, words.partition("#")[0].strip()) for kind, words in _OBJECTS.findall(text)]
