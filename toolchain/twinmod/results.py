# SPDX-License-Identifier: GPL-2.0-only
"""What a VM said becomes outcomes: pure, and lost until proven otherwise.

A VM writes one JSON object a line: ``boot``, then for each cell ``cell``, for each of its tests
``test`` and ``result``, then ``cell_end``; at the end ``end``. What is missing when the VM is
gone says what it died of.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twinmod.faults import render_complaint
from twinmod.specs import (
    AbsentCell,
    Cell,
    CellResult,
    Counted,
    KernelFault,
    Loop,
    TestResult,
    Timing,
    Turns,
)
from twinmod.visible import make_visible

#: How a VM can end. "silent": the host gave up on it.
ENDS = ("exited", "silent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """All that a VM said."""

    booted: bool
    release: str
    # In the order in which they began; the outcome of one that did not end is "".
    cells: tuple[CellResult, ...]
    # The test that the last cell was in, None between tests.
    running: TestResult | None
    # Seconds of the guest's clock at which each cell began, in the order of the cells.
    began_s: tuple[float, ...] = ()
    # (seconds, the test that began then, or "" when one ended), in order.
    steps: tuple[tuple[float, str], ...] = ()


# -- a VM's lines -----------------------------------------------------------------------------


def parse_events(lines: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """Return the events among a VM's lines; a line cut off by its death is no event."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
    return tuple(events)


def parse_program_lines(events: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the lines of the console that look like a report of the kernel and are a program's."""
    return tuple(str(event["line"]) for event in events if event["event"] == "by_program")


def parse_transcript(events: Iterable[Mapping[str, Any]], cells: tuple[Cell, ...]) -> Transcript:
    """Return what a VM said, by cell.

    Args:
        events: From parse_events, in order.
        cells: The cells that the VM was given.
    """
    by_name = {cell.name: cell for cell in cells}
    done: dict[str, CellResult] = {}
    running: TestResult | None = None
    booted = False
    release = current = ""
    began_s: list[float] = []
    steps: list[tuple[float, str]] = []
    sections = 0
    for event in events:
        if event["event"] in ("cell", "test", "result"):
            now = make_visible(event["id"]) if event["event"] == "test" else ""
            steps.append((float(event.get("at_s", 0.0)), now))
        match event["event"]:
            case "boot":
                booted, release = True, str(event["release"])
            case "cell":
                current, running = str(event["cell"]), None
                done[current] = CellResult(cell=by_name[current], outcome="")
                began_s.append(float(event.get("at_s", 0.0)))
            case "test":
                running = _parse_test(event)
            case "result":
                running = None
                tests = (*done[current].tests, _parse_test(event))
                done[current] = replace(done[current], tests=tests)
            case "count":
                done[current] = replace(done[current], count=event["values"])
            case "turns":
                turns = (*done[current].turns, _parse_turns(event))
                done[current] = replace(done[current], turns=turns)
            case "loop":
                loops = (*done[current].loops, _parse_loop(event, current))
                done[current] = replace(done[current], loops=loops)
            case "symbols":
                sections += 1
            case "figure":
                counted = (*done[current].counted, _parse_counted(event, sections))
                done[current] = replace(done[current], counted=counted)
            case "cell_end":
                done[current] = _end_cell(done[current], event, running)
                running = None
    return Transcript(
        booted=booted,
        release=release,
        cells=tuple(done.values()),
        running=running,
        began_s=tuple(began_s),
        steps=tuple(steps),
    )


def parse_phases(events: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    """Return what a VM spent its time on, by the guest's own clock: (title, seconds), in order.

    A cell of the matrix has two phases: until its first test begins, and its tests.
    """
    phases: list[tuple[str, float]] = []
    title, since_s = "boot", 0.0
    cell = ""

    def enter(next_title: str, at_s: float) -> None:
        nonlocal title, since_s
        if title:
            phases.append((title, round(at_s - since_s, 3)))
        title, since_s = next_title, at_s

    for event in events:
        at_s = float(event.get("at_s", since_s))
        match event["event"]:
            case "boot":
                enter("imports", at_s)
            case "cell":
                cell = str(event["cell"])
                enter(f"{cell} preparation", at_s)
            case "test" | "ready" if title == f"{cell} preparation":
                enter(cell, at_s)
            case "cell_end":
                enter("", at_s)
    return tuple(phases)


def _parse_test(event: Mapping[str, Any]) -> TestResult:
    return TestResult(
        id=make_visible(event["id"]),
        rules=tuple(event["rules"]),
        outcome=event.get("outcome", ""),
        duration_s=event.get("duration_s", 0.0),
        message=make_visible(event.get("message", "")),
    )


def _parse_counted(event: Mapping[str, Any], section: int) -> Counted:
    values = event["values"]
    return Counted(
        timing=Timing(**values["timing"]),
        cell=values["cell"],
        load=values["load"],
        section=section,
        first=values["first"],
        lengths=tuple(values["lengths"]),
        faults=tuple(values["faults"]),
    )


def _parse_loop(event: Mapping[str, Any], cell: str) -> Loop:
    values = event["values"]
    lists = {
        name: tuple(values[name]) for name in ("read_ns", "write_ns", "read_faults", "write_faults")
    }
    return Loop(cell=cell, size_bytes=values["size_bytes"], buffers=values["buffers"], **lists)


def _parse_turns(event: Mapping[str, Any]) -> Turns:
    values = event["values"]
    return Turns(
        timing=Timing(**values["timing"]),
        module=values["module"],
        tester=values["tester"],
        calls=values["calls"],
        latency_ns=tuple(values["latency_ns"]),
        minor_faults=values["minor_faults"],
    )


def _end_cell(
    result: CellResult, event: Mapping[str, Any], running: TestResult | None
) -> CellResult:
    outcome = str(event["outcome"])
    tests = result.tests
    problems = tuple(map(make_visible, event["problems"]))
    if running is not None:
        tests = (*tests, replace(running, outcome=outcome, message="; ".join(problems)))
    return replace(result, outcome=outcome, tests=tests, problems=problems)


# -- outcomes ---------------------------------------------------------------------------------


def classify(
    transcript: Transcript, end: str, faults: tuple[KernelFault, ...]
) -> tuple[CellResult, ...]:
    """Return an outcome for every cell that began.

    Args:
        transcript: What the VM said.
        end: How it ended, one of ENDS.
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

    What the kernel said before the first cell is no module's doing.
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
    result: CellResult, faults: tuple[KernelFault, ...], end: str, running: TestResult | None
) -> CellResult:
    if result.outcome == "timeout" or (result.outcome and not faults):
        return replace(result, kernel_faults=faults)
    outcome = "crashed" if faults else "timeout" if end == "silent" else "lost"
    why = {
        "crashed": render_complaint(faults[0]) if faults else "",
        "timeout": "the VM fell silent",
        "lost": "the VM was gone before the cell ended",
    }[outcome]
    tests = result.tests
    if running is not None:
        tests = (*tests, replace(running, outcome=outcome, message=why))
    # The agent may have said the same.
    problems = tuple(dict.fromkeys((*result.problems, why)))
    return replace(result, outcome=outcome, tests=tests, kernel_faults=faults, problems=problems)


def compare_coverage(
    results: tuple[CellResult, ...], expected: tuple[str, ...], rules: tuple[str, ...]
) -> tuple[CellResult, ...]:
    """Return the results with every hole in them a problem; a cell with a problem has failed.

    Args:
        results: What ran.
        expected: The rules that every cell must have an outcome for.
        rules: All that the contract has.

    Returns:
        The same cells. A rule that no test passed or failed in, and a test that ran in another
        cell and not in this one, is a problem of a cell that otherwise passed or failed.
    """
    everywhere = {test.id for result in results for test in result.tests}
    checked = []
    for result in results:
        if result.outcome not in ("passed", "failed"):
            checked.append(result)
            continue
        answered = {
            rule
            for test in result.tests
            for rule in test.rules
            if test.outcome in ("passed", "failed")
        }
        seen = {test.id for test in result.tests}
        problems = [] if result.tests or result.problems else ["no test ran"]
        problems += [f"{rule} has no outcome" for rule in expected if rule not in answered]
        problems += [f"{test} did not run" for test in sorted(everywhere - seen)]
        unknown = sorted({rule for t in result.tests for rule in t.rules} - set(rules))
        problems += [f"{rule} is tested and is not in the contract" for rule in unknown]
        outcome = "failed" if problems else result.outcome
        checked.append(replace(result, outcome=outcome, problems=(*result.problems, *problems)))
    return tuple(checked)


def blame(
    results: tuple[CellResult, ...], module: str, problems: tuple[str, ...]
) -> tuple[CellResult, ...]:
    """Return the results with problems of a module in the last of its cells, which has failed.

    One that ended otherwise than it should has not come so far: it is left as it is.
    """
    last = max((i for i, r in enumerate(results) if r.cell.module == module), default=None)
    if last is None or not problems or results[last].outcome not in ("passed", "failed"):
        return results
    blamed = replace(results[last], outcome="failed", problems=(*results[last].problems, *problems))
    return (*results[:last], blamed, *results[last + 1 :])


def compare_rule(result: CellResult, rule: str) -> str:
    """Return the outcome of one rule in one cell, "missing" when no test answered for it."""
    outcomes = {test.outcome for test in result.tests if rule in test.rules}
    order = ("crashed", "timeout", "lost", "failed", "passed", "skipped")
    return next((outcome for outcome in order if outcome in outcomes), "missing")


def count_totals(
    results: tuple[CellResult, ...], absent: tuple[AbsentCell, ...] = ()
) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped, over all cells.

    A test that its VM died in has failed. So has whatever kept a cell from passing although no
    test of it failed: a rule without outcome, a module that did not unload. A cell that the
    kernel cannot have counts as one that was skipped.
    """
    counts = Counter(
        test.outcome if test.outcome in ("passed", "skipped") else "failed"
        for result in results
        for test in result.tests
    )
    for result in results:
        blamed = any(test.outcome not in ("passed", "skipped") for test in result.tests)
        if result.outcome != "passed" and not blamed:
            counts["failed"] += max(1, len(result.problems))
    counts["skipped"] += len(absent)
    return {name: counts[name] for name in ("passed", "failed", "skipped")}


def parse_rules(contract: str) -> tuple[tuple[str, str], ...]:
    """Return (number, title) of the rules that a contract has: its headings ``## R1 Title``."""
    return tuple(re.findall(r"^## (R\d+) (.+)$", contract, re.MULTILINE))
