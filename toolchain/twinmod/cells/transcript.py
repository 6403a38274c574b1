# SPDX-License-Identifier: GPL-2.0-only
"""What a VM said, line by line, as cells and tests. Pure; lost until proven otherwise.

A VM writes one JSON object a line: ``boot``, then for each cell ``cell``, for each of its tests
``test`` and ``result``, then ``cell_end``; at the end ``end``. What is missing when the VM is
gone says what it died of.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from twinmod.cells.model import AnyCell, CellResult, Counted, Loop, TestResult
from twinmod.errors import VmLostError
from twinmod.guest import protocol, visible
from twinmod.guest.protocol import Event, Outcome, Passes, ProtocolError, Segments


class End(StrEnum):
    """How a VM ended."""

    EXITED = "exited"
    # The host gave up on it.
    SILENT = "silent"


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


def parse_events(lines: Iterable[str]) -> tuple[Event, ...]:
    """Return the events among a VM's lines; a line cut off by its death is no event.

    Raises:
        VmLostError: The agent's protocol is not this one.
    """
    try:
        events = tuple(protocol.parse_event(line) for line in lines)
    except ProtocolError as error:
        raise VmLostError(
            "the VM's agent is not of this version of twinmod", facts=(("event", str(error)),)
        ) from error
    return tuple(event for event in events if event is not None)


def parse_transcript(events: Iterable[Event], cells: tuple[AnyCell, ...]) -> Transcript:
    """Return what a VM said, by cell.

    Args:
        events: From parse_events, in order.
        cells: The cells that the VM was given.
    """
    reader = _Reader(cells)
    for event in events:
        reader.read(event)
    return Transcript(
        booted=reader.booted,
        release=reader.release,
        cells=tuple(reader.done.values()),
        running=reader.running,
        began_s=tuple(reader.began_s),
        steps=tuple(reader.steps),
    )


class _Reader:
    """Reads a VM's events, in their order, into what a Transcript holds."""

    def __init__(self, cells: tuple[AnyCell, ...]) -> None:
        self.by_name = {cell.name: cell for cell in cells}
        self.done: dict[str, CellResult] = {}
        self.running: TestResult | None = None
        self.booted = False
        self.release = self.current = ""
        self.began_s: list[float] = []
        self.steps: list[tuple[float, str]] = []
        self.sections = 0

    def read(self, event: Event) -> None:
        """Take note of one event."""
        match event:
            case protocol.Booted():
                self.booted, self.release = True, event.release
            case protocol.CellBegan() | protocol.CellEnded():
                self.read_cell(event)
            case protocol.TestBegan() | protocol.TestEnded():
                self.read_test(event)
            case (
                protocol.CountTaken()
                | protocol.LoopTaken()
                | protocol.SectionBegan()
                | protocol.FigureTaken()
                | protocol.TurnsTaken()
            ):
                self.read_figures(event)
            case (
                protocol.Waiting()
                | protocol.Ready()
                | protocol.Answered()
                | protocol.FileWritten()
                | protocol.WrittenByProgram()
                | protocol.PlugAsked()
                | protocol.Alive()
                | protocol.Ended()
            ):
                pass
            case _:
                assert_never(event)

    def read_cell(self, event: protocol.CellBegan | protocol.CellEnded) -> None:
        """Take note that a cell began or ended."""
        if isinstance(event, protocol.CellBegan):
            self.current = event.cell
            cell = self.by_name[event.cell]
            self.done[event.cell] = CellResult(cell=cell, outcome=Outcome.RUNNING)
            self.began_s.append(event.at_s)
            self.steps.append((event.at_s, ""))
        else:
            result = self.done[self.current]
            self.done[self.current] = _end_cell(result, event, self.running)
        self.running = None

    def read_test(self, event: protocol.TestBegan | protocol.TestEnded) -> None:
        """Take note that a test began or ended."""
        if isinstance(event, protocol.TestBegan):
            test = TestResult(
                id=visible.make_visible(event.id),
                rules=event.rules,
                outcome=Outcome.RUNNING,
                duration_s=0.0,
            )
            self.steps.append((event.at_s, test.id))
            self.running = test
            return
        self.steps.append((event.at_s, ""))
        self.running = None
        result = self.done[self.current]
        self.done[self.current] = replace(result, tests=(*result.tests, read_test(event)))

    def read_figures(
        self,
        event: protocol.CountTaken
        | protocol.LoopTaken
        | protocol.SectionBegan
        | protocol.FigureTaken
        | protocol.TurnsTaken,
    ) -> None:
        """Take note of what a cell measured."""
        result = self.done[self.current]
        match event:
            case protocol.CountTaken():
                result = replace(result, count=event.values)
            case protocol.LoopTaken():
                loop = place_loop(event.values, self.current)
                result = replace(result, loops=(*result.loops, loop))
            case protocol.SectionBegan():
                self.sections += 1
            case protocol.FigureTaken():
                counted = place_segments(event.values, self.sections)
                result = replace(result, counted=(*result.counted, counted))
            case protocol.TurnsTaken():
                result = replace(result, turns=(*result.turns, event.values))
            case _:
                assert_never(event)
        self.done[self.current] = result


def read_test(event: protocol.TestEnded) -> TestResult:
    """Return what an event says of a test."""
    return TestResult(
        id=visible.make_visible(event.id),
        rules=event.rules,
        outcome=event.outcome,
        duration_s=event.duration_s,
        message=visible.make_visible(event.message),
    )


def place_loop(passes: Passes, cell: str) -> Loop:
    """Return what a loop took, with the name of its cell."""
    return Loop(
        cell=cell,
        size_bytes=passes.size_bytes,
        buffers=passes.buffers,
        read_ns=passes.read_ns,
        write_ns=passes.write_ns,
        read_faults=passes.read_faults,
        write_faults=passes.write_faults,
    )


def place_segments(segments: Segments, section: int) -> Counted:
    """Return where calls were counted, with the section of their VM."""
    return Counted(
        section=section,
        timing=segments.timing,
        cell=segments.cell,
        load=segments.load,
        first=segments.first,
        lengths=segments.lengths,
        faults=segments.faults,
    )


def parse_phases(events: Iterable[Event]) -> tuple[tuple[str, float], ...]:
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
        match event:
            case protocol.Booted():
                enter("imports", event.at_s)
            case protocol.CellBegan():
                cell = event.cell
                enter(f"{cell} preparation", event.at_s)
            case protocol.TestBegan() | protocol.Ready() if title == f"{cell} preparation":
                enter(cell, event.at_s)
            case protocol.CellEnded():
                enter("", event.at_s)
            case _:
                pass
    return tuple(phases)


def _end_cell(
    result: CellResult, event: protocol.CellEnded, running: TestResult | None
) -> CellResult:
    tests = result.tests
    problems = tuple(map(visible.make_visible, event.problems))
    if running is not None:
        tests = (*tests, replace(running, outcome=event.outcome, message="; ".join(problems)))
    return replace(result, outcome=event.outcome, tests=tests, problems=problems)
