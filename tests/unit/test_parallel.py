# SPDX-License-Identifier: GPL-2.0-only
"""Works at the same time: all of them run, and none outlives one that failed."""

import os
import threading
from collections.abc import Callable

import pytest

from twinmod.base import parallel, process
from twinmod.base.process import Command
from twinmod.base.progress import Progress, TerminalProgress
from twinmod.errors import BuildError

WAIT_S = 30.0


def test_works_run_at_the_same_time_and_answer_in_their_order() -> None:
    together = threading.Barrier(2)

    def plan(name: str) -> Callable[[Progress], str]:
        def work(progress: Progress) -> str:
            with progress.phase(name):
                together.wait(WAIT_S)
            return name

        return work

    works = (plan("first"), plan("second"))
    assert parallel.run_all(works, "both", TerminalProgress()) == ("first", "second")


def test_a_work_that_fails_ends_what_the_others_wait_for() -> None:
    began = threading.Event()
    status: list[int] = []
    later: list[str] = []

    def wait(progress: Progress) -> None:
        command = Command(argv=("sleep", "600"), purpose="wait", timeout_s=600)
        with progress.phase("wait"), process.start(command) as child:
            began.set()
            status.append(child.wait(WAIT_S))
        with progress.phase("more"):
            later.append("begun")

    def fail(progress: Progress) -> None:
        del progress
        assert began.wait(WAIT_S)
        raise BuildError("no more")

    with pytest.raises(BuildError, match="no more"):
        parallel.run_all((wait, fail), "both", TerminalProgress())
    assert len(status) == 1
    assert status[0] < 0
    assert later == []


def test_what_was_started_a_moment_too_late_is_ended_too() -> None:
    failed = threading.Event()
    status: list[int] = []

    def start_late(progress: Progress) -> None:
        with progress.phase("late"):
            assert failed.wait(WAIT_S)
            # All that lived then has been ended.
            for _ in range(2):
                command = Command(argv=("sleep", "600"), purpose="wait", timeout_s=600)
                with process.start(command) as child:
                    status.append(child.wait(WAIT_S))

    def fail(progress: Progress) -> None:
        del progress
        failed.set()
        raise BuildError("no more")

    with pytest.raises(BuildError, match="no more"):
        parallel.run_all((start_late, fail), "both", TerminalProgress())
    assert [number < 0 for number in status] == [True, True]


def test_what_the_lanes_do_is_shown_together(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = TerminalProgress()
    told: list[str] = []
    monkeypatch.setattr(progress, "detail", told.append)
    board = parallel.Board(progress, 2)
    first, second = parallel.Lane(board, 0), parallel.Lane(board, 1)
    with first.phase("boot"), second.phase("build"):
        first.detail("1 done")
    assert told == ["boot", "boot; build", "1 done; build", "1 done", ""]


@pytest.mark.parametrize(
    ("processors", "works", "count", "racing"),
    [(1, 9, 2, 1), (2, 9, 2, 1), (6, 9, 3, 3), (64, 9, 4, 4), (2, 1, 1, 1)],
)
def test_there_are_as_many_lanes_as_the_machine_has_room_for(
    processors: int, works: int, count: int, racing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert parallel.plan_count(works) == count
    assert parallel.plan_count(works, racing=True) == racing
