# SPDX-License-Identifier: GPL-2.0-only
"""Counts of instructions: when they are believed, and what several amount to. Pure.

Standard library only: the program inside the VM uses it too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low

from twinmod.specs import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What the last two batches of a series counted."""

    minimum: int
    median: int
    batches: int
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call costs, over several loads and VMs."""

    minimum: int
    # Of the medians of the loads.
    median: int
    # How far those are apart, as a share of the smallest.
    spread: float
    loads: int
    settled: bool


def compare_medians(numbers: tuple[int, ...]) -> float:
    """Return how far numbers are apart, as a share of the smallest."""
    return (max(numbers) - min(numbers)) / min(numbers)


def settle(batch: Callable[[], tuple[int, ...]], *, limit: int, share: float) -> Count:
    """Make batches until two in a row have the same median, but for a share of it.

    A guest that has just booted, and a module that was just loaded, have things to do for the
    first time. They are done when it no longer shows.

    Args:
        batch: Returns the instructions of each of its calls.
        limit: Of batches, at least 2.
        share: By which two medians may differ.
    """
    last, batches = batch(), 1
    while True:
        before, last, batches = last, batch(), batches + 1
        settled = compare_medians((median_low(before), median_low(last))) <= share
        if settled or batches == limit:
            both = before + last
            return Count(
                minimum=min(both), median=median_low(both), batches=batches, settled=settled
            )


def summarize(figures: tuple[Figure, ...]) -> Cost:
    """Return what the figures of one timing, at least one, amount to."""
    medians = tuple(figure.median for figure in figures)
    return Cost(
        minimum=min(figure.minimum for figure in figures), median=median_low(medians),
        spread=compare_medians(medians), loads=len(figures),
        settled=all(figure.settled for figure in figures),
    )  # fmt: skip
