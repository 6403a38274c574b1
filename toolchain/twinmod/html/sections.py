# SPDX-License-Identifier: GPL-2.0-only
"""What the page's template uses: a class for each section, its values as the page shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from twinmod.bench.counter import CounterComparison
from twinmod.bench.document import BenchReport, WallRun
from twinmod.bench.project import Demonstration
from twinmod.cells.report import Totals
from twinmod.differential.report import DifferentialReport
from twinmod.kernels.model import KernelEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; a row has a text for each column of the head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure(Table):
    """A plot with the table of its data."""

    title: str
    # "" where there is nothing to draw.
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRow:
    """How each cell did with a rule."""

    rule: str
    title: str
    # (outcome, what the page shows of it).
    outcomes: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSection:
    """What the kernel reported in a cell."""

    cell: str
    lines: Sequence[str]
    # "" for none.
    test: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixSection:
    """The matrix: a row for each rule, a column for each cell."""

    cells: Sequence[str]
    rows: Sequence[RuleRow]
    totals: Totals
    faults: Sequence[FaultSection]
    kernel: KernelEntry
    accelerator: str
    narrowed: str
    differential: DifferentialReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSection(Figure):
    """What reads or writes cost by size."""

    operation: str
    # "Rust / C" where two modules are compared, in the last column; "" where not.
    ratio: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsSection(Figure):
    """What calls consist of."""

    # (part, its class in the plot).
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceSection:
    """What a call takes in both languages, and which functions make the difference."""

    title: str
    c: str
    rust: str
    difference: str
    share: str
    rows: Sequence[Sequence[str]]
    # How many more rows there are, and what they add up to.
    rest: int
    rest_difference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ByBuffers:
    """A figure of a loop with a new buffer in each pass, and of one with the same buffer."""

    fresh: str
    reused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopsSection(Figure):
    """The project's demonstration: a loop of reads and writes, pass by pass."""

    demonstration: Demonstration
    # Of a read to a write.
    ratios: ByBuffers
    # Of each read.
    faults: ByBuffers
    # (language, its ratio with fresh buffers).
    languages: Sequence[tuple[str, str]]
    # Of the buffer.
    size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSection(Figure):
    """How one module compares with another by a clock."""

    wall: WallRun
    # Whether it is time.
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSection(Table):
    """What a counter took."""

    threads: int
    increments: int
    method: str
    accelerator: str
    label: str
    comparisons: Sequence[CounterComparison]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Where an attempt at a bug was stopped."""

    # Its class on the page, "" for no attempt.
    style: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BugRow:
    """An attempt at a bug, in both languages."""

    kind: str
    c: Stopped
    rust: Stopped
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooSection:
    """Where each bug was stopped."""

    rows: Sequence[BugRow]
    kinds: int
    mismatches: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalsSection(Table):
    """What was to be reached, and what is."""

    met: int
    all: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that the template uses; None and () are what nobody measured."""

    # What the driver's modules are; and the two that are compared, the first one first.
    title: str
    names: Sequence[str]
    # The day, and the version of twinmod.
    made: str
    version: str
    # The verbs whose reports are not there.
    missing: Sequence[str]
    matrix: MatrixSection | None
    bench: BenchReport | None
    operations: Sequence[OperationSection]
    parts: PartsSection | None
    differences: Sequence[DifferenceSection]
    loops: LoopsSection | None
    cold: Table | None
    goals: GoalsSection | None
    clock: ClockSection | None
    builds: Table | None
    counter: CounterSection | None
    zoo: ZooSection | None

    @property
    def values(self) -> Mapping[str, object]:
        """Each by its name, as a template takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
