# SPDX-License-Identifier: GPL-2.0-only
"""What a VM said, line by line, as cells and tests. Pure; lost until proven otherwise.

A VM writes one JSON object a line: ``boot``, then for each cell ``cell``, for each of its tests
``test`` and ``result``, then ``cell_end``; at the end ``end``. What is missing when the VM is
gone says what it died of.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twinmod.cells.model import Cell, CellResult, Counted, Loop, TestResult, Turns
from twinmod.guest import visible
from twinmod.guest.protocol import Outcome, Timing

#: How a VM can end. "silent": the host gave up on it.
ENDS = ("exited", "silent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """All that a VM said."""

    booted: bool
    release: str
    # In the order in which they began; the outcome of one that did not end is RUNNING.
    cells: tuple[CellResult, ...]
    # The test that the last cell was in, None between tests.
    running: TestResult | None
    # Seconds of the guest's clock at which each cell began, in the order of the cells.
    began_s: tuple[float, ...] = ()
    # (seconds, the test that began then, or "" when one ended), in order.
    steps: tuple[tuple[float, str], ...] = ()


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
            now = visible.make_visible(event["id"]) if event["event"] == "test" else ""
            steps.append((float(event.get("at_s", 0.0)), now))
        match event["event"]:
            case "boot":
                booted, release = True, str(event["release"])
            case "cell":
                current, running = str(event["cell"]), None
                done[current] = CellResult(cell=by_name[current], outcome=Outcome.RUNNING)
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
        id=visible.make_visible(event["id"]),
        rules=tuple(event["rules"]),
        outcome=Outcome(event.get("outcome", Outcome.RUNNING)),
        duration_s=event.get("duration_s", 0.0),
        message=visible.make_visible(event.get("message", "")),
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
    outcome = Outcome(event["outcome"])
    tests = result.tests
    problems = tuple(map(visible.make_visible, event["problems"]))
    if running is not None:
        tests = (*tests, replace(running, outcome=outcome, message="; ".join(problems)))
    return replace(result, outcome=outcome, tests=tests, problems=problems)
