# SPDX-License-Identifier: GPL-2.0-only
"""What is measured, and from what a profiler and a clock told to what a call costs. Pure.

native/profiler.c counts, measure.py makes the calls.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median, median_low

from twinmod.base.text import KIB, MIB
from twinmod.cells.model import Counted
from twinmod.guest.protocol import (
    TMPFS_FILE,
    BufferKind,
    Caller,
    LoopShape,
    Measurement,
    Operation,
    Regions,
    Timing,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a call costs, counted after one load of a module."""

    timing: Timing
    cell: str
    load: int
    # Instructions of a call: medians over the rounds that are believed.
    user: float
    kernel: float
    minor_faults: float
    # (function of the kernel or of a module, its instructions), the dearest first.
    functions: tuple[tuple[str, float], ...] = ()
    # What interrupts and other threads executed meanwhile, by call: no part of it.
    elsewhere: float = 0.0
    # Whether the rounds agree.
    settled: bool = True

    @property
    def instructions(self) -> float:
        """All of a call."""
        return self.user + self.kernel


SIZES = (1, 8, 64, 512, 4 * KIB, 64 * KIB, 512 * KIB, 4 * MIB)
QUICK_SIZES = (1, 4 * KIB, 512 * KIB)

#: Room for two calls of the largest size, one after the other, and for threads side by side.
DEVICE_BYTES = 16 * MIB

#: (what is opened, what it can do): the floor of a character device, and a file in memory.
YARDSTICKS = (
    ("/dev/zero", (Operation.PREAD,)),
    ("/dev/null", (Operation.PWRITE,)),
    (TMPFS_FILE, (Operation.PREAD, Operation.PWRITE)),
)

#: Two of these are for getting used to a module that was just loaded.
ROUNDS = 7
LOADS = 2

TURNS = 21
QUICK_TURNS = 7

#: Of a counter in turns.
COUNTING_THREADS = 30

#: How often the turns are drawn again, and what share of the draws an interval holds.
DRAWS = 2000
CONFIDENCE = 0.95

#: The first rounds, which are not believed.
DOUBTED = 2

#: By how much a second segment may differ from the one that took the fewest instructions, as a
#: share of what the longer ones take.
SETTLED = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What was executed from one magic instruction to the next."""

    user: float
    # By function of the kernel or of a module: "vfs_read", "echo_read_iter [echo_c]".
    kernel: Mapping[str, float]
    # By interrupts that came meanwhile, and by other threads.
    elsewhere: float = 0.0

    @property
    def total(self) -> float:
        """All that the calling thread executed."""
        return self.user + sum(self.kernel.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call costs, over several loads and VMs."""

    instructions: float
    user: float
    kernel: float
    minor_faults: float
    elsewhere: float
    # How far the loads are apart, as a share of the smallest.
    spread: float
    # The instructions of each load.
    samples: tuple[float, ...]
    settled: bool
    functions: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A median, and where 95 of 100 medians of draws lie."""

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What it says, in words, as how long Rust takes by a clock, as a share of what C takes."""
        if self.low > 1.0:
            return "Rust slower"
        return "Rust faster" if self.high < 1.0 else "no difference detected"


# -- what is measured -------------------------------------------------------------------------


def plan_transfers(sizes: tuple[int, ...], *, quick: bool) -> tuple[Timing, ...]:
    """Return reads and writes of some sizes: at an offset, in sequence, to and from fresh pages."""
    at_offsets = (Operation.PREAD, Operation.PWRITE)
    operations = at_offsets if quick else (*at_offsets, Operation.READ, Operation.WRITE)
    warm = tuple(
        Timing(operation=operation, size_bytes=size) for size in sizes for operation in operations
    )
    cold = tuple(
        Timing(operation=operation, size_bytes=size, buffers=BufferKind.FRESH)
        for size in sizes
        for operation in at_offsets
    )
    return warm + cold


def plan_yardsticks(sizes: tuple[int, ...]) -> tuple[Timing, ...]:
    """Return the same calls on what has no driver of ours."""
    return tuple(
        Timing(operation=operation, size_bytes=size, path=path)
        for path, operations in YARDSTICKS
        for size in sizes
        for operation in operations
    )


def plan_exact(*, quick: bool, loop: LoopShape | None) -> Measurement:
    """Return what is counted in instructions, and the loop that is looked at too."""
    sizes = QUICK_SIZES if quick else SIZES
    bare = tuple(
        Timing(operation=operation, size_bytes=1, loop=Caller.BARE)
        for operation in (Operation.PREAD, Operation.PWRITE)
    )
    last = (Timing(operation=Operation.LOAD), Timing(operation=Operation.UNLOAD))
    return Measurement(
        timings=(
            *plan_transfers(sizes, quick=quick),
            Timing(operation=Operation.ADD),
            Timing(operation=Operation.OPEN),
            *bare,
            *last,
            *plan_yardsticks(sizes),
        ),
        loads=1 if quick else LOADS,
        rounds=ROUNDS,
        loop=loop,
        device_bytes=DEVICE_BYTES,
    )


def plan_threads(processors: int) -> tuple[Timing, ...]:
    """Return calls that several threads make at once, on one region and on disjoint ones."""
    return tuple(
        Timing(operation=operation, size_bytes=size, threads=threads, regions=regions)
        for size in (64, 64 * KIB)
        for operation in (Operation.PREAD, Operation.PWRITE)
        for threads in sorted({2, max(2, processors)})
        for regions in (Regions.DISJOINT, Regions.ONE)
    )


def plan_turns(*, quick: bool, processors: int) -> Measurement:
    """Return what is timed by a clock."""
    sizes = QUICK_SIZES if quick else SIZES
    threads = () if quick else plan_threads(processors)
    return Measurement(
        timings=(
            *plan_transfers(sizes, quick=True),
            *threads,
            Timing(operation=Operation.ADD),
            Timing(operation=Operation.OPEN),
            Timing(operation=Operation.COUNT, threads=COUNTING_THREADS),
            Timing(operation=Operation.LOAD),
            Timing(operation=Operation.UNLOAD),
            *plan_yardsticks(sizes),
        ),
        loads=1,
        rounds=0,
        turns=QUICK_TURNS if quick else TURNS,
        device_bytes=DEVICE_BYTES,
    )


# -- what was counted -------------------------------------------------------------------------


def find_ends(counted: Counted) -> tuple[int, ...]:
    """Return the numbers of the magic instructions that ended the segments of some calls."""
    return tuple(counted.first + 2 * number for number in range(len(counted.faults)))


def parse_counts(
    lines: Iterable[str], wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Segment]:
    """Return the segments that ended at some magic instructions.

    Args:
        lines: What the profiler of one VM wrote.
        wanted: (section, end).

    Raises:
        ValueError: Instructions were not told apart.
    """
    found: dict[tuple[int, int], Segment] = {}
    names: dict[str, str] = {}
    kernel: dict[str, int] | None = None
    section = 0
    for line in lines:
        first, _, rest = line.rstrip("\n").partition(" ")
        if first == "symbols":
            section, kernel = section + 1, None
            names.clear()
        elif first == "name":
            number, _, name = rest.partition(" ")
            names[number] = name
        elif first == "magic":
            end, user, elsewhere = map(int, rest.split())
            key = section, end
            kernel = {} if key in wanted else None
            if kernel is not None:
                found[key] = Segment(user=user, kernel=kernel, elsewhere=elsewhere)
        elif first == "lost":
            raise ValueError(f"{rest} instructions were not told apart")
        elif kernel is not None:
            # Two functions of one name are taken for one.
            name = names[first]
            kernel[name] = kernel.get(name, 0) + int(rest)
    return found


# -- what a call costs ------------------------------------------------------------------------


def find_quiet(segments: tuple[Segment, ...], tolerance: float) -> tuple[Segment, bool]:
    """Return, of some equal segments, the least that another one agrees with, and whether one does.

    What a thread does of others' work, as when the kernel lets another one run, only adds to it.
    Seldom others do some of a thread's work; such a segment stands alone.

    Args:
        segments: At least one.
        tolerance: How many instructions more another may take that agrees.
    """
    ordered = sorted(segments, key=lambda segment: segment.total)
    for segment, more in pairwise(ordered):
        if more.total - segment.total <= tolerance:
            return segment, True
    return ordered[0], False


def _compare_segments(
    counted: Counted, short: Segment, long: Segment, more_faults: float
) -> Figure:
    """Return what a call costs: what the longer segment took more, by call."""
    calls = counted.lengths[1] - counted.lengths[0]
    more = {name: count - short.kernel.get(name, 0) for name, count in long.kernel.items()}
    more |= {name: -count for name, count in short.kernel.items() if name not in long.kernel}
    return Figure(
        timing=counted.timing,
        cell=counted.cell,
        load=counted.load,
        user=(long.user - short.user) / calls,
        kernel=sum(more.values()) / calls,
        minor_faults=more_faults / calls,
        functions=sort_functions((name, count / calls) for name, count in more.items()),
    )


def plan_figure(counted: Counted, segments: Mapping[tuple[int, int], Segment]) -> Figure:
    """Return what a call costs, by the rounds that are believed.

    Args:
        counted: Where the calls are.
        segments: Of its VM, by (section, end).
    """
    ends = find_ends(counted)
    believed = slice(2 * DOUBTED if len(ends) > 2 * DOUBTED else 0, None)
    found = [segments[counted.section, end] for end in ends][believed]
    faults = counted.faults[believed]
    short, long = tuple(found[0::2]), tuple(found[1::2])
    more_faults = [after - before for before, after in zip(faults[0::2], faults[1::2], strict=True)]
    tolerance = SETTLED * min(segment.total for segment in long)
    first, agreed = find_quiet(short, tolerance)
    second, agreed_long = find_quiet(long, tolerance)
    figure = _compare_segments(counted, first, second, median_low(more_faults))
    return replace(
        figure,
        settled=agreed and agreed_long,
        elsewhere=fmean(segment.elsewhere for segment in long) / counted.lengths[1],
    )


def sort_functions(functions: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Return functions that take something, the dearest first."""
    return tuple(sorted((f for f in functions if f[1]), key=lambda f: (-f[1], f[0])))


def rename_functions(
    functions: Iterable[tuple[str, float]], known: Mapping[str, str]
) -> tuple[tuple[str, float], ...]:
    """Return functions by the names that a person knows; what has one name is one function.

    Args:
        functions: As the profiler names them: "vfs_read", "_RNv... [echo_rust]".
        known: The names of those that are mangled.
    """
    total: dict[str, float] = {}
    for function, count in functions:
        head, space, module = function.partition(" ")
        name = f"{known.get(head, head)}{space}{module}"
        total[name] = total.get(name, 0.0) + count
    return sort_functions(total.items())


def measure_spread(samples: tuple[float, ...]) -> float:
    """Return how far numbers are apart, as a share of the smallest."""
    return (max(samples) - min(samples)) / min(samples)


def summarize(figures: tuple[Figure, ...]) -> Cost:
    """Return what the figures of one timing in one cell, at least one, amount to."""
    samples = tuple(figure.instructions for figure in figures)
    middle = figures[samples.index(median_low(samples))]
    return Cost(
        instructions=middle.instructions,
        user=middle.user,
        kernel=middle.kernel,
        minor_faults=middle.minor_faults,
        elsewhere=middle.elsewhere,
        spread=measure_spread(samples),
        samples=samples,
        settled=all(figure.settled for figure in figures),
        functions=middle.functions,
    )


# -- what a clock told ------------------------------------------------------------------------


def find_interval(samples: Sequence[float]) -> Interval:
    """Return the median of some samples, with an interval by bootstrap.

    Source: B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; the percentiles of
    the medians of samples that are drawn with replacement.
    """
    draw = random.Random(0)  # noqa: S311 - no secret; the same samples give the same interval
    medians = sorted(median(draw.choices(samples, k=len(samples))) for _ in range(DRAWS))
    outside = round(DRAWS * (1 - CONFIDENCE) / 2)
    return Interval(median=median(samples), low=medians[outside], high=medians[-1 - outside])


def compare_samples(c: Sequence[float], rust: Sequence[float]) -> Interval:
    """Return what Rust took as a share of what C took, turn by turn."""
    return find_interval([r / c for c, r in zip(c, rust, strict=True)])
