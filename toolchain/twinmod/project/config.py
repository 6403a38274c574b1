# SPDX-License-Identifier: GPL-2.0-only
"""The configuration: ``twinmod.toml``, or ``[tool.twinmod]`` of a pyproject.toml, read strictly."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from twinmod.base import commands, nearest, templates
from twinmod.errors import ConfigError, NoProjectError
from twinmod.project import checks, devices, drivers, tables
from twinmod.project.checks import Origin
from twinmod.project.model import (
    ChrootSpec,
    DriverSpec,
    DriverVm,
    KernelSpec,
    ModuleSpec,
    TesterSpec,
    VmSpec,
)
from twinmod.project.tables import KernelTable, Table, VmTable

#: The folder of results.
OUT = "out"

#: What makes a pyproject.toml a project of twinmod's, and a file that is a project's in whole.
TABLE = "[tool.twinmod]"
FILE = "twinmod.toml"

#: The beginning of TABLE, and of a table in it, on a line of its own.
_BEGINNING = re.compile(r"^\s*\[tool\.twinmod[\].]", re.MULTILINE)

#: What every project has, beside this file.
BUILTIN = Path(__file__).with_name("builtin.toml")

#: The tests that every module can have.
STANDARD_TESTS = templates.PACKAGE_DIR / "guest/standard"

#: What a VM needs to come as far as the matrix, in MiB.
MEMORY_MIN_MIB = checks.MEMORY_MIN_MIB


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, checked, with every reference resolved."""

    # Where its sources are, and where results go: "out" beside them, or in the folder that a
    # person works in, when the project is the one that twinmod ships with.
    root_dir: Path
    results_dir: Path
    mirror: str
    # The lock of the VM's Python.
    lock_path: Path
    # The driver that verbs work on; one of `drivers`. What follows is of it.
    driver: DriverSpec
    drivers: tuple[DriverSpec, ...]
    # Its own folder of results when there are several drivers.
    out_dir: Path
    # The page with the rules, None for none; and the folder with the tests.
    contract_path: Path | None
    matrix_dir: Path
    # The package in that folder that holds all modules to one model, "" for none.
    differential: str
    # What the project says of the driver's benchmark, None for nothing.
    bench_path: Path | None
    # The faults that its tests must catch, None for none.
    mutants_path: Path | None
    # The kernel that verbs work on, and its chroot; one of `kernels`, with the chroot of it.
    kernel: KernelSpec
    chroot: ChrootSpec
    kernels: tuple[KernelSpec, ...]
    chroots: tuple[ChrootSpec, ...]
    # Of the driver on the kernel, and of the project.
    vm: VmSpec
    project_vm: VmSpec

    @property
    def modules(self) -> tuple[ModuleSpec, ...]:
        """The modules of the driver."""
        return self.driver.modules

    @property
    def testers(self) -> tuple[TesterSpec, ...]:
        """The testers of the driver."""
        return self.driver.testers

    @property
    def shown_out(self) -> str:
        """How a message calls the driver's folder of results."""
        return str(self.out_dir.relative_to(self.results_dir.parent))

    @property
    def labels(self) -> tuple[str, ...]:
        """What the driver's modules are called."""
        return tuple(module.label for module in self.modules)

    def find_module(self, label: str) -> ModuleSpec:
        """Return the driver's module of a label, which is one of `labels`."""
        return next(module for module in self.modules if module.label == label)


# -- choices ----------------------------------------------------------------------------------


def select_kernel(config: Config, name: str) -> Config:
    """Return the configuration with another kernel to work on.

    Raises:
        ConfigError: It names none.
    """
    kernel = next((kernel for kernel in config.kernels if kernel.name == name), None)
    if kernel is None:
        names = tuple(kernel.name for kernel in config.kernels)
        raise refuse_name("--kernel", "kernel", name, names)
    chroot = next(chroot for chroot in config.chroots if chroot.name == kernel.chroot)
    vm = plan_limits(config.vm, kernel.patience / config.kernel.patience)
    return msgspec.structs.replace(config, kernel=kernel, chroot=chroot, vm=vm)


def select_driver(config: Config, name: str) -> Config:
    """Return the configuration with another driver to work on.

    Raises:
        ConfigError: It names none.
    """
    driver = next((driver for driver in config.drivers if driver.name == name), None)
    if driver is None:
        names = tuple(driver.name for driver in config.drivers)
        raise refuse_name("--driver", "driver", name, names)
    several = len(config.drivers) > 1
    root_dir, vm = config.root_dir, plan_vm(config.project_vm, driver.vm)
    return msgspec.structs.replace(
        config,
        driver=driver,
        out_dir=config.results_dir / driver.name if several else config.results_dir,
        contract_path=root_dir / driver.contract if driver.contract else None,
        matrix_dir=root_dir / driver.tests if driver.tests else STANDARD_TESTS,
        differential=driver.differential,
        bench_path=root_dir / driver.bench if driver.bench else None,
        mutants_path=root_dir / driver.mutants if driver.mutants else None,
        vm=plan_limits(vm, config.kernel.patience),
    )


def refuse_name(option: str, kind: str, name: str, known: tuple[str, ...]) -> ConfigError:
    """Return the error of a name on the command line that nothing in the project has.

    Args:
        option: Where it stood, as in "--kernel".
        kind: What it should name, as in "kernel".
        name: As a person wrote it.
        known: Those that there are.
    """
    found = nearest.find_nearest(name, known)
    return ConfigError(
        f"{option} {name} names no {kind}; there are: {', '.join(known) or 'none'}",
        facts=(("nearest", found),) if found else (),
    )


def plan_vm(project: VmSpec, own: DriverVm) -> VmSpec:
    """Return the VM of a driver: the project's, with what the driver wants of its own."""
    return replace(
        project,
        memory_mib=own.memory_mib or project.memory_mib,
        processors=own.processors or project.processors,
        modules=(*project.modules, *own.modules),
        packages=(*project.packages, *own.packages),
        command_line=(*project.command_line, *own.command_line),
        devices=(*project.devices, *own.devices),
    )


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


# -- files ------------------------------------------------------------------------------------


def has_table(path: Path) -> bool:
    """Tell whether a file configures twinmod: twinmod.toml, or a pyproject.toml with the table."""
    if not path.is_file():
        return False
    if path.name == FILE:
        return True
    return path.name == "pyproject.toml" and bool(
        _BEGINNING.search(path.read_text(errors="replace"))
    )


def list_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a folder that configure twinmod."""
    return tuple(path for path in (folder / FILE, folder / "pyproject.toml") if has_table(path))


def find_project_dir(start: Path) -> Path:
    """Return the nearest folder, from a start upwards, that configures twinmod.

    Raises:
        NoProjectError: There is none.
    """
    for folder in (start, *start.parents):
        if list_files(folder):
            return folder
    raise NoProjectError(
        f"no {FILE} and no pyproject.toml with {TABLE} here or in a folder above",
        facts=(("folder", str(start)),),
        hint=commands.render("new", "NAME"),
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
        ConfigError: It is not TOML, has an unknown key, lacks one, or names what is not there; or
            the folder has both kinds of file.
    """
    found = list_files(project_dir)
    if len(found) > 1:
        raise ConfigError(
            f"both {FILE} and pyproject.toml configure twinmod",
            facts=tuple(("file", str(path)) for path in found),
            hint="keep one of them",
        )
    path = found[0] if found else project_dir / "pyproject.toml"
    origin = Origin(path)
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise origin.refuse(f"{path.name} cannot be read: {error}") from error
    if _has_null(document):
        raise origin.refuse(f"{path.name} has a null character in a string")
    if path.name == FILE:
        return make_config(document, project_dir, out_dir, path)
    tool = document.get("tool")
    table = tool.get("twinmod") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        raise origin.refuse(f"pyproject.toml has no table {TABLE}")
    return make_config(table, project_dir, out_dir, path)


def _has_null(value: object) -> bool:
    """Tell whether there is a null character in a value of TOML, which no path and no name has."""
    if isinstance(value, dict):
        return any(_has_null(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(map(_has_null, value))
    return isinstance(value, str) and "\0" in value


@cache
def read_builtin() -> Mapping[str, Any]:
    """Return the kernels, the roots and their packages that every project has, as TOML has them."""
    return tomllib.loads(BUILTIN.read_text())


def add_builtin(document: Mapping[str, object]) -> dict[str, object]:
    """Return the tables of a project with the built-in ones that it does not replace."""
    builtin, merged = read_builtin(), {"kernel": read_builtin().get("kernel"), **document}
    for key in ("kernels", "roots"):
        own = document.get(key, {})
        merged[key] = {**builtin.get(key, {}), **own} if isinstance(own, dict) else own
    own = document.get("packages", [])
    merged["packages"] = [*builtin.get("packages", []), *own] if isinstance(own, list) else own
    return merged


def make_config(
    document: Mapping[str, object],
    project_dir: Path,
    out_dir: Path | None = None,
    path: Path | None = None,
) -> Config:
    """Return the configuration that the tables of a project describe.

    Args:
        document: The tables as TOML gave them, as a twinmod.toml has them.
        project_dir: What its paths are relative to.
        out_dir: Where its results go; the project's own "out" unless it is given.
        path: The file that they stood in; the project's pyproject.toml unless it is given.

    Raises:
        ConfigError: An unknown key, a missing one, a wrong type, a dangling reference.
    """
    origin = Origin(path or project_dir / "pyproject.toml")
    checks.require_known_keys(document, origin)
    whole = add_builtin(document)
    if invalid := tables.find_invalid(whole):
        raise origin.refuse(f"{'.'.join(invalid.path) or origin.table} {invalid.why}")
    table = msgspec.convert(whole, Table)
    checks.require_references(table, origin)
    kernels = tuple(make_kernel(name, k, origin) for name, k in table.kernels.items())
    chroots = tuple(
        ChrootSpec(name=name, suite=root.suite, packages=(*table.packages, *root.packages))
        for name, root in table.roots.items()
    )
    kernel = next(kernel for kernel in kernels if kernel.name == table.kernel)
    made = tuple(drivers.make_driver(name, d, origin) for name, d in table.drivers.items())
    vm = make_vm(table.vm, origin)
    for driver in made:
        devices.require_room(driver.name, plan_vm(vm, driver.vm).devices, origin)
    results_dir = out_dir or project_dir / OUT
    config = Config(
        root_dir=project_dir,
        results_dir=results_dir,
        mirror=table.mirror,
        lock_path=(
            project_dir / table.lock if table.lock else templates.find_resource("locks/guest.txt")
        ),
        driver=made[0],
        drivers=made,
        out_dir=results_dir,
        contract_path=None,
        matrix_dir=STANDARD_TESTS,
        differential="",
        bench_path=None,
        mutants_path=None,
        kernel=kernel,
        chroot=next(chroot for chroot in chroots if chroot.name == kernel.chroot),
        kernels=kernels,
        chroots=chroots,
        vm=vm,
        project_vm=vm,
    )
    return select_driver(config, made[0].name)


def make_vm(table: VmTable, origin: Origin) -> VmSpec:
    """Return what every VM of a project has, as a table describes it.

    Raises:
        ConfigError: A device cannot be.
    """
    own = devices.make_devices("vm.devices", table.devices, origin)
    return VmSpec(**{**msgspec.structs.asdict(table), "devices": own})


def make_kernel(name: str, table: KernelTable, origin: Origin) -> KernelSpec:
    """Return the kernel that a table describes.

    Raises:
        ConfigError: It is both a suite's kernel and a tree, or neither, or half of one.
    """
    checks.require_form(name, table, origin)
    tree_dir = _find_dir(table.tree, origin)
    return KernelSpec(
        name=name,
        chroot=table.root,
        suite=table.suite,
        flavour=table.flavour,
        series=table.series,
        source=table.source,
        options=table.options,
        command_line=table.command_line,
        patience=table.patience,
        tree_dir=tree_dir,
        build_dir=_find_dir(table.build, origin) or tree_dir,
    )


def _find_dir(text: str, origin: Origin) -> Path | None:
    """Return the folder that a person wrote, without links, so that equal ones look equal."""
    if not text:
        return None
    try:
        return (origin.project_dir / Path(text).expanduser()).resolve()
    except (RuntimeError, OSError, ValueError) as error:
        raise origin.refuse(f"the folder {text!r} cannot be: {error}") from error
