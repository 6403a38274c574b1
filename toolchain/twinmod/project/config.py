# SPDX-License-Identifier: GPL-2.0-only
"""``[tool.twinmod]``: the project's own data, read once, strictly."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from twinmod.base import commands
from twinmod.errors import ConfigError, NoProjectError
from twinmod.project.model import (
    LANGUAGES,
    ChrootSpec,
    KernelSpec,
    Language,
    ModuleSpec,
    TesterSpec,
    VmSpec,
)

#: The folder of results.
OUT = "out"

#: What makes a pyproject.toml a project of twinmod's.
TABLE = "[tool.twinmod]"

#: An option of a kernel: X, X=n, X=17, X="text".
_OPTION = re.compile(r'(?!CONFIG_)[A-Z0-9_]+(=("[^"]*"|\w+))?')

#: What a VM needs to come as far as the matrix, in MiB.
MEMORY_MIN_MIB = 256


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A table of the configuration: an unknown key is an error."""


class ChrootTable(_Table, frozen=True):
    """``[tool.twinmod.chroots.NAME]``."""

    suite: str
    # Beside those that every chroot has.
    packages: tuple[str, ...] = ()


class KernelTable(_Table, frozen=True):
    """``[tool.twinmod.kernels.NAME]``: suite and flavour, a source with options, or a tree."""

    chroot: str
    # Beside any of them.
    parameters: tuple[str, ...] = ()
    patience: float = 1.0
    suite: str = ""
    flavour: str = ""
    series: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    tree: str = ""
    build: str = ""


class ModuleTable(_Table, frozen=True):
    """``[tool.twinmod.modules.NAME]``; NAME is the kernel's name of the module."""

    language: str
    sources: str
    subdirs: str = ""


class TesterTable(_Table, frozen=True):
    """``[tool.twinmod.testers.NAME]``."""

    project: str
    package: str


class VmTable(_Table, frozen=True):
    """``[tool.twinmod.vm]``."""

    memory_mib: int = 1024
    processors: int = 2
    boot_timeout_s: float = 90.0
    test_timeout_s: float = 15.0
    silence_timeout_s: float = 25.0


class Table(_Table, frozen=True):
    """``[tool.twinmod]``."""

    kernel: str
    contract: str
    matrix: str
    lock: str
    chroots: dict[str, ChrootTable]
    kernels: dict[str, KernelTable]
    modules: dict[str, ModuleTable]
    testers: dict[str, TesterTable]
    differential: str = ""
    bench: str = ""
    packages: tuple[str, ...] = ()
    mirror: str = ""
    vm: VmTable = VmTable()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, checked, with every reference resolved."""

    # Where its sources are, and where results go: "out" beside them, or in the folder that a
    # person works in, when the project is the one that twinmod ships with.
    root_dir: Path
    out_dir: Path
    mirror: str
    # The page with the rules, the folder with their tests, the lock of the VM's Python.
    contract_path: Path
    matrix_dir: Path
    lock_path: Path
    # The package in the matrix's folder that holds all modules to one model, "" for none.
    differential: str
    # What the project says of its own benchmark, None for nothing.
    bench_path: Path | None
    # The kernel that verbs work on, and its chroot; one of `kernels`, with the chroot of it.
    kernel: KernelSpec
    chroot: ChrootSpec
    kernels: tuple[KernelSpec, ...]
    chroots: tuple[ChrootSpec, ...]
    modules: tuple[ModuleSpec, ...]
    testers: tuple[TesterSpec, ...]
    vm: VmSpec

    def find_module(self, language: Language) -> ModuleSpec:
        """Return the module written in a language."""
        return next(module for module in self.modules if module.language == language)


def select_kernel(config: Config, name: str) -> Config:
    """Return the configuration with another kernel to work on.

    Raises:
        ConfigError: It names none.
    """
    kernel = next((kernel for kernel in config.kernels if kernel.name == name), None)
    if kernel is None:
        names = ", ".join(kernel.name for kernel in config.kernels)
        raise ConfigError(f"--kernel {name} names no kernel; there are: {names}")
    chroot = next(chroot for chroot in config.chroots if chroot.name == kernel.chroot)
    vm = plan_limits(config.vm, kernel.patience / config.kernel.patience)
    return msgspec.structs.replace(config, kernel=kernel, chroot=chroot, vm=vm)


def plan_limits(vm: VmSpec, patience: float) -> VmSpec:
    """Return a VM that may take so many times as long to boot, for a test, and to say something."""
    return replace(
        vm,
        boot_timeout_s=vm.boot_timeout_s * patience,
        test_timeout_s=vm.test_timeout_s * patience,
        silence_timeout_s=vm.silence_timeout_s * patience,
    )


def select_memory(config: Config, memory_mib: int) -> Config:
    """Return the configuration with VMs of another size, at least MEMORY_MIN_MIB."""
    return msgspec.structs.replace(config, vm=replace(config.vm, memory_mib=memory_mib))


def has_table(path: Path) -> bool:
    """Tell whether a file is a pyproject.toml that configures twinmod."""
    named = path.name == "pyproject.toml" and path.is_file()
    return named and TABLE in path.read_text(errors="replace")


def find_project_dir(start: Path) -> Path:
    """Return the nearest folder, from a start upwards, whose pyproject.toml configures twinmod.

    Raises:
        NoProjectError: There is none.
    """
    for folder in (start, *start.parents):
        if has_table(folder / "pyproject.toml"):
            return folder
    raise NoProjectError(
        f"no pyproject.toml with {TABLE} here or in a folder above",
        facts=(("folder", str(start)),),
        hint=commands.render("new", "FOLDER"),
    )


def render_project(text: str) -> str:
    """Return the part of a pyproject.toml that configures twinmod, with its licence line.

    Args:
        text: One that read_config reads.
    """
    license_line = next((line for line in text.splitlines() if "SPDX-License" in line), "")
    kept = [license_line] if license_line else []
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.startswith((TABLE, TABLE.removesuffix("]") + "."))
        if inside:
            kept.append(line)
    return "\n".join(kept).rstrip() + "\n"


def read_config(project_dir: Path, out_dir: Path | None = None) -> Config:
    """Read a project's configuration.

    Args:
        project_dir: Its folder.
        out_dir: Where its results go; its own "out" unless it is given.

    Raises:
        ConfigError: It is not TOML, has an unknown key, lacks one, or names what is not there.
    """
    path = project_dir / "pyproject.toml"
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"pyproject.toml cannot be read: {error}", facts=(("file", str(path)),)
        ) from error
    if _has_null(document):
        raise _refuse("pyproject.toml has a null character in a string", project_dir)
    tool = document.get("tool")
    table = tool.get("twinmod") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise _refuse("pyproject.toml has no table [tool.twinmod]", project_dir)
    return make_config(table, project_dir, out_dir)


def _has_null(value: object) -> bool:
    """Tell whether there is a null character in a value of TOML, which no path and no name has."""
    if isinstance(value, dict):
        return any(_has_null(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(map(_has_null, value))
    return isinstance(value, str) and "\0" in value


def make_config(
    document: Mapping[str, object], project_dir: Path, out_dir: Path | None = None
) -> Config:
    """Return the configuration that a ``[tool.twinmod]`` table describes.

    Args:
        document: The table as TOML gave it.
        project_dir: What its paths are relative to.
        out_dir: Where its results go; the project's own "out" unless it is given.

    Raises:
        ConfigError: An unknown key, a missing one, a wrong type, a dangling reference.
    """
    try:
        table = msgspec.convert(document, Table)
    except msgspec.ValidationError as error:
        raise _refuse(f"[tool.twinmod] is not valid: {error}", project_dir) from error
    _check_references(table, project_dir)
    kernels = tuple(make_kernel(name, k, project_dir) for name, k in table.kernels.items())
    chroots = tuple(
        ChrootSpec(name=name, suite=c.suite, packages=(*table.packages, *c.packages))
        for name, c in table.chroots.items()
    )
    kernel = next(kernel for kernel in kernels if kernel.name == table.kernel)
    return Config(
        root_dir=project_dir,
        out_dir=out_dir or project_dir / OUT,
        mirror=table.mirror,
        contract_path=project_dir / table.contract,
        matrix_dir=project_dir / table.matrix,
        lock_path=project_dir / table.lock,
        differential=table.differential,
        bench_path=project_dir / table.bench if table.bench else None,
        kernel=kernel,
        chroot=next(chroot for chroot in chroots if chroot.name == kernel.chroot),
        kernels=kernels,
        chroots=chroots,
        modules=tuple(
            ModuleSpec(
                name=name, language=Language(m.language), sources=m.sources, subdirs=m.subdirs
            )
            for name, m in table.modules.items()
        ),
        testers=tuple(
            TesterSpec(name=name, project=t.project, package=t.package)
            for name, t in table.testers.items()
        ),
        vm=plan_limits(VmSpec(**msgspec.structs.asdict(table.vm)), kernel.patience),
    )


def make_kernel(name: str, table: KernelTable, project_dir: Path) -> KernelSpec:
    """Return the kernel that a table describes.

    Raises:
        ConfigError: It is both a suite's kernel and a tree, or neither, or half of one.
    """
    _check_form(name, table, project_dir)
    tree_dir = _find_dir(table.tree, project_dir)
    return KernelSpec(
        name=name,
        chroot=table.chroot,
        suite=table.suite,
        flavour=table.flavour,
        series=table.series,
        source=table.source,
        options=table.options,
        parameters=table.parameters,
        patience=table.patience,
        tree_dir=tree_dir,
        build_dir=_find_dir(table.build, project_dir) or tree_dir,
    )


def _check_form(name: str, table: KernelTable, project_dir: Path) -> None:
    """Refuse a kernel that is of several kinds, of none, or of half a one."""
    forms = (("tree", "build"), ("source", "options"), ("suite", "flavour", "series"))
    values = msgspec.structs.asdict(table)
    given = [tuple(key for key in keys if values[key]) for keys in forms]
    kinds = [keys for keys in given if keys]
    if len(kinds) > 1:
        own = " or ".join(f"`{key}`" for key in forms[given.index(kinds[0])])
        raise _refuse(
            f"kernels.{name} has {own} beside `{kinds[1][0]}`: a kernel is a person's own tree, "
            "built from the source of another one, or one of a suite",
            project_dir,
        )
    for needed, beside in (("tree", table.build), ("source", table.options)):
        if beside and not values[needed]:
            what = next(keys[1] for keys in forms if keys[0] == needed)
            raise _refuse(f"kernels.{name} has `{what}` and lacks `{needed}`", project_dir)
    lacking = [key for key in ("suite", "flavour") if not values[key]]
    if lacking and not table.tree and not table.source:
        raise _refuse(
            f"kernels.{name} lacks `{lacking[0]}`: a kernel has `suite` and `flavour`, `source` "
            "and `options`, or `tree`",
            project_dir,
        )
    if table.patience < 1:
        raise _refuse(f"kernels.{name}.patience is {table.patience}: at least 1", project_dir)
    wrong = [text for text in table.options if not _OPTION.fullmatch(text)]
    if wrong:
        raise _refuse(
            f"kernels.{name}.options has {wrong[0]!r}: an option is NAME, NAME=n or NAME=value, "
            "without CONFIG_",
            project_dir,
        )


def _find_dir(text: str, project_dir: Path) -> Path | None:
    """Return the folder that a person wrote, without links, so that equal ones look equal."""
    if not text:
        return None
    try:
        return (project_dir / Path(text).expanduser()).resolve()
    except (RuntimeError, OSError, ValueError) as error:
        raise _refuse(f"the folder {text!r} cannot be: {error}", project_dir) from error


def _refuse(message: str, project_dir: Path) -> ConfigError:
    return ConfigError(message, facts=(("file", str(project_dir / "pyproject.toml")),))


def _check_references(table: Table, project_dir: Path) -> None:
    """Refuse what is well formed and still cannot be."""
    if table.kernel not in table.kernels:
        raise _refuse(
            f"kernel = {table.kernel!r} names no kernel; there are: {', '.join(table.kernels)}",
            project_dir,
        )
    for name, kernel in table.kernels.items():
        if kernel.chroot not in table.chroots:
            raise _refuse(
                f"kernels.{name}.chroot = {kernel.chroot!r} names no chroot; "
                f"there are: {', '.join(table.chroots)}",
                project_dir,
            )
        if kernel.source and not getattr(table.kernels.get(kernel.source), "suite", ""):
            stock = ", ".join(other for other, k in table.kernels.items() if k.suite)
            raise _refuse(
                f"kernels.{name}.source = {kernel.source!r} names no kernel of a suite; "
                f"there are: {stock}",
                project_dir,
            )
    languages = tuple(sorted(module.language for module in table.modules.values()))
    if languages != LANGUAGES:
        raise _refuse(
            f"[tool.twinmod.modules] must have one module in c and one in rust, not "
            f"{', '.join(languages) or 'none'}",
            project_dir,
        )
    if tuple(sorted(table.testers)) != LANGUAGES:
        raise _refuse(
            f"[tool.twinmod.testers] must have c and rust, not "
            f"{', '.join(sorted(table.testers)) or 'none'}",
            project_dir,
        )
    vm = table.vm
    limits = (
        vm.memory_mib >= MEMORY_MIN_MIB,
        vm.processors >= 1,
        vm.boot_timeout_s > 0,
        vm.test_timeout_s > 0,
        vm.silence_timeout_s > vm.test_timeout_s,
    )
    if not all(limits):
        raise _refuse(
            f"[tool.twinmod.vm] needs memory-mib of at least {MEMORY_MIN_MIB}, processors of "
            "at least 1, limits above 0, and silence-timeout-s above test-timeout-s",
            project_dir,
        )
