# SPDX-License-Identifier: GPL-2.0-only
"""The counter: threads that count up on one device in every cell, its report and its text."""

import shutil
from dataclasses import dataclass
from statistics import median

from twinmod.base import documents, text
from twinmod.base.documents import Document, Part
from twinmod.bench import figures
from twinmod.bench import labels as bench_labels
from twinmod.cells import model as cells_model
from twinmod.cells import report, selection
from twinmod.cells.model import Cell, CellResult
from twinmod.cells.report import AbsentEntry
from twinmod.errors import VmLostError
from twinmod.kernels import model
from twinmod.kernels.model import KernelEntry
from twinmod.vm import boot, results, running
from twinmod.vm.options import RunOptions
from twinmod.workspace import Prepared, Workspace

#: A second VM would take processors from the threads of the first.
ALONE = RunOptions(lanes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """What a counter is to do in every cell."""

    threads: int
    # Of each thread.
    increments: int
    # As the testers have it.
    method: str
    # How often, each time in a fresh VM.
    repeats: int = 1
    # Seconds that a cell may take.
    limit_s: float


class IntervalEntry(Part, frozen=True, kw_only=True):
    """A median and its interval; figures.Interval says what the keys mean."""

    median: float
    low: float
    high: float


class CounterCell(Part, frozen=True, kw_only=True):
    """What a cell counted and took, repeat by repeat."""

    cell: str
    outcomes: tuple[str, ...]
    # null when no repeat came to count.
    target: int | None
    actual: tuple[int, ...]
    real_s: tuple[float, ...]
    user_s: tuple[float, ...]
    system_s: tuple[float, ...]
    interval_s: IntervalEntry | None


class CounterComparison(Part, frozen=True, kw_only=True):
    """What the second of two modules took of the first one's time, with one tester."""

    tester: str
    ratio: IntervalEntry
    verdict: str


class CounterReport(Document, frozen=True, kw_only=True, tag="twinmod.counter/1"):
    """What a counter took."""

    kernel: KernelEntry
    accelerator: str
    threads: int
    increments: int
    method: str
    repeats: int
    cells: tuple[CounterCell, ...]
    absent: tuple[AbsentEntry, ...]
    comparisons: tuple[CounterComparison, ...]


def plan_interval(interval: figures.Interval) -> IntervalEntry:
    """Return an interval as a report has it."""
    return IntervalEntry(
        median=round(interval.median, 4), low=round(interval.low, 4), high=round(interval.high, 4)
    )


def plan_counter_report(
    results: tuple[CellResult, ...],
    kernel: KernelEntry,
    accelerator: str,
    counting: Counting,
    absent: tuple[AbsentEntry, ...] = (),
) -> CounterReport:
    """Return what a counter took, repeat by repeat.

    Args:
        results: Of every cell, in every repeat.
        kernel: What it ran on.
        accelerator: What the VMs ran on.
        counting: What was counted.
        absent: The cells that the kernel cannot have.
    """
    by_cell: dict[str, list[CellResult]] = {}
    for result in results:
        by_cell.setdefault(result.cell.name, []).append(result)
    cells = {name: _plan_counter_cell(name, found) for name, found in by_cell.items()}
    comparisons = []
    ran = tuple(result.cell for result in results if isinstance(result.cell, Cell))
    pair = bench_labels.find_pair(dict.fromkeys(cell.label for cell in ran))
    for tester in dict.fromkeys(cell.tester for cell in ran) if pair else ():
        c, rust = (cells.get(f"{label}/{tester}") for label in pair or ())
        if c and rust and all(c.real_s) and 0 < len(c.real_s) == len(rust.real_s):
            ratio = figures.compare_samples(c.real_s, rust.real_s)
            comparisons.append(
                CounterComparison(tester=tester, ratio=plan_interval(ratio), verdict=ratio.verdict)
            )
    return CounterReport(
        kernel=kernel,
        accelerator=accelerator,
        threads=counting.threads,
        increments=counting.increments,
        method=counting.method,
        repeats=counting.repeats,
        cells=tuple(cells.values()),
        absent=absent,
        comparisons=tuple(comparisons),
    )


def _plan_counter_cell(name: str, found: list[CellResult]) -> CounterCell:
    counts = [result.count for result in found if result.count is not None]
    real_s = tuple(count.real_s for count in counts)
    return CounterCell(
        cell=name,
        outcomes=tuple(result.outcome for result in found),
        target=counts[0].target if counts else None,
        actual=tuple(count.actual for count in counts),
        real_s=real_s,
        user_s=tuple(count.user_s for count in counts),
        system_s=tuple(count.system_s for count in counts),
        interval_s=plan_interval(figures.find_interval(real_s)) if real_s else None,
    )


def render_counts(results: tuple[CellResult, ...]) -> str:
    """Return what each cell of a counter run counted and took."""
    blocks = []
    for result in results:
        if result.count is None:
            blocks.append(f"{result.cell.name}  {result.outcome}")
            continue
        count = result.count
        lost = count.target - count.actual
        blocks.append(
            f"{result.cell.name}  Target {count.target}  Actual {count.actual}"
            f"{f'  {lost} lost' if lost else ''}\n"
            f"     real {count.real_s:.3f} s  user {count.user_s:.3f} s  "
            f"sys {count.system_s:.3f} s"
        )
    return "\n".join(blocks)


def run_counter(
    workspace: Workspace, prepared: Prepared, counting: Counting
) -> tuple[CounterReport, tuple[CellResult, ...]]:
    """Count up in every cell: threads x increments on one device, by a method of the testers.

    All cells take their turn before the first one does so again: what drifts hits them all. Of
    several repeats, one whose VM does not boot ends none of the others.
    """
    progress = workspace.progress
    labels, config = workspace.require_labels(prepared.tree), workspace.config
    cells, absent = selection.plan_presence(
        cells_model.plan_cells(config), workspace.find_absences(prepared.tree)
    )
    products = workspace.build(prepared, labels)
    cells = cells_model.name_cells(cells, products)
    setting = workspace.prepare_clones(prepared, workspace.environment(prepared))
    out_dir = workspace.out_dir / "counter"
    shutil.rmtree(out_dir, ignore_errors=True)
    work = boot.CountWork(
        cells=cells,
        products=products,
        limit_s=counting.limit_s,
        threads=counting.threads,
        increments=counting.increments,
        method=counting.method,
    )
    found: list[CellResult] = []
    for number in range(1, counting.repeats + 1):
        if counting.repeats > 1:
            progress.note(f"repeat {number} of {counting.repeats}")
        try:
            own_dir = out_dir / f"repeat-{number}"
            ended, _ = running.run_cells(setting, work, own_dir, progress, ALONE)
        except VmLostError as error:
            if counting.repeats == 1:
                raise
            ended = results.plan_unreached(cells, error.message)
        found += ended
    document = plan_counter_report(
        tuple(found),
        model.plan_kernel(prepared.tree),
        setting.accelerator.name,
        counting,
        report.plan_absent(absent),
    )
    documents.write(out_dir / "report.json", document)
    return document, tuple(found)


def render_counter(document: CounterReport) -> str:
    """Return the table of a counter that was repeated, and how the two modules compare."""
    rows = [("cell", "Target", "lost", "median s", "95 % interval", "user s", "sys s", "repeats")]
    for cell in document.cells:
        found = cell.interval_s
        if found is None or cell.target is None:
            rows.append((cell.cell, "-", "-", "-", "-", "-", "-", str(len(cell.outcomes))))
            continue
        rows.append(
            (
                cell.cell,
                str(cell.target),
                str(cell.target * len(cell.actual) - sum(cell.actual)),
                f"{found.median:.3f}",
                f"{found.low:.3f} to {found.high:.3f}",
                f"{median(cell.user_s):.3f}",
                f"{median(cell.system_s):.3f}",
                str(len(cell.real_s)),
            )
        )
    lines = text.render_columns(rows)
    shown = dict.fromkeys(cell.cell.partition("/")[0] for cell in document.cells)
    ratio = bench_labels.name_ratio(shown, "/")
    lines += [
        f"tester {c.tester}: {ratio} {c.ratio.median:.3f}, "
        f"{c.ratio.low:.3f} to {c.ratio.high:.3f}: {c.verdict}"
        for c in document.comparisons
    ]
    lines.append(
        f"{document.threads} threads, {document.increments} increments each, method "
        f"{document.method}; {document.accelerator}: "
        f"{bench_labels.label_accelerator(document.accelerator)}"
    )
    return "\n".join(lines)
