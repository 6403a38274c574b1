# SPDX-License-Identifier: GPL-2.0-only
"""A run as data, as JUnit, and as text; data first. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import junitparser
from rich.table import Table
from rich.text import Text

from twinmod import commands, faults, injection
from twinmod.errors import ExitCode, TwinmodError, compare_exit_codes
from twinmod.specs import (
    DIFFERENTIAL,
    AbsentCell,
    CellResult,
    Check,
    KernelCell,
    KernelFault,
    KernelTree,
    Product,
)
from twinmod.visible import make_visible

#: How an outcome looks in the table.
MARKS = {
    "passed": ("pass", "green"),
    "failed": ("FAIL", "bold red"),
    "skipped": ("skip", "yellow"),
    "missing": ("none", "bold red"),
    "crashed": ("CRASH", "bold red"),
    "timeout": ("TIMEOUT", "bold red"),
    "lost": ("LOST", "bold red"),
}

#: How many failed rules the command that runs them again names.
AGAIN_RULES = 5

#: What the terminal shows of a failed test; the reports have all of it.
MESSAGE_LINES = 3
MESSAGE_WIDTH = 160

_EXIT_CODES = {
    "passed": ExitCode.PASSED,
    "failed": ExitCode.TESTS_FAILED,
    "crashed": ExitCode.KERNEL_FAULT,
    "timeout": ExitCode.VM_LOST,
    "lost": ExitCode.VM_LOST,
}


def compare_outcomes(results: tuple[CellResult, ...]) -> ExitCode:
    """Return the exit code that a run's cells amount to."""
    return compare_exit_codes(tuple(_EXIT_CODES[result.outcome] for result in results))


# -- data -------------------------------------------------------------------------------------


def plan_cell(result: CellResult) -> dict[str, Any]:
    """Return one cell as JSON's own types."""
    return {
        "module": result.cell.module,
        "tester": result.cell.tester,
        "outcome": result.outcome,
        "tests": [
            {
                "id": test.id,
                "rule": " ".join(test.rules),
                "outcome": test.outcome,
                "duration_s": test.duration_s,
                "message": test.message,
            }
            for test in result.tests
        ],
        "kernel_faults": [plan_fault(fault) for fault in result.kernel_faults],
        "problems": list(result.problems),
    }


def plan_fault(fault: KernelFault) -> dict[str, Any]:
    """Return what the kernel complained of as JSON's own types."""
    return {
        "kind": fault.kind,
        "test": fault.test,
        "modules": list(fault.modules),
        "log": fault.log,
        "lines": list(fault.lines),
        "stacks": [
            {
                "label": stack.label,
                "frames": [
                    {
                        "function": frame.shown,
                        "symbol": frame.function,
                        "module": frame.module,
                        "place": frame.place,
                    }
                    for frame in stack.frames
                ],
            }
            for stack in fault.stacks
        ],
    }


def plan_kernel(tree: KernelTree) -> dict[str, str]:
    """Return a kernel as every report names it."""
    return {
        "release": tree.release,
        "origin": tree.origin,
        "suite": tree.suite,
        "rustc": tree.proof.rustc,
        "version": tree.version,
    }


def plan_test_report(
    results: tuple[CellResult, ...],
    tree: KernelTree,
    accelerator: Mapping[str, str],
    totals: Mapping[str, int],
    *,
    narrowed: str,
    long: bool,
    memory_mib: int,
    absent: tuple[AbsentCell, ...],
    boots: int,
    stalled_boots: int,
    products: tuple[Product, ...],
    phases: tuple[tuple[str, float], ...],
    vm_phases: tuple[tuple[int, str, float], ...],
    differential: dict[str, Any] | None,
    injected: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the test report: JSON's own types, schema ``twinmod.test/1``.

    Args:
        results: Every cell.
        tree: The kernel that it ran on.
        accelerator: ``name`` and ``reason``.
        totals: ``passed``, ``failed``, ``skipped``.
        narrowed: What the caller narrowed the run to, "" for all of it.
        long: Whether what repeats itself was made to do so many more times.
        memory_mib: What each VM had.
        absent: The cells that this kernel cannot have.
        boots: How many VMs it took.
        stalled_boots: How many of them never came as far as the agent, and were booted again.
        products: The modules that ran.
        phases: (title, seconds) of what the run spent its time on.
        vm_phases: (number, title, seconds) of what each VM spent its own on.
        differential: What it came to, None when it was not run.
        injected: What was made to fail on demand, None on a kernel that cannot.
    """
    return {
        "schema": "twinmod.test/1",
        "kernel": plan_kernel(tree),
        "accelerator": accelerator["name"],
        "accelerator_reason": accelerator["reason"],
        "memory_mib": memory_mib,
        "narrowed": narrowed,
        "long": long,
        "boots": boots,
        "stalled_boots": stalled_boots,
        "modules": plan_modules(products),
        "phases": [{"title": title, "seconds": round(seconds, 2)} for title, seconds in phases],
        "vm_phases": [
            {"vm": number, "title": title, "seconds": round(seconds, 2)}
            for number, title, seconds in vm_phases
        ],
        "cells": [plan_cell(result) for result in results],
        "absent": list(plan_absent(absent)),
        "differential": differential,
        "injected": injected,
        "totals": dict(totals),
    }


def plan_absent(absent: tuple[AbsentCell, ...]) -> tuple[dict[str, str], ...]:
    """Return the cells that a kernel cannot have, as every report names them."""
    return tuple(
        {"module": a.cell.module, "tester": a.cell.tester, "reason": a.reason} for a in absent
    )


def plan_modules(products: tuple[Product, ...]) -> list[dict[str, Any]]:
    """Return the modules that ran, as every report names them."""
    return [
        {
            "module": p.module,
            "language": p.language,
            "sha256": p.sha256,
            "watched_by": list(p.watchers),
            "not_seen_by": list(p.blind),
        }
        for p in products
    ]


def plan_soak_report(
    tree: KernelTree,
    accelerator: str,
    seed: int,
    stalled_boots: int,
    products: tuple[Product, ...],
    differential: dict[str, Any],
) -> dict[str, Any]:
    """Return the report of a soak: JSON's own types, schema ``twinmod.soak/1``."""
    return {
        "schema": "twinmod.soak/1",
        "kernel": plan_kernel(tree),
        "accelerator": accelerator,
        "seed": seed,
        "stalled_boots": stalled_boots,
        "modules": plan_modules(products),
        "differential": differential,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRun:
    """What a run on several kernels came to on one of them."""

    kernel: str
    # The report of its run; None when it has none.
    document: dict[str, Any] | None = None
    # The cells that it cannot have, when those are all.
    absent: tuple[AbsentCell, ...] = ()
    # What its setup, its builds or its VM failed with.
    error: TwinmodError | None = None

    @property
    def outcome(self) -> str:
        """tested, absent or failed."""
        if self.error is not None:
            return "failed"
        return "absent" if self.document is None else "tested"

    @property
    def totals(self) -> dict[str, int]:
        """passed, failed and skipped: an error is one failure, an absent cell is skipped."""
        if self.document is not None:
            return dict(self.document["totals"])
        return {"passed": 0, "failed": int(self.error is not None), "skipped": len(self.absent)}


def plan_runs_report(runs: tuple[KernelRun, ...]) -> dict[str, Any]:
    """Return the report of one run on several kernels: schema ``twinmod.tests/1``."""
    return {
        "schema": "twinmod.tests/1",
        "kernels": [
            {
                "kernel": run.kernel,
                "outcome": run.outcome,
                "totals": run.totals,
                "absent": list(plan_absent(run.absent)),
                "error": plan_error(run.error) if run.error is not None else None,
            }
            for run in runs
        ],
        "runs": [run.document for run in runs if run.document is not None],
        "totals": sum_totals(tuple(run.totals for run in runs)),
    }


def plan_error(error: TwinmodError) -> dict[str, Any]:
    """Return an error as JSON's own types."""
    return {
        "exit_code": int(error.exit_code),
        "message": error.message,
        "facts": [list(fact) for fact in error.facts],
        "hint": error.hint,
    }


def sum_totals(totals: tuple[Mapping[str, int], ...]) -> dict[str, int]:
    """Return the sums of several runs' ``passed``, ``failed`` and ``skipped``."""
    return {name: sum(t[name] for t in totals) for name in ("passed", "failed", "skipped")}


def plan_matrix_report(cells: tuple[KernelCell, ...]) -> dict[str, Any]:
    """Return kernels x modules x testers: JSON's own types, schema ``twinmod.matrix/1``."""
    return {
        "schema": "twinmod.matrix/1",
        "cells": [
            {
                "kernel": c.kernel,
                "release": c.release,
                "module": c.cell.module,
                "tester": c.cell.tester,
                "available": not c.reason,
                "reason": c.reason,
            }
            for c in cells
        ],
    }


def plan_doctor_report(checks: tuple[Check, ...]) -> dict[str, Any]:
    """Return the doctor's report: JSON's own types, schema ``twinmod.doctor/1``."""
    ready = all(check.ok or not check.required for check in checks)
    return {
        "schema": "twinmod.doctor/1",
        "ready": ready,
        "checks": [asdict(check) for check in checks],
    }


def render_junit(results: tuple[CellResult, ...]) -> str:
    """Return a run as JUnit XML: a suite for each cell, whatever its tests said."""
    document = junitparser.JUnitXml("twinmod")
    for result in results:
        cell = make_visible(result.cell.name)
        suite = junitparser.TestSuite(cell)
        for test in result.tests:
            case = junitparser.TestCase(make_visible(test.id), cell, test.duration_s)
            message = make_visible(test.message)
            if test.outcome == "skipped":
                case.result = [junitparser.Skipped(message)]
            elif test.outcome == "failed":
                case.result = [junitparser.Failure(message, "failed")]
            elif test.outcome != "passed":
                case.result = [junitparser.Error(message, test.outcome)]
            suite.add_testcase(case)
        for problem in result.problems:
            case = junitparser.TestCase("the cell itself", cell, 0.0)
            case.result = [junitparser.Error(make_visible(problem), result.outcome)]
            suite.add_testcase(case)
        document.add_testsuite(suite)
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text.decode()


# -- text -------------------------------------------------------------------------------------


def render_table(
    outcomes: Mapping[tuple[str, str], str],
    rules: tuple[tuple[str, str], ...],
    results: tuple[CellResult, ...],
) -> Table:
    """Return the table rules x cells.

    Args:
        outcomes: The outcome of (rule, cell name).
        rules: (number, title), in the contract's order.
        results: The cells, in the order of the columns.
    """
    table = Table(pad_edge=False, box=None)
    table.add_column("rule")
    table.add_column("")
    for result in results:
        table.add_column(result.cell.name)
    for rule, title in rules:
        marks = (MARKS[outcomes[rule, result.cell.name]] for result in results)
        table.add_row(rule, title, *(Text(text, style=style) for text, style in marks))
    ends = (MARKS[result.outcome] for result in results)
    table.add_row("", "", *("" for _ in results))
    table.add_row("cell", "", *(Text(text, style=style) for text, style in ends))
    return table


def render_troubles(results: tuple[CellResult, ...]) -> str:
    """Return all that did not pass, cell by cell, with the kernel's own lines; "" for nothing."""
    lines = []
    for result in results:
        for test in result.tests:
            if test.outcome not in ("passed", "skipped"):
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
            modules = (result.cell.module,) if result.cell.module else fault.modules
            lines.extend(f"    {line}" for line in faults.render_fault(fault, modules))
    return "\n".join(lines)


def render_again(results: tuple[CellResult, ...], options: tuple[str, ...]) -> str:
    """Return the command that runs the first rules that failed again, "" when no test failed.

    Args:
        results: Of the run.
        options: What it was run with beside a selection.
    """
    bad = tuple(
        (result.cell, rule)
        for result in results
        if result.cell != DIFFERENTIAL
        for test in result.tests
        if test.outcome not in ("passed", "skipped")
        for rule in test.rules
    )
    if not bad:
        return ""
    rules = tuple(dict.fromkeys(rule for _, rule in bad))[:AGAIN_RULES]
    words = [word for rule in rules for word in ("--rule", rule)]
    failed = {cell for cell, rule in bad if rule in rules}
    for option, names in (
        ("--module", {cell.language for cell in failed}),
        ("--tester", {cell.tester for cell in failed}),
    ):
        if len(names) == 1:
            words += [option, *names]
    return f"run again: {commands.render('test', *words, *options)}"


def render_faults(found: tuple[KernelFault, ...], modules: tuple[str, ...]) -> str:
    """Return faults as a person is shown them, or that there was none.

    Args:
        found: With the places of their frames, as far as they are known.
        modules: Those under test.
    """
    if not found:
        return "no kernel fault"
    return "\n".join(line for fault in found for line in faults.render_fault(fault, modules))


def render_products(products: tuple[Product, ...]) -> str:
    """Return one line per product: path, bytes, seconds, sha256."""
    return "\n".join(
        f"{product.path}  {product.size_bytes} bytes  "
        f"{f'{product.seconds:.1f} s' if not product.up_to_date else 'up to date'}  "
        f"sha256:{product.sha256}"
        for product in products
    )


def render_counts(results: tuple[CellResult, ...]) -> str:
    """Return what each cell of a counter run counted and took."""
    blocks = []
    for result in results:
        if result.count is None:
            blocks.append(f"{result.cell.name}  {result.outcome}")
            continue
        count = result.count
        lost = count["target"] - count["actual"]
        blocks.append(
            f"{result.cell.name}  Target {count['target']}  Actual {count['actual']}"
            f"{f'  {lost} lost' if lost else ''}\n"
            f"     real {count['real_s']:.3f} s  user {count['user_s']:.3f} s  "
            f"sys {count['system_s']:.3f} s"
        )
    return "\n".join(blocks)


def render_checks(checks: tuple[Check, ...]) -> str:
    """Return the doctor's lines, by group."""
    lines = []
    group = ""
    width = max(len(check.name) for check in checks)
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(group)
        mark = "ok  " if check.ok else "FAIL" if check.required else "--  "
        lines.append(f"  {mark} {check.name:<{width}}  found: {check.found}")
        if not check.ok:
            pad = " " * (width + 9)
            lines.append(f"{pad}needed: {check.needed}")
            if check.fix:
                lines.append(f"{pad}fix: {check.fix}")
    return "\n".join(lines)


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
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for name, found in by_kernel.items():
        for reason, fix in dict.fromkeys((cell.reason, cell.fix) for cell in found if cell.reason):
            which = " ".join(cell.cell.name for cell in found if cell.reason == reason)
            lines.append(f"{name} {which}: {reason}{fix and f'; fix: {fix}'}")
    return "\n".join(lines)


def render_run_notes(document: Mapping[str, Any], folder: str) -> str:
    """Return what stands between a run's table and its totals: where, on what, how much of it."""
    kernel, memory_mib = document["kernel"]["release"], document["memory_mib"]
    lines = [f"kernel {kernel}, {document['accelerator']}, {memory_mib} MiB; {folder}"]
    lines += render_phases(document)
    lines += render_watchers(document["modules"])
    lines += render_absent(document["absent"])
    if document["differential"]:
        lines.append(render_differential(document["differential"]))
    if document["injected"]:
        lines.append(injection.render_report(document["injected"]))
    if document["stalled_boots"]:
        lines.append(f"{document['stalled_boots']} VM stalled at boot and was booted again")
    if document["narrowed"]:
        lines.append(f"narrowed to {document['narrowed']}")
    if document["long"]:
        lines.append("long: many more rounds of what repeats itself")
    return "\n".join(lines)


def render_absent(absent: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a line for each cell that a kernel cannot have, with the reason."""
    return [
        f"{cell['module']} with tester {cell['tester']} is absent: {cell['reason']}"
        for cell in absent
    ]


def render_watchers(modules: list[Mapping[str, Any]]) -> list[str]:
    """Return what of the kernel's own checks saw each module's code, and what could not."""
    lines = []
    for module in modules:
        seen, blind = ", ".join(module["watched_by"]), " and ".join(module["not_seen_by"])
        if seen:
            lines.append(f"{module['module']} was watched by {seen}")
        if blind:
            lines.append(
                f"{module['module']} was not watched by {blind}: no code in it calls it, so its "
                "silence says nothing of this module"
            )
    return lines


def render_phases(document: Mapping[str, Any]) -> list[str]:
    """Return where a run's time went: its phases, then those of each VM by the guest's clock."""
    lines = ["time: " + _join_phases(document["phases"])]
    for number in dict.fromkeys(phase["vm"] for phase in document["vm_phases"]):
        own = [phase for phase in document["vm_phases"] if phase["vm"] == number]
        lines.append(f"in VM {number}: {_join_phases(own)}")
    return lines


def _join_phases(phases: list[Mapping[str, Any]]) -> str:
    return ", ".join(f"{phase['title']} {phase['seconds']:.1f} s" for phase in phases)


def render_differential(differential: Mapping[str, Any]) -> str:
    """Return how far a differential went, how it ended, and the command that repeats a failure."""
    line = (
        f"differential: {differential['outcome']}, {differential['sequences']} sequences "
        f"(sha256 {differential['sequences_sha256'][:12]}), "
        f"{differential['steps']} steps on each module, {differential['seconds']:.1f} s, "
        f"{differential['steps_per_s']:.0f} steps/s"
    )
    if not differential["failure"]:
        return line
    again = commands.render("test", "--replay", differential["failure"]["script"])
    return f"{line}\nto see the failure again, step by step: {again}"


def render_soak(document: Mapping[str, Any]) -> str:
    """Return a soak as text: how often each step was carried out, and how far it went."""
    found = document["differential"]
    width = max((len(name) for name in found["carried_out"]), default=0)
    lines = [
        f"{name:<{width}}  {count:>9}  of which refused {found['refused'][name]}"
        for name, count in found["carried_out"].items()
    ]
    kernel = document["kernel"]["release"]
    lines.append(f"kernel {kernel}, {document['accelerator']}, seed {document['seed']}")
    return "\n".join((*lines, render_differential(found)))


def render_runs(document: Mapping[str, Any]) -> str:
    """Return a line for each kernel of a run on several: its totals, or why it has none."""
    width = max(len(one["kernel"]) for one in document["kernels"])
    lines = []
    for one in document["kernels"]:
        if one["outcome"] == "failed":
            what = f"FAILED: {one['error']['message']}"
        elif one["outcome"] == "absent":
            what = f"absent: {'; '.join(dict.fromkeys(c['reason'] for c in one['absent']))}"
        else:
            what = render_totals(one["totals"])
        lines.append(f"{one['kernel']:<{width}}  {what}")
    return "\n".join(lines)


def render_totals(totals: Mapping[str, int]) -> str:
    """Return the last line of a run."""
    return ", ".join(f"{totals[name]} {name}" for name in ("passed", "failed", "skipped"))
