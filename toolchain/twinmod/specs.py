# SPDX-License-Identifier: GPL-2.0-only
"""The nouns. Frozen, standard library only: the program inside the VM uses them too."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol


class Progress(Protocol):
    """Where an act says what it is doing; library code never prints."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        """Show that a phase runs until the context is left."""

    def note(self, text: str) -> None:
        """Show one line between phases."""

    def detail(self, text: str) -> None:
        """Say how far the running phase is, beside its elapsed time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to start: everything the one door needs, and nothing has happened yet."""

    argv: tuple[str, ...]
    # What the process is for, as an error would say it: "the C module did not build".
    purpose: str
    # Added to the fixed environment of process.py.
    environment: tuple[tuple[str, str], ...] = ()
    working_dir: Path | None = None
    # Output goes here, whole, while the process runs; None keeps it in memory.
    log_path: Path | None = None
    timeout_s: float
    # How many of its last lines an error shows; a compiler's are shown as good as whole.
    tail_lines: int = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A folder or file of the host at a path inside the chroot."""

    source_path: Path
    target_path: PurePosixPath
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChrootSpec:
    """What the configuration says of a chroot."""

    name: str
    suite: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chroot:
    """A complete private Debian root; or this host as a root that nothing is written to."""

    name: str
    suite: str
    root_dir: Path
    # Identifies its content: a product that was built inside is as old as this.
    key: str
    # Where its packages came from, and where a kernel's come from unless one is configured.
    mirror: str
    # (name, value) of the host's own apt settings for its mirror, such as Check-Valid-Until.
    apt_options: tuple[tuple[str, str], ...] = ()
    # Of this host, (name, where it links to or "") of what lies at its top: mounted one by one,
    # because INSIDE needs a place beside them. A root of our own is mounted whole.
    top: tuple[tuple[str, str], ...] = ()
    # (name, value) beside the fixed environment: how this host's user finds their compilers.
    environment: tuple[tuple[str, str], ...] = ()


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
    parameters: tuple[str, ...] = ()
    # How many times as long as others its VMs may take: a kernel that checks all it does is slow.
    patience: float = 1.0
    # A person's own Linux tree, and where it was built: in itself, or in the folder of O=.
    tree_dir: Path | None = None
    build_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrateProof:
    """Evidence that the Rust crates are those of the kernel that is booted."""

    # What configuration, rustc and symbols were compared with.
    reference: str
    config_identical: bool
    # "" for a kernel without Rust.
    rustc: str
    checked_symbols: int
    # Symbols that the crates export and the reference's Module.symvers does not have.
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTree:
    """A kernel that modules can be built for and that a VM can boot."""

    name: str
    # uname -r of the kernel, which vermagic repeats.
    release: str
    # The distribution's package version, or uname -v of a person's own kernel.
    version: str
    # "stock": a distribution's kernel, its crates rebuilt. "built": its source with options of
    # our own. "tree": a person's own Linux tree.
    origin: str
    suite: str
    source_dir: Path
    # Where the outputs are: the sources' own folder when no O= was given.
    build_dir: Path
    # An uncompressed vmlinux: the VM boots it without decompressing on an emulated processor.
    image_path: Path
    # Modules that a VM loads before its root is there, decompressed, in load order.
    vm_module_paths: tuple[Path, ...]
    # The root whose compilers built the kernel; modules are built in it.
    compilers: Chroot
    # How make is told of them: ("CC=gcc-14",) or ("LLVM=1",).
    make_flags: tuple[str, ...]
    proof: CrateProof
    # Identifies its content.
    key: str
    # Added to the command line of its VMs.
    parameters: tuple[str, ...] = ()

    @property
    def in_place(self) -> bool:
        """Whether its outputs lie among its sources."""
        return self.build_dir == self.source_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """What the configuration says of a kernel module."""

    name: str
    # "c" or "rust"; only kbuild asks.
    language: str
    sources: str
    # The folder inside the Linux tree where it is built; "" builds it out of tree.
    subdirs: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A built kernel module that was looked at and is what it claims to be."""

    module: str
    language: str
    path: Path
    size_bytes: int
    sha256: str
    vermagic: str
    # The build that made it; a later run that finds it up to date repeats this figure.
    seconds: float
    command: str
    # True when this run found nothing to do.
    up_to_date: bool
    # Tells several builds of one module apart that a VM is given; "" where there is one.
    variant: str = ""
    # What of the kernel's own checks sees the module's code, and what is there and does not.
    watchers: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """What a VM knows the file by."""
        return f"{self.module}.{self.variant}.ko" if self.variant else f"{self.module}.ko"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One module held to the matrix by one tester."""

    module: str
    # The letter that the table shows: the module's language.
    language: str
    tester: str
    # What the table shows instead where several modules have one language.
    label: str = ""
    # Which build of the module, where a VM is given several.
    variant: str = ""
    # Only the tests that match, as pytest's -k; "" leaves all that the run has.
    keyword: str = ""
    # Only these files of the matrix; () is all of it.
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the cell, module before tester, as in ``c/rust``; a variant comes last."""
        parts = (self.label or self.language, self.tester, self.variant)
        return "/".join(part for part in parts if part)


#: What follows the cells of a run: every module held to one model, with each tester.
DIFFERENTIAL = Cell(module="", language="differential", tester="")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCell:
    """A cell on one kernel, and whether it can be run there."""

    kernel: str
    # "" until the kernel is set up.
    release: str
    cell: Cell
    # Why it cannot be run, "" when it can.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsentCell:
    """A cell that a kernel cannot have; counted as skipped, and said with its reason."""

    cell: Cell
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """How one test ended in one cell."""

    # pytest would otherwise take the class for tests.
    __test__ = False

    id: str
    rules: tuple[str, ...]
    # passed, failed, skipped; crashed, timeout, lost for the test that the VM died in.
    outcome: str
    duration_s: float
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One entry of a stack that the kernel told of."""

    # As the kernel wrote it: Rust's are mangled.
    function: str
    offset: int
    size: int
    # "" is the kernel itself.
    module: str
    # True: that instruction; False: the one after a call.
    exact: bool = False
    # Once it is decoded: the name as a person knows it, and FILE:LINE.
    name: str = ""
    place: str = ""

    @property
    def shown(self) -> str:
        """What a person is shown of its function."""
        return self.name or self.function


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where something happened: the innermost call first."""

    # "at", "allocated", "freed", "took LOCK", "write of 8 bytes", ...
    label: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFault:
    """Something the kernel said that no driver may cause."""

    # oops, panic, bug, warning, ...
    kind: str
    # The first lines of its report that say something to a person.
    lines: tuple[str, ...]
    # Seconds of the kernel's own clock, None where its log has no time stamps.
    at_s: float | None = None
    stacks: tuple[Stack, ...] = ()
    # The modules that its report names; none: the kernel's own code.
    modules: tuple[str, ...] = ()
    # The test that ran, "" between tests.
    test: str = ""
    # The console that has all of it, as a person would open it.
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Calls of one kind, whose instructions are counted."""

    # read or write, at offset 0.
    operation: str
    size_bytes: int
    # What is opened; "" is the module's own device.
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is counted in each cell, and when a count is believed."""

    timings: tuple[Timing, ...]
    # One of time.CLOCK_*.
    clock: int
    # How often the module is loaded in one VM; all is counted anew after each load.
    loads: int
    # Calls in one batch. Batches are made until the medians of two in a row differ by no more
    # than a share of the smaller one, but no more than a limit.
    calls: int
    share: float
    batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a call costs, counted in one load of a module."""

    timing: Timing
    # From 1 on, in one VM.
    load: int
    # Instructions of a call, from one reading of the clock to the next, in the last two batches.
    minimum: int
    median: int
    batches: int
    # False when the limit came before two batches agreed.
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """How one cell ended."""

    cell: Cell
    # passed, failed, crashed, timeout, lost
    outcome: str
    tests: tuple[TestResult, ...] = ()
    kernel_faults: tuple[KernelFault, ...] = ()
    # Why the cell did not pass where no test says it: a rule without outcome, a stuck unload.
    problems: tuple[str, ...] = ()
    # What a counter run measured, by name.
    count: Mapping[str, float] | None = None
    # What a measurement counted, in that order.
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor."""

    group: str
    name: str
    found: str
    needed: str
    ok: bool
    # A build can run without it when False.
    required: bool = True
    # One command that can be pasted, or "".
    fix: str = ""
