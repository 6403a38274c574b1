# SPDX-License-Identifier: GPL-2.0-only
"""A benchmark as data, as a gate, and as text; data first. Pure."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

from twinmod import bench, explain
from twinmod.bench import Cost
from twinmod.errors import ConfigError, ExitCode
from twinmod.specs import TMPFS_FILE, YARDSTICKS, CellResult, Figure, Loop, Product, Timing, Turns

SCHEMA = "twinmod.bench/1"
COUNTER_SCHEMA = "twinmod.counter/1"

#: Two threads on disjoint regions are to move 1.9 times what one does.
SCALING_LIMIT = round(1 / 1.9, 4)

#: What identifies an entry of results, in two reports alike.
KEYS = ("module", "tester", "operation", "size_bytes", "threads", "buffers", "loop", "path")

#: Rows of a difference that the text shows.
SHOWN_ROWS = 8

Costs = Mapping[tuple[str, Timing], Cost]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the twins are to reach, and what they do."""

    goal: str
    module: str
    reached: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.reached <= self.limit


# -- data -------------------------------------------------------------------------------------


def summarize_figures(figures: Iterable[Figure]) -> dict[tuple[str, Timing], Cost]:
    """Return what every timing costs in every cell, by (name of the cell, timing)."""
    by_key: dict[tuple[str, Timing], list[Figure]] = {}
    for figure in figures:
        by_key.setdefault((figure.cell, figure.timing), []).append(figure)
    return {key: bench.summarize(tuple(found)) for key, found in by_key.items()}


def plan_timing(timing: Timing) -> dict[str, Any]:
    """Return a kind of calls as an entry of a report has it."""
    return {
        "operation": timing.operation, "size_bytes": timing.size_bytes, "threads": timing.threads,
        "buffers": timing.buffers, "loop": timing.loop, "regions": timing.regions,
        "path": timing.path,
    }  # fmt: skip


def plan_cost(module: str, tester: str, timing: Timing, cost: Cost) -> dict[str, Any]:
    """Return what was counted of one kind of calls as JSON's own types."""
    return {
        "mode": "exact", "module": module, "tester": tester, **plan_timing(timing),
        "instructions_per_call": round(cost.instructions, 2), "ns_per_call": None,
        "user_instructions": round(cost.user, 2), "kernel_instructions": round(cost.kernel, 2),
        "minor_faults": round(cost.minor_faults, 3), "spread": round(cost.spread, 6),
        "samples": [round(sample, 2) for sample in cost.samples], "settled": cost.settled,
        "functions": [[name, round(count, 2)] for name, count in cost.functions],
    }  # fmt: skip


def plan_turns(turns: Turns) -> dict[str, Any]:
    """Return what a clock told of one kind of calls as JSON's own types."""
    ordered = sorted(turns.latency_ns)
    middle = ordered[len(ordered) // 2]
    quarter = len(ordered) // 4
    return {
        "mode": "wall", "module": turns.module, "tester": turns.tester,
        **plan_timing(turns.timing),
        "instructions_per_call": None, "ns_per_call": middle,
        "minor_faults": turns.minor_faults,
        "spread": round((ordered[-1 - quarter] - ordered[quarter]) / middle, 4),
        "samples": list(turns.latency_ns), "settled": True,
    }  # fmt: skip


def plan_comparisons(turns: Iterable[Turns], languages: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return how Rust compares with C by a clock, for every kind of calls that both made.

    Args:
        turns: Of all modules.
        languages: Of each module.
    """
    by_key: dict[tuple[str, Timing], dict[str, Turns]] = {}
    for taken in turns:
        if taken.module:
            pair = by_key.setdefault((taken.tester, taken.timing), {})
            pair[languages[taken.module]] = taken
    found = []
    for (tester, timing), pair in by_key.items():
        if len(pair) < 2:
            continue
        ratio = bench.compare_samples(pair["c"].latency_ns, pair["rust"].latency_ns)
        found.append({
            "tester": tester, **plan_timing(timing), "ratio": round(ratio.median, 4),
            "interval": [round(ratio.low, 4), round(ratio.high, 4)], "verdict": ratio.verdict,
        })  # fmt: skip
    return found


def compare_spreads(costs: Costs, *, unsteady: bool) -> float:
    """Return how far the loads of one timing are apart at most, as a share."""
    return max(
        (cost.spread for (_, timing), cost in costs.items()
         if bench.is_unsteady(timing) == unsteady),
        default=0.0,
    )  # fmt: skip


def plan_report(
    *, kernel: Mapping[str, str], parameters: str, mode: str, quick: bool,
    products: tuple[Product, ...], figures: tuple[Figure, ...], turns: tuple[Turns, ...],
    loops: tuple[Loop, ...], builds: tuple[Mapping[str, Any], ...],
    whole: Mapping[str, Any] | None, exact: Mapping[str, Any], wall: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return the report of a benchmark: JSON's own types, schema ``twinmod.bench/1``.

    Args:
        kernel: As report.plan_kernel has it.
        parameters: Added to its command line.
        mode: exact, wall or both.
        quick: Whether only some of it was measured.
        products: The modules.
        figures: What VMs counted.
        turns: What a clock told.
        loops: What a person's first benchmark saw.
        builds: What each build took.
        whole: How far a build of the whole kernel's modules came.
        exact: How it was counted.
        wall: How it was timed.
    """
    languages = {product.module: product.language for product in products}
    found = summarize_figures(figures)
    modules = {language: module for module, language in languages.items()}
    testers = dict.fromkeys(cell.partition("/")[2] for cell, _ in found
                            if cell != YARDSTICKS.name)  # fmt: skip
    entries = [
        plan_cost("" if cell == YARDSTICKS.name else modules[cell.partition("/")[0]],
                  cell.partition("/")[2], timing, cost)
        for (cell, timing), cost in found.items()
    ] + [plan_turns(taken) for taken in turns]  # fmt: skip
    return {
        "schema": SCHEMA, "mode": mode, "quick": quick, "kernel": dict(kernel),
        "parameters": parameters, "accelerator": wall.get("accelerator", "icount"),
        "exact": {
            **exact, "spread": compare_spreads(found, unsteady=False),
            "unsteady_spread": compare_spreads(found, unsteady=True),
        },
        "wall": dict(wall), "languages": languages,
        "modules": [{"module": p.module, "language": p.language, "sha256": p.sha256}
                    for p in products],
        "cells": [f"{language}/{tester}" for language in modules for tester in testers],
        "results": [entry for entry in entries if entry["module"]],
        "yardsticks": [entry for entry in entries if not entry["module"]],
        "comparisons": plan_comparisons(turns, languages),
        "explanations": {
            "loops": explain_loops(loops), "cold": explain_cold(found),
            "parts": explain_parts(found), "differences": explain_differences(found, testers),
        },
        "goals": [plan_goal(goal)
                  for goal in (*plan_goals(found), *plan_scaling_goals(turns, languages))],
        "builds": [dict(build) for build in builds],
        "whole_kernel": dict(whole) if whole else None,
    }  # fmt: skip


#: What kbuild says of a file that it compiles or links.
_COMPILED = re.compile(r"^\s+(?:CC|AS|RUSTC|RUST)\s+(?:\[M\]|M)?", re.MULTILINE)
_LINKED = re.compile(r"^\s+LD\s+\[M\]\s+\S+\.ko$", re.MULTILINE)


def parse_build_log(log: str) -> dict[str, int]:
    """Return how many files a build compiled, and how many modules it linked."""
    return {"compiled": len(_COMPILED.findall(log)), "linked": len(_LINKED.findall(log))}


# -- explanations -----------------------------------------------------------------------------


def explain_cold(costs: Costs) -> list[dict[str, Any]]:
    """Return, for calls with fresh pages, the share that page faults are of them."""
    found = []
    for (cell, timing), cold in costs.items():
        if timing.buffers != "fresh":
            continue
        warm = costs[cell, Timing(operation=timing.operation, size_bytes=timing.size_bytes)]
        more = cold.instructions - warm.instructions
        found.append({
            "cell": cell, "operation": timing.operation, "size_bytes": timing.size_bytes,
            "cold": round(cold.instructions, 2), "warm": round(warm.instructions, 2),
            "minor_faults": round(cold.minor_faults, 3),
            "fault_share": round(more / cold.instructions, 4),
            "instructions_per_fault": round(more / cold.minor_faults, 1)
            if cold.minor_faults else None,
        })  # fmt: skip
    return found


def is_plain(timing: Timing) -> bool:
    """Tell whether calls are warm ones of one thread, by a tester, at an offset or none."""
    return timing.buffers == "reused" and timing.loop == "tester" and timing.operation in (
        "pread", "pwrite", "add",
    )  # fmt: skip


def explain_loops(loops: Iterable[Loop]) -> list[dict[str, Any]]:
    """Return how much longer than a write a read took in a person's first benchmark, and why.

    Of each cell the first of its loops, which is what a person sees.
    """
    first: dict[tuple[str, str], Loop] = {}
    for loop in loops:
        first.setdefault((loop.cell, loop.buffers), loop)
    return [
        {**asdict(loop), "ratio": round(fmean(loop.read_ns) / fmean(loop.write_ns), 3),
         "faults_per_read": fmean(loop.read_faults)}
        for loop in first.values()
    ]  # fmt: skip


def explain_parts(costs: Costs) -> list[dict[str, Any]]:
    """Return what calls consist of, part by part."""
    return [
        {"cell": cell, "operation": timing.operation, "size_bytes": timing.size_bytes,
         "path": timing.path, "instructions": round(cost.instructions, 2),
         "parts": {part: round(count, 2)
                   for part, count in explain.plan_parts(cost.functions, cost.user).items()}}
        for (cell, timing), cost in costs.items()
        if is_plain(timing)
    ]  # fmt: skip


def explain_differences(costs: Costs, testers: Iterable[str]) -> list[dict[str, Any]]:
    """Return what the difference between the languages consists of, function by function."""
    found = []
    for tester in testers:
        for (cell, timing), c in costs.items():
            rust = costs.get((f"rust/{tester}", timing))
            if cell != f"c/{tester}" or rust is None or not is_plain(timing):
                continue
            rows = explain.plan_rows(c.functions, rust.functions, c.user, rust.user, str)
            found.append({
                "tester": tester, "operation": timing.operation, "size_bytes": timing.size_bytes,
                "c": round(c.instructions, 2), "rust": round(rust.instructions, 2),
                "difference": round(rust.instructions - c.instructions, 2),
                "rows": [{"function": row.function, "c": round(row.c, 2),
                          "rust": round(row.rust, 2), "difference": round(row.difference, 2)}
                         for row in rows],
            })  # fmt: skip
    return found


# -- goals ------------------------------------------------------------------------------------


def find_plain(costs: Costs, cell: str, operation: str, size: int, path: str = "") -> Cost | None:
    """Return what warm calls at an offset cost, or None."""
    return costs.get((cell, Timing(operation=operation, size_bytes=size, path=path)))


def _iterate_sizes(costs: Costs, cell: str) -> Iterator[tuple[str, int, Cost]]:
    for (name, timing), cost in costs.items():
        if name == cell and is_plain(timing) and timing.operation != "add":
            yield timing.operation, timing.size_bytes, cost


def plan_goals(costs: Costs) -> list[Goal]:
    """Return what the twins are to reach in exact counts, with the C tester, and what they do."""
    found: list[Goal] = []
    for language in ("c", "rust"):
        cell = f"{language}/c"

        def add(goal: str, reached: float, limit: float, module: str = language) -> None:
            found.append(Goal(goal=goal, module=module, reached=round(reached, 4), limit=limit))

        one = {op: cost for op, size, cost in _iterate_sizes(costs, cell) if size == 1}
        for operation, size, cost in _iterate_sizes(costs, cell):
            if size >= 64 * bench.KIB:
                above = cost.instructions - one[operation].instructions
                add(f"{operation} of {render_size(size)}: instructions above 1 B, per n/8",
                    above / (size / 8), 1.03)  # fmt: skip
            tmpfs = find_plain(costs, YARDSTICKS.name, operation, size, TMPFS_FILE)
            if tmpfs is not None:
                add(f"{operation} of {render_size(size)}: share of tmpfs's",
                    cost.instructions / tmpfs.instructions, 1.0)  # fmt: skip
        zero = find_plain(costs, YARDSTICKS.name, "pread", 1, "/dev/zero")
        if zero is not None and "pread" in one:
            add("pread of 1 B: share of /dev/zero's", one["pread"].instructions / zero.instructions,
                1.25)  # fmt: skip
    for operation, size, c in _iterate_sizes(costs, "c/c"):
        rust = find_plain(costs, "rust/c", operation, size)
        if rust is not None:
            found.append(Goal(
                goal=f"{operation} of {render_size(size)}: Rust's share of C's", module="rust",
                reached=round(rust.instructions / c.instructions, 4), limit=1.0,
            ))  # fmt: skip
    for tester in ("c", "rust"):
        for operation in ("pread", "pwrite"):
            bare = costs.get((f"c/{tester}",
                              Timing(operation=operation, size_bytes=1, loop="bare")))  # fmt: skip
            own = find_plain(costs, f"c/{tester}", operation, 1)
            if bare is not None and own is not None:
                found.append(Goal(
                    goal=f"{operation} of 1 B: tester {tester}'s share of a bare loop's",
                    module="c", reached=round(own.instructions / bare.instructions, 4), limit=1.05,
                ))  # fmt: skip
    return found


# -- a counter --------------------------------------------------------------------------------


def plan_interval(interval: bench.Interval) -> dict[str, float]:
    """Return an interval as JSON's own types."""
    return {name: round(value, 4) for name, value in asdict(interval).items()}


def plan_counter_report(
    results: tuple[CellResult, ...], kernel: Mapping[str, str], accelerator: str,
    counting: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return what a counter took, repeat by repeat: JSON's own types, ``twinmod.counter/1``.

    Args:
        results: Of every cell, in every repeat.
        kernel: As report.plan_kernel has it.
        accelerator: What the VMs ran on.
        counting: threads, increments, method, repeats.
    """
    by_cell: dict[str, list[CellResult]] = {}
    for result in results:
        by_cell.setdefault(result.cell.name, []).append(result)
    cells = {name: _plan_counter_cell(name, found) for name, found in by_cell.items()}
    comparisons = []
    for tester in dict.fromkeys(result.cell.tester for result in results):
        c, rust = (cells.get(f"{language}/{tester}", {}) for language in ("c", "rust"))
        if c.get("real_s") and len(c["real_s"]) == len(rust.get("real_s", ())):
            ratio = bench.compare_samples(c["real_s"], rust["real_s"])
            comparisons.append({"tester": tester, "ratio": plan_interval(ratio),
                                "verdict": ratio.verdict})  # fmt: skip
    return {
        "schema": COUNTER_SCHEMA, "kernel": dict(kernel), "accelerator": accelerator,
        **counting, "cells": list(cells.values()), "comparisons": comparisons,
    }  # fmt: skip


def _plan_counter_cell(name: str, found: list[CellResult]) -> dict[str, Any]:
    counts = [result.count for result in found if result.count is not None]
    real_s = [count["real_s"] for count in counts]
    return {
        "cell": name, "outcomes": [result.outcome for result in found],
        "target": counts[0]["target"] if counts else None,
        "actual": [count["actual"] for count in counts],
        "real_s": real_s, "user_s": [count["user_s"] for count in counts],
        "system_s": [count["system_s"] for count in counts],
        "interval_s": plan_interval(bench.find_interval(real_s)) if real_s else None,
    }  # fmt: skip


def render_counter(document: Mapping[str, Any]) -> str:
    """Return the table of a counter that was repeated, with what Rust takes of C's time."""
    rows = [("cell", "Target", "lost", "median s", "95 % interval", "user s", "sys s", "repeats")]
    for cell in document["cells"]:
        if cell["interval_s"] is None:
            rows.append((cell["cell"], "-", "-", "-", "-", "-", "-", str(len(cell["outcomes"]))))
            continue
        found = cell["interval_s"]
        lost = sum(cell["target"] - actual for actual in cell["actual"])
        rows.append((
            cell["cell"], str(cell["target"]), str(lost), f"{found['median']:.3f}",
            f"{found['low']:.3f} to {found['high']:.3f}", f"{median(cell['user_s']):.3f}",
            f"{median(cell['system_s']):.3f}", str(len(cell["real_s"])),
        ))  # fmt: skip
    lines = render_columns(rows)
    lines += [
        f"tester {c['tester']}: Rust/C {c['ratio']['median']:.3f}, "
        f"{c['ratio']['low']:.3f} to {c['ratio']['high']:.3f}: {c['verdict']}"
        for c in document["comparisons"]
    ]
    lines.append(f"{document['threads']} threads, {document['increments']} increments each, method "
                 f"{document['method']}; {document['accelerator']}: "
                 f"{label_accelerator(document['accelerator'])}")  # fmt: skip
    return "\n".join(lines)


def plan_scaling_goals(turns: Iterable[Turns], languages: Mapping[str, str]) -> list[Goal]:
    """Return how much of one thread's time two take for as many bytes each, on disjoint regions."""
    found = {(t.module, t.timing): median(t.latency_ns) for t in turns if t.tester == "c"}
    goals = []
    for (module, timing), two_ns in found.items():
        alone = replace(timing, threads=1, regions="one")
        if timing.threads != 2 or timing.regions != "disjoint" or (module, alone) not in found:
            continue
        what = f"{timing.operation} of {render_size(timing.size_bytes)}"
        goals.append(Goal(
            goal=f"{what}, two threads, by a clock: share of one's time per byte",
            module=languages[module], reached=round(two_ns / (2 * found[module, alone]), 4),
            limit=SCALING_LIMIT,
        ))  # fmt: skip
    return goals


# -- the gate ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A count that is not what it was."""

    entry: Mapping[str, Any]
    before: float
    now: float
    # (function, how many more instructions it takes), the most first.
    functions: tuple[tuple[str, float], ...]

    @property
    def share(self) -> float:
        """By how much it grew, as a share of what it was."""
        return (self.now - self.before) / self.before


def index_results(document: Mapping[str, Any]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    """Return the exact entries of a report by what identifies them."""
    return {
        tuple(entry[key] for key in KEYS): entry
        for entry in (*document["results"], *document["yardsticks"])
        if entry["mode"] == "exact"
    }


def compare_reports(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[tuple[Change, ...], int]:
    """Return the counts of our modules that two reports both have, as changes; and how many.

    A call whose cost is not the same every time is no evidence, and is left out.
    """
    old, new = index_results(before), index_results(now)
    shared = [key for key in new if key in old and new[key]["module"] and is_comparable(new[key])]
    changes = (
        Change(
            entry=new[key], before=old[key]["instructions_per_call"],
            now=new[key]["instructions_per_call"],
            functions=explain.compare_functions(
                tuple(map(tuple, old[key].get("functions", ()))),
                tuple(map(tuple, new[key]["functions"])),
            ) if old[key].get("functions") else (),
        )
        for key in shared
    )  # fmt: skip
    return tuple(c for c in changes if c.now != c.before), len(shared)


def is_comparable(entry: Mapping[str, Any]) -> bool:
    """Tell whether the calls of an entry cost the same every time."""
    return not bench.is_unsteady(
        Timing(operation=entry["operation"], buffers=entry["buffers"])
    )  # fmt: skip


def find_other_ground(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in what two reports differ beside the modules, "" when nothing does.

    Counts that another kernel, compiler or QEMU makes say nothing of a change to a module.
    """

    def read_grounds(report: Mapping[str, Any]) -> dict[str, str]:
        kernel = report["kernel"]
        return {"kernel": kernel["version"], "rustc": kernel["rustc"],
                "parameters": report["parameters"], "QEMU": report["exact"]["qemu"]}  # fmt: skip

    old, new = read_grounds(before), read_grounds(now)
    return "; ".join(f"{name} {old[name]!r} then, {new[name]!r} now"
                     for name in new if old[name] != new[name])  # fmt: skip


def compare_changes(
    changes: Iterable[Change], compared: int, share: float, other_ground: str = ""
) -> ExitCode:
    """Return the exit code of a comparison: nothing compared is no success.

    On other ground a count that grew is shown, and proves nothing.
    """
    grown = any(change.share > share for change in changes) and not other_ground
    return ExitCode.TESTS_FAILED if grown or not compared else ExitCode.PASSED


def plan_baseline(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a report another one is compared with."""
    kept = (*KEYS, "mode", "instructions_per_call", "functions")
    return {
        **{name: document[name] for name in ("schema", "kernel", "parameters")},
        "exact": {"qemu": document["exact"]["qemu"]},
        "results": [
            {name: entry[name] for name in kept}
            for entry in document["results"]
            if entry["mode"] == "exact" and is_comparable(entry)
        ],
        "yardsticks": [],
    }


def render_baseline(document: Mapping[str, Any]) -> str:
    """Return a baseline as JSON with a line for each entry, so that a change of one is seen."""
    head = json.dumps({**document, "results": []}, indent=1)
    lines = ",\n".join(json.dumps(entry) for entry in document["results"])
    return head.replace('"results": []', f'"results": [\n{lines}\n]') + "\n"


def find_unsettled(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the counts of a report that did not settle, of those that are to."""
    return tuple(
        f"{entry['module'] or entry['path']} {entry['tester']} {render_entry(entry)}"
        for entry in (*document["results"], *document["yardsticks"])
        if is_comparable(entry) and not entry["settled"]
    )


def compare_settled(document: Mapping[str, Any]) -> ExitCode:
    """Return the exit code of a report's counts: each must have settled."""
    return ExitCode.TESTS_FAILED if find_unsettled(document) else ExitCode.PASSED


def parse_report(text: str, path: str) -> dict[str, Any]:
    """Return an earlier report.

    Raises:
        ConfigError: It is none.
    """
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, not {SCHEMA!r}")
        index_results(document)
        find_other_ground(document, document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "this is no report of a benchmark",
            facts=(("file", path), ("why", repr(error))),
            hint="nox -s bench writes one to out/bench/report.json",
        ) from error
    return dict(document)


# -- text -------------------------------------------------------------------------------------


def render_size(size_bytes: int) -> str:
    """Return a size as a person says it."""
    if size_bytes < bench.KIB:
        return f"{size_bytes} B"
    if size_bytes < bench.MIB:
        return f"{size_bytes // bench.KIB} KiB"
    return f"{size_bytes // bench.MIB} MiB"


def render_entry(entry: Mapping[str, Any]) -> str:
    """Return what calls an entry is about."""
    words = [entry["operation"]]
    if entry["size_bytes"]:
        words.append(render_size(entry["size_bytes"]))
    if entry["buffers"] == "fresh":
        words.append("fresh")
    if entry["threads"] > 1:
        where = "" if entry["operation"] == "count" else f" on {entry['regions']}"
        words.append(f"{entry['threads']} threads{where}")
    if entry["loop"] == "bare":
        words.append("(bare loop)")
    return " ".join(words)


def label_accelerator(accelerator: str) -> str:
    """Return what a clock tells in a VM on some accelerator."""
    return "time" if accelerator == "kvm" else "emulation, not time"


def render_count(count: float | None) -> str:
    """Return a count of instructions or nanoseconds with as many digits as mean something."""
    if count is None:
        return "-"
    return f"{count:.0f}" if count >= 100 or count == int(count) else f"{count:.1f}"


def render_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines: the first column left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            f"{text:<{width}}" if number == 0 else f"{text:>{width}}"
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _pivot(
    entries: Iterable[Mapping[str, Any]], column: Callable[[Mapping[str, Any]], str]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault(render_entry(entry), {})[column(entry)] = entry
    return found


def render_exact(document: Mapping[str, Any]) -> list[str]:
    """Return the table of instructions."""
    cells = document["cells"]
    rows = _pivot((e for e in document["results"] if e["mode"] == "exact"),
                  lambda e: f"{document['languages'][e['module']]}/{e['tester']}")  # fmt: skip
    yards = _pivot((e for e in document["yardsticks"] if e["mode"] == "exact"),
                   lambda e: e["path"])  # fmt: skip
    paths = [path for path, _ in bench.YARDSTICKS]
    lines = [("instructions of a call", *cells, *("tmpfs" if p == TMPFS_FILE else p for p in paths),
              "faults")]  # fmt: skip
    for name, by_cell in rows.items():
        shown = [by_cell.get(cell) for cell in cells]
        faults = max(e["minor_faults"] for e in by_cell.values())
        lines.append((
            name,
            *(render_count(e["instructions_per_call"]) + ("" if e["settled"] else "?") if e else "-"
              for e in shown),
            *(render_count(yards[name][p]["instructions_per_call"])
              if name in yards and p in yards[name] else "" for p in paths),
            render_count(faults) if faults else "",
        ))  # fmt: skip
    return render_columns(lines)


def render_wall(document: Mapping[str, Any]) -> list[str]:
    """Return the table of a clock."""
    rows = _pivot((e for e in document["results"] if e["mode"] == "wall"),
                  lambda e: f"{document['languages'][e['module']]}/{e['tester']}")  # fmt: skip
    compared = {(e["tester"], render_entry(e)): e for e in document["comparisons"]}
    tester = document["comparisons"][0]["tester"]
    lines = [(f"ns of a call, tester {tester}", "C", "Rust", "Rust/C", "95 % interval", "verdict")]
    for name, by_cell in rows.items():
        verdict = compared.get((tester, name))
        if verdict is None:
            continue
        low, high = verdict["interval"]
        lines.append((
            name, *(render_count(by_cell[f"{letter}/{tester}"]["ns_per_call"])
                    for letter in ("c", "rust")),
            f"{verdict['ratio']:.3f}", f"{low:.3f} to {high:.3f}", verdict["verdict"],
        ))  # fmt: skip
    return render_columns(lines)


def render_parts(document: Mapping[str, Any]) -> list[str]:
    """Return what calls consist of."""
    found = [e for e in document["explanations"]["parts"] if e["cell"] in ("c/c", "rust/c")]
    if not found:
        return []
    names = list(found[0]["parts"])
    rows = [("what a call consists of", *names)]
    rows += [
        (f"{e['cell']} {e['operation']}" + (f" {render_size(e['size_bytes'])}"
                                            if e["size_bytes"] else ""),
         *(f"{e['parts'][name]:.0f} {e['parts'][name] / e['instructions']:4.0%}" for name in names))
        for e in found
    ]  # fmt: skip
    return render_columns(rows)


def render_loops(document: Mapping[str, Any]) -> list[str]:
    """Return what a person's first benchmark would have made them believe."""
    found = document["explanations"]["loops"]
    if not found:
        return []
    rows = [("a loop of read and write, 512 KiB", "reads", "writes", "read/write",
             "faults per read")]  # fmt: skip
    rows += [
        (f"{e['cell']} {e['buffers']}", " ".join(map(str, e["read_ns"])),
         " ".join(map(str, e["write_ns"])), f"{e['ratio']:.2f}", f"{e['faults_per_read']:.1f}")
        for e in found
    ]  # fmt: skip
    return render_columns(rows)


def render_differences(document: Mapping[str, Any]) -> list[str]:
    """Return where Rust takes more than C, and where less."""
    lines = []
    for entry in document["explanations"]["differences"]:
        if entry["tester"] != "c":
            continue
        what = entry["operation"] + (
            f" {render_size(entry['size_bytes'])}" if entry["size_bytes"] else ""
        )
        lines.append(f"{what}: Rust {entry['difference']:+.0f}, of which")
        rows = entry["rows"]
        lines += [f"  {row['difference']:+8.0f}  {row['function']}" for row in rows[:SHOWN_ROWS]]
        rest = sum(row["difference"] for row in rows[SHOWN_ROWS:])
        if rows[SHOWN_ROWS:]:
            lines.append(f"  {rest:+8.0f}  {len(rows) - SHOWN_ROWS} more functions")
    return lines


def render_goals(document: Mapping[str, Any]) -> list[str]:
    """Return what was to be reached, and what is."""
    rows = [("goal", "module", "reached", "at most", "")]
    rows += [
        (goal["goal"], goal["module"], f"{goal['reached']:.3f}", f"{goal['limit']:.2f}",
         "met" if goal["met"] else "NOT MET")
        for goal in document["goals"]
    ]  # fmt: skip
    return render_columns(rows)


def render_builds(document: Mapping[str, Any]) -> list[str]:
    """Return what building each module costs, and what comes of it."""
    rows = [("build", "cold s", "changed s", "nothing s", "stripped B", "text B", "symbols",
             "lines")]  # fmt: skip
    rows += [
        (b["module"], f"{b['cold_s']:.1f}", f"{b['changed_s']:.1f}", f"{b['unchanged_s']:.2f}",
         str(b["stripped_bytes"]), str(b["text_bytes"]), str(b["symbols"]), str(b["lines"]))
        for b in document["builds"]
    ]  # fmt: skip
    return [*render_columns(rows), *render_whole(document["whole_kernel"])]


def render_whole(whole: Mapping[str, Any] | None) -> list[str]:
    """Return how far a build of all modules came, beside which one folder is nothing."""
    if whole is None:
        return []
    there = f"{whole['linked']} of {whole['modules']} after {whole['seconds']} s"
    files = f"{whole['compiled']} files compiled"
    return [f"all modules of the kernel, as SUBDIRS builds them today: {there}, {files}"]


def render_spreads(exact: Mapping[str, Any]) -> str:
    """Return how far loads are apart at most."""
    return (f"largest spread {exact['spread']:.3%}; of calls that do not cost the same every time "
            f"{exact['unsteady_spread']:.1%}")  # fmt: skip


def render_report(document: Mapping[str, Any], folder: str) -> str:
    """Return a benchmark as text."""
    blocks = []
    if document["mode"] != "wall":
        exact = document["exact"]
        blocks.append([
            *render_exact(document), "",
            f"{exact['vms']} VMs, {exact['loads']} loads in each; {exact['qemu']}",
            render_spreads(exact),
        ])  # fmt: skip
        blocks += [render_parts(document), render_differences(document),
                   render_loops(document), render_goals(document)]  # fmt: skip
        if unsettled := find_unsettled(document):
            blocks.append([f"did not settle: {', '.join(unsettled)}"])
    if document["mode"] != "exact":
        wall = document["wall"]
        label = label_accelerator(wall["accelerator"])
        blocks.append([
            *render_wall(document), "",
            f"{wall['accelerator']}: {label}; {wall['turns']} turns of each, in alternation",
        ])  # fmt: skip
    if document["builds"]:
        blocks.append(render_builds(document))
    kernel = " ".join(filter(None, (document["kernel"]["release"], document["parameters"])))
    tail = [f"kernel {kernel}; {folder}/report.json has all of it"]
    return "\n\n".join("\n".join(block) for block in (*blocks, tail) if block)


def render_changes(
    changes: Iterable[Change], compared: int, share: float, other_ground: str = ""
) -> str:
    """Return what changed since another report, what grew too much first."""
    ordered = sorted(changes, key=lambda change: -change.share)
    rows = [("since then", "before", "now", "", "")]
    rows += [
        (f"{c.entry['module']} {c.entry['tester']} {render_entry(c.entry)}",
         render_count(c.before), render_count(c.now), f"{c.share:+.2%}",
         "TOO MUCH" if c.share > share else "")
        for c in ordered
    ]  # fmt: skip
    lines = render_columns(rows) if ordered else []
    for change in ordered[:1]:
        if change.share > share and change.functions:
            lines += ["", f"in {render_entry(change.entry)} of {change.entry['module']}:"]
            lines += [f"  {count:+8.0f}  {name}" for name, count in change.functions[:SHOWN_ROWS]]
    grown = sum(change.share > share for change in ordered)
    lines.append(f"{compared} counts compared, {len(ordered)} changed, "
                 f"{grown} grew by more than {share:.2%}")  # fmt: skip
    if other_ground:
        lines.append(f"not held, for not only the modules changed: {other_ground}")
    return "\n".join(lines)


def plan_goal(goal: Goal) -> dict[str, Any]:
    """Return a goal as JSON's own types."""
    return {**asdict(goal), "met": goal.met}
