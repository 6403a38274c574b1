# SPDX-License-Identifier: GPL-2.0-only
"""From what a profiler wrote, and what a clock told, to what a call costs."""

from dataclasses import replace

import pytest

from twinmod.bench import figures
from twinmod.bench.figures import Figure, Segment
from twinmod.cells.model import Counted
from twinmod.guest.protocol import BufferKind, Operation, Timing

READ = Timing(operation=Operation.PREAD, size_bytes=1)

#: Two loads, in each of which a segment of 2 calls and one of 4 were made.
WRITTEN = """\
magic 0 999 0
symbols
magic 0 70 0
name 1 boot
1 5000
magic 1 300 0
name 2 vfs_read
name 3 mdriver_read_iter [mdriver_c]
2 40
3 20
magic 2 7 0
2 1000
magic 3 500 64
2 70
3 40
symbols
magic 0 1 0
name 1 vfs_read
1 9
magic 1 100 0
1 8
"""

COUNTED = Counted(
    timing=READ, cell="c/c", load=1, section=1, first=1, lengths=(2, 4), faults=(1, 5)
)


def parse(*keys: tuple[int, int]) -> dict[tuple[int, int], Segment]:
    return figures.parse_counts(WRITTEN.splitlines(keepends=True), set(keys))


def test_a_segment_is_what_came_between_two_magic_instructions() -> None:
    assert parse((1, 1), (1, 3)) == {
        (1, 1): Segment(user=300, kernel={"vfs_read": 40, "mdriver_read_iter [mdriver_c]": 20}),
        (1, 3): Segment(
            user=500, kernel={"vfs_read": 70, "mdriver_read_iter [mdriver_c]": 40}, elsewhere=64
        ),
    }


def test_a_number_is_another_function_after_the_symbols_were_read_again() -> None:
    assert parse((2, 1)) == {(2, 1): Segment(user=100, kernel={"vfs_read": 8})}


def test_two_functions_of_one_name_are_one() -> None:
    text = "symbols\nmagic 0 1 0\nname 1 seq_open\nname 2 seq_open\n1 3\n2 4\n"
    found = figures.parse_counts(text.splitlines(), {(1, 0)})
    assert found[1, 0].kernel == {"seq_open": 7}


def test_counts_that_are_not_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="12 instructions were not told apart"):
        figures.parse_counts(["symbols", "lost 12"], set())


def test_the_ends_of_a_kind_of_calls_are_every_second_one() -> None:
    assert figures.find_ends(COUNTED) == (1, 3)


def test_a_call_costs_what_the_longer_segment_took_more() -> None:
    figure = figures.plan_figure(COUNTED, parse((1, 1), (1, 3)))
    assert (figure.user, figure.kernel, figure.minor_faults) == (100.0, 25.0, 2.0)
    assert figure.elsewhere == 16.0, "no part of the call, and told"
    assert figure.functions == (("vfs_read", 15.0), ("mdriver_read_iter [mdriver_c]", 10.0))
    assert not figure.settled, "a single round has nothing to agree with"


def plan_rounds(*rounds: tuple[int, int]) -> tuple[Counted, dict[tuple[int, int], Segment]]:
    """Return rounds of a segment without calls and one with a call, with what each took."""
    segments = {
        (1, 1 + 2 * (2 * number + second)): Segment(user=0, kernel={"read": total})
        for number, totals in enumerate(rounds)
        for second, total in enumerate(totals)
    }
    return replace(COUNTED, lengths=(0, 1), faults=(0,) * (2 * len(rounds))), segments


def test_first_rounds_are_not_believed_and_what_comes_from_outside_does_not_count() -> None:
    rounds = ((50, 51), (60, 61), (100, 600), (9100, 600), (100, 7600), (100, 8600), (9999, 600))
    figure = figures.plan_figure(*plan_rounds(*rounds))
    assert (figure.instructions, figure.settled) == (500.0, True)


def test_a_segment_whose_work_others_did_stands_alone_and_does_not_count() -> None:
    rounds = ((50, 51), (60, 61), (100, 600), (100, 550), (100, 600), (80, 9600), (100, 601))
    figure = figures.plan_figure(*plan_rounds(*rounds))
    assert (figure.instructions, figure.settled) == (500.0, True)


@pytest.mark.parametrize(
    "rounds", [((100, 600), (100, 700), (100, 800)), ((100, 600), (150, 600), (200, 600))]
)
def test_a_segment_that_nothing_agrees_with_has_not_settled(
    rounds: tuple[tuple[int, int], ...],
) -> None:
    assert not figures.plan_figure(*plan_rounds(*rounds)).settled


def test_two_functions_that_a_person_knows_by_one_name_are_one() -> None:
    functions = (("_Ra [m]", 5.0), ("vfs_read", 4.0), ("_Rb [m]", 2.0))
    known = {"_Ra": "run::{closure#0}", "_Rb": "run::{closure#0}"}
    assert figures.rename_functions(functions, known) == (
        ("run::{closure#0} [m]", 7.0),
        ("vfs_read", 4.0),
    )


def plan_figure(kernel: float, *, settled: bool = True) -> Figure:
    return Figure(
        timing=READ, cell="c/c", load=1, user=0, kernel=kernel, minor_faults=0, settled=settled
    )


def test_loads_amount_to_a_cost_with_its_spread() -> None:
    cost = figures.summarize((plan_figure(100), plan_figure(110), plan_figure(101)))
    assert (cost.instructions, cost.samples, cost.settled) == (101, (100, 110, 101), True)
    assert cost.spread == pytest.approx(0.1)


def test_one_load_that_did_not_settle_is_enough_to_doubt_a_cost() -> None:
    assert not figures.summarize((plan_figure(1), plan_figure(1, settled=False))).settled


SLOW_HOST = (100.0, 130.0, 90.0, 250.0, 100.0, 110.0, 95.0)


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [
        ((1.1, 1.12, 1.09, 1.1, 1.11, 1.1, 1.1), "Rust slower"),
        ((0.9, 0.91, 0.9, 0.89, 0.9, 0.9, 0.88), "Rust faster"),
        ((1.1, 0.9, 1.01, 1.05, 0.95, 1.02, 0.98), "no difference detected"),
    ],
)
def test_what_drifts_hits_both_and_decides_nothing(
    factors: tuple[float, ...], verdict: str
) -> None:
    other = tuple(ns * factor for ns, factor in zip(SLOW_HOST, factors, strict=True))
    ratio = figures.compare_samples(SLOW_HOST, other)
    assert ratio.verdict == verdict
    assert ratio.low <= ratio.median <= ratio.high


def test_the_same_samples_give_the_same_interval() -> None:
    assert figures.find_interval(SLOW_HOST) == figures.find_interval(SLOW_HOST)


@pytest.mark.parametrize("quick", [True, False])
def test_no_kind_of_calls_is_measured_twice(quick: bool) -> None:
    for plan in (
        figures.plan_exact(quick=quick, loop=None),
        figures.plan_turns(quick=quick, processors=2),
    ):
        assert len(set(plan.timings)) == len(plan.timings)


def test_all_that_is_cold_is_measured_warm_too() -> None:
    timings = set(figures.plan_exact(quick=False, loop=None).timings)
    cold = [timing for timing in timings if timing.buffers == BufferKind.FRESH]
    assert cold
    assert {replace(timing, buffers=BufferKind.REUSED) for timing in cold} <= timings
