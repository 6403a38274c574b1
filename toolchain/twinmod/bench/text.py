# SPDX-License-Identifier: GPL-2.0-only
"""A benchmark as text. Pure."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from twinmod.base import text
from twinmod.base.text import LANGUAGES
from twinmod.bench import compare, figures, labels
from twinmod.bench import document as bench_document
from twinmod.bench.compare import Change
from twinmod.bench.document import BenchReport, ExactRun, Mode
from twinmod.guest.protocol import TMPFS_FILE

E = TypeVar("E", bound=labels.Call)

#: Rows of a difference that are shown.
SHOWN_ROWS = 8


def _pivot(entries: Iterable[E], column: Callable[[E], str]) -> dict[str, dict[str, E]]:
    found: dict[str, dict[str, E]] = {}
    for entry in entries:
        found.setdefault(labels.render_entry(entry), {})[column(entry)] = entry
    return found


def render_exact(document: BenchReport) -> list[str]:
    """Return the table of instructions."""
    cells = document.cells
    rows = _pivot(
        bench_document.select_counts(document.results),
        lambda e: f"{document.labels[e.module]}/{e.tester}",
    )
    yards = _pivot(bench_document.select_counts(document.yardsticks), lambda e: e.path)
    if not rows:
        return ["no call was counted"]
    paths = [path for path, _ in figures.YARDSTICKS]
    lines = [
        (
            "instructions of a call",
            *cells,
            *("tmpfs" if p == TMPFS_FILE else p for p in paths),
            "faults",
        )
    ]
    for name, by_cell in rows.items():
        shown = [by_cell.get(cell) for cell in cells]
        faults = max(e.minor_faults for e in by_cell.values())
        lines.append(
            (
                name,
                *(
                    labels.render_count(e.instructions_per_call) + ("" if e.settled else "?")
                    if e
                    else "-"
                    for e in shown
                ),
                *(
                    labels.render_count(yards[name][p].instructions_per_call)
                    if name in yards and p in yards[name]
                    else ""
                    for p in paths
                ),
                labels.render_count(faults) if faults else "",
            )
        )
    return text.render_columns(lines)


def render_wall(document: BenchReport) -> list[str]:
    """Return the table of a clock, by one tester; how Rust compares with C where both ran."""
    timed = bench_document.select_times(document.results)
    testers = [*(e.tester for e in document.comparisons), *(e.tester for e in timed)]
    if not testers:
        return ["no call was timed"]
    tester, languages = testers[0], dict.fromkeys(document.labels.values())
    ratio = labels.name_ratio(languages, "/")
    rows = _pivot(
        (entry for entry in timed if entry.tester == tester),
        lambda entry: document.labels[entry.module],
    )
    compared = {labels.render_entry(e): e for e in document.comparisons if e.tester == tester}
    lines = [
        (
            f"ns of a call, tester {tester}",
            *(LANGUAGES.get(name, name) for name in languages),
            *((ratio, "95 % interval", "verdict") if ratio else ()),
        )
    ]
    for name, by_language in rows.items():
        verdict = compared.get(name)
        shown = (
            ("-", "-", "-")
            if verdict is None
            else (
                f"{verdict.ratio:.3f}",
                "{:.3f} to {:.3f}".format(*verdict.interval),
                verdict.verdict,
            )
        )
        times = (
            by_language[language].ns_per_call if language in by_language else None
            for language in languages
        )
        lines.append((name, *map(labels.render_count, times), *(shown if ratio else ())))
    return text.render_columns(lines)


def render_parts(document: BenchReport) -> list[str]:
    """Return what calls consist of."""
    found = [e for e in document.explanations.parts if e.cell in ("c/c", "rust/c")]
    if not found:
        return []
    names = list(found[0].parts)
    rows = [("what a call consists of", *names)]
    rows += [
        (
            f"{e.cell} {e.operation}"
            + (f" {text.render_size(e.size_bytes)}" if e.size_bytes else ""),
            *(f"{e.parts[name]:.0f} {e.parts[name] / e.instructions:4.0%}" for name in names),
        )
        for e in found
    ]
    return text.render_columns(rows)


def render_loops(document: BenchReport) -> list[str]:
    """Return what each call of a loop of reads and writes took."""
    found = document.explanations.loops
    if not found:
        return []
    rows = [
        (
            f"a loop of read and write, {text.render_size(found[0].size_bytes)}",
            "reads",
            "writes",
            "read/write",
            "faults per read",
        )
    ]
    rows += [
        (
            f"{e.cell} {e.buffers}",
            " ".join(map(str, e.read_ns)),
            " ".join(map(str, e.write_ns)),
            f"{e.ratio:.2f}",
            f"{e.faults_per_read:.1f}",
        )
        for e in found
    ]
    return text.render_columns(rows)


def render_differences(document: BenchReport) -> list[str]:
    """Return where Rust takes more than C, and where less."""
    lines = []
    for entry in document.explanations.differences:
        if entry.tester != "c":
            continue
        what = entry.operation + (
            f" {text.render_size(entry.size_bytes)}" if entry.size_bytes else ""
        )
        lines.append(f"{what}: Rust {entry.difference:+.0f}, of which")
        rows = entry.rows
        lines += [f"  {row.difference:+8.0f}  {row.function}" for row in rows[:SHOWN_ROWS]]
        rest = sum(row.difference for row in rows[SHOWN_ROWS:])
        if rows[SHOWN_ROWS:]:
            lines.append(f"  {rest:+8.0f}  {len(rows) - SHOWN_ROWS} more functions")
    return lines


def render_goals(document: BenchReport) -> list[str]:
    """Return what was to be reached, and what is."""
    if not document.goals:
        return []
    rows = [("goal", "module", "reached", "at most", "")]
    rows += [
        (
            goal.goal,
            goal.module,
            f"{goal.reached:.3f}",
            f"{goal.limit:.2f}",
            "met" if goal.met else "NOT MET",
        )
        for goal in document.goals
    ]
    return text.render_columns(rows)


def render_builds(document: BenchReport) -> list[str]:
    """Return what building each module costs, and what comes of it."""
    rows = [
        ("build", "cold s", "changed s", "nothing s", "stripped B", "text B", "symbols", "lines")
    ]
    rows += [
        (
            b.module,
            f"{b.cold_s:.1f}",
            f"{b.changed_s:.1f}",
            f"{b.unchanged_s:.2f}",
            str(b.stripped_bytes),
            str(b.text_bytes),
            str(b.symbols),
            str(b.lines),
        )
        for b in document.builds
    ]
    return text.render_columns(rows)


def render_counting(exact: ExactRun) -> list[str]:
    """Return after how many boots and loads it was counted, and how far these are apart."""
    single = (exact.vms, exact.loads) == (1, 1)
    return [
        f"boots: {exact.vms}, loads after each: {exact.loads}; {exact.qemu}",
        "one sample of each call: no spread" if single else f"largest spread {exact.spread:.3%}",
    ]


def render_report(document: BenchReport, folder: str) -> str:
    """Return a benchmark as text."""
    blocks = []
    if document.mode != Mode.WALL:
        exact = document.exact
        blocks.append(
            [
                *render_exact(document),
                "",
                *render_counting(exact),
            ]
        )
        blocks += [
            render_parts(document),
            render_differences(document),
            render_loops(document),
            render_goals(document),
        ]
        if unsettled := compare.find_unsettled(document):
            blocks.append([f"did not settle: {', '.join(unsettled)}"])
    if document.mode != Mode.EXACT:
        wall = document.wall
        label = labels.label_accelerator(document.accelerator)
        blocks.append(
            [
                *render_wall(document),
                "",
                f"{wall.accelerator}: {label}; {wall.turns} turns of each, in alternation",
            ]
        )
    if document.builds:
        blocks.append(render_builds(document))
    kernel = " ".join(filter(None, (document.kernel.release, document.parameters)))
    tail = [f"kernel {kernel}; {folder}/report.json has all of it"]
    return "\n\n".join("\n".join(block) for block in (*blocks, tail) if block)


def render_changes(
    changes: Iterable[Change],
    compared: int,
    share: float,
    other_ground: str = "",
    lost: tuple[str, ...] = (),
) -> str:
    """Return what changed since another report, what grew too much first."""
    ordered = sorted(changes, key=lambda change: -change.share)
    rows = [("since then", "before", "now", "", "")]
    rows += [
        (
            f"{c.entry.module} {c.entry.tester} {labels.render_entry(c.entry)}",
            labels.render_count(c.before),
            labels.render_count(c.now),
            f"{c.share:+.2%}",
            "TOO MUCH" if c.share > share else "",
        )
        for c in ordered
    ]
    lines = text.render_columns(rows) if ordered else []
    for change in ordered[:1]:
        if change.share > share and change.functions:
            lines += ["", f"in {labels.render_entry(change.entry)} of {change.entry.module}:"]
            lines += [f"  {count:+8.0f}  {name}" for name, count in change.functions[:SHOWN_ROWS]]
    grown = sum(change.share > share for change in ordered)
    lines.append(
        f"{compared} counts compared, {len(ordered)} changed, {grown} grew by more than {share:.2%}"
    )
    if lost:
        lines.append(f"not counted any more: {', '.join(lost)}")
    if other_ground:
        lines.append(f"not held, for not only the modules changed: {other_ground}")
    return "\n".join(lines)
