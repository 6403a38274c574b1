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
    # Of this host, what stays visible of folders that a sandbox has of its own, such as /run.
    kept: tuple[Path, ...] = ()
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
    """What the Rust crates of a tree were compared with, and how much of them could be.

    A tree whose source package, configuration or compilers are not the kernel's own, or one of
    whose names or types differs, is refused: it has no proof.
    """

    # What configuration, rustc, names and layouts were compared with.
    reference: str
    # "" for a kernel without Rust.
    rustc: str
    # Names that the crates export, each in the reference's Module.symvers: they show the same
    # crates' names and the same rustc, and nothing of configuration, source or layout.
    checked_symbols: int
    # Types that are laid out as in the BTF of the booted image.
    equal_layouts: int = 0
    # Names of types that could not be compared: that BTF does not have them.
    unknown_layouts: tuple[str, ...] = ()
    # Names, of types that are laid out equally, which stand for other types there too.
    ambiguous_layouts: tuple[str, ...] = ()
    # Why no layout was compared, "" when some were.
    uncompared: str = ""


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
    # Only the tests of these rules; () leaves all that the run has.
    rules: tuple[str, ...] = ()
    # Only these files of the matrix; () is all of it.
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the cell, module before tester, as in ``c/rust``; a variant comes last."""
        parts = (self.label or self.language, self.tester, self.variant)
        return "/".join(part for part in parts if part)


#: What calls are measured on beside the modules' devices.
YARDSTICKS = Cell(module="", language="yardsticks", tester="c")

#: Both modules, whose calls a clock times in turns.
TURNS = Cell(module="", language="turns", tester="")

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
    # What cures that, "" for nothing that a person can do.
    fix: str = ""


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


#: A file in memory of the VM, which calls are measured on too.
TMPFS_FILE = "/tmp/twinmod.yardstick"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Calls of one kind, whose instructions are counted."""

    # read, write, pread, pwrite, add; open, which closes too; load, unload.
    operation: str
    size_bytes: int = 0
    # What is opened; "" is the module's own device.
    path: str = ""
    # "reused": one buffer, all of it there. "fresh": each call's was never touched.
    buffers: str = "reused"
    # Whose loop makes the calls: the tester's, or one in C with nothing else in it, "bare".
    loop: str = "tester"
    # How many make them at once; only a clock can tell what that costs.
    threads: int = 1
    # What several threads move: "disjoint" regions of the device, or the same "one".
    regions: str = "one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is counted in each cell."""

    timings: tuple[Timing, ...]
    # How often the module is loaded in one VM; all is counted anew after each load.
    loads: int
    # Each of two segments of calls. The first ones are not believed: a module that was just loaded
    # has things to do for the first time.
    rounds: int
    # Of a clock: how often each module's turn comes.
    turns: int = 0
    # Whether a loop of reads and writes is looked at too, with buffers that are made in it.
    loop: bool = False
    # Of the device's memory; 0 leaves the module its own.
    device_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Where, in what a VM's profiler wrote, the calls of one kind are."""

    timing: Timing
    # The name of the cell.
    cell: str
    # From 1 on, in one VM.
    load: int
    # Of all that was loaded in that VM.
    section: int
    # The number, in the section, of the mark that ended the first segment; every second one ends
    # one.
    first: int
    # How many calls the two segments of a round make.
    lengths: tuple[int, int]
    # Minor page faults of every segment.
    faults: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a call costs, counted after one load of a module."""

    timing: Timing
    cell: str
    load: int
    # Instructions of a call: medians over the rounds that are believed.
    user: float
    kernel: float
    minor_faults: float
    # (function of the kernel or of a module, its instructions), the dearest first.
    functions: tuple[tuple[str, float], ...] = ()
    # What interrupts and other threads executed meanwhile, by call: no part of it.
    elsewhere: float = 0.0
    # Whether the rounds agree.
    settled: bool = True

    @property
    def instructions(self) -> float:
        """All of a call."""
        return self.user + self.kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop that reads and writes a buffer, call by call, as a person's first benchmark does."""

    # The name of the cell.
    cell: str
    size_bytes: int
    # "fresh": allocated in the loop. "reused": allocated before it.
    buffers: str
    # In nanoseconds of the VM's clock, and in minor page faults, one of each per pass.
    read_ns: tuple[int, ...]
    write_ns: tuple[int, ...]
    read_faults: tuple[int, ...]
    write_faults: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What calls of one kind took by a clock, turn by turn: all modules had one of the same number.

    A turn of a yardstick is its own.
    """

    timing: Timing
    # "" for a yardstick.
    module: str
    tester: str
    # How many calls each thread made in a turn.
    calls: int
    # Of a call, in each turn, with all threads at work.
    latency_ns: tuple[float, ...]
    minor_faults: float


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
    # The VM that it ran in, from 1 on.
    vm: int = 0
    # Where a measurement counted, in that order.
    counted: tuple[Counted, ...] = ()
    # What a clock told.
    turns: tuple[Turns, ...] = ()
    loops: tuple[Loop, ...] = ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is released, and from what."""

    # After PEP 440: "0.1.0" at its tag, "0.1.0+g1a2b3c4d5e6f" elsewhere, "....dirty" of a tree with
    # changes.
    version: str
    # 40 hexadecimal digits.
    commit: str
    # Seconds since 1970, of the commit: the time of every file of every artifact.
    epoch: int
    # The tree of the commit, and nothing else.
    source_dir: Path
