# SPDX-License-Identifier: GPL-2.0-only
"""What a configuration says of kernels, modules, testers and VMs."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Language(StrEnum):
    """What a module is written in; its sources and its file show it."""

    C = "c"
    RUST = "rust"


LANGUAGES = tuple(Language)


#: What a property of a device may be.
Property = str | int | bool


class Bus(StrEnum):
    """Where QEMU plugs a device."""

    # Behind a root port of its own.
    PCI = "pci"
    # Behind an xHCI controller, which is behind a root port.
    USB = "usb"
    # On the board.
    ISA = "isa"
    I2C = "i2c"


class Backing(StrEnum):
    """What twinmod makes for a device to stand behind it."""

    NONE = "none"
    # A file in the VM's own folder, full of zeros, which goes with the VM.
    DISK = "disk"
    # Memory of QEMU that nobody else has.
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that QEMU emulates for a VM."""

    # QEMU's name of the driver that emulates it, as in edu.
    driver: str
    properties: tuple[tuple[str, Property], ...] = ()
    bus: Bus = Bus.PCI
    backing: Backing = Backing.NONE
    # 0 for none.
    backing_mib: int = 0
    # Whether QEMU plugs it into a VM that runs.
    hotplug: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ChrootSpec:
    """What the configuration says of a chroot."""

    name: str
    suite: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """What the configuration says of a kernel: a suite's, or a person's own tree."""

    name: str
    # The ChrootSpec with the compilers that this kernel was built with, and the VM's userland.
    chroot: str
    # The suite that serves the kernel's packages, "" for a tree.
    suite: str
    # Debian's flavour; the VM needs 9p, which "cloud-amd64" lacks. "" for a tree.
    flavour: str
    # The newest kernel of this series, as in "7.2"; "" takes the suite's newest.
    series: str = ""
    # The kernel whose source it is built from, with options of its own; "" for the others.
    source: str = ""
    # Beside what every kernel of ours has: X, X=n or X=value for CONFIG_X.
    options: tuple[str, ...] = ()
    # Added to the command line of its VMs.
    command_line: tuple[str, ...] = ()
    # How many times as long as others its VMs may take: a kernel that checks all it does is slow.
    patience: float = 1.0
    # A person's own Linux tree, and where it was built: in itself, or in the folder of O=.
    tree_dir: Path | None = None
    build_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """What the configuration says of a kernel module: whose it is, and what it is made of."""

    # What a person calls it: `--module` and the names of cells choose by it.
    label: str
    # The kernel's name of it, which is that of its .ko; "" where only make knows it.
    name: str
    # Exactly one of the next three: a folder of the project; a folder of the kernel's source, which
    # stays as it is, with `name` as make's target; the module of that name which the distribution
    # built.
    sources: str = ""
    tree: str = ""
    stock: str = ""
    # The folder inside the Linux tree where `sources` are built; "" builds them out of tree.
    in_tree: str = ""
    # Given to make: X=m or X=value for CONFIG_X, and X= for one that is empty.
    config: tuple[str, ...] = ()
    # Given to the kernel at each load: name=value.
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TesterSpec:
    """What the configuration says of a tester."""

    # pytest would otherwise take the class for tests.
    __test__ = False

    name: str
    # The folder of its Python project.
    project: str
    # The package that a test imports.
    package: str


class Subject(StrEnum):
    """In what a module differs; the name is that of the key."""

    # A rule of the contract, by its number.
    RULE = "rule"
    # Tests of the matrix, by a pattern of their names.
    TEST = "test"
    # Steps of the differential, by a pattern of how a script has them.
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceSpec:
    """What the configuration says of a difference that is known."""

    # Its label.
    module: str
    subject: Subject
    # The rule, or the pattern, in which * is any text.
    pattern: str
    # On one line.
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverVm:
    """What a driver wants of its VMs beside what all VMs of the project have."""

    # Modules of the kernel itself that are loaded before anything else.
    modules: tuple[str, ...] = ()
    # Of Debian, in the VM's root.
    packages: tuple[str, ...] = ()
    # Added to the kernel's.
    command_line: tuple[str, ...] = ()
    # After the project's own.
    devices: tuple[Device, ...] = ()
    # 0 leaves the project's.
    memory_mib: int = 0
    processors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSpec:
    """What the configuration says of a driver: one or more modules that do the same."""

    name: str
    # The others are compared with the first.
    modules: tuple[ModuleSpec, ...]
    # A page with numbered rules, "" for none.
    contract: str = ""
    # A folder; "" for the tests that every module can have.
    tests: str = ""
    # Headers that programs and testers include.
    uapi: tuple[str, ...] = ()
    testers: tuple[TesterSpec, ...] = ()
    # Loaded first, and not under test.
    helpers: tuple[ModuleSpec, ...] = ()
    # A package in the folder of tests, and two files; "" for none.
    differential: str = ""
    bench: str = ""
    mutants: str = ""
    differences: tuple[DifferenceSpec, ...] = ()
    vm: DriverVm = DriverVm()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """What the configuration says of every VM."""

    memory_mib: int
    processors: int
    # From QEMU's start to the agent's first line.
    boot_timeout_s: float
    # One test; the agent enforces it.
    test_timeout_s: float
    # Without a line from the agent, which sends a heartbeat; the host enforces it.
    silence_timeout_s: float
    # As DriverVm has them.
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
