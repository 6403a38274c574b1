# SPDX-License-Identifier: GPL-2.0-only
"""The drivers of a configuration, and what is refused of them."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from twinmod.base import nearest
from twinmod.project import names
from twinmod.project.checks import MEMORY_MIN_MIB, Origin, require_packages
from twinmod.project.devices import make_devices
from twinmod.project.model import (
    DifferenceSpec,
    DriverSpec,
    DriverVm,
    ModuleSpec,
    Subject,
    TesterSpec,
)
from twinmod.project.tables import DifferenceTable, DriverTable, DriverVmTable, ModuleTable

#: What a module is made from, and the key that says which one it is.
KINDS = {"sources": "name", "tree": "module", "stock": ""}

#: An option for the build of one module: X=m, X=17, or X= for one that is not set.
_CONFIG = re.compile(r"(?!CONFIG_)(\w+)=[^$\n]*", re.ASCII)


def make_driver(name: str, table: DriverTable, origin: Origin) -> DriverSpec:
    """Return the driver that a table describes.

    Raises:
        ConfigError: It has no module, two of one name, or a part that cannot be.
    """
    where = f"drivers.{name}"
    _require_package_name(where, name, origin)
    if not table.modules:
        raise origin.refuse(f"{where} has no module: {where}.modules is empty")
    for kind, found in (("modules", table.modules), ("testers", table.testers)):
        for label in found:
            _require_label(f"{where}.{kind}", label, origin)
    modules = tuple(
        make_module(label, m, f"{where}.modules.{label}", origin)
        for label, m in table.modules.items()
    )
    helpers = tuple(
        make_module("", h, f"{where}.helpers, number {number}", origin)
        for number, h in enumerate(table.helpers, 1)
    )
    _require_different(where, modules, helpers, origin)
    for tester_name, tester in table.testers.items():
        if not all(part.isidentifier() for part in tester.package.split(".")):
            raise origin.refuse(
                f"{where}.testers.{tester_name}.package = {tester.package!r} is not the name "
                "of a Python package"
            )
    return DriverSpec(
        name=name,
        modules=modules,
        contract=table.contract,
        tests=table.tests,
        uapi=table.uapi,
        testers=tuple(
            TesterSpec(name=label, project=t.project, package=t.package)
            for label, t in table.testers.items()
        ),
        helpers=helpers,
        differential=table.differential,
        bench=table.bench,
        mutants=table.mutants,
        differences=_make_differences(where, table, origin),
        vm=_make_vm(where, table.vm, origin),
    )


def make_module(label: str, table: str | ModuleTable, where: str, origin: Origin) -> ModuleSpec:
    """Return the module that a table describes, or the name of its folder.

    Args:
        label: What a person calls it; "" calls it by its own name.
        table: One of both.
        where: What an error calls it.
        origin: The file.

    Raises:
        ConfigError: It is made from nothing or from several things, or has no name.
    """
    if isinstance(table, str):
        table = ModuleTable(sources=table)
    given = [kind for kind in KINDS if getattr(table, kind)]
    if len(given) != 1:
        raise origin.refuse(
            f"{where} has {' and '.join(f'`{kind}`' for kind in given) or 'no source'}: a module "
            "has one of `sources`, `tree` and `stock`"
        )
    (kind,) = given
    _require_keys_of_kind(table, kind, where, origin)
    name = _find_name(table, kind, where, origin)
    if name and not names.is_module(name):
        raise origin.refuse(f"{where}: the kernel can have no module of the name {name!r}")
    if name and kind == "sources":
        _require_package_name(where, name, origin)
    return ModuleSpec(
        label=label or name or Path(table.sources).name,
        name=names.normalize(name),
        sources=table.sources,
        tree=table.tree,
        stock=table.stock,
        in_tree=table.in_tree,
        config=table.config,
        parameters=table.parameters,
    )


def _require_keys_of_kind(table: ModuleTable, kind: str, where: str, origin: Origin) -> None:
    """Refuse a key that means nothing beside the one that says what a module is made from."""
    others = {"name": "sources", "module": "tree", "in_tree": "sources"}
    for key, owner in others.items():
        if getattr(table, key) and owner != kind:
            shown = key.replace("_", "-")
            raise origin.refuse(f"{where} has `{shown}`, which goes with `{owner}`, not `{kind}`")
    if table.config and kind == "stock":
        raise origin.refuse(f"{where} has `config`, and nobody builds a module of `stock`")
    options = [_CONFIG.fullmatch(text) for text in table.config]
    for text, option in zip(table.config, options, strict=True):
        if option is None:
            raise origin.refuse(
                f"{where}.config has {text!r}: an option is NAME=m, NAME=value, or NAME= for "
                "one that is not set, without CONFIG_"
            )
    said = [option[1] for option in options if option]
    twice = next((name for name in said if said.count(name) > 1), "")
    if twice:
        raise origin.refuse(f"{where}.config sets {twice} more than once")


def _find_name(table: ModuleTable, kind: str, where: str, origin: Origin) -> str:
    """Return the kernel's name of a module: as it is said, else as its sources say it.

    It is "" where a Kbuild names no module in plain words, so that only make knows.
    """
    if kind == "stock":
        return table.stock
    said: str = getattr(table, KINDS[kind])
    if said:
        return said
    if kind == "tree":
        raise origin.refuse(f"{where} has `tree` and lacks `module`, which says what to build")
    folder = origin.project_dir / table.sources
    if not folder.is_dir():
        raise origin.refuse(f"{where}: the folder {table.sources} is missing")
    found = names.list_modules(folder)
    if not found and names.find_build_file(folder):
        return ""
    if len(found) != 1:
        raise origin.refuse(
            f"{where} lacks `name`: {table.sources} makes {'several modules' if found else 'none'}",
            ("modules", ", ".join(found) or "none"),
        )
    return found[0]


def _require_different(
    where: str,
    modules: tuple[ModuleSpec, ...],
    helpers: tuple[ModuleSpec, ...],
    origin: Origin,
) -> None:
    """Refuse two modules of one name, of which a kernel can load one."""
    by_name: dict[str, ModuleSpec] = {}
    for module in modules:
        other = by_name.setdefault(module.name or f"{module.label}.", module)
        if other is not module:
            raise origin.refuse(
                f"{where}.modules has two labels for {module.name}.ko: {other.label} and "
                f"{module.label}"
            )
    helper_names = [helper.name or f"{helper.sources}." for helper in helpers]
    for helper, name in zip(helpers, helper_names, strict=True):
        if helper_names.count(name) > 1:
            raise origin.refuse(f"{where}.helpers has {helper.label} more than once")
        if helper.name in by_name or _is_same(helper, modules):
            raise origin.refuse(
                f"{where}.helpers has {helper.label}, which is under test as well: a helper is not"
            )


def _is_same(helper: ModuleSpec, modules: Iterable[ModuleSpec]) -> bool:
    """Tell whether a helper is made from the folder of a module."""
    folders = {Path(module.sources) for module in modules if module.sources}
    return bool(helper.sources) and Path(helper.sources) in folders


def _require_label(where: str, label: str, origin: Origin) -> None:
    """Refuse a label that the name of a cell or of a file cannot have."""
    if not names.is_label(label):
        raise origin.refuse(
            f"{where} has {label!r}: a label has letters, digits, and - _ . behind the first one"
        )


def _require_package_name(where: str, name: str, origin: Origin) -> None:
    """Refuse a name that Debian's policy refuses for what is packaged under it."""
    if not names.is_package(name):
        raise origin.refuse(
            f"{where}: Debian refuses packages named after {name!r}: a name has a to z, 0 to 9, "
            "+ - . and begins with a letter or a digit"
        )


def _make_differences(
    where: str, driver: DriverTable, origin: Origin
) -> tuple[DifferenceSpec, ...]:
    """Return the differences that a driver declares, of which no two are the same."""
    found: list[DifferenceSpec] = []
    for number, table in enumerate(driver.differences, 1):
        here = f"{where}.differences, number {number}"
        made = _make_difference(here, table, driver, origin)
        said = (made.module, made.subject, made.pattern)
        if said in ((one.module, one.subject, one.pattern) for one in found):
            raise origin.refuse(
                f"{here}, declares once more that {made.module} differs in "
                f"`{made.subject} = {made.pattern!r}`"
            )
        found.append(made)
    return tuple(found)


def _make_difference(
    where: str, table: DifferenceTable, driver: DriverTable, origin: Origin
) -> DifferenceSpec:
    """Return one difference; refuse one that cannot occur, or that nobody gives a reason for."""
    if table.module not in driver.modules:
        raise origin.refuse(
            f"{where}, has the module {table.module!r}, which the driver does not have",
            nearest.plan_fact(table.module, driver.modules, "modules"),
        )
    given = [subject for subject in Subject if getattr(table, subject)]
    if len(given) != 1:
        raise origin.refuse(
            f"{where}, has {' and '.join(f'`{one}`' for one in given) or 'nothing that differs'}: "
            "a difference has one of `rule`, `test` and `step`"
        )
    (subject,) = given
    why = " ".join(table.why.split())
    if not why:
        raise origin.refuse(
            f"{where}, has an empty `why`: a difference is declared with its reason"
        )
    needed = {Subject.RULE: "contract", Subject.STEP: "differential"}.get(subject)
    if needed and not getattr(driver, needed):
        raise origin.refuse(f"{where}, has `{subject}`, and the driver has no `{needed}`")
    return DifferenceSpec(
        module=table.module, subject=subject, pattern=getattr(table, subject), why=why
    )


def _make_vm(where: str, table: DriverVmTable, origin: Origin) -> DriverVm:
    if (table.memory_mib and table.memory_mib < MEMORY_MIN_MIB) or table.processors < 0:
        raise origin.refuse(
            f"{where}.vm needs memory-mib of at least {MEMORY_MIN_MIB} and processors of at least 1"
        )
    require_packages(f"{where}.vm.packages", table.packages, origin)
    own = make_devices(f"{where}.vm.devices", table.devices, origin)
    return DriverVm(**{**msgspec.structs.asdict(table), "devices": own})
