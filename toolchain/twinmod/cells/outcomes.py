# SPDX-License-Identifier: GPL-2.0-only
"""The outcome of each cell, test and rule, from what a VM and its kernel said. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from twinmod.cells.model import AbsentCell, AnyCell, Cell, CellResult, TestResult
from twinmod.cells.transcript import End, Transcript
from twinmod.guest import faults as guest_faults
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Event, Outcome, WrittenByProgram

#: Of several tests of one rule, the first of these is the outcome of the rule.
WORST_FIRST = (
    Outcome.CRASHED,
    Outcome.TIMEOUT,
    Outcome.LOST,
    Outcome.FAILED,
    Outcome.DIFFERED,
    Outcome.PASSED,
    Outcome.SKIPPED,
)

#: What a test may end with, and its cell has passed.
GOOD = (Outcome.PASSED, Outcome.SKIPPED, Outcome.DIFFERED)

#: What a cell, or a test that was not skipped, ends with when nothing broke it off.
ENDED = (Outcome.PASSED, Outcome.FAILED, Outcome.DIFFERED)

#: What ends a cell before its tests are done.
BROKEN_OFF = (Outcome.CRASHED, Outcome.TIMEOUT, Outcome.LOST)

#: What a run counts its tests by.
COUNTED = (Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED)


def parse_program_lines(events: Iterable[Event]) -> tuple[str, ...]:
    """Return the lines of the console that look like a splat and are a program's."""
    return tuple(event.line for event in events if isinstance(event, WrittenByProgram))


def classify(
    transcript: Transcript, end: End, faults: tuple[KernelFault, ...]
) -> tuple[CellResult, ...]:
    """Return an outcome for every cell that began.

    Args:
        transcript: What the VM said.
        end: How it ended.
        faults: What its kernel told of.

    Returns:
        The cells in the order in which they began. A cell with a fault has crashed, whatever
        the agent said of it. One that the VM did not end is timeout when the host gave up, and
        lost otherwise.
    """
    by_cell = assign_faults(transcript, faults)
    last = len(transcript.cells) - 1
    return tuple(
        _classify_cell(result, by_cell[number], end, transcript.running if number == last else None)
        for number, result in enumerate(transcript.cells)
    )


def assign_faults(
    transcript: Transcript, faults: tuple[KernelFault, ...]
) -> tuple[tuple[KernelFault, ...], ...]:
    """Return, for each cell, the faults that came after it began and before the next one did.

    No module caused what the kernel said before the first cell.
    """
    found: list[list[KernelFault]] = [[] for _ in transcript.cells]
    for fault in faults:
        number = len(found) - 1
        if fault.at_s is not None and transcript.began_s:
            number = sum(began_s <= fault.at_s for began_s in transcript.began_s) - 1
        if number >= 0:
            found[number].append(replace(fault, test=find_running(transcript, fault)))
    return tuple(tuple(part) for part in found)


def find_running(transcript: Transcript, fault: KernelFault) -> str:
    """Return the test that ran when the kernel told of a fault, "" for none."""
    if fault.at_s is None:
        return transcript.running.id if transcript.running else ""
    before = [test for at_s, test in transcript.steps if at_s <= fault.at_s]
    return before[-1] if before else ""


def _classify_cell(
    result: CellResult, faults: tuple[KernelFault, ...], end: End, running: TestResult | None
) -> CellResult:
    ended = result.outcome != Outcome.RUNNING
    if result.outcome == Outcome.TIMEOUT or (ended and not faults):
        return replace(result, kernel_faults=faults)
    if faults:
        outcome, why = Outcome.CRASHED, guest_faults.render_complaint(faults[0])
    elif end == End.SILENT:
        outcome, why = Outcome.TIMEOUT, "the VM fell silent"
    else:
        outcome, why = Outcome.LOST, "the VM was gone before the cell ended"
    tests = result.tests
    if running is not None:
        tests = (*tests, replace(running, outcome=outcome, message=why))
    # The agent may have said the same.
    problems = tuple(dict.fromkeys((*result.problems, why)))
    return replace(result, outcome=outcome, tests=tests, kernel_faults=faults, problems=problems)


def end_early(result: CellResult) -> CellResult:
    """Return a cell that somebody ended: what it did until then counts, and no more is known."""
    failed = any(test.outcome not in GOOD for test in result.tests)
    outcome = Outcome.FAILED if failed else Outcome.SKIPPED
    if result.outcome != Outcome.RUNNING:
        outcome = result.outcome
    return replace(result, outcome=outcome)


def fill_in(cells: tuple[AnyCell, ...], results: tuple[CellResult, ...]) -> tuple[CellResult, ...]:
    """Return a result for every cell of a run that somebody ended: the others were skipped."""
    known = {result.cell: result for result in results}
    return tuple(known.get(cell, CellResult(cell=cell, outcome=Outcome.SKIPPED)) for cell in cells)


def compare_coverage(
    results: tuple[CellResult, ...], expected: tuple[str, ...], rules: tuple[str, ...]
) -> tuple[CellResult, ...]:
    """Return the results with every hole in them a problem; a cell with a problem has failed.

    Args:
        results: What ran.
        expected: The rules that every cell must have an outcome for.
        rules: All that the contract has; () without one, where a rule means nothing.

    Returns:
        The same cells. A rule that no test passed or failed in, and a test that ran in another
        cell and not in this one, is a problem of a cell that otherwise passed or failed.
    """
    everywhere = {test.id for result in results for test in result.tests}
    checked = []
    for result in results:
        if result.outcome not in ENDED:
            checked.append(result)
            continue
        answered = {rule for test in result.tests for rule in test.rules if test.outcome in ENDED}
        seen = {test.id for test in result.tests}
        problems = [] if result.tests or result.problems else ["no test ran"]
        problems += [f"{rule} has no outcome" for rule in expected if rule not in answered]
        problems += [f"{test} did not run" for test in sorted(everywhere - seen)]
        told = {rule for test in result.tests for rule in test.rules} if rules else set()
        unknown = sorted(told - set(rules))
        problems += [f"{rule} is tested and is not in the contract" for rule in unknown]
        outcome = Outcome.FAILED if problems else result.outcome
        checked.append(replace(result, outcome=outcome, problems=(*result.problems, *problems)))
    return tuple(checked)


def blame(
    results: tuple[CellResult, ...], module: str, problems: tuple[str, ...]
) -> tuple[CellResult, ...]:
    """Return the results with problems of a module in the last of its cells, which has failed.

    One that ended otherwise than it should has not come so far: it is left as it is.
    """
    own = (
        number
        for number, result in enumerate(results)
        if isinstance(result.cell, Cell) and result.cell.module == module
    )
    last = max(own, default=None)
    if last is None or not problems or results[last].outcome not in ENDED:
        return results
    problems = (*results[last].problems, *problems)
    blamed = replace(results[last], outcome=Outcome.FAILED, problems=problems)
    return (*results[:last], blamed, *results[last + 1 :])


def compare_rule(result: CellResult, rule: str) -> Outcome:
    """Return the outcome of one rule in one cell, MISSING when no test answered for it."""
    outcomes = {test.outcome for test in result.tests if rule in test.rules}
    return next((outcome for outcome in WORST_FIRST if outcome in outcomes), Outcome.MISSING)


def count_totals(
    results: tuple[CellResult, ...], absent: tuple[AbsentCell, ...] = ()
) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped, over all cells.

    A test that its VM died in has failed. So has whatever kept a cell from passing although no
    test of it failed: a rule without outcome, a module that did not unload. A test that differed
    as declared, and a cell that the kernel cannot have, count as skipped.
    """
    counts = Counter(
        test.outcome if test.outcome in GOOD else Outcome.FAILED
        for result in results
        for test in result.tests
    )
    for result in results:
        blamed = any(test.outcome not in GOOD for test in result.tests)
        if result.outcome != Outcome.PASSED and not blamed:
            counts[Outcome.FAILED] += max(1, len(result.problems))
    counts[Outcome.SKIPPED] += len(absent) + counts[Outcome.DIFFERED]
    return {name.value: counts[name] for name in COUNTED}
