# SPDX-License-Identifier: GPL-2.0-only
"""Several works at the same time, on one terminal: what waits for VMs has processors to spare."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

from twinmod.base import process
from twinmod.base.progress import Progress

Result = TypeVar("Result")

#: A VM keeps half of its two processors busy, so even two processors have room for two; more of
#: them would want more memory than a small machine has.
LANES_MIN, LANES_MAX = 2, 4

#: How often what still lives is ended, once works are to stop.
STOP_INTERVAL_S = 0.5


class StoppedError(Exception):
    """A work ends because another one failed, or because a person wants no more of it."""


class Board:
    """What all lanes show together, as one phase.

    Args:
        progress: Shows it.
        lanes: How many.
        lead: Returns what is shown first.
    """

    def __init__(
        self, progress: Progress, lanes: int, lead: Callable[[], str] = lambda: ""
    ) -> None:
        self.progress = progress
        self.details = [""] * lanes
        self.lead = lead
        self.stopped = Event()

    def update(self, lane: int, text: str) -> None:
        """Show how far a lane is."""
        self.details[lane] = text
        self.progress.detail("; ".join(filter(None, (self.lead(), *self.details))))


class Lane:
    """The progress of one work among others.

    Args:
        board: Of all of them.
        number: Its place there.
    """

    def __init__(self, board: Board, number: int) -> None:
        self.board = board
        self.number = number

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Show that a phase runs until the context is left.

        Raises:
            StoppedError: No lane may begin a new one.
        """
        if self.board.stopped.is_set():
            raise StoppedError
        self.board.update(self.number, title)
        yield
        self.board.update(self.number, "")

    def note(self, text: str) -> None:
        """Show one line."""
        self.board.progress.note(text)

    def detail(self, text: str) -> None:
        """Say how far the running phase is."""
        self.board.update(self.number, text)


def plan_count(works: int, *, racing: bool = False) -> int:
    """Return how many lanes some works get on this machine.

    Args:
        works: How many they are.
        racing: Whether the processors of a VM must run at the same time, as for a data race.
    """
    room = len(os.sched_getaffinity(0)) // 2
    return min(works, max(1 if racing else LANES_MIN, min(LANES_MAX, room)))


def run_all(
    works: tuple[Callable[[Progress], Result], ...],
    title: str,
    progress: Progress,
    lead: Callable[[], str] = lambda: "",
) -> tuple[Result, ...]:
    """Run works at the same time, each in a lane of its own; return their results in that order.

    Args:
        works: Each gets the progress of its lane.
        title: Of the phase that they are together.
        progress: Told of it.
        lead: Returns what is shown before the lanes.

    Raises:
        Exception: What the first work that failed raised; the others were ended.
    """
    board = Board(progress, len(works), lead)
    with progress.phase(title), ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(work, Lane(board, number)) for number, work in enumerate(works)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception()]
            if failed:
                failed[0].result()
        except BaseException:
            board.stopped.set()
            end_all(futures)
            raise
        return tuple(future.result() for future in futures)


def end_all(futures: Sequence[Future[Any]]) -> None:
    """End every process until works are over that were told to begin nothing new."""
    process.kill_all()
    # One that was about to start something when it all was ended has started it now.
    while wait(futures, STOP_INTERVAL_S).not_done:
        process.kill_all()
