# SPDX-License-Identifier: GPL-2.0-only
"""The report that a person reads: one page, and a summary for a cover letter. Pure.

It is made of what `test`, `zoo`, `bench` and `counter` left; what is not there is said.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

from twinmod.base import text as base_text
from twinmod.base.text import KIB, LANGUAGES
from twinmod.bench import document as bench_document
from twinmod.bench import explain, labels
from twinmod.bench.counter import CounterReport
from twinmod.bench.document import (
    BenchReport,
    ComparisonEntry,
    CountEntry,
    LoopEntry,
    Mode,
    PartsEntry,
)
from twinmod.bench.project import Demonstration
from twinmod.cells import report
from twinmod.cells.outcomes import WORST_FIRST
from twinmod.cells.report import CellEntry
from twinmod.experiments import zoo
from twinmod.experiments.zoo import Stop, VerdictEntry, ZooReport
from twinmod.guest.protocol import TMPFS_FILE, BufferKind, Caller, Operation, Outcome
from twinmod.html import plot
from twinmod.html.sections import (
    BugRow,
    ByBuffers,
    ClockSection,
    CounterSection,
    DifferenceSection,
    FaultSection,
    GoalsSection,
    LoopsSection,
    MatrixSection,
    OperationSection,
    Page,
    PartsSection,
    RuleRow,
    Stopped,
    Table,
    ZooSection,
)
from twinmod.matrix.report import TestReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What a page is made of, as far as it is there."""

    test: TestReport | None = None
    bench: BenchReport | None = None
    counter: CounterReport | None = None
    zoo: ZooReport | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The verbs of those that are not there."""
        there = [name for name, _ in self.parts]
        return tuple(field.name for field in fields(self) if field.name not in there)

    @property
    def parts(self) -> tuple[tuple[str, "Reports"], ...]:
        """(the verb, its report alone) of those that are there."""
        alone = (
            ("test", Reports(test=self.test)),
            ("bench", Reports(bench=self.bench)),
            ("counter", Reports(counter=self.counter)),
            ("zoo", Reports(zoo=self.zoo)),
        )
        return tuple((name, part) for name, part in alone if part != Reports())


#: (part of a call, its class), in the order in which they are shown.
PARTS = tuple(
    (part, f"part-{number}")
    for number, part in enumerate(
        (explain.USER, "entry", explain.OTHER, "driver", "lock", "check", "copy")
    )
)

#: What a summary shows.
SUMMARY_SIZES = (1, 4 * KIB, 64 * KIB, 512 * KIB)

#: An outcome as the page shows it.
LOOKS: Mapping[Outcome, str] = {
    Outcome.PASSED: "pass",
    Outcome.FAILED: "FAIL",
    Outcome.SKIPPED: "skip",
    Outcome.DIFFERED: "differs",
    Outcome.MISSING: "none",
}

#: Rows of a difference that the page shows.
SHOWN_ROWS = 12


def render_percent(share: float) -> str:
    """Return a share as people say it."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


# -- the matrix -------------------------------------------------------------------------------


def find_outcome(cell: CellEntry, rule: str) -> Outcome:
    """Return how a cell of a test report did with a rule: its worst test decides."""
    outcomes = {test.outcome for test in cell.tests if rule in test.rule.split()}
    return next((outcome for outcome in WORST_FIRST if outcome in outcomes), Outcome.MISSING)


def find_test_outcome(cell: CellEntry, name: str) -> Outcome:
    """Return how a cell of a test report did with a test."""
    return next((test.outcome for test in cell.tests if test.id == name), Outcome.MISSING)


def plan_matrix(test: TestReport, rules: Iterable[tuple[str, str]]) -> MatrixSection:
    """Return the matrix of a test report: a row for each rule, a column for each cell.

    Without rules each test has a row.
    """
    labels = {module.module: module.label or module.language for module in test.modules}
    rows = []
    tests = dict.fromkeys(one.id for cell in test.cells for one in cell.tests)
    named = tuple(rules)
    for rule, title in named or ((name, "") for name in tests):
        find = find_outcome if named else find_test_outcome
        outcomes = [find(cell, rule) for cell in test.cells]
        shown = [(outcome, LOOKS.get(outcome, outcome.upper())) for outcome in outcomes]
        rows.append(RuleRow(rule=rule, title=title, outcomes=shown))
    names = [
        "/".join(filter(None, (labels.get(cell.module, cell.module), cell.tester)))
        for cell in test.cells
    ]
    faults = [
        FaultSection(cell=name, lines=fault.lines, test=fault.test)
        for name, cell in zip(names, test.cells, strict=True)
        for fault in cell.kernel_faults
    ]
    return MatrixSection(
        cells=names,
        rows=rows,
        totals=test.totals,
        faults=faults,
        kernel=test.kernel,
        accelerator=test.accelerator,
        narrowed=test.narrowed,
        differential=test.differential,
    )


# -- what calls cost --------------------------------------------------------------------------


def find_counts(
    document: BenchReport,
    operation: Operation,
    *,
    module: str = "",
    tester: str = "c",
    path: str = "",
) -> dict[int, CountEntry]:
    """Return the exact entries of warm calls by one thread of a tester, by their size."""
    entries = document.results if module else document.yardsticks
    return {
        entry.size_bytes: entry
        for entry in bench_document.select_counts(entries)
        if entry.operation == operation
        and entry.module == module
        and entry.tester == tester
        and entry.path == path
        and entry.buffers == BufferKind.REUSED
        and entry.loop == Caller.TESTER
    }


def find_modules(document: BenchReport) -> dict[str, str]:
    """Return the module of each label."""
    return {label: module for module, label in document.labels.items()}


def plan_operation(document: BenchReport, operation: Operation) -> OperationSection | None:
    """Return what reads or writes cost by size: a plot, and the table of its points.

    Returns:
        None where no module's were counted.
    """
    floor = "/dev/zero" if operation == Operation.PREAD else "/dev/null"
    own = {
        language: find_counts(document, operation, module=module)
        for language, module in find_modules(document).items()
    }
    sizes = sorted({size for entries in own.values() for size in entries})
    if not sizes:
        return None
    columns = (
        *(
            (LANGUAGES.get(language, language), language, entries)
            for language, entries in own.items()
        ),
        ("tmpfs", "tmpfs", find_counts(document, operation, path=TMPFS_FILE)),
        (floor, "floor", find_counts(document, operation, path=floor)),
    )
    found = [column for column in columns if column[2]]
    lines = [
        plot.Line(
            name=name,
            style=style,
            points=tuple(
                (size, entry.instructions_per_call) for size, entry in sorted(entries.items())
            ),
        )
        for name, style, entries in found
    ]
    title = f"Instructions of a {operation} by its size"
    svg = plot.render_lines(
        lines,
        title,
        plot.Axis(label="bytes", render=lambda x: base_text.render_size(int(x))),
        plot.Axis(label="instructions", render=_render_power),
    )
    counts = [entries for *_, entries in found]
    ratio = labels.name_ratio(own)
    rows = [[*_render_sizes(counts, size), *_list_ratio(own, size)] for size in sizes]
    return OperationSection(
        operation=operation,
        title=title,
        svg=svg,
        ratio=ratio,
        rows=rows,
        head=["size", *(name for name, *_ in found), *([ratio] if ratio else [])],
    )


def _render_sizes(counts: Iterable[Mapping[int, CountEntry]], size: int) -> Iterator[str]:
    """Yield a size, and what a call of it costs in each column."""
    yield base_text.render_size(size)
    for entries in counts:
        cost = entries[size].instructions_per_call if size in entries else None
        yield labels.render_count(cost)


def _render_power(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            digits = 0 if value % limit == 0 or value >= 10 * limit else 1
            return f"{value / limit:.{digits}f}{unit}"
    return f"{value:.0f}"


def _list_ratio(own: Mapping[str, Mapping[int, CountEntry]], size: int) -> list[str]:
    """Return the ratio of two modules, alone; nothing where there are not two."""
    pair = labels.find_pair(own)
    if pair is None:
        return []
    first, second = (own[label].get(size) for label in pair)
    if first is None or second is None:
        return ["-"]
    return [f"{second.instructions_per_call / first.instructions_per_call:.3f}"]


def plan_parts(document: BenchReport) -> PartsSection | None:
    """Return what calls consist of: bars of shares, and their table; None without counts."""
    chosen = [
        entry
        for entry in document.explanations.parts
        if entry.cell in ("c/c", "rust/c")
        and entry.size_bytes in (0, *SUMMARY_SIZES)
        and not entry.path
    ]
    if not chosen:
        return None
    bars = [
        plot.Bar(
            label=name_call(entry),
            parts=tuple(
                (
                    style,
                    f"{part}: {entry.parts[part]:.0f}",
                    entry.parts[part] / entry.instructions,
                )
                for part, style in PARTS
            ),
            note=labels.render_count(entry.instructions),
        )
        for entry in chosen
    ]
    rows = [
        [
            name_call(entry),
            *(f"{entry.parts[part]:.0f}" for part, _ in PARTS),
            labels.render_count(entry.instructions),
        ]
        for entry in chosen
    ]
    title = "What a call consists of"
    return PartsSection(
        title=title,
        svg=plot.render_bars(bars, title),
        rows=rows,
        legend=PARTS,
        head=["call", *(part for part, _ in PARTS), "all"],
    )


def name_call(entry: PartsEntry) -> str:
    """Return a call of an explanation as people say it."""
    language = LANGUAGES.get(entry.cell.partition("/")[0], entry.cell)
    size = f" {base_text.render_size(entry.size_bytes)}" if entry.size_bytes else ""
    return f"{language} {entry.operation}{size}"


def plan_differences(document: BenchReport) -> list[DifferenceSection]:
    """Return what the difference between the languages consists of, for some calls."""
    return [
        DifferenceSection(
            title=f"{entry.operation}"
            + (f" of {base_text.render_size(entry.size_bytes)}" if entry.size_bytes else ""),
            c=labels.render_count(entry.c),
            rust=labels.render_count(entry.rust),
            difference=f"{entry.difference:+.0f}",
            share=f"{entry.difference / entry.c:+.1%}",
            rows=[
                [
                    row.function,
                    f"{row.c:.0f}",
                    f"{row.rust:.0f}",
                    f"{row.difference:+.0f}",
                ]
                for row in entry.rows[:SHOWN_ROWS]
            ],
            rest=len(entry.rows[SHOWN_ROWS:]),
            rest_difference=f"{sum(r.difference for r in entry.rows[SHOWN_ROWS:]):+.0f}",
        )
        for entry in document.explanations.differences
        if entry.tester == "c" and entry.size_bytes in (0, 1, 512 * KIB)
    ]


# -- a loop of reads and writes ---------------------------------------------------------------


def plan_loops(document: BenchReport, demonstration: Demonstration | None) -> LoopsSection | None:
    """Return what a loop of reads and writes took, pass by pass, with its page faults.

    Returns:
        None where nobody ran it, or the project has nothing to say of it.
    """
    found = document.explanations.loops
    if not found or demonstration is None:
        return None
    bars = []
    for entry in found:
        language, _, tester = entry.cell.partition("/")
        if tester == language and entry.buffers == BufferKind.FRESH:
            bars += _plan_passes(entry, LANGUAGES.get(language, language))
    rows = [
        [
            entry.cell,
            entry.buffers,
            *(" ".join(map(_render_power, ns)) for ns in (entry.read_ns, entry.write_ns)),
            f"{entry.ratio:.2f}",
            " ".join(map(str, entry.read_faults)),
        ]
        for entry in found
    ]
    title = "Passes of a loop that allocates a buffer, reads into it and writes from it"
    fresh, reused = (
        [entry for entry in found if entry.buffers == buffers]
        for buffers in (BufferKind.FRESH, BufferKind.REUSED)
    )
    return LoopsSection(
        demonstration=demonstration,
        title=title,
        svg=plot.render_bars(bars, title) if bars else "",
        rows=rows,
        head=["cell", "buffers", "reads", "writes", "read / write", "faults of the reads"],
        ratios=ByBuffers(
            fresh=_render_span(entry.ratio for entry in fresh),
            reused=_render_span(entry.ratio for entry in reused),
        ),
        faults=ByBuffers(
            fresh=_render_span(entry.faults_per_read for entry in fresh),
            reused=_render_span(entry.faults_per_read for entry in reused),
        ),
        languages=[
            (name, _render_span(e.ratio for e in fresh if e.cell.startswith(f"{language}/")))
            for language, name in LANGUAGES.items()
        ],
        size=base_text.render_size(found[0].size_bytes),
    )


def _plan_passes(entry: LoopEntry, language: str) -> list[plot.Bar]:
    return [
        plot.Bar(
            label=f"{language} {what} {number}",
            parts=((what, f"{ns} instructions", ns),),
            note=f"{_render_power(ns)}, {faults} faults" if faults else _render_power(ns),
        )
        for number in range(1, len(entry.read_ns) + 1)
        for what, ns, faults in (
            ("read", entry.read_ns[number - 1], entry.read_faults[number - 1]),
            ("write", entry.write_ns[number - 1], entry.write_faults[number - 1]),
        )
    ]


def _render_span(values: Iterable[float]) -> str:
    found = tuple(values)
    if not found:
        return "-"
    low, high = f"{min(found):.1f}", f"{max(found):.1f}"
    return low if low == high else f"{low} to {high}"


def plan_cold(document: BenchReport) -> Table | None:
    """Return what page faults are of calls whose buffer was never touched; None without any."""
    rows = [
        [
            entry.cell,
            f"{entry.operation} {base_text.render_size(entry.size_bytes)}",
            labels.render_count(entry.cold),
            labels.render_count(entry.warm),
            f"{entry.minor_faults:.0f}",
            render_percent(entry.fault_share),
            labels.render_count(entry.instructions_per_fault),
        ]
        for entry in document.explanations.cold
        if entry.cell in ("c/c", "rust/c")
    ]
    if not rows:
        return None
    head = ["cell", "call", "cold", "warm", "faults", "share of faults", "instructions per fault"]
    return Table(head=head, rows=rows)


# -- by a clock -------------------------------------------------------------------------------


def plan_clock(document: BenchReport) -> ClockSection | None:
    """Return how one module compares with another by a clock: a plot of intervals, and its table.

    Returns:
        None where the C tester timed no call.
    """
    found = {
        labels.render_entry(entry): entry for entry in document.comparisons if entry.tester == "c"
    }
    ranges = [
        plot.Range(label=name, low=entry.interval[0], middle=entry.ratio, high=entry.interval[1])
        for name, entry in found.items()
    ]
    times = {
        (entry.module, labels.render_entry(entry)): entry.ns_per_call
        for entry in bench_document.select_times(document.results)
        if entry.tester == "c"
    }
    if not times:
        return None
    modules = find_modules(document)
    ratio = labels.name_ratio(modules)
    rows = [
        [
            name,
            *(labels.render_count(times.get((module, name))) for module in modules.values()),
            *(_render_comparison(found.get(name)) if ratio else ()),
        ]
        for name in dict.fromkeys(name for _, name in times)
    ]
    title = "How long calls take"
    if pair := labels.find_pair(modules):
        first, second = (LANGUAGES.get(label, label) for label in pair)
        title = f"How long {second} takes, as a share of {first}"
    return ClockSection(
        title=title,
        svg=plot.render_ranges(ranges, title, 1.0) if ranges else "",
        rows=rows,
        wall=document.wall,
        label=labels.label_accelerator(document.accelerator),
        head=[
            "call",
            *(f"{LANGUAGES.get(language, language)} ns" for language in modules),
            *((ratio, "95 % interval", "verdict") if ratio else ()),
        ],
    )


def _render_comparison(entry: ComparisonEntry | None) -> tuple[str, str, str]:
    if entry is None:
        return "-", "-", "-"
    low, high = entry.interval
    return f"{entry.ratio:.3f}", f"{low:.3f} to {high:.3f}", entry.verdict


def plan_counter(document: CounterReport) -> CounterSection:
    """Return what a counter took."""
    rows = []
    for cell in document.cells:
        found = cell.interval_s
        rows.append(
            [
                cell.cell,
                str(cell.target),
                str(cell.target * len(cell.actual) - sum(cell.actual)),
                f"{found.median:.3f}",
                f"{found.low:.3f} to {found.high:.3f}",
                str(len(cell.real_s)),
            ]
            if found is not None and cell.target is not None
            else [cell.cell, *"-----"]
        )
    return CounterSection(
        threads=document.threads,
        increments=document.increments,
        method=document.method,
        accelerator=document.accelerator,
        comparisons=document.comparisons,
        rows=rows,
        label=labels.label_accelerator(document.accelerator),
        head=["cell", "Target", "lost", "median s", "95 % interval", "repeats"],
    )


# -- the rest ---------------------------------------------------------------------------------


def plan_zoo(document: ZooReport) -> ZooSection:
    """Return where each bug was stopped."""
    rows = []
    for entry in document.entries:
        attempts = [(entry.kind, entry.reference, entry.c, entry.rust)]
        attempts += [
            (f"… {name.removeprefix('rust_')}", "", None, verdict)
            for name, verdict in entry.more.items()
        ]
        for kind, reference, c, rust in attempts:
            rows.append(
                BugRow(kind=kind, c=_plan_stop(c), rust=_plan_stop(rust), reference=reference)
            )
    return ZooSection(rows=rows, kinds=len(document.entries), mismatches=document.mismatches)


def _plan_stop(verdict: VerdictEntry | None) -> Stopped:
    if verdict is None:
        return Stopped(style="", text="")
    shown = zoo.render_stop(verdict.stopped_by, verdict.by)
    return Stopped(style=verdict.stopped_by, text=shown)


def plan_builds(document: BenchReport) -> Table:
    """Return what building each module costs, and what comes of it."""
    rows = [
        [
            build.module,
            f"{build.cold_s:.1f}",
            f"{build.changed_s:.1f}",
            f"{build.unchanged_s:.2f}",
            str(build.stripped_bytes),
            str(build.text_bytes),
            str(build.symbols),
            str(build.lines),
        ]
        for build in document.builds
    ]
    head = [
        "module",
        "cold s",
        "one line changed s",
        "nothing to do s",
        "bytes stripped",
        "bytes of code",
        "symbols",
        "lines of source",
    ]
    return Table(head=head, rows=rows)


def plan_goals(document: BenchReport) -> GoalsSection | None:
    """Return what was to be reached, and what is; None without any goal."""
    if not document.goals:
        return None
    rows = [
        [
            goal.goal,
            LANGUAGES.get(goal.module, goal.module),
            f"{goal.reached:.3f}",
            f"{goal.limit:.2f}",
            "met" if goal.met else "not met",
        ]
        for goal in document.goals
    ]
    return GoalsSection(
        rows=rows,
        head=["goal", "module", "reached", "at most", ""],
        met=sum(goal.met for goal in document.goals),
        all=len(rows),
    )


def list_labels(reports: Reports) -> list[str]:
    """Return the labels of the driver's modules, as far as a report names them."""
    modules = reports.test.modules if reports.test else ()
    bench = reports.bench.labels.values() if reports.bench else ()
    cells = reports.counter.cells if reports.counter else ()
    counted = (cell.cell.partition("/")[0] for cell in cells)
    found = (*(module.label or module.language for module in modules), *bench, *counted)
    return list(dict.fromkeys(found))


def list_names(reports: Reports) -> list[str]:
    """Return what the page calls the modules."""
    return [LANGUAGES.get(label, label) for label in list_labels(reports)]


def plan_title(reports: Reports) -> str:
    """Return what the driver's modules are, as far as a report names them."""
    found = list_labels(reports) or list(LANGUAGES)
    if set(found) <= set(LANGUAGES):
        return f"One driver, in {' and in '.join(LANGUAGES[name] for name in found)}"
    return f"One driver: {', '.join(found)}"


def plan_page(
    reports: Reports,
    rules: tuple[tuple[str, str], ...],
    made: str,
    version: str,
    demonstration: Demonstration | None,
) -> Page:
    """Return all that the page's template uses.

    Args:
        reports: What there is.
        rules: (number, title) of the contract.
        made: The day.
        version: Of twinmod.
        demonstration: The project's own.
    """
    found = reports.bench
    exact = found is not None and found.mode != Mode.WALL
    timed = found is not None and found.mode != Mode.EXACT
    return Page(
        title=plan_title(reports),
        names=list_names(reports),
        made=made,
        version=version,
        missing=reports.missing,
        matrix=plan_matrix(reports.test, rules) if reports.test else None,
        bench=found,
        operations=[
            operation
            for name in (Operation.PREAD, Operation.PWRITE)
            if (operation := plan_operation(found, name))
        ]
        if found and exact
        else [],
        parts=plan_parts(found) if found and exact else None,
        differences=plan_differences(found) if found and exact else [],
        loops=plan_loops(found, demonstration) if found and exact else None,
        cold=plan_cold(found) if found and exact else None,
        goals=plan_goals(found) if found and exact else None,
        clock=plan_clock(found) if found and timed else None,
        builds=plan_builds(found) if found and found.builds else None,
        counter=plan_counter(reports.counter) if reports.counter else None,
        zoo=plan_zoo(reports.zoo) if reports.zoo else None,
    )


# -- a summary --------------------------------------------------------------------------------


def render_summary(reports: Reports, rules: tuple[tuple[str, str], ...], made: str) -> str:
    """Return the report in Markdown on one screen, for a cover letter or a pull request."""
    lines = []
    if test := reports.test:
        counts = report.render_totals(test.totals)
        held = f"{len(rules)} rules, " if rules else ""
        head = f"{held}{len(test.cells)} cells: {counts}"
        lines += [f"**{head}** on {test.kernel.release}.", ""]
    if (found := reports.bench) and found.mode != Mode.WALL:
        lines += _render_costs(found)
    if reports.zoo:
        stops = [entry.rust.stopped_by for entry in reports.zoo.entries if entry.rust]
        refused = f"{stops.count(Stop.COMPILE)} of {len(stops)} kinds of bugs"
        odd = len(reports.zoo.mismatches)
        lines += [f"The Rust compiler refused {refused}; {odd} attempts ended unexpectedly.", ""]
    lines.append(
        f"twinmod, {made}; instructions of the guest, QEMU's TCG with `-icount`: the same "
        "on every machine."
    )
    return "\n".join(lines) + "\n"


def _render_costs(document: BenchReport) -> list[str]:
    """Return the table of a summary, with an empty line behind it; nothing without counts."""
    modules = find_modules(document)
    rows = []
    for operation in (Operation.PREAD, Operation.PWRITE):
        own = {
            language: find_counts(document, operation, module=module)
            for language, module in modules.items()
        }
        rows += [
            [
                f"{operation} {base_text.render_size(size)}",
                *(
                    labels.render_count(entries[size].instructions_per_call)
                    if size in entries
                    else "-"
                    for entries in own.values()
                ),
                *_list_ratio(own, size),
            ]
            for size in SUMMARY_SIZES
            if any(size in entries for entries in own.values())
        ]
    if not rows:
        return []
    ratio = labels.name_ratio(modules)
    names = (LANGUAGES.get(name, name) for name in modules)
    head = ["instructions of a call", *names, *([ratio] if ratio else [])]
    rule = "|".join(("|---", *("---:" for _ in head[1:]), ""))
    table = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [table[0], rule, *table[1:], ""]
