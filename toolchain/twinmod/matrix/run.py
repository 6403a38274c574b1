# SPDX-License-Identifier: GPL-2.0-only
"""The verb `test`: the matrix on one kernel."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock

from twinmod.base import cache, documents
from twinmod.base.progress import Progress
from twinmod.builds.product import Product
from twinmod.cells import decode, differences, history, injection, outcomes
from twinmod.cells import report as cells_report
from twinmod.cells import selection as cells_selection
from twinmod.cells.injection import InjectionReport
from twinmod.cells.model import AbsentCell, Cell, CellResult, TestResult, name_cells
from twinmod.cells.selection import Selection
from twinmod.differential import run
from twinmod.errors import ConfigError
from twinmod.guest.protocol import Outcome
from twinmod.kernels import elf
from twinmod.kernels.model import KernelTree
from twinmod.matrix import report
from twinmod.matrix.report import TestReport
from twinmod.project import rules as project_rules
from twinmod.project.model import DifferenceSpec
from twinmod.userland import entries, programs
from twinmod.vm import boot, recording, running
from twinmod.vm.options import RunOptions
from twinmod.workspace import Prepared, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller wants of a run of the matrix."""

    selection: Selection
    # Gets the reports, and a folder for each VM.
    out_dir: Path
    # The modules; () for those that the sources make now.
    products: tuple[Product, ...] = ()
    # What the VM has as its root instead of the chroot.
    root_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run of the matrix."""

    # The cells of the matrix, then the differential if it was run.
    results: tuple[CellResult, ...]
    document: TestReport
    rules: tuple[tuple[str, str], ...]

    @property
    def cells(self) -> tuple[CellResult, ...]:
        """The cells of the matrix alone."""
        return tuple(result for result in self.results if isinstance(result.cell, Cell))

    @property
    def outcomes(self) -> dict[tuple[str, str], Outcome]:
        """The outcome of every (rule, cell name)."""
        return {
            (rule, result.cell.name): outcomes.compare_rule(result, rule)
            for rule, _ in self.rules
            for result in self.cells
        }


def plan_shown_rules(
    rules: tuple[tuple[str, str], ...], found: tuple[CellResult, ...], selection: Selection
) -> tuple[tuple[str, str], ...]:
    """Return the rules that a table shows: all, or those that a selection left."""
    ran = {rule for result in found for test in result.tests for rule in test.rules}
    shown = set(selection.rules) or ran
    return tuple((rule, title) for rule, title in rules if not selection.narrowing or rule in shown)


def run_test(workspace: Workspace, prepared: Prepared, wanted: Wanted) -> Run:
    """Run the matrix on one kernel, write the reports to a folder.

    Raises:
        ConfigError: The kernel can have none of the selected cells, or no test is selected.
    """
    config, selection, out_dir = workspace.config, wanted.selection, wanted.out_dir
    declared = config.driver.differences
    rules = project_rules.read_rules(config)
    rounds = run.read_rounds(config, selection)
    cells, absent = _require_cells(workspace, prepared, selection)
    labels = tuple(dict.fromkeys(cell.label for cell in cells))
    products = wanted.products or workspace.build(prepared, labels)
    cells = name_cells(cells, products)
    setting = _prepare_setting(workspace, prepared, wanted)
    shutil.rmtree(out_dir, ignore_errors=True)
    work = _plan_work(workspace, cells, products, selection)
    exploring = None
    if rounds and run.can_compare(config, products):
        alone = run.plan_work(config, products)
        exploring = run.prepare_exploring(workspace, setting, alone, out_dir, rounds)
        work = replace(work, cells=(*cells, *alone.cells))
    known_path = config.out_dir / "history" / f"{config.kernel.name}.json"
    options = RunOptions(
        converse=exploring.explorer.converse if exploring else None,
        history=history.read_history(known_path),
        told=announce_first(
            workspace.progress, stopped := Event(), cells, declared, ends=selection.exit_first
        ),
        stopped=stopped,
    )
    said, boots = running.run_cells(setting, work, out_dir, workspace.progress, options)
    ended = differences.declare(said, declared)
    history.write_history(known_path, options.history, ended)
    explored = exploring.finish(ended[-1]) if exploring and not stopped.is_set() else None
    injected = read_injected(out_dir, products, prepared.tree)
    whole = not stopped.is_set()
    judge = Judge(rules=rules, selection=selection, injected=injected, declared=declared)
    checked = judge(ended) if whole else outcomes.fill_in(cells, ended)
    everything = (*checked, explored.result) if explored else checked
    findings = report.Findings(
        results=checked,
        absent=absent,
        differential=explored.document if explored else None,
        injected=injected,
        differences=differences.plan_entries(checked, declared)
        + (explored.differences if explored else ()),
        totals=cells_report.plan_totals(outcomes.count_totals(everything, absent)),
    )
    document = report.plan_test_report(
        _plan_machine(setting),
        products,
        report.Scope(narrowed=selection.render(config), long=selection.long),
        findings,
        report.ResourceUsage(boots=boots, phases=workspace.phases()),
    )
    documents.write(out_dir / "report.json", document)
    cache.write_atomically(out_dir / "junit.xml", report.render_junit(everything))
    return Run(
        results=everything, document=document, rules=plan_shown_rules(rules, checked, selection)
    )


def _require_cells(
    workspace: Workspace, prepared: Prepared, selection: Selection
) -> tuple[tuple[Cell, ...], tuple[AbsentCell, ...]]:
    """Return the cells that a kernel can have of those that are selected, and the other ones.

    Raises:
        ConfigError: It can have none of them, or no test is selected.
    """
    cells, absent = cells_selection.plan_presence(
        selection.plan_cells(workspace.config), workspace.find_absences(prepared.tree)
    )
    if not cells:
        raise ConfigError(f"there is nothing to test: {absent[0].reason}")
    if selection.narrowing:
        _require_tests(workspace, prepared, selection)
    return cells, absent


def _plan_work(
    workspace: Workspace,
    cells: tuple[Cell, ...],
    products: tuple[Product, ...],
    selection: Selection,
) -> boot.MatrixWork:
    """Return the cells of the matrix that a run has, as work for VMs."""
    return boot.MatrixWork(
        cells=cells,
        products=products,
        limit_s=workspace.config.vm.test_timeout_s,
        pytest_args=selection.pytest_args,
        # Nobody knows which tests an expression leaves before pytest does.
        divisible=not selection.keyword,
    )


def _plan_machine(setting: boot.Setting) -> report.Machine:
    """Return what every VM of the run was."""
    return report.Machine(
        tree=setting.tree, accelerator=setting.accelerator, memory_mib=setting.vm.memory_mib
    )


def _prepare_setting(workspace: Workspace, prepared: Prepared, wanted: Wanted) -> boot.Setting:
    """Return what every VM of the run is made of."""
    setting = replace(workspace.environment(prepared), root_dir=wanted.root_dir)
    if wanted.selection.record:
        return recording.plan_recorded(setting)
    return setting if wanted.root_dir else workspace.prepare_clones(prepared, setting)


def announce_first(
    progress: Progress,
    stopped: Event,
    cells: tuple[Cell, ...] = (),
    declared: tuple[DifferenceSpec, ...] = (),
    *,
    ends: bool,
) -> Callable[[str, TestResult], None]:
    """Return what tells of the first test that does not pass, as soon as it is known.

    Args:
        progress: Told of it.
        stopped: Set then, if that ends the run.
        cells: Those of the run.
        declared: The differences of which nothing is told.
        ends: Whether it does.
    """
    first = Lock()
    labels = {cell.name: cell.label for cell in cells}

    def tell(cell: str, test: TestResult) -> None:
        told = differences.declare_test(test, labels.get(cell, ""), declared)
        if told.outcome in outcomes.GOOD:
            return
        # It is never released: there is one first failure.
        if not first.acquire(blocking=False):
            return
        why = (test.message.splitlines() or [""])[0]
        said = ": ".join(filter(None, (f"{' '.join(test.rules)} {test.id}", why)))
        progress.note(f"first failure, {cell} {test.outcome}: {said}")
        if ends:
            stopped.set()

    return tell


def _require_tests(workspace: Workspace, prepared: Prepared, selection: Selection) -> None:
    """Refuse a selection that leaves no test, or a rule without one, before a module is built.

    Raises:
        SelectionError: It leaves none, or -k has no expression.
    """
    config, chroot = workspace.config, prepared.chroot
    programs_dir = entries.prepare_programs(config, chroot).ensure(workspace.progress).path
    site_dir, matrix_dir = prepared.site_dir, config.matrix_dir
    # A keyword may leave none of one rule's tests: the run is for what is left.
    rules = tuple(("--rule", rule) for rule in selection.rules)
    for narrowing in (selection.narrowing,) if selection.keyword else rules:
        programs.require_tests(chroot, site_dir, programs_dir, matrix_dir, narrowing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What the cells of a run have to come up to."""

    rules: tuple[tuple[str, str], ...]
    selection: Selection
    injected: InjectionReport | None
    declared: tuple[DifferenceSpec, ...]

    def __call__(self, ended: tuple[CellResult, ...]) -> tuple[CellResult, ...]:
        """Return the cells of the matrix; one that exercised less than it should has failed."""
        in_matrix = tuple(result for result in ended if isinstance(result.cell, Cell))
        numbers = tuple(rule for rule, _ in self.rules)
        expected = self.selection.plan_expected(numbers)
        whole = not self.selection.narrowing
        checked = outcomes.compare_coverage(in_matrix, expected, numbers)
        checked = differences.compare_declared(checked, self.declared, whole=whole)
        return blame_missed(checked, self.injected) if self.injected and whole else checked


def read_injected(
    out_dir: Path, products: tuple[Product, ...], tree: KernelTree
) -> InjectionReport | None:
    """Return what a run made fail on demand; None on a kernel that cannot."""
    texts = {
        product.module: "".join(
            path.read_text()
            for path in sorted(out_dir.glob(f"vm-*/results/failures-{product.module}-*.jsonl"))
        )
        for product in products
    }
    found = tuple(
        failure
        for module, text in texts.items()
        for failure in injection.parse_failures(text, module)
    )
    if not found:
        return None
    seen = tuple(product for product in products if texts[product.module])
    sites = tuple(s for product in seen for s in decode.read_sites(product, tree.compilers))
    symbols = {p.module: elf.parse_functions(p.path.read_bytes()) for p in seen}
    return injection.plan_report(found, sites, symbols)


def blame_missed(
    checked: tuple[CellResult, ...], injected: InjectionReport
) -> tuple[CellResult, ...]:
    """Return results in which a place that asks for memory and never failed is a problem."""
    missed = injection.find_missed(injected)
    for module in dict.fromkeys(module for module, _ in missed):
        problems = tuple(
            f"{place} asks for memory and was never made to fail"
            for other, place in missed
            if other == module
        )
        checked = outcomes.blame(checked, module, problems)
    return checked
