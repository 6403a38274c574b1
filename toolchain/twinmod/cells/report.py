# SPDX-License-Identifier: GPL-2.0-only
"""Cells as parts of a document, and as text. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from twinmod import errors
from twinmod.builds.product import Product
from twinmod.cells import outcomes
from twinmod.cells.model import AbsentCell, CellResult
from twinmod.errors import ExitCode
from twinmod.guest import faults
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Outcome

#: How an outcome looks in the table.
MARKS = {
    Outcome.PASSED: ("pass", "green"),
    Outcome.FAILED: ("FAIL", "bold red"),
    Outcome.SKIPPED: ("skip", "yellow"),
    Outcome.MISSING: ("none", "bold red"),
    Outcome.CRASHED: ("CRASH", "bold red"),
    Outcome.TIMEOUT: ("TIMEOUT", "bold red"),
    Outcome.LOST: ("LOST", "bold red"),
}

#: What the terminal shows of a failed test; the reports have all of it.
MESSAGE_LINES = 3
MESSAGE_WIDTH = 160


def find_exit_code(outcome: Outcome) -> ExitCode:
    """Return the exit code that one outcome amounts to."""
    match outcome:
        case Outcome.PASSED | Outcome.SKIPPED:
            return ExitCode.PASSED
        case Outcome.FAILED | Outcome.MISSING:
            return ExitCode.TESTS_FAILED
        case Outcome.CRASHED:
            return ExitCode.KERNEL_FAULT
        case Outcome.TIMEOUT | Outcome.LOST | Outcome.RUNNING:
            return ExitCode.VM_LOST
        case _:
            assert_never(outcome)


def compare_outcomes(results: tuple[CellResult, ...]) -> ExitCode:
    """Return the exit code that a run's cells amount to."""
    return errors.compare_exit_codes(tuple(find_exit_code(result.outcome) for result in results))


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


def sum_totals(totals: tuple[Mapping[str, int], ...]) -> dict[str, int]:
    """Return the sums of several runs' ``passed``, ``failed`` and ``skipped``."""
    return {name: sum(t[name] for t in totals) for name in outcomes.COUNTED}


def render_troubles(results: tuple[CellResult, ...]) -> str:
    """Return all that did not pass, cell by cell, with the kernel's own lines; "" for nothing."""
    lines = []
    for result in results:
        for test in result.tests:
            if test.outcome not in outcomes.GOOD:
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


def render_faults(found: tuple[KernelFault, ...], modules: tuple[str, ...]) -> str:
    """Return faults as a person is shown them, or that there was none.

    Args:
        found: With the places of their frames, as far as they are known.
        modules: Those under test.
    """
    if not found:
        return "no kernel fault"
    return "\n".join(line for fault in found for line in faults.render_fault(fault, modules))


def render_absent(absent: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a line for each cell that a kernel cannot have, with the reason."""
    return [
        f"{cell['module']} with tester {cell['tester']} is absent: {cell['reason']}"
        for cell in absent
    ]


def render_totals(totals: Mapping[str, int]) -> str:
    """Return the last line of a run."""
    return ", ".join(f"{totals[name]} {name}" for name in outcomes.COUNTED)
