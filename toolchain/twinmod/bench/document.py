# SPDX-License-Identifier: GPL-2.0-only
"""The report of a benchmark, as it is written and read."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import UNSET, UnsetType, field

from twinmod.base.documents import Document, Part
from twinmod.cells.report import AbsentEntry
from twinmod.guest.protocol import BufferKind, Caller, Operation, Regions
from twinmod.kernels.model import KernelEntry


class Mode(StrEnum):
    """What a benchmark measures by."""

    BOTH = "both"
    # Instructions.
    EXACT = "exact"
    # A clock.
    WALL = "wall"


class CallEntry(Part, frozen=True, kw_only=True):
    """Calls of one kind by one tester; Timing says what the keys mean."""

    # "" for a yardstick.
    module: str
    tester: str
    operation: Operation
    size_bytes: int
    threads: int
    buffers: BufferKind
    loop: Caller
    regions: Regions
    path: str


class CountEntry(CallEntry, frozen=True, kw_only=True, tag_field="mode", tag="exact"):
    """What was counted of calls; figures.Cost says what the keys mean."""

    instructions_per_call: float
    ns_per_call: None = None
    user_instructions: float
    kernel_instructions: float
    elsewhere_instructions: float
    minor_faults: float
    spread: float
    samples: tuple[float, ...]
    settled: bool
    functions: tuple[tuple[str, float], ...]


class ClockEntry(CallEntry, frozen=True, kw_only=True, tag_field="mode", tag="wall"):
    """What a clock told of calls."""

    instructions_per_call: None = None
    # The middle one of the samples.
    ns_per_call: float
    minor_faults: float
    # From the first to the third quarter of the samples, as a share of the middle one.
    spread: float
    # A turn each.
    samples: tuple[float, ...]


class ComparisonEntry(Part, frozen=True, kw_only=True):
    """What Rust takes of C's time, for calls of one kind by one tester."""

    tester: str
    operation: Operation
    size_bytes: int
    threads: int
    buffers: BufferKind
    loop: Caller
    regions: Regions
    path: str
    ratio: float
    interval: tuple[float, float]
    verdict: str


class LoopEntry(Part, frozen=True, kw_only=True):
    """A loop of reads and writes; cells.model.Loop says what the keys mean."""

    cell: str
    size_bytes: int
    buffers: BufferKind
    read_ns: tuple[int, ...]
    write_ns: tuple[int, ...]
    read_faults: tuple[int, ...]
    write_faults: tuple[int, ...]
    # What a read took, as a multiple of a write.
    ratio: float
    faults_per_read: float


class ColdEntry(Part, frozen=True, kw_only=True):
    """Calls with fresh pages beside the same ones with pages that are there."""

    cell: str
    operation: Operation
    size_bytes: int
    # Instructions of a call.
    cold: float
    warm: float
    minor_faults: float
    # What the faults are of a cold call.
    fault_share: float
    # null where there was no fault.
    instructions_per_fault: float | None


class PartsEntry(Part, frozen=True, kw_only=True):
    """What calls of one kind consist of."""

    cell: str
    operation: Operation
    size_bytes: int
    path: str
    instructions: float
    # By part, its instructions; they add up to the call.
    parts: dict[str, float]


class DifferenceRow(Part, frozen=True, kw_only=True):
    """What a function takes of a call in C and in Rust, in instructions."""

    function: str
    c: float
    rust: float
    difference: float


class DifferenceEntry(Part, frozen=True, kw_only=True):
    """How much more calls of one kind take in Rust, in instructions, and where."""

    tester: str
    operation: Operation
    size_bytes: int
    c: float
    rust: float
    difference: float
    rows: tuple[DifferenceRow, ...]


class Explanations(Part, frozen=True, kw_only=True):
    """Why calls cost what they cost."""

    loops: tuple[LoopEntry, ...]
    cold: tuple[ColdEntry, ...]
    parts: tuple[PartsEntry, ...]
    differences: tuple[DifferenceEntry, ...]


class GoalEntry(Part, frozen=True, kw_only=True):
    """What the twins are to reach, and what they do."""

    goal: str
    module: str
    reached: float
    limit: float
    met: bool


class BuildEntry(Part, frozen=True, kw_only=True):
    """What building a module takes, and what comes of it."""

    module: str
    language: str
    # From nothing; with one line changed; with nothing to do.
    cold_s: float
    changed_s: float
    unchanged_s: float
    size_bytes: int
    text_bytes: int
    # Of its file without what only a debugger wants.
    stripped_bytes: int
    symbols: int
    # Of its source, without empty ones.
    lines: int


class ExactRun(Part, frozen=True, kw_only=True):
    """How it was counted. Only the spread is there when nothing was."""

    qemu: str | UnsetType = UNSET
    # What QEMU was told.
    machine: str | UnsetType = UNSET
    # How many VMs booted; a cell runs in a clone of each.
    vms: int | UnsetType = UNSET
    # In each clone.
    loads: int | UnsetType = UNSET
    rounds: int | UnsetType = UNSET
    stalled_boots: int | UnsetType = UNSET
    # The largest one.
    spread: float


class WallRun(Part, frozen=True, kw_only=True):
    """How it was timed. Nothing is there when it was not."""

    accelerator: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    processors: int | UnsetType = UNSET
    turns: int | UnsetType = UNSET
    stalled_boots: int | UnsetType = UNSET


class MeasuredModule(Part, frozen=True, kw_only=True):
    """A module that was measured."""

    module: str
    language: str
    sha256: str


class BenchReport(Document, frozen=True, kw_only=True, tag="twinmod.bench/1"):
    """What a benchmark measured."""

    mode: Mode
    # Whether only some of it was measured.
    quick: bool
    kernel: KernelEntry
    # Added to its command line.
    parameters: str
    # What the clock ran on; "icount" when nothing was timed.
    accelerator: str
    exact: ExactRun
    wall: WallRun
    # By module, what a person calls it.
    labels: Mapping[str, str] = field(name="languages")
    modules: tuple[MeasuredModule, ...]
    cells: tuple[str, ...]
    absent: tuple[AbsentEntry, ...]
    results: tuple[CountEntry | ClockEntry, ...]
    yardsticks: tuple[CountEntry | ClockEntry, ...]
    comparisons: tuple[ComparisonEntry, ...]
    explanations: Explanations
    goals: tuple[GoalEntry, ...]
    builds: tuple[BuildEntry, ...]


def select_counts(entries: Iterable[CountEntry | ClockEntry]) -> tuple[CountEntry, ...]:
    """Return the entries that were counted."""
    return tuple(entry for entry in entries if isinstance(entry, CountEntry))


def select_times(entries: Iterable[CountEntry | ClockEntry]) -> tuple[ClockEntry, ...]:
    """Return the entries that a clock told of."""
    return tuple(entry for entry in entries if isinstance(entry, ClockEntry))
