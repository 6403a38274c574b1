# SPDX-License-Identifier: GPL-2.0-only
"""A count is believed when two batches agree, and several of them amount to one cost."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod import bench
from twinmod.specs import Figure, Timing

COUNTS = st.integers(min_value=1, max_value=10**6)
BATCHES = st.lists(st.lists(COUNTS, min_size=1, max_size=5).map(tuple), min_size=2, max_size=9)


def serve(batches: Iterable[tuple[int, ...]]) -> Callable[[], tuple[int, ...]]:
    """Return what gives one batch after the other, and fails when there is none left."""
    left = iter(batches)
    return lambda: next(left)


def test_two_batches_that_agree_are_enough() -> None:
    count = bench.settle(serve([(9, 10, 50), (10, 10, 11)]), limit=5, share=0.0)
    assert count == bench.Count(minimum=9, median=10, batches=2, settled=True)


def test_what_a_guest_does_for_the_first_time_is_not_counted() -> None:
    batches = [(3000, 3000, 3000), (1200, 1100, 1100), (1001, 1000, 1000), (1000, 1000, 1000)]
    count = bench.settle(serve(batches), limit=9, share=0.001)
    assert count == bench.Count(minimum=1000, median=1000, batches=4, settled=True)


@pytest.mark.parametrize(("second", "settled"), [(1010, True), (990, False), (1011, False)])
def test_the_share_is_of_the_smaller_median(second: int, settled: bool) -> None:
    assert bench.settle(serve([(1000,), (second,)]), limit=2, share=0.01).settled is settled


def test_a_count_that_never_settles_ends_at_the_limit_and_says_so() -> None:
    count = bench.settle(serve([(10,), (20,), (10,)]), limit=3, share=0.5)
    assert count == bench.Count(minimum=10, median=10, batches=3, settled=False)


@given(BATCHES, st.floats(min_value=0, max_value=1))
def test_a_count_lies_within_its_last_two_batches(
    batches: list[tuple[int, ...]], share: float
) -> None:
    count = bench.settle(serve(batches), limit=len(batches), share=share)
    both = batches[count.batches - 2] + batches[count.batches - 1]
    assert count.minimum == min(both) <= count.median <= max(both)
    assert count.median in both
    assert count.settled or count.batches == len(batches)


def plan_figure(minimum: int, median: int, *, settled: bool = True) -> Figure:
    return Figure(
        timing=Timing(operation="read", size_bytes=1), load=1, minimum=minimum, median=median,
        batches=2, settled=settled,
    )  # fmt: skip


def test_loads_amount_to_a_cost_with_its_spread() -> None:
    figures = (plan_figure(98, 100), plan_figure(99, 110), plan_figure(97, 101))
    cost = bench.summarize(figures)
    assert (cost.minimum, cost.median, cost.loads, cost.settled) == (97, 101, 3, True)
    assert cost.spread == pytest.approx(0.1)


def test_one_load_that_did_not_settle_is_enough_to_doubt_a_cost() -> None:
    cost = bench.summarize((plan_figure(1, 1), plan_figure(1, 1, settled=False)))
    assert not cost.settled
