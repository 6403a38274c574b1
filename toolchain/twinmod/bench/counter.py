# SPDX-License-Identifier: GPL-2.0-only
"""The counter: threads that count up on one device in every cell, its report and its text."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from twinmod import workspace
from twinmod.base import text
from twinmod.base.progress import Progress
from twinmod.bench import figures, wording
from twinmod.cells import model as cells_model
from twinmod.cells import report, selection
from twinmod.cells.model import CellResult
from twinmod.errors import VmLostError
from twinmod.kernels import model
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES
from twinmod.vm import boot, running
from twinmod.workspace import Prepared

COUNTER_SCHEMA = "twinmod.counter/1"


def plan_interval(interval: figures.Interval) -> dict[str, float]:
    """Return an interval as JSON's own types."""
    return {name: round(value, 4) for name, value in asdict(interval).items()}


def plan_counter_report(
    results: tuple[CellResult, ...],
    kernel: Mapping[str, str],
    accelerator: str,
    counting: Mapping[str, Any],
    absent: tuple[Mapping[str, str], ...] = (),
) -> dict[str, Any]:
    """Return what a counter took, repeat by repeat: JSON's own types, ``twinmod.counter/1``.

    Args:
        results: Of every cell, in every repeat.
        kernel: As report.plan_kernel has it.
        accelerator: What the VMs ran on.
        counting: threads, increments, method, repeats.
        absent: The cells that the kernel cannot have, as report.plan_absent has them.
    """
    by_cell: dict[str, list[CellResult]] = {}
    for result in results:
        by_cell.setdefault(result.cell.name, []).append(result)
    cells = {name: _plan_counter_cell(name, found) for name, found in by_cell.items()}
    comparisons = []
    for tester in dict.fromkeys(result.cell.tester for result in results):
        c, rust = (cells.get(f"{language}/{tester}", {}) for language in LANGUAGES)
        times = c.get("real_s", ())
        if times and all(times) and len(times) == len(rust.get("real_s", ())):
            ratio = figures.compare_samples(times, rust["real_s"])
            comparisons.append(
                {"tester": tester, "ratio": plan_interval(ratio), "verdict": ratio.verdict}
            )
    return {
        "schema": COUNTER_SCHEMA,
        "kernel": dict(kernel),
        "accelerator": accelerator,
        **counting,
        "cells": list(cells.values()),
        "absent": [dict(cell) for cell in absent],
        "comparisons": comparisons,
    }


def _plan_counter_cell(name: str, found: list[CellResult]) -> dict[str, Any]:
    counts = [result.count for result in found if result.count is not None]
    real_s = [count.real_s for count in counts]
    return {
        "cell": name,
        "outcomes": [result.outcome for result in found],
        "target": counts[0].target if counts else None,
        "actual": [count.actual for count in counts],
        "real_s": real_s,
        "user_s": [count.user_s for count in counts],
        "system_s": [count.system_s for count in counts],
        "interval_s": plan_interval(figures.find_interval(real_s)) if real_s else None,
    }


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


def run_counter(
    config: Config, prepared: Prepared, counting: Counting, progress: Progress
) -> tuple[dict[str, Any], tuple[CellResult, ...]]:
    """Count up in every cell: threads x increments on one device, by a method of the testers.

    All cells take their turn before the first one does so again: what drifts hits them all. Of
    several repeats, one whose VM does not boot ends none of the others.
    """
    languages = workspace.require_languages(config, prepared.tree, LANGUAGES, progress)
    cells, absent = selection.plan_presence(cells_model.plan_cells(config), prepared.tree)
    products = workspace.run_build(config, prepared, languages, progress)
    setting = workspace.prepare_setting(config, prepared, progress)
    out_dir = config.out_dir / "counter"
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
            ended, _ = running.run_cells(setting, work, out_dir / f"repeat-{number}", progress)
        except VmLostError as error:
            if counting.repeats == 1:
                raise
            ended = running.plan_unreached(cells, error.message)
        found += ended
    document = plan_counter_report(
        tuple(found),
        model.plan_kernel(prepared.tree),
        setting.accelerator.name,
        {
            "threads": counting.threads,
            "increments": counting.increments,
            "method": counting.method,
            "repeats": counting.repeats,
        },
        report.plan_absent(absent),
    )
    workspace.write_json(out_dir / "report.json", document)
    return document, tuple(found)


def render_counter(document: Mapping[str, Any]) -> str:
    """Return the table of a counter that was repeated, with what Rust takes of C's time."""
    rows = [("cell", "Target", "lost", "median s", "95 % interval", "user s", "sys s", "repeats")]
    for cell in document["cells"]:
        if cell["interval_s"] is None:
            rows.append((cell["cell"], "-", "-", "-", "-", "-", "-", str(len(cell["outcomes"]))))
            continue
        found = cell["interval_s"]
        lost = sum(cell["target"] - actual for actual in cell["actual"])
        rows.append(
            (
                cell["cell"],
                str(cell["target"]),
                str(lost),
                f"{found['median']:.3f}",
                f"{found['low']:.3f} to {found['high']:.3f}",
                f"{median(cell['user_s']):.3f}",
                f"{median(cell['system_s']):.3f}",
                str(len(cell["real_s"])),
            )
        )
    lines = text.render_columns(rows)
    lines += [
        f"tester {c['tester']}: Rust/C {c['ratio']['median']:.3f}, "
        f"{c['ratio']['low']:.3f} to {c['ratio']['high']:.3f}: {c['verdict']}"
        for c in document["comparisons"]
    ]
    lines.append(
        f"{document['threads']} threads, {document['increments']} increments each, method "
        f"{document['method']}; {document['accelerator']}: "
        f"{wording.label_accelerator(document['accelerator'])}"
    )
    return "\n".join(lines)
