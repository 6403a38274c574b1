# SPDX-License-Identifier: GPL-2.0-only
"""Differences that the configuration declares: where they occurred, and where not. Pure."""

import re
from collections.abc import Iterable
from dataclasses import replace

from twinmod.base.documents import Part
from twinmod.cells import outcomes
from twinmod.cells.model import Cell, CellResult, TestResult
from twinmod.guest.protocol import Outcome
from twinmod.project.model import DifferenceSpec, Subject


class DifferenceEntry(Part, frozen=True, kw_only=True):
    """A declared difference that occurred."""

    # The label of the module.
    module: str
    # One of Subject, and the rule or the pattern of it.
    subject: str
    pattern: str
    why: str
    # The cells in which it occurred.
    cells: tuple[str, ...]


def matches(pattern: str, text: str) -> bool:
    """Tell whether a pattern, in which * is any text, is all of a text."""
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL))


def is_of(difference: DifferenceSpec, label: str, test: TestResult) -> bool:
    """Tell whether a difference is declared of a test of the module with a label."""
    if difference.module != label:
        return False
    match difference.subject:
        case Subject.RULE:
            return difference.pattern in test.rules
        case Subject.TEST:
            return matches(difference.pattern, test.id)
        case _:
            return False


def declare(
    results: Iterable[CellResult], declared: tuple[DifferenceSpec, ...]
) -> tuple[CellResult, ...]:
    """Return the results in which each test that failed as declared has differed.

    A test that its VM died in stays what it is: nobody declares a fault of the kernel. A cell in
    which nothing else failed has passed.
    """
    return tuple(_declare_cell(result, declared) for result in results)


def _declare_cell(result: CellResult, declared: tuple[DifferenceSpec, ...]) -> CellResult:
    if not isinstance(result.cell, Cell):
        return result
    label = result.cell.label
    tests = tuple(declare_test(test, label, declared) for test in result.tests)
    if tests == result.tests:
        return result
    good = not result.problems and all(test.outcome in outcomes.GOOD for test in tests)
    passed = good and result.outcome == Outcome.FAILED
    return replace(result, tests=tests, outcome=Outcome.PASSED if passed else result.outcome)


def declare_test(test: TestResult, label: str, declared: tuple[DifferenceSpec, ...]) -> TestResult:
    """Return a test of the module with a label: one that failed as declared has differed."""
    why = next((one.why for one in declared if is_of(one, label, test)), "")
    if test.outcome != Outcome.FAILED or not why:
        return test
    return replace(test, outcome=Outcome.DIFFERED, message=f"declared: {why}\n{test.message}")


def compare_declared(
    results: tuple[CellResult, ...], declared: tuple[DifferenceSpec, ...], *, whole: bool
) -> tuple[CellResult, ...]:
    """Return the results with each declared difference that does not occur as a problem.

    Args:
        results: From `declare`.
        declared: All differences; those of steps are not looked at.
        whole: Whether all tests ran, so that a pattern which no test matches is a problem too.

    Returns:
        The same cells. A difference occurs in a cell when at least one of its tests failed there,
        and it has to occur in each cell of its module in which one of them was not skipped.
    """
    for one in declared:
        if one.subject == Subject.STEP:
            continue
        cells = tuple(r for r in results if isinstance(r.cell, Cell) and r.cell.label == one.module)
        ended = tuple(result for result in cells if result.outcome in outcomes.ENDED)
        problem = _find_problem(ended, one, whole=whole)
        if problem:
            module = next(r.cell.module for r in ended if isinstance(r.cell, Cell))
            results = outcomes.blame(results, module, (problem,))
    return results


def _find_problem(ended: tuple[CellResult, ...], one: DifferenceSpec, *, whole: bool) -> str:
    """Return why a difference is not what was declared in the cells of its module, or ""."""
    found = {
        result.cell.name: {test.outcome for test in result.tests if is_of(one, one.module, test)}
        for result in ended
    }
    # That a rule has no test is a problem of its own.
    if found and whole and one.subject == Subject.TEST and not any(found.values()):
        return f"{render_declared(one)} matches no test"
    agreed = [
        name
        for name, seen in found.items()
        if seen & {*outcomes.ENDED} and Outcome.DIFFERED not in seen
    ]
    if not agreed:
        return ""
    return f"{render_declared(one)} does not occur in {', '.join(agreed)}: {one.why}"


def render_declared(one: DifferenceSpec) -> str:
    """Return what an error calls a difference."""
    return f"the declared difference of {one.module}, {one.subject} {one.pattern!r},"


def plan_entries(
    results: tuple[CellResult, ...], declared: tuple[DifferenceSpec, ...]
) -> tuple[DifferenceEntry, ...]:
    """Return the differences that occurred in the cells of the matrix, as every report has them."""
    return tuple(
        plan_entry(one, cells)
        for one in declared
        if (cells := tuple(r.cell.name for r in results if _occurs(one, r)))
    )


def _occurs(one: DifferenceSpec, result: CellResult) -> bool:
    """Tell whether a difference occurred in a cell."""
    return isinstance(result.cell, Cell) and any(
        test.outcome == Outcome.DIFFERED and is_of(one, result.cell.label, test)
        for test in result.tests
    )


def plan_entry(one: DifferenceSpec, cells: tuple[str, ...]) -> DifferenceEntry:
    """Return a difference that occurred in some cells, as reports have it."""
    return DifferenceEntry(
        module=one.module, subject=one.subject, pattern=one.pattern, why=one.why, cells=cells
    )


def render_entries(entries: Iterable[DifferenceEntry]) -> list[str]:
    """Return a line for each difference that occurred."""
    return [
        f"{one.module} differs as declared in {one.subject} {one.pattern!r} "
        f"({', '.join(one.cells)}): {one.why}"
        for one in entries
    ]
