# SPDX-License-Identifier: GPL-2.0-only
"""The tables of a configuration as Structs; docs/configuration.md is made of their docstrings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, get_args, get_origin

import msgspec
from msgspec import inspect


class Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A table of the configuration: an unknown key is an error."""


class DeviceTable(Keys, frozen=True):
    """A device that QEMU emulates, from the list on this page.

    The name of a model may stand for the table, as in `devices = ["edu"]`.

    Attributes:
        model: QEMU's name of the device.
        properties: QEMU's properties of it, from the list, as in `{ dma_mask = 0xffffffff }`.
        size-mib: Size of the disk or of the shared memory that twinmod makes for it, in MiB:
            1 to 16384, and 16 without it.
    """

    model: str
    properties: dict[str, str | int | bool] = {}
    size_mib: int | None = None


class RootTable(Keys, frozen=True):
    """A Debian suite with the compilers that some kernels were built with.

    Attributes:
        suite: Debian's suite, such as `"trixie"`.
        packages: Debian packages beside those that every root has.
    """

    suite: str
    packages: tuple[str, ...] = ()


class KernelTable(Keys, frozen=True):
    """A kernel of one of three kinds.

    A suite's kernel has `suite` and `flavour`. A kernel that twinmod builds has `source` and
    `options`. A Linux tree of your own has `tree`.

    Attributes:
        root: The root with the compilers that built this kernel; one of `roots`.
        suite: The suite that serves the kernel's packages.
        flavour: Debian's flavour, such as `"amd64"`. The VM needs 9p, which `cloud-amd64` lacks.
        series: The newest kernel of this series, as in `"7.2"`. Without it the suite's newest.
        source: The kernel of a suite whose source twinmod builds.
        options: What that build has beside what a VM needs: `"X"`, `"X=n"` or `"X=value"` for
            CONFIG_X.
        tree: The folder of a Linux tree of your own; `~` is your home.
        build: The folder that the tree was built in, when make was called with O=.
        command-line: Words for the kernel's command line.
        patience: How many times as long as others its VMs may take: at least 1.
    """

    root: str
    suite: str = ""
    flavour: str = ""
    series: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    tree: str = ""
    build: str = ""
    command_line: tuple[str, ...] = ()
    patience: float = 1.0


class ModuleTable(Keys, frozen=True):
    """One implementation of a driver: a kernel module. It has one of `sources`, `tree`, `stock`.

    A folder of the project may stand for the table, as in `c = "c_module"`: that is `sources`.

    Attributes:
        sources: A folder of the project with the module's sources, and its Kbuild if it has one.
        name: The kernel's name of the module that `sources` make, which is that of its .ko.
            Without it the sources say it, as far as they make one module.
        tree: A folder of the kernel's source, as in `"drivers/net/phy"`, which twinmod builds
            unchanged.
        module: The module of `tree` that is built.
        stock: A module that the distribution built, by its name.
        in-tree: The folder of the Linux tree in which make finds `sources`, as in
            `"samples/rust/echo"`. Without it make builds them out of tree.
        config: Options of Kconfig for the build: `"X=m"`, `"X=value"`, or `"X="` for one that is
            not set.
        parameters: The module's parameters at each load, as in `"nr_devices=0"`.
    """

    sources: str = ""
    name: str = ""
    tree: str = ""
    module: str = ""
    stock: str = ""
    in_tree: str = ""
    config: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


class TesterTable(Keys, frozen=True):
    """A Python package with an extension module, through which tests call the driver.

    Attributes:
        project: The folder of its Python project.
        package: The package that a test imports.
    """

    project: str
    package: str


class DifferenceTable(Keys, frozen=True):
    """A difference that is known: a module fails a rule, a test, or a step, and this is why.

    It has one of `rule`, `test`, `step`. A run in which it does not occur fails: the table is then
    to be removed. In `test` and `step` a `*` stands for any text.

    Attributes:
        module: The module that differs, by its label.
        why: The reason, in the kernel's terms.
        rule: A rule of the contract.
        test: The names of tests, as in `"test_read.py::test_a_read*"`.
        step: Steps of the differential as its scripts have them, as in `"pwrite(*offset=4095)"`;
            `"at the end"` is what is left after the last step.
    """

    module: str
    why: str
    rule: str = ""
    test: str = ""
    step: str = ""


class DriverVmTable(Keys, frozen=True):
    """What a driver wants of its VMs beside `vm` of the whole project.

    Attributes:
        modules: Modules of the kernel itself that the VM loads first, in this order.
        packages: Debian packages in the VM's root, unpacked and not configured.
        command-line: Words for the kernel's command line.
        devices: Devices that the VM has, behind those of `vm` of the whole project.
        memory-mib: Memory, in MiB; 0 leaves the project's.
        processors: Processors; 0 leaves the project's.
    """

    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()
    devices: tuple[str | DeviceTable, ...] = ()
    memory_mib: int = 0
    processors: int = 0


class DriverTable(Keys, frozen=True):
    """A driver: one or more modules that do the same, with one contract and one set of tests.

    Attributes:
        modules: The implementations by label. `--module` and the names of cells use the labels.
            The first is what the others are compared with.
        contract: A page with rules, each with a heading `## R1 Title`. Each rule must have an
            outcome in each cell. Without it there are no rules.
        tests: The folder with the tests. Without it twinmod loads each module, looks for faults
            and leaks, and unloads it.
        uapi: Headers that programs and testers include.
        testers: Testers by name: each is one more column of cells. Without them a cell has the
            module's label as its name.
        helpers: Modules that are loaded first and are not under test, in this order.
        differential: The package in `tests` that compares all modules with one model.
        differences: Differences that are known, each with its reason.
        bench: A file with the goals of the benchmark.
        mutants: A file with faults, each of which a rule must catch.
        vm: What this driver wants of its VMs.
    """

    modules: dict[str, str | ModuleTable]
    contract: str = ""
    tests: str = ""
    uapi: tuple[str, ...] = ()
    testers: dict[str, TesterTable] = {}
    helpers: tuple[str | ModuleTable, ...] = ()
    differential: str = ""
    differences: tuple[DifferenceTable, ...] = ()
    bench: str = ""
    mutants: str = ""
    vm: DriverVmTable = DriverVmTable()


class VmTable(Keys, frozen=True):
    """What every VM has.

    Attributes:
        memory-mib: Memory, in MiB: at least 256.
        processors: Processors.
        boot-timeout-s: From QEMU's start to the first line of twinmod's program in the VM, in
            seconds.
        test-timeout-s: One test, in seconds.
        silence-timeout-s: How long a VM may say nothing, in seconds; it sends a heartbeat each
            second.
        modules: As a driver's.
        packages: As a driver's.
        command-line: As a driver's.
        devices: As a driver's.
    """

    memory_mib: int = 1024
    processors: int = 2
    boot_timeout_s: float = 40.0
    test_timeout_s: float = 15.0
    silence_timeout_s: float = 25.0
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()
    devices: tuple[str | DeviceTable, ...] = ()


class Table(Keys, frozen=True):
    """What the whole project has.

    Attributes:
        drivers: The drivers by name.
        kernel: The kernel that verbs work on without `--kernel`; one of `kernels`.
        kernels: Kernels by name, beside the built-in ones. One of the same name takes the place
            of a built-in one.
        roots: Roots by name, beside the built-in ones, which they replace in the same way.
        packages: Debian packages that every root has beside the built-in ones.
        lock: A lock, with hashes, of the Python packages in the VM; it takes the place of the
            built-in one.
        mirror: Where Debian's packages come from. Without it a Debian host's own mirror, else
            mmdebstrap's.
        vm: What every VM has.
    """

    drivers: dict[str, DriverTable]
    kernel: str
    kernels: dict[str, KernelTable]
    roots: dict[str, RootTable]
    packages: tuple[str, ...] = ()
    lock: str = ""
    mirror: str = ""
    vm: VmTable = VmTable()


# -- unknown keys -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownKey:
    """A key that a table cannot have."""

    # Of the table: ("drivers", "echo", "vm").
    path: tuple[str, ...]
    key: str
    # What the table can have.
    known: tuple[str, ...]


def iterate_unknown(document: object) -> Iterator[UnknownKey]:
    """Yield the keys of a document that no table of the configuration has, in its order."""
    yield from _walk(document, inspect.type_info(Table), ())


def _walk(value: object, kind: inspect.Type, path: tuple[str, ...]) -> Iterator[UnknownKey]:
    if isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from _walk(value, one, path)
    elif isinstance(kind, inspect.DictType) and isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, kind.value_type, (*path, name))
    elif isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _walk(inner, kind.item_type, (*path, str(number)))
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        for key, inner in value.items():
            if key in fields:
                yield from _walk(inner, fields[key], (*path, key))
            else:
                yield UnknownKey(path=path, key=key, known=tuple(fields))


# -- what is not valid ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """A value that a table cannot have."""

    # Of the value: ("drivers", "echo", "vm", "processors").
    path: tuple[str, ...]
    # What is wrong with it, as the end of a sentence.
    why: str


def find_invalid(value: object, kind: Any = Table, path: tuple[str, ...] = ()) -> Invalid | None:
    """Return the first value that is not what a table has, None when all are.

    Args:
        value: As TOML gave it.
        kind: What it should be: the type of a field.
        path: Of the value.
    """
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        inner = (find_invalid(*part) for part in _list_parts(value, kind, path))
        found = next((one for one in inner if one is not None), None)
        return found or Invalid(path=path, why=_render_why(str(error)))
    return None


def _render_why(words: str) -> str:
    """Return what is wrong with a value, from msgspec's words."""
    missing = re.fullmatch(r"Object missing required field (`.*`)", words)
    return f"lacks {missing[1]}" if missing else f"is not valid: {words}"


def _list_parts(
    value: object, kind: Any, path: tuple[str, ...]
) -> tuple[tuple[object, Any, tuple[str, ...]], ...]:
    """Return the parts of a value, each as find_invalid takes it."""
    if isinstance(value, list) and get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple((one, item, (*path, str(number))) for number, one in enumerate(value))
    if not isinstance(value, dict):
        return ()
    if get_origin(kind) is dict:
        item = get_args(kind)[1]
        return tuple((one, item, (*path, name)) for name, one in value.items())
    tables = (one for one in (kind, *get_args(kind)) if isinstance(one, type))
    table = next((one for one in tables if issubclass(one, Keys)), None)
    fields = msgspec.structs.fields(table) if table else ()
    return tuple(
        (value[field.encode_name], field.type, (*path, field.encode_name))
        for field in fields
        if field.encode_name in value
    )


# -- documentation ----------------------------------------------------------------------------


def split_docstring(table: type[Keys]) -> tuple[str, dict[str, str]]:
    """Return what a table is, and what each of its keys is, by the key."""
    text, _, attributes = cleandoc(table.__doc__ or "").partition("\n\nAttributes:\n")
    found = re.findall(r"^    ([a-z-]+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return text, {key: " ".join(words.split()) for key, words in found}
