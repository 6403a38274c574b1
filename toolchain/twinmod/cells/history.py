# SPDX-License-Identifier: GPL-2.0-only
"""What earlier runs tell of a test: how long it takes, and in which cells it failed last."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import field

from twinmod.base import documents
from twinmod.base.documents import Part
from twinmod.cells.model import Cell, CellResult
from twinmod.cells.outcomes import GOOD

#: What a test takes as long as nobody knows.
USUAL_S = 0.1

#: What pytest and the agent take between two tests, when emulated.
BETWEEN_S = 0.01


class History(Part, frozen=True, kw_only=True):
    """What earlier runs on one kernel tell of tests, by their names."""

    # Of the last run of each.
    seconds: dict[str, float] = field(default_factory=dict)
    # By the name of a cell, the tests that did not pass when they ran last.
    failed: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_history(path: Path) -> History:
    """Return what a file tells, nothing when it is missing or not one of ours."""
    try:
        return documents.parse_part(path.read_bytes(), History)
    except (OSError, *documents.INVALID):
        return History()


def write_history(path: Path, known: History, results: Iterable[CellResult]) -> None:
    """Write what was known, and what a run adds to it."""
    documents.write(path, add_results(known, results))


def add_results(known: History, results: Iterable[CellResult]) -> History:
    """Return what is known after a run: of tests that it did not run, what was known before."""
    seconds, failed = dict(known.seconds), dict(known.failed)
    for result in results:
        if not isinstance(result.cell, Cell):
            continue
        name = result.cell.name
        ran = {test.id for test in result.tests}
        bad = [test.id for test in result.tests if test.outcome not in GOOD]
        failed[name] = (*(test for test in failed.get(name, ()) if test not in ran), *bad)
        seconds.update({test.id: test.duration_s for test in result.tests})
    return History(seconds=seconds, failed={name: tests for name, tests in failed.items() if tests})


def find_seconds(known: History, tests: Iterable[str]) -> Mapping[str, float]:
    """Return how long a run has to do with each test, by its name.

    One that never ran takes what the others take on average.
    """
    usual = sum(known.seconds.values()) / len(known.seconds) if known.seconds else USUAL_S
    return {test: known.seconds.get(test, usual) + BETWEEN_S for test in tests}
