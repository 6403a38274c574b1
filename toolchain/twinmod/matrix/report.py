# SPDX-License-Identifier: GPL-2.0-only
"""A run of the matrix as data, as JUnit, and as text; data first. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import junitparser
from rich.table import Table
from rich.text import Text

from twinmod.base import commands
from twinmod.base import text as base_text
from twinmod.base.documents import Document, Part
from twinmod.builds.product import Product
from twinmod.cells import differences, injection, report
from twinmod.cells.differences import DifferenceEntry
from twinmod.cells.injection import InjectionReport
from twinmod.cells.model import AbsentCell, Cell, CellResult, KernelCell
from twinmod.cells.outcomes import GOOD
from twinmod.cells.report import LOOKS, AbsentEntry, CellEntry, ModuleEntry, Totals
from twinmod.differential import report as differential_report
from twinmod.differential.report import DifferentialReport
from twinmod.errors import TwinmodError
from twinmod.guest import visible
from twinmod.guest.protocol import Outcome
from twinmod.kernels import model
from twinmod.kernels.model import KernelEntry, KernelTree
from twinmod.vm.machine import Accelerator, AcceleratorName
from twinmod.vm.session import Boots

#: How many failed rules the command that runs them again names.
AGAIN_RULES = 5


class Phase(Part, frozen=True, kw_only=True):
    """What a run spent its time on."""

    title: str
    seconds: float


class VmPhase(Part, frozen=True, kw_only=True):
    """What a VM spent its time on, by its own clock."""

    # From 1 on.
    vm: int
    title: str
    seconds: float


class TestReport(Document, frozen=True, kw_only=True, tag="twinmod.test/1"):
    """A run of the matrix on one kernel."""

    # pytest would otherwise take the class for tests.
    __test__ = False

    kernel: KernelEntry
    accelerator: AcceleratorName
    accelerator_reason: str
    # What each VM had.
    memory_mib: int
    # What the caller narrowed the run to, "" for all of it.
    narrowed: str
    # Whether what repeats itself was made to do so many more times.
    long: bool
    # How many VMs it took.
    boots: int
    # How many of them never came as far as the agent, and were booted again.
    stalled_boots: int
    modules: tuple[ModuleEntry, ...]
    phases: tuple[Phase, ...]
    vm_phases: tuple[VmPhase, ...]
    cells: tuple[CellEntry, ...]
    absent: tuple[AbsentEntry, ...]
    # None when it was not run.
    differential: DifferentialReport | None
    # None on a kernel that fails nothing on demand.
    injected: InjectionReport | None
    # Those of the matrix and those of the differential that occurred as declared.
    differences: tuple[DifferenceEntry, ...] = ()
    totals: Totals


class ErrorEntry(Part, frozen=True, kw_only=True):
    """What a run on one of several kernels failed with."""

    exit_code: int
    message: str
    facts: tuple[tuple[str, str], ...]
    hint: str


class RunOutcome(StrEnum):
    """What became of one of several kernels."""

    # Its report says how.
    TESTED = "tested"
    # It can have none of the cells.
    ABSENT = "absent"
    # Its setup, its builds or its VM failed.
    FAILED = "failed"


class RunEntry(Part, frozen=True, kw_only=True):
    """What a run on several kernels came to on one of them."""

    kernel: str
    outcome: RunOutcome
    totals: Totals
    absent: tuple[AbsentEntry, ...]
    error: ErrorEntry | None


class TestsReport(Document, frozen=True, kw_only=True, tag="twinmod.tests/1"):
    """One run of the matrix on several kernels."""

    # pytest would otherwise take the class for tests.
    __test__ = False

    kernels: tuple[RunEntry, ...]
    runs: tuple[TestReport, ...]
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What every VM of a run was."""

    tree: KernelTree
    accelerator: Accelerator
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much of the matrix a run was to do."""

    # What the caller narrowed it to, "" for all of it.
    narrowed: str = ""
    # Whether what repeats itself was made to do so many more times.
    long: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a run came to."""

    # Every cell of the matrix.
    results: tuple[CellResult, ...]
    # The cells that the kernel cannot have.
    absent: tuple[AbsentCell, ...] = ()
    # None when it was not run.
    differential: DifferentialReport | None = None
    # What was made to fail on demand, None on a kernel that cannot.
    injected: InjectionReport | None = None
    # Declared differences that occurred.
    differences: tuple[DifferenceEntry, ...] = ()
    # Of all cells, the differential's too.
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUsage:
    """What a run took."""

    boots: Boots
    # (title, seconds) of what it spent its time on.
    phases: tuple[tuple[str, float], ...] = ()


def plan_test_report(
    machine: Machine,
    products: tuple[Product, ...],
    scope: Scope,
    findings: Findings,
    usage: ResourceUsage,
) -> TestReport:
    """Return the test report.

    Args:
        machine: What it ran on.
        products: The modules that ran.
        scope: How much of the matrix.
        findings: What came of it.
        usage: What it took.
    """
    boots = usage.boots
    return TestReport(
        kernel=model.plan_kernel(machine.tree),
        accelerator=machine.accelerator.name,
        accelerator_reason=machine.accelerator.reason,
        memory_mib=machine.memory_mib,
        narrowed=scope.narrowed,
        long=scope.long,
        boots=boots.total,
        stalled_boots=boots.stalled,
        modules=report.plan_modules(products),
        phases=tuple(
            Phase(title=title, seconds=round(seconds, 2)) for title, seconds in usage.phases
        ),
        vm_phases=tuple(
            VmPhase(vm=number, title=title, seconds=round(seconds, 2))
            for number, title, seconds in boots.phases
        ),
        cells=tuple(
            report.plan_cell(result.cell, result)
            for result in findings.results
            if isinstance(result.cell, Cell)
        ),
        absent=report.plan_absent(findings.absent),
        differential=findings.differential,
        injected=findings.injected,
        differences=findings.differences,
        totals=findings.totals,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRun:
    """What a run on several kernels came to on one of them."""

    kernel: str
    # The report of its run; None when it has none.
    document: TestReport | None = None
    # The cells that it cannot have, when those are all.
    absent: tuple[AbsentCell, ...] = ()
    # What its setup, its builds or its VM failed with.
    error: TwinmodError | None = None

    @property
    def outcome(self) -> RunOutcome:
        """What became of the kernel."""
        if self.error is not None:
            return RunOutcome.FAILED
        return RunOutcome.ABSENT if self.document is None else RunOutcome.TESTED

    @property
    def totals(self) -> Totals:
        """An error is one failure, an absent cell is skipped."""
        if self.document is not None:
            return self.document.totals
        return Totals(passed=0, failed=int(self.error is not None), skipped=len(self.absent))


def plan_runs_report(runs: tuple[KernelRun, ...]) -> TestsReport:
    """Return the report of one run on several kernels."""
    return TestsReport(
        kernels=tuple(
            RunEntry(
                kernel=run.kernel,
                outcome=run.outcome,
                totals=run.totals,
                absent=report.plan_absent(run.absent),
                error=plan_error(run.error) if run.error is not None else None,
            )
            for run in runs
        ),
        runs=tuple(run.document for run in runs if run.document is not None),
        totals=report.sum_totals(tuple(run.totals for run in runs)),
    )


def plan_error(error: TwinmodError) -> ErrorEntry:
    """Return an error as reports have it."""
    return ErrorEntry(
        exit_code=int(error.exit_code),
        message=error.message,
        facts=error.facts,
        hint=error.hint,
    )


class MatrixCell(Part, frozen=True, kw_only=True):
    """A module with a tester on a kernel, and why it cannot be run there, "" where it can."""

    kernel: str
    release: str
    module: str
    tester: str
    available: bool
    reason: str


class MatrixReport(Document, frozen=True, kw_only=True, tag="twinmod.matrix/1"):
    """Kernels x modules x testers."""

    cells: tuple[MatrixCell, ...]


def plan_matrix_report(cells: tuple[KernelCell, ...]) -> MatrixReport:
    """Return kernels x modules x testers as a document."""
    return MatrixReport(
        cells=tuple(
            MatrixCell(
                kernel=c.kernel,
                release=c.release,
                module=c.cell.module,
                tester=c.cell.tester,
                available=not c.reason,
                reason=c.reason,
            )
            for c in cells
        )
    )


def render_junit(results: tuple[CellResult, ...]) -> str:
    """Return a run as JUnit XML: a suite for each cell, whatever its tests said."""
    document = junitparser.JUnitXml("twinmod")
    for result in results:
        cell = visible.make_visible(result.cell.name)
        suite = junitparser.TestSuite(cell)
        for test in result.tests:
            case = junitparser.TestCase(visible.make_visible(test.id), cell, test.duration_s)
            message = visible.make_visible(test.message)
            if test.outcome == Outcome.SKIPPED:
                case.result = [junitparser.Skipped(message)]
            elif test.outcome == Outcome.DIFFERED:
                case.result = [junitparser.Skipped(message, "declared")]
            elif test.outcome == Outcome.FAILED:
                case.result = [junitparser.Failure(message, "failed")]
            elif test.outcome != Outcome.PASSED:
                case.result = [junitparser.Error(message, test.outcome)]
            suite.add_testcase(case)
        for problem in result.problems:
            case = junitparser.TestCase("the cell itself", cell, 0.0)
            case.result = [junitparser.Error(visible.make_visible(problem), result.outcome)]
            suite.add_testcase(case)
        document.add_testsuite(suite)
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text.decode()


def list_tests(results: tuple[CellResult, ...]) -> tuple[str, ...]:
    """Return the names of all tests of a run, each once, in their order."""
    return tuple(dict.fromkeys(test.id for result in results for test in result.tests))


def find_test_outcomes(results: tuple[CellResult, ...]) -> dict[tuple[str, str], Outcome]:
    """Return the outcome of each (test, cell name)."""
    return {
        (test.id, result.cell.name): test.outcome for result in results for test in result.tests
    }


def render_table(
    outcomes: Mapping[tuple[str, str], Outcome],
    rules: tuple[tuple[str, str], ...],
    results: tuple[CellResult, ...],
) -> Table:
    """Return the table rules x cells; without rules, tests x cells.

    Args:
        outcomes: The outcome of (rule, cell name).
        rules: (number, title), in the contract's order.
        results: The cells, in the order of the columns.
    """
    table = Table(pad_edge=False, box=None)
    table.add_column("rule" if rules else "test")
    table.add_column("")
    for result in results:
        table.add_column(result.cell.name)
    rows = rules or tuple((test, "") for test in list_tests(results))
    found = outcomes if rules else find_test_outcomes(results)
    for name, title in rows:
        looks = (LOOKS[found.get((name, result.cell.name), Outcome.MISSING)] for result in results)
        table.add_row(name, title, *(Text(text, style=style) for text, style in looks))
    ends = (LOOKS[result.outcome] for result in results)
    table.add_row("", "", *("" for _ in results))
    table.add_row("cell", "", *(Text(text, style=style) for text, style in ends))
    return table


def render_again(results: tuple[CellResult, ...], options: tuple[str, ...]) -> str:
    """Return the command that runs the first rules that failed again, "" when no test failed.

    Args:
        results: Of the run.
        options: What it was run with beside a selection.
    """
    bad = tuple(
        (result.cell, rule)
        for result in results
        if isinstance(result.cell, Cell)
        for test in result.tests
        if test.outcome not in GOOD
        for rule in test.rules
    )
    if not bad:
        return ""
    rules = tuple(dict.fromkeys(rule for _, rule in bad))[:AGAIN_RULES]
    words = [word for rule in rules for word in ("--rule", rule)]
    failed = {cell for cell, rule in bad if rule in rules}
    for option, names in (
        ("--module", {cell.label for cell in failed}),
        ("--tester", {cell.tester for cell in failed} - {""}),
    ):
        if len(names) == 1:
            words += [option, *names]
    return f"run again: {commands.render('test', *words, *options)}"


def render_matrix(cells: tuple[KernelCell, ...]) -> str:
    """Return kernels x modules x testers as text: yes or no, and below it the reasons."""
    by_kernel: dict[str, list[KernelCell]] = {}
    for cell in cells:
        by_kernel.setdefault(cell.kernel, []).append(cell)
    names = tuple(dict.fromkeys(cell.cell.name for cell in cells))
    rows = [("kernel", "release", *names)]
    rows += [
        (name, found[0].release or "-", *("no" if cell.reason else "yes" for cell in found))
        for name, found in by_kernel.items()
    ]
    lines = base_text.render_columns(rows, others="left")
    for name, found in by_kernel.items():
        for reason, fix in dict.fromkeys((cell.reason, cell.fix) for cell in found if cell.reason):
            which = " ".join(cell.cell.name for cell in found if cell.reason == reason)
            lines.append(f"{name} {which}: {reason}{fix and f'; fix: {fix}'}")
    return "\n".join(lines)


def render_run_notes(document: TestReport, folder: str) -> str:
    """Return what stands between a run's table and its totals: where, on what, how much of it."""
    kernel, memory_mib = document.kernel.release, document.memory_mib
    lines = [f"kernel {kernel}, {document.accelerator}, {memory_mib} MiB; {folder}"]
    lines += render_phases(document)
    lines += render_watchers(document.modules)
    lines += report.render_absent(document.absent)
    lines += differences.render_entries(document.differences)
    if document.differential:
        lines.append(differential_report.render_differential(document.differential))
    if document.injected:
        lines.append(injection.render_report(document.injected))
    if document.stalled_boots:
        lines.append(f"{document.stalled_boots} VM stalled at boot and was booted again")
    if document.narrowed:
        lines.append(f"narrowed to {document.narrowed}")
    if document.long:
        lines.append("long: many more rounds of what repeats itself")
    return "\n".join(lines)


def render_watchers(modules: Iterable[ModuleEntry]) -> list[str]:
    """Return what of the kernel's own checks saw each module's code, and what could not."""
    lines = []
    for module in modules:
        seen, blind = ", ".join(module.watched_by), " and ".join(module.not_seen_by)
        if seen:
            lines.append(f"{module.module} was watched by {seen}")
        if blind:
            lines.append(
                f"{module.module} was not watched by {blind}: no code in it calls it, so its "
                "silence says nothing of this module"
            )
    return lines


def render_phases(document: TestReport) -> list[str]:
    """Return where a run's time went: its phases, then those of each VM by the guest's clock."""
    lines = ["time: " + _join_phases(document.phases)]
    for number in dict.fromkeys(phase.vm for phase in document.vm_phases):
        own = [phase for phase in document.vm_phases if phase.vm == number]
        lines.append(f"in VM {number}: {_join_phases(own)}")
    return lines


def _join_phases(phases: Iterable[Phase | VmPhase]) -> str:
    return ", ".join(f"{phase.title} {phase.seconds:.1f} s" for phase in phases)


def render_runs(document: TestsReport) -> str:
    """Return a line for each kernel of a run on several: its totals, or why it has none."""
    width = max(len(one.kernel) for one in document.kernels)
    lines = []
    for one in document.kernels:
        if one.error is not None:
            what = f"FAILED: {one.error.message}"
        elif one.outcome == RunOutcome.ABSENT:
            what = f"absent: {'; '.join(dict.fromkeys(c.reason for c in one.absent))}"
        else:
            what = report.render_totals(one.totals)
        lines.append(f"{one.kernel:<{width}}  {what}")
    return "\n".join(lines)
