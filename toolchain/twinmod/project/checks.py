# SPDX-License-Identifier: GPL-2.0-only
"""What is refused of a configuration that is well formed TOML."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from twinmod.base import nearest
from twinmod.errors import ConfigError
from twinmod.project import names, tables
from twinmod.project.tables import KernelTable, Table, UnknownKey

#: What a VM needs to come as far as the matrix, in MiB.
MEMORY_MIN_MIB = 256

#: An option of a kernel: X, X=n, X=17, X="text".
_OPTION = re.compile(r'(?!CONFIG_)[A-Z0-9_]+(=("[^"]*"|\w+))?')

#: What stands for the keys of the first edition, by (table, key); NAME is a driver's.
FIRST_EDITION = {
    ((), "contract"): "drivers.NAME.contract",
    ((), "matrix"): "drivers.NAME.tests",
    ((), "differential"): "drivers.NAME.differential",
    ((), "bench"): "drivers.NAME.bench",
    ((), "chroots"): "roots; those of twinmod are built in",
    ((), "modules"): "drivers.NAME.modules.LABEL, with `name`; `subdirs` is `in-tree`, and the "
    "sources say the language",
    ((), "testers"): "drivers.NAME.testers",
    (("kernels", "*"), "chroot"): "root",
    (("kernels", "*"), "parameters"): "command-line",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that a configuration stands in."""

    path: Path

    @property
    def project_dir(self) -> Path:
        """What its paths are relative to."""
        return self.path.parent

    @property
    def table(self) -> str:
        """How an error calls all of it."""
        return "[tool.twinmod]" if self.path.name == "pyproject.toml" else self.path.name

    def name_table(self, path: Iterable[str]) -> str:
        """Return how an error calls a table in it."""
        inner = ".".join(path)
        if self.path.name == "pyproject.toml":
            return f"[tool.twinmod.{inner}]" if inner else self.table
        return f"[{inner}]" if inner else self.table

    def refuse(self, message: str, *facts: tuple[str, str]) -> ConfigError:
        """Return the error of something in it."""
        return ConfigError(message, facts=(("file", str(self.path)), *facts))


def require_known_keys(document: Mapping[str, object], origin: Origin) -> None:
    """Refuse a key that no table has, with the nearest one that there is.

    Raises:
        ConfigError: There is one, or the configuration is of the first edition.
    """
    unknown = tuple(tables.iterate_unknown(document))
    old = tuple((key, new) for key in unknown if (new := _find_new(key)))
    if old:
        raise origin.refuse(
            f"{origin.table} is of the first edition of twinmod: "
            f"{', '.join(f'`{key.key}`' for key, _ in old)} "
            f"{'has another name' if len(old) == 1 else 'have other names'}",
            *((".".join((*key.path, key.key)), f"now {new}") for key, new in old),
        )
    for key in unknown:
        raise origin.refuse(
            f"{origin.name_table(key.path)} has an unknown key `{key.key}`",
            nearest.plan_fact(key.key, key.known, "keys"),
        )


def _find_new(key: UnknownKey) -> str:
    """Return what stands for a key of the first edition, "" when it is none."""
    path = (key.path[0], "*") if len(key.path) == 2 else key.path
    return FIRST_EDITION.get((path, key.key), "")


def require_references(table: Table, origin: Origin) -> None:
    """Refuse what is well formed and still cannot be.

    Raises:
        ConfigError: A name that nothing has, no driver, a VM that cannot work.
    """
    if not table.drivers:
        raise origin.refuse(f"{origin.table} has no driver: no table {_name_driver(origin)}")
    if table.kernel not in table.kernels:
        raise _refuse_name("kernel", table.kernel, table.kernels, origin)
    for name, kernel in table.kernels.items():
        if kernel.root not in table.roots:
            raise _refuse_name(f"kernels.{name}.root", kernel.root, table.roots, origin)
        if kernel.source and not getattr(table.kernels.get(kernel.source), "suite", ""):
            stock = tuple(other for other, k in table.kernels.items() if k.suite)
            what = f"kernels.{name}.source"
            raise _refuse_name(what, kernel.source, stock, origin, kind="kernel of a suite")
    require_packages("packages", table.packages, origin)
    for name, root in table.roots.items():
        require_packages(f"roots.{name}.packages", root.packages, origin)
    require_packages("vm.packages", table.vm.packages, origin)
    vm = table.vm
    limits = (
        vm.memory_mib >= MEMORY_MIN_MIB,
        vm.processors >= 1,
        vm.boot_timeout_s > 0,
        vm.test_timeout_s > 0,
        vm.silence_timeout_s > vm.test_timeout_s,
    )
    if not all(limits):
        raise origin.refuse(
            f"{origin.name_table(('vm',))} needs memory-mib of at least {MEMORY_MIN_MIB}, "
            "processors of at least 1, limits above 0, and silence-timeout-s above test-timeout-s"
        )


def require_packages(where: str, packages: Iterable[str], origin: Origin) -> None:
    """Refuse what is not the name of a Debian package, or one of another architecture.

    Raises:
        ConfigError: There is one.
    """
    for package in packages:
        name, colon, architecture = package.partition(":")
        if colon and names.is_debian(name):
            raise origin.refuse(
                f"{where} has {package!r}: roots and VMs are of amd64, so a package is named "
                f"without its architecture {architecture!r}",
            )
        if not names.is_debian(package):
            raise origin.refuse(
                f"{where} has {package!r}: the name of a Debian package has a to z, 0 to 9, + - . "
                "and begins with a letter or a digit"
            )


def _name_driver(origin: Origin) -> str:
    return origin.name_table(("drivers", "NAME"))


def _refuse_name(
    key: str, name: str, known: Iterable[str], origin: Origin, kind: str = ""
) -> ConfigError:
    """Return the error of a key whose value names nothing that there is."""
    names = tuple(known)
    found = nearest.find_nearest(name, names)
    return origin.refuse(
        f"{key} = {name!r} names no {kind or key.rpartition('.')[2]}; "
        f"there are: {', '.join(names)}",
        *((("nearest", found),) if found else ()),
    )


def require_form(name: str, table: KernelTable, origin: Origin) -> None:
    """Refuse a kernel that is of several kinds, of none, or of half a one.

    Raises:
        ConfigError: It is.
    """
    forms = (("tree", "build"), ("source", "options"), ("suite", "flavour", "series"))
    values = msgspec.structs.asdict(table)
    given = [tuple(key for key in keys if values[key]) for keys in forms]
    kinds = [keys for keys in given if keys]
    if len(kinds) > 1:
        own = " or ".join(f"`{key}`" for key in forms[given.index(kinds[0])])
        raise origin.refuse(
            f"kernels.{name} has {own} beside `{kinds[1][0]}`: a kernel is a person's own tree, "
            "built from the source of another one, or one of a suite",
        )
    for needed, beside in (("tree", table.build), ("source", table.options)):
        if beside and not values[needed]:
            what = next(keys[1] for keys in forms if keys[0] == needed)
            raise origin.refuse(f"kernels.{name} has `{what}` and lacks `{needed}`")
    lacking = [key for key in ("suite", "flavour") if not values[key]]
    if lacking and not table.tree and not table.source:
        raise origin.refuse(
            f"kernels.{name} lacks `{lacking[0]}`: a kernel has `suite` and `flavour`, `source` "
            "and `options`, or `tree`",
        )
    if table.patience < 1:
        raise origin.refuse(f"kernels.{name}.patience is {table.patience}: at least 1")
    wrong = [text for text in table.options if not _OPTION.fullmatch(text)]
    if wrong:
        raise origin.refuse(
            f"kernels.{name}.options has {wrong[0]!r}: an option is NAME, NAME=n or NAME=value, "
            "without CONFIG_",
        )
