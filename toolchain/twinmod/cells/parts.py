# SPDX-License-Identifier: GPL-2.0-only
"""Cells in parts, each of which one VM runs, and what the parts came to together. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from twinmod.cells import history
from twinmod.cells.history import History
from twinmod.cells.model import AnyCell, Cell, CellResult
from twinmod.cells.outcomes import BROKEN_OFF, WORST_FIRST
from twinmod.guest.protocol import Outcome

#: How many parts there are for each VM that runs at a time: more of them spread the work better,
#: and each costs what it takes a clone to begin and to end.
PARTS = 1

#: What a part takes at least, in seconds: one that is shorter is not worth a clone.
PART_MIN_S = 2.0

#: How many VMs the tests of a cell may cost: a module that ends one in every test is known by then.
BROKEN_MAX = 8

#: The names of tests, each with its rules, in the order in which they were collected.
Tests = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one VM runs of a cell."""

    cell: AnyCell
    # The names of its tests, in the order of collection; () is all of the cell.
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A part that ended, and how."""

    part: Part
    result: CellResult


def plan_whole(cells: tuple[AnyCell, ...]) -> tuple[Part, ...]:
    """Return cells that stay whole."""
    return tuple(Part(cell=cell) for cell in cells)


def plan_parts(
    cells: tuple[AnyCell, ...], tests: Tests, known: History, lanes: int
) -> tuple[Part, ...]:
    """Return cells in parts, in the order in which they begin.

    Of each cell, the tests that failed last time come first, then those that are quick: a failure
    is known early. The parts of a cell take about the same time.

    Args:
        cells: What is run.
        tests: All that were collected.
        known: What earlier runs tell of them.
        lanes: How many VMs run at a time.
    """
    divided = [cell for cell in cells if isinstance(cell, Cell)]
    count = max(1, -(-PARTS * lanes // max(1, len(divided))))
    ranked: list[tuple[int, Part]] = []
    for cell in cells:
        if not isinstance(cell, Cell):
            # It takes as long as several parts: it begins right after the quick tests.
            ranked.append((0, Part(cell=cell)))
            continue
        names = select_tests(cell, tests)
        failed = set(known.failed.get(cell.name, ()))
        first = tuple(name for name in names if name in failed)
        rest = tuple(name for name in names if name not in failed)
        seconds = history.find_seconds(known, rest)
        worth = min(count, int(sum(seconds.values()) / PART_MIN_S))
        pieces = [(-1, first), *enumerate(divide(rest, seconds, max(1, worth)))]
        ranked += [(rank, Part(cell=cell, tests=piece)) for rank, piece in pieces if piece]
    return tuple(part for _, part in sorted(ranked, key=lambda one: one[0]))


def select_tests(cell: Cell, tests: Tests) -> tuple[str, ...]:
    """Return the names of the tests that a cell leaves of those that were collected."""
    return tuple(
        name
        for name, rules in tests.items()
        if (not cell.rules or set(rules) & set(cell.rules))
        and (not cell.files or name.partition("::")[0] in cell.files)
    )


def plan_failed_first(cell: Cell, tests: Tests, known: History) -> tuple[str, ...]:
    """Return the names of a cell's tests, first those that failed last time; () if none did."""
    names, failed = select_tests(cell, tests), frozenset(known.failed.get(cell.name, ()))
    first = tuple(name for name in names if name in failed)
    return (*first, *(name for name in names if name not in failed)) if first else ()


def divide(
    names: tuple[str, ...], seconds: Mapping[str, float], count: int
) -> tuple[tuple[str, ...], ...]:
    """Return tests in parts that take about the same time, the quick tests in the first ones.

    Args:
        names: In the order of collection, which each part keeps.
        seconds: What each of them takes.
        count: How many parts; there are fewer where there is less to divide.
    """
    order = {name: number for number, name in enumerate(names)}
    share = sum(seconds.values()) / count
    parts: list[list[str]] = [[] for _ in range(count)]
    spent = 0.0
    for name in sorted(names, key=lambda one: seconds[one]):
        # A test belongs to the part in which its middle lies.
        middle = spent + seconds[name] / 2
        parts[min(count - 1, int(middle / share) if share else 0)].append(name)
        spent += seconds[name]
    return tuple(tuple(sorted(part, key=order.__getitem__)) for part in parts if part)


def plan_rest(part: Part, result: CellResult) -> Part | None:
    """Return what a VM left undone of a part that it did not survive; None for nothing."""
    if result.outcome not in BROKEN_OFF:
        return None
    done = {test.id for test in result.tests}
    left = tuple(name for name in part.tests if name not in done)
    # Where no test was under way, the next one is not to blame, and nothing else ends this.
    return replace(part, tests=left) if left and done else None


def merge(cells: tuple[AnyCell, ...], ended: tuple[Ended, ...]) -> tuple[CellResult, ...]:
    """Return the result of each cell that has one, in the order of the cells.

    Args:
        cells: What was run.
        ended: Their parts, in whatever order they ended.
    """
    return tuple(
        merge_cell(tuple(one for one in ended if one.part.cell == cell))
        for cell in cells
        if any(one.part.cell == cell for one in ended)
    )


def merge_cell(ended: tuple[Ended, ...]) -> CellResult:
    """Return what the parts of one cell came to: the worst of them."""
    results = tuple(one.result for one in ended)
    worst = min(results, key=lambda result: WORST_FIRST.index(result.outcome))
    return replace(
        worst,
        tests=tuple(chain.from_iterable(result.tests for result in results)),
        kernel_faults=tuple(chain.from_iterable(result.kernel_faults for result in results)),
        problems=tuple(dict.fromkeys(chain.from_iterable(result.problems for result in results))),
        counted=tuple(chain.from_iterable(result.counted for result in results)),
        turns=tuple(chain.from_iterable(result.turns for result in results)),
        loops=tuple(chain.from_iterable(result.loops for result in results)),
    )


def order_tests(results: tuple[CellResult, ...], tests: Tests) -> tuple[CellResult, ...]:
    """Return results with their tests in the order in which they were collected."""
    order = {name: number for number, name in enumerate(tests)}
    return tuple(
        replace(
            result, tests=tuple(sorted(result.tests, key=lambda t: order.get(t.id, len(order))))
        )
        for result in results
    )


def plan_end(left: tuple[Part, ...]) -> Ended:
    """Return what is said of parts of a cell that do not run: it cost too many VMs."""
    names = tuple(chain.from_iterable(part.tests for part in left))
    why = (
        f"{BROKEN_MAX} VMs did not survive it, so {len(names)} tests did not run: {' '.join(names)}"
    )
    result = CellResult(cell=left[0].cell, outcome=Outcome.FAILED, problems=(why,))
    return Ended(part=left[0], result=result)


def find_exhausted(ended: tuple[Ended, ...]) -> frozenset[AnyCell]:
    """Return the cells that cost so many VMs that what is left of them does not run."""
    broken = Counter(one.part.cell for one in ended if one.result.outcome in BROKEN_OFF)
    return frozenset(cell for cell, count in broken.items() if count >= BROKEN_MAX)
