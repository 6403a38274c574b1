# SPDX-License-Identifier: GPL-2.0-only
"""A cell, and what came of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from twinmod.builds.product import Product
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Count, Outcome, Passes, Segments, Turns
from twinmod.project.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One module held to the matrix by one tester, or by tests that need none."""

    module: str
    # What a person calls the module.
    label: str
    # "" for tests that need none.
    tester: str = ""
    # Which build of the module, where a VM is given several.
    variant: str = ""
    # Only the tests of these rules; () leaves all that the run has.
    rules: tuple[str, ...] = ()
    # Only these files of the matrix; () is all of it.
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the cell, module before tester, as in ``c/rust``; a variant comes last."""
        parts = (self.label, self.tester, self.variant)
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class YardsticksCell:
    """What calls are measured on beside the modules' devices: it needs no module."""

    tester: ClassVar[str] = "c"
    name: ClassVar[str] = "yardsticks/c"


@dataclass(frozen=True, slots=True)
class TurnsCell:
    """All modules with all testers: a clock times their calls in turns."""

    name: ClassVar[str] = "turns"


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentialCell:
    """All modules compared with one model, with each tester."""

    name: ClassVar[str] = "differential"
    # The matrix's package with the executor.
    package: str


#: What a VM runs one after the other.
AnyCell = Cell | YardsticksCell | TurnsCell | DifferentialCell


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
    # CRASHED, TIMEOUT, LOST for the test that the VM died in.
    outcome: Outcome
    duration_s: float
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted(Segments):
    """Where, in what a VM's profiler wrote, the calls of one kind are."""

    # Of all that was loaded in that VM.
    section: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop(Passes):
    """What each call of a loop that reads and writes a buffer took, in a cell."""

    # The name of the cell.
    cell: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """How one cell ended."""

    cell: AnyCell
    outcome: Outcome
    tests: tuple[TestResult, ...] = ()
    kernel_faults: tuple[KernelFault, ...] = ()
    # Why the cell did not pass where no test says it: a rule without outcome, a stuck unload.
    problems: tuple[str, ...] = ()
    # What a counter run measured.
    count: Count | None = None
    # The VM that it ran in, from 1 on.
    vm: int = 0
    # Where a measurement counted, in that order.
    counted: tuple[Counted, ...] = ()
    # What a clock told.
    turns: tuple[Turns, ...] = ()
    loops: tuple[Loop, ...] = ()


def plan_cells(config: Config) -> tuple[Cell, ...]:
    """Return every cell: each module with each tester, in the configuration's order.

    Without a tester each module is a cell.
    """
    testers = tuple(tester.name for tester in config.testers) or ("",)
    return tuple(
        Cell(module=module.name or module.label, label=module.label, tester=tester)
        for module in config.modules
        for tester in testers
    )


def name_cells(cells: tuple[Cell, ...], products: Iterable[Product]) -> tuple[Cell, ...]:
    """Return cells with the names that their modules have once they are built."""
    names = {product.label: product.module for product in products}
    return tuple(replace(cell, module=names.get(cell.label, cell.module)) for cell in cells)
