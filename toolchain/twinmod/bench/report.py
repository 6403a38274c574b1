# SPDX-License-Identifier: GPL-2.0-only
"""A benchmark and a counter as data. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from msgspec import UNSET, structs

from twinmod.bench import explain, targets
from twinmod.bench import figures as bench_figures
from twinmod.bench import labels as bench_labels
from twinmod.bench.document import (
    BenchReport,
    BuildEntry,
    ClockEntry,
    ColdEntry,
    ComparisonEntry,
    CountEntry,
    DifferenceEntry,
    DifferenceRow,
    ExactRun,
    Explanations,
    GoalEntry,
    LoopEntry,
    MeasuredModule,
    Mode,
    PartsEntry,
    WallRun,
)
from twinmod.bench.figures import Cost, Figure
from twinmod.bench.project import Goals
from twinmod.bench.targets import Costs
from twinmod.builds.product import Product
from twinmod.cells.model import Loop, YardsticksCell
from twinmod.cells.report import AbsentEntry
from twinmod.guest.protocol import BufferKind, Timing, Turns
from twinmod.kernels.model import KernelEntry
from twinmod.vm.machine import AcceleratorName


def summarize_figures(figures: Iterable[Figure]) -> dict[tuple[str, Timing], Cost]:
    """Return what every timing costs in every cell, by (name of the cell, timing)."""
    by_key: dict[tuple[str, Timing], list[Figure]] = {}
    for figure in figures:
        by_key.setdefault((figure.cell, figure.timing), []).append(figure)
    return {key: bench_figures.summarize(tuple(found)) for key, found in by_key.items()}


def plan_cost(module: str, tester: str, timing: Timing, cost: Cost) -> CountEntry:
    """Return what was counted of one kind of calls as the report has it."""
    return CountEntry(
        module=module,
        tester=tester,
        operation=timing.operation,
        size_bytes=timing.size_bytes,
        threads=timing.threads,
        buffers=timing.buffers,
        loop=timing.loop,
        regions=timing.regions,
        path=timing.path,
        instructions_per_call=round(cost.instructions, 2),
        user_instructions=round(cost.user, 2),
        kernel_instructions=round(cost.kernel, 2),
        elsewhere_instructions=round(cost.elsewhere, 2),
        minor_faults=round(cost.minor_faults, 3),
        spread=round(cost.spread, 6),
        samples=tuple(round(sample, 2) for sample in cost.samples),
        settled=cost.settled,
        functions=tuple((name, round(count, 2)) for name, count in cost.functions),
    )


def plan_turns(turns: Turns) -> ClockEntry:
    """Return what a clock told of one kind of calls as the report has it."""
    ordered = sorted(turns.latency_ns)
    middle = ordered[len(ordered) // 2]
    quarter = len(ordered) // 4
    timing = turns.timing
    return ClockEntry(
        module=turns.module,
        tester=turns.tester,
        operation=timing.operation,
        size_bytes=timing.size_bytes,
        threads=timing.threads,
        buffers=timing.buffers,
        loop=timing.loop,
        regions=timing.regions,
        path=timing.path,
        ns_per_call=middle,
        minor_faults=turns.minor_faults,
        spread=round((ordered[-1 - quarter] - ordered[quarter]) / middle, 4) if middle else 0.0,
        samples=turns.latency_ns,
    )


def plan_comparisons(
    turns: Iterable[Turns], labels: Mapping[str, str]
) -> tuple[ComparisonEntry, ...]:
    """Return how two modules compare by a clock, for every kind of calls that both made.

    Args:
        turns: Of all modules.
        labels: Of each module; other than two modules are not compared.
    """
    compared = bench_labels.find_pair(labels.values())
    if compared is None:
        return ()
    first, second = compared
    by_key: dict[tuple[str, Timing], dict[str, Turns]] = {}
    for taken in turns:
        if taken.module:
            pair = by_key.setdefault((taken.tester, taken.timing), {})
            pair[labels[taken.module]] = taken
    found = []
    for (tester, timing), pair in by_key.items():
        # A coarse clock may tell no time at all.
        if not {first, second} <= pair.keys() or not all(pair[first].latency_ns):
            continue
        ratio = bench_figures.compare_samples(pair[first].latency_ns, pair[second].latency_ns)
        found.append(
            ComparisonEntry(
                tester=tester,
                operation=timing.operation,
                size_bytes=timing.size_bytes,
                threads=timing.threads,
                buffers=timing.buffers,
                loop=timing.loop,
                regions=timing.regions,
                path=timing.path,
                ratio=round(ratio.median, 4),
                interval=(round(ratio.low, 4), round(ratio.high, 4)),
                verdict=ratio.verdict,
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a benchmark measured: modules on a kernel."""

    kernel: KernelEntry
    # Added to the kernel's command line.
    parameters: str = ""
    products: tuple[Product, ...]
    # The cells that the kernel cannot have.
    absent: tuple[AbsentEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much a benchmark was to measure."""

    mode: Mode
    # Only some of it.
    quick: bool
    # What the project wants reached.
    goals: Goals


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What VMs that count instructions came to."""

    # How it was counted; the report's spread is that of the figures.
    run: ExactRun
    figures: tuple[Figure, ...] = ()
    # What a person's first benchmark saw.
    loops: tuple[Loop, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What a VM with a clock came to."""

    # How it was timed.
    run: WallRun
    turns: tuple[Turns, ...] = ()


def plan_report(
    subject: Subject,
    scope: Scope,
    counts: Counts,
    times: Times,
    builds: tuple[BuildEntry, ...] = (),
) -> BenchReport:
    """Return the report of a benchmark.

    Args:
        subject: What was measured.
        scope: How much of it.
        counts: What VMs counted.
        times: What a clock told.
        builds: What each build took.
    """
    products, turns, wall = subject.products, times.turns, times.run
    labels = {product.module: product.label for product in products}
    found = summarize_figures(counts.figures)
    modules = {label: module for module, label in labels.items()}
    testers = dict.fromkeys(
        cell.partition("/")[2] for cell, _ in found if cell != YardsticksCell.name
    )
    entries = _plan_entries(found, turns, modules)
    spread = max((cost.spread for cost in found.values()), default=0.0)
    return BenchReport(
        mode=scope.mode,
        quick=scope.quick,
        kernel=subject.kernel,
        parameters=subject.parameters,
        accelerator=wall.accelerator if wall.accelerator is not UNSET else AcceleratorName.ICOUNT,
        exact=structs.replace(counts.run, spread=spread),
        wall=wall,
        labels=labels,
        modules=tuple(
            MeasuredModule(module=p.module, language=p.language, sha256=p.sha256) for p in products
        ),
        cells=tuple(f"{label}/{tester}" for label in modules for tester in testers),
        absent=subject.absent,
        results=tuple(entry for entry in entries if entry.module),
        yardsticks=tuple(entry for entry in entries if not entry.module),
        comparisons=plan_comparisons(turns, labels),
        explanations=_explain(found, counts.loops, testers, bench_labels.find_pair(modules)),
        goals=_plan_goals(found, turns, labels, scope.goals),
        builds=builds,
    )


def _plan_goals(
    costs: Costs, turns: Iterable[Turns], labels: Mapping[str, str], goals: Goals
) -> tuple[GoalEntry, ...]:
    """Return what modules are to reach, in counts and by a clock, and what they do."""
    found = (
        *targets.plan_goals(costs, tuple(labels.values()), goals),
        *targets.plan_scaling_goals(turns, labels, goals),
    )
    return tuple(targets.plan_goal(goal) for goal in found)


def _explain(
    costs: Costs, loops: Iterable[Loop], testers: Iterable[str], pair: tuple[str, str] | None
) -> Explanations:
    """Return what says why calls cost what they do."""
    return Explanations(
        loops=explain_loops(loops),
        cold=explain_cold(costs),
        parts=explain_parts(costs),
        differences=explain_differences(costs, testers, pair) if pair else (),
    )


def _plan_entries(
    costs: Costs, turns: Iterable[Turns], modules: Mapping[str, str]
) -> tuple[CountEntry | ClockEntry, ...]:
    """Return what calls cost, counted and then by a clock; of a yardstick the module is ""."""
    counted = (
        plan_cost(
            "" if cell == YardsticksCell.name else modules[cell.partition("/")[0]],
            cell.partition("/")[2],
            timing,
            cost,
        )
        for (cell, timing), cost in costs.items()
    )
    return (*counted, *(plan_turns(taken) for taken in turns))


def explain_cold(costs: Costs) -> tuple[ColdEntry, ...]:
    """Return, for calls with fresh pages, the share that page faults are of them."""
    found = []
    for (cell, timing), cold in costs.items():
        if timing.buffers != BufferKind.FRESH:
            continue
        warm = targets.find_plain(costs, cell, timing.operation, timing.size_bytes)
        if warm is None:
            continue
        more = cold.instructions - warm.instructions
        found.append(
            ColdEntry(
                cell=cell,
                operation=timing.operation,
                size_bytes=timing.size_bytes,
                cold=round(cold.instructions, 2),
                warm=round(warm.instructions, 2),
                minor_faults=round(cold.minor_faults, 3),
                fault_share=round(more / cold.instructions, 4),
                instructions_per_fault=round(more / cold.minor_faults, 1)
                if cold.minor_faults
                else None,
            )
        )
    return tuple(found)


def explain_loops(loops: Iterable[Loop]) -> tuple[LoopEntry, ...]:
    """Return how much longer than a write a read took in a loop, with its faults.

    Every VM ran it; a person who does so sees one run, so it is the first VM's.
    """
    first: dict[tuple[str, str], Loop] = {}
    for loop in loops:
        first.setdefault((loop.cell, loop.buffers), loop)
    return tuple(
        LoopEntry(
            cell=loop.cell,
            size_bytes=loop.size_bytes,
            buffers=loop.buffers,
            read_ns=loop.read_ns,
            write_ns=loop.write_ns,
            read_faults=loop.read_faults,
            write_faults=loop.write_faults,
            ratio=round(fmean(loop.read_ns) / fmean(loop.write_ns), 3),
            faults_per_read=fmean(loop.read_faults),
        )
        for loop in first.values()
    )


def explain_parts(costs: Costs) -> tuple[PartsEntry, ...]:
    """Return what calls consist of, part by part."""
    return tuple(
        PartsEntry(
            cell=cell,
            operation=timing.operation,
            size_bytes=timing.size_bytes,
            path=timing.path,
            instructions=round(cost.instructions, 2),
            parts={
                part: round(count, 2)
                for part, count in explain.plan_parts(cost.functions, cost.user).items()
            },
        )
        for (cell, timing), cost in costs.items()
        if targets.is_plain(timing)
    )


def explain_differences(
    costs: Costs, testers: Iterable[str], pair: tuple[str, str]
) -> tuple[DifferenceEntry, ...]:
    """Return what the difference between two modules consists of, function by function."""
    first, second = pair
    found = []
    for tester in testers:
        for (cell, timing), c in costs.items():
            rust = costs.get((f"{second}/{tester}", timing))
            if cell != f"{first}/{tester}" or rust is None or not targets.is_plain(timing):
                continue
            rows = explain.plan_rows(c.functions, rust.functions, c.user, rust.user)
            found.append(
                DifferenceEntry(
                    tester=tester,
                    operation=timing.operation,
                    size_bytes=timing.size_bytes,
                    c=round(c.instructions, 2),
                    rust=round(rust.instructions, 2),
                    difference=round(rust.instructions - c.instructions, 2),
                    rows=tuple(
                        DifferenceRow(
                            function=row.function,
                            c=round(row.c, 2),
                            rust=round(row.rust, 2),
                            difference=round(row.difference, 2),
                        )
                        for row in rows
                    ),
                )
            )
    return tuple(found)
