# SPDX-License-Identifier: GPL-2.0-only
"""Cells as parts of a document, and as text. Pure."""

from collections.abc import Iterable, Mapping
from typing import assert_never

from twinmod import errors
from twinmod.base.documents import Part
from twinmod.builds.product import Product
from twinmod.cells import outcomes
from twinmod.cells.model import AbsentCell, Cell, CellResult
from twinmod.errors import ExitCode
from twinmod.guest import faults
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Outcome
from twinmod.project.model import Language

#: How an outcome looks in the table.
LOOKS = {
    Outcome.PASSED: ("pass", "green"),
    Outcome.FAILED: ("FAIL", "bold red"),
    Outcome.SKIPPED: ("skip", "yellow"),
    Outcome.DIFFERED: ("differs", "cyan"),
    Outcome.MISSING: ("none", "bold red"),
    Outcome.CRASHED: ("CRASH", "bold red"),
    Outcome.TIMEOUT: ("TIMEOUT", "bold red"),
    Outcome.LOST: ("LOST", "bold red"),
}

#: What the terminal shows of a failed test; the reports have all of it.
MESSAGE_LINES = 3
MESSAGE_WIDTH = 160


def find_exit_code(outcome: Outcome) -> ExitCode:
    """Return the exit code that one outcome amounts to."""
    match outcome:
        case Outcome.PASSED | Outcome.SKIPPED | Outcome.DIFFERED:
            return ExitCode.PASSED
        case Outcome.FAILED | Outcome.MISSING:
            return ExitCode.TESTS_FAILED
        case Outcome.CRASHED:
            return ExitCode.KERNEL_FAULT
        case Outcome.TIMEOUT | Outcome.LOST | Outcome.RUNNING:
            return ExitCode.VM_LOST
        case _:
            assert_never(outcome)


class TestEntry(Part, frozen=True, kw_only=True):
    """A test in a cell."""

    # pytest would otherwise take the class for tests.
    __test__ = False

    id: str
    # Its rules, with a space between two.
    rule: str
    outcome: Outcome
    duration_s: float
    message: str


class FrameEntry(Part, frozen=True, kw_only=True):
    """A frame of a stack; Frame says what the keys mean."""

    function: str
    symbol: str
    module: str
    place: str


class StackEntry(Part, frozen=True, kw_only=True):
    """A stack in what the kernel complained of."""

    label: str
    frames: tuple[FrameEntry, ...]


class FaultEntry(Part, frozen=True, kw_only=True):
    """What the kernel complained of; KernelFault says what the keys mean."""

    kind: str
    test: str
    modules: tuple[str, ...]
    log: str
    lines: tuple[str, ...]
    stacks: tuple[StackEntry, ...]


class CellEntry(Part, frozen=True, kw_only=True):
    """A cell, and how it ended."""

    module: str
    tester: str
    outcome: Outcome
    tests: tuple[TestEntry, ...]
    kernel_faults: tuple[FaultEntry, ...]
    problems: tuple[str, ...]


class AbsentEntry(Part, frozen=True, kw_only=True):
    """A cell that a kernel cannot have."""

    module: str
    tester: str
    reason: str


class ModuleEntry(Part, frozen=True, kw_only=True):
    """A module that ran."""

    module: str
    # What a person calls it.
    label: str = ""
    language: Language
    sha256: str
    # What of the kernel's own checks sees its code, and what is there and does not.
    watched_by: tuple[str, ...]
    not_seen_by: tuple[str, ...]
    # What it was given at each load, and the modules that were loaded before it, in that order.
    parameters: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


class Totals(Part, frozen=True, kw_only=True):
    """How many tests ended how."""

    passed: int
    failed: int
    skipped: int


def compare_outcomes(results: tuple[CellResult, ...]) -> ExitCode:
    """Return the exit code that a run's cells amount to."""
    return errors.compare_exit_codes(tuple(find_exit_code(result.outcome) for result in results))


def plan_cell(cell: Cell, result: CellResult) -> CellEntry:
    """Return one cell, and how it ended, as reports have it."""
    return CellEntry(
        module=cell.module,
        tester=cell.tester,
        outcome=result.outcome,
        tests=tuple(
            TestEntry(
                id=test.id,
                rule=" ".join(test.rules),
                outcome=test.outcome,
                duration_s=test.duration_s,
                message=test.message,
            )
            for test in result.tests
        ),
        kernel_faults=tuple(plan_fault(fault) for fault in result.kernel_faults),
        problems=result.problems,
    )


def plan_fault(fault: KernelFault) -> FaultEntry:
    """Return what the kernel complained of as reports have it."""
    return FaultEntry(
        kind=fault.kind,
        test=fault.test,
        modules=fault.modules,
        log=fault.log,
        lines=fault.lines,
        stacks=tuple(
            StackEntry(
                label=stack.label,
                frames=tuple(
                    FrameEntry(
                        function=frame.shown,
                        symbol=frame.function,
                        module=frame.module,
                        place=frame.place,
                    )
                    for frame in stack.frames
                ),
            )
            for stack in fault.stacks
        ),
    )


def plan_absent(absent: tuple[AbsentCell, ...]) -> tuple[AbsentEntry, ...]:
    """Return the cells that a kernel cannot have, as every report names them."""
    return tuple(
        AbsentEntry(module=a.cell.module, tester=a.cell.tester, reason=a.reason) for a in absent
    )


def plan_modules(products: tuple[Product, ...]) -> tuple[ModuleEntry, ...]:
    """Return the modules that ran, as every report names them."""
    return tuple(
        ModuleEntry(
            module=p.module,
            label=p.label,
            language=p.language,
            sha256=p.sha256,
            watched_by=p.watchers,
            not_seen_by=p.blind,
            parameters=p.parameters,
            needed=tuple(module.name for module in p.needed),
        )
        for p in products
    )


def plan_totals(counts: Mapping[str, int]) -> Totals:
    """Return how many tests ended how, as reports have it."""
    return Totals(passed=counts["passed"], failed=counts["failed"], skipped=counts["skipped"])


def sum_totals(totals: tuple[Totals, ...]) -> Totals:
    """Return the sums of several runs."""
    return Totals(
        passed=sum(t.passed for t in totals),
        failed=sum(t.failed for t in totals),
        skipped=sum(t.skipped for t in totals),
    )


def render_troubles(results: tuple[CellResult, ...]) -> str:
    """Return all that did not pass, cell by cell, with the kernel's own lines; "" for nothing."""
    lines = []
    for result in results:
        for test in result.tests:
            if test.outcome not in outcomes.GOOD:
                rules = " ".join(test.rules)
                lines.append(f"{result.cell.name} {test.outcome}: {rules} {test.id}")
                shown = test.message.splitlines()[:MESSAGE_LINES]
                lines.extend(f"    {line[:MESSAGE_WIDTH]}" for line in shown)
        for problem in result.problems:
            first, *rest = problem.splitlines() or [""]
            lines.append(f"{result.cell.name} {result.outcome}: {first}")
            lines.extend(f"    {line[:MESSAGE_WIDTH]}" for line in rest)
        for fault in result.kernel_faults:
            during = f" during {fault.test}" if fault.test else ""
            lines.append(f"{result.cell.name} kernel fault{during}:")
            cell = result.cell
            modules = (cell.module,) if isinstance(cell, Cell) else fault.modules
            lines.extend(f"    {line}" for line in faults.render_fault(fault, modules))
    return "\n".join(lines)


def render_faults(found: tuple[KernelFault, ...], modules: tuple[str, ...]) -> str:
    """Return faults as a person is shown them, or that there was none.

    Args:
        found: With the places of their frames, as far as they are known.
        modules: Those under test.
    """
    if not found:
        return "no kernel fault"
    return "\n".join(line for fault in found for line in faults.render_fault(fault, modules))


def render_absent(absent: Iterable[AbsentEntry]) -> list[str]:
    """Return a line for each cell that a kernel cannot have, with the reason."""
    return [
        f"{cell.module}{f' with tester {cell.tester}' if cell.tester else ''} is absent: "
        f"{cell.reason}"
        for cell in absent
    ]


def render_totals(totals: Totals) -> str:
    """Return the last line of a run."""
    return f"{totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped"
