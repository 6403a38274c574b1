# SPDX-License-Identifier: GPL-2.0-only
"""A benchmark and a counter as data. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

from twinmod.bench import explain, targets
from twinmod.bench import figures as bench_figures
from twinmod.bench.figures import Cost, Figure
from twinmod.bench.targets import Costs
from twinmod.builds.product import Product
from twinmod.cells.model import YARDSTICKS, Loop, Turns
from twinmod.guest.protocol import Timing


def summarize_figures(figures: Iterable[Figure]) -> dict[tuple[str, Timing], Cost]:
    """Return what every timing costs in every cell, by (name of the cell, timing)."""
    by_key: dict[tuple[str, Timing], list[Figure]] = {}
    for figure in figures:
        by_key.setdefault((figure.cell, figure.timing), []).append(figure)
    return {key: bench_figures.summarize(tuple(found)) for key, found in by_key.items()}


def plan_timing(timing: Timing) -> dict[str, Any]:
    """Return a kind of calls as an entry of a report has it."""
    return {
        "operation": timing.operation,
        "size_bytes": timing.size_bytes,
        "threads": timing.threads,
        "buffers": timing.buffers,
        "loop": timing.loop,
        "regions": timing.regions,
        "path": timing.path,
    }


def plan_cost(module: str, tester: str, timing: Timing, cost: Cost) -> dict[str, Any]:
    """Return what was counted of one kind of calls as JSON's own types."""
    return {
        "mode": "exact",
        "module": module,
        "tester": tester,
        **plan_timing(timing),
        "instructions_per_call": round(cost.instructions, 2),
        "ns_per_call": None,
        "user_instructions": round(cost.user, 2),
        "kernel_instructions": round(cost.kernel, 2),
        "elsewhere_instructions": round(cost.elsewhere, 2),
        "minor_faults": round(cost.minor_faults, 3),
        "spread": round(cost.spread, 6),
        "samples": [round(sample, 2) for sample in cost.samples],
        "settled": cost.settled,
        "functions": [[name, round(count, 2)] for name, count in cost.functions],
    }


def plan_turns(turns: Turns) -> dict[str, Any]:
    """Return what a clock told of one kind of calls as JSON's own types."""
    ordered = sorted(turns.latency_ns)
    middle = ordered[len(ordered) // 2]
    quarter = len(ordered) // 4
    return {
        "mode": "wall",
        "module": turns.module,
        "tester": turns.tester,
        **plan_timing(turns.timing),
        "instructions_per_call": None,
        "ns_per_call": middle,
        "minor_faults": turns.minor_faults,
        "spread": round((ordered[-1 - quarter] - ordered[quarter]) / middle, 4) if middle else 0.0,
        "samples": list(turns.latency_ns),
    }


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
        # A coarse clock may tell no time at all.
        if not {"c", "rust"} <= pair.keys() or not all(pair["c"].latency_ns):
            continue
        ratio = bench_figures.compare_samples(pair["c"].latency_ns, pair["rust"].latency_ns)
        found.append(
            {
                "tester": tester,
                **plan_timing(timing),
                "ratio": round(ratio.median, 4),
                "interval": [round(ratio.low, 4), round(ratio.high, 4)],
                "verdict": ratio.verdict,
            }
        )
    return found


def plan_report(
    *,
    kernel: Mapping[str, str],
    parameters: str,
    mode: str,
    quick: bool,
    products: tuple[Product, ...],
    figures: tuple[Figure, ...],
    turns: tuple[Turns, ...],
    loops: tuple[Loop, ...],
    builds: tuple[Mapping[str, Any], ...],
    exact: Mapping[str, Any],
    wall: Mapping[str, Any],
    absent: tuple[Mapping[str, str], ...] = (),
) -> dict[str, Any]:
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
        exact: How it was counted.
        wall: How it was timed.
        absent: The cells that the kernel cannot have, as report.plan_absent has them.
    """
    languages = {product.module: product.language for product in products}
    found = summarize_figures(figures)
    modules = {language: module for module, language in languages.items()}
    testers = dict.fromkeys(cell.partition("/")[2] for cell, _ in found if cell != YARDSTICKS.name)
    entries = [
        plan_cost(
            "" if cell == YARDSTICKS.name else modules[cell.partition("/")[0]],
            cell.partition("/")[2],
            timing,
            cost,
        )
        for (cell, timing), cost in found.items()
    ] + [plan_turns(taken) for taken in turns]
    return {
        "schema": bench_figures.SCHEMA,
        "mode": mode,
        "quick": quick,
        "kernel": dict(kernel),
        "parameters": parameters,
        "accelerator": wall.get("accelerator", "icount"),
        "exact": {
            **exact,
            "spread": max((cost.spread for cost in found.values()), default=0.0),
        },
        "wall": dict(wall),
        "languages": languages,
        "modules": [
            {"module": p.module, "language": p.language, "sha256": p.sha256} for p in products
        ],
        "cells": [f"{language}/{tester}" for language in modules for tester in testers],
        "absent": [dict(cell) for cell in absent],
        "results": [entry for entry in entries if entry["module"]],
        "yardsticks": [entry for entry in entries if not entry["module"]],
        "comparisons": plan_comparisons(turns, languages),
        "explanations": {
            "loops": explain_loops(loops),
            "cold": explain_cold(found),
            "parts": explain_parts(found),
            "differences": explain_differences(found, testers),
        },
        "goals": [
            targets.plan_goal(goal)
            for goal in (*targets.plan_goals(found), *targets.plan_scaling_goals(turns, languages))
        ],
        "builds": [dict(build) for build in builds],
    }


def explain_cold(costs: Costs) -> list[dict[str, Any]]:
    """Return, for calls with fresh pages, the share that page faults are of them."""
    found = []
    for (cell, timing), cold in costs.items():
        if timing.buffers != "fresh":
            continue
        warm = targets.find_plain(costs, cell, timing.operation, timing.size_bytes)
        if warm is None:
            continue
        more = cold.instructions - warm.instructions
        found.append(
            {
                "cell": cell,
                "operation": timing.operation,
                "size_bytes": timing.size_bytes,
                "cold": round(cold.instructions, 2),
                "warm": round(warm.instructions, 2),
                "minor_faults": round(cold.minor_faults, 3),
                "fault_share": round(more / cold.instructions, 4),
                "instructions_per_fault": round(more / cold.minor_faults, 1)
                if cold.minor_faults
                else None,
            }
        )
    return found


def explain_loops(loops: Iterable[Loop]) -> list[dict[str, Any]]:
    """Return how much longer than a write a read took in a person's first benchmark, and why.

    Every VM ran it; a person sees one run, so it is the first VM's.
    """
    first: dict[tuple[str, str], Loop] = {}
    for loop in loops:
        first.setdefault((loop.cell, loop.buffers), loop)
    return [
        {
            **asdict(loop),
            "ratio": round(fmean(loop.read_ns) / fmean(loop.write_ns), 3),
            "faults_per_read": fmean(loop.read_faults),
        }
        for loop in first.values()
    ]


def explain_parts(costs: Costs) -> list[dict[str, Any]]:
    """Return what calls consist of, part by part."""
    return [
        {
            "cell": cell,
            "operation": timing.operation,
            "size_bytes": timing.size_bytes,
            "path": timing.path,
            "instructions": round(cost.instructions, 2),
            "parts": {
                part: round(count, 2)
                for part, count in explain.plan_parts(cost.functions, cost.user).items()
            },
        }
        for (cell, timing), cost in costs.items()
        if targets.is_plain(timing)
    ]


def explain_differences(costs: Costs, testers: Iterable[str]) -> list[dict[str, Any]]:
    """Return what the difference between the languages consists of, function by function."""
    found = []
    for tester in testers:
        for (cell, timing), c in costs.items():
            rust = costs.get((f"rust/{tester}", timing))
            if cell != f"c/{tester}" or rust is None or not targets.is_plain(timing):
                continue
            rows = explain.plan_rows(c.functions, rust.functions, c.user, rust.user)
            found.append(
                {
                    "tester": tester,
                    "operation": timing.operation,
                    "size_bytes": timing.size_bytes,
                    "c": round(c.instructions, 2),
                    "rust": round(rust.instructions, 2),
                    "difference": round(rust.instructions - c.instructions, 2),
                    "rows": [
                        {
                            "function": row.function,
                            "c": round(row.c, 2),
                            "rust": round(row.rust, 2),
                            "difference": round(row.difference, 2),
                        }
                        for row in rows
                    ],
                }
            )
    return found
