# SPDX-License-Identifier: GPL-2.0-only
"""A new project, made of templates: modules in C and Rust, a contract, its tests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from twinmod.base import nearest, templates
from twinmod.errors import ConfigError
from twinmod.project import names
from twinmod.project.model import LANGUAGES, Language

#: What the driver of a project is: a character device, a PCI driver, a module with a parameter.
KINDS = ("misc", "pci", "bare")

#: Rules that each kind's contract has.
RULES = ("R1", "R2", "R3", "R4")

#: So that NAME_rust is a name that the kernel takes.
#: Source: MODULE_NAME_LEN in include/linux/module.h, Linux 7.3, is 56 with a zero at the end.
NAME_MAX = 50

#: What makes functions of C, modules, Rust types and Debian packages of one name.
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")

#: The suffix of a source, by its language.
SUFFIXES = {Language.C: ".c", Language.RUST: ".rs"}

#: The files of every kind, and the template of each.
COMMON = {
    ".gitignore": "gitignore.j2",
    "README.md": "README.md.j2",
    "noxfile.py": "noxfile.py.j2",
    "twinmod.toml": "twinmod.toml.j2",
}

#: The files of one kind, in a folder of templates that is called like it.
OF_KIND = {"CONTRACT.md": "CONTRACT.md.j2", "tests/test_rules.py": "test_rules.py.j2"}

#: What is left out with the bodies of functions: faults in them.
FAULTS = {"mutants.toml": "mutants.toml.j2"}

#: Tells, of a rule that failed, which function is to be filled in.
PLACES = {"tests/conftest.py": "conftest.py.j2"}

#: What a rule is about, by kind and language; {module} is the module's name.
FUNCTIONS = {
    "misc": {
        Language.C: {
            "R1": "{module}_init()",
            "R2": "{module}_write_iter()",
            "R3": "{module}_read_iter()",
            "R4": "{module}_read_iter() and {module}_write_iter()",
        },
        Language.RUST: {
            "R1": "init()",
            "R2": "write_iter()",
            "R3": "read_iter()",
            "R4": "read_iter() and write_iter()",
        },
    },
    "pci": {
        Language.C: {
            "R1": "{module}_init()",
            "R2": "the table {module}_ids",
            "R3": "{module}_probe()",
            "R4": "{module}_init()",
        },
        Language.RUST: {"R1": "init()", "R2": "the table IDS", "R3": "probe()", "R4": "init()"},
    },
    "bare": {
        Language.C: dict.fromkeys(RULES, "{module}_init()"),
        Language.RUST: dict.fromkeys(RULES, "init()"),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModule:
    """A module of a new project."""

    language: Language
    # The kernel's name of it; it begins the names of C's functions.
    name: str
    # Of its Rust type.
    type: str
    # Its source, in the project.
    path: str
    # By rule: the function, or the table, that the rule is about.
    functions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProject:
    """What a new project is made of."""

    name: str
    kind: str
    modules: tuple[NewModule, ...]
    # Without the bodies of functions.
    skeleton: bool


def plan_project(
    name: str, kind: str, languages: tuple[str, ...], *, skeleton: bool = False
) -> NewProject:
    """Plan a new project.

    Args:
        name: The driver's.
        kind: One of KINDS.
        languages: Values of Language.
        skeleton: Whether bodies of functions are left out.

    Raises:
        ConfigError: A driver cannot have the name, or a language is none.
    """
    require_name(name)
    wanted = require_languages(languages)
    return NewProject(
        name=name,
        kind=kind,
        modules=tuple(_plan_module(name, kind, language) for language in wanted),
        skeleton=skeleton,
    )


def require_name(name: str) -> None:
    """Refuse a name that the kernel, C, Rust or Debian refuses.

    Raises:
        ConfigError: It is one.
    """
    fits = _NAME.fullmatch(name) and names.is_package(name) and 2 <= len(name) <= NAME_MAX
    if fits:
        return
    hint = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:NAME_MAX].strip("-")
    raise ConfigError(
        f"{name!r} cannot be the name of a driver: it names functions, a module and a Debian "
        f"package, so it has 2 to {NAME_MAX} of a to z, 0 to 9, and - or _ between them, and "
        "begins with a letter",
        hint=f"did you mean {hint}?" if len(hint) > 1 else "",
    )


def require_languages(wanted: tuple[str, ...]) -> tuple[Language, ...]:
    """Return the languages that a person named, each once.

    Raises:
        ConfigError: One of them is none.
    """
    known = tuple(language.value for language in LANGUAGES)
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"--languages {','.join(wanted)}: {name!r} is not a language that a module is "
                "written in",
                facts=(nearest.plan_fact(name, known, "languages"),),
            )
    return tuple(dict.fromkeys(map(Language, wanted)))


def _plan_module(name: str, kind: str, language: Language) -> NewModule:
    words = name.replace("-", "_")
    module = f"{words}_{language}"
    return NewModule(
        language=language,
        name=module,
        type="".join(word.capitalize() for word in module.split("_")),
        path=f"{language}/{module}{SUFFIXES[language]}",
        functions={
            rule: function.format(module=module)
            for rule, function in FUNCTIONS[kind][language].items()
        },
    )


def make_files(project: NewProject) -> tuple[tuple[str, bytes], ...]:
    """Return (path, content) of the files of a new project."""
    kind = project.kind
    of_kind = OF_KIND if project.skeleton else {**OF_KIND, **FAULTS}
    texts = {
        **{path: _render(template, project) for path, template in COMMON.items()},
        **{path: _render(f"{kind}/{template}", project) for path, template in of_kind.items()},
        **{
            module.path: _render(
                f"{kind}/{PurePosixPath(module.path).suffix[1:]}.j2", project, module
            )
            for module in project.modules
        },
    }
    if project.skeleton:
        texts |= {path: _render(template, project) for path, template in PLACES.items()}
    files = {path: text.encode() for path, text in texts.items()}
    return tuple(
        sorted({**files, "LICENSE": templates.find_resource("LICENSE").read_bytes()}.items())
    )


def _render(template: str, project: NewProject, module: NewModule | None = None) -> str:
    return templates.render_template(f"new/{template}", {"project": project, "module": module})
