# SPDX-License-Identifier: GPL-2.0-only
"""What the twins are to reach, and what they do. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

from twinmod.base import text
from twinmod.base.text import KIB
from twinmod.bench.document import GoalEntry
from twinmod.bench.figures import Cost
from twinmod.cells.model import YardsticksCell
from twinmod.guest.protocol import TMPFS_FILE, Timing, Turns
from twinmod.project.model import LANGUAGES, Language

#: Instructions above those of one byte, per 8 bytes, from 64 KiB on.
COPY_LIMIT = 1.03

#: Of a read of one byte, as a share of what /dev/zero takes.
FLOOR_LIMIT = 1.25

#: Of a call, as a share of what a file in memory takes; of Rust's, as a share of C's.
TMPFS_LIMIT = 1.0
RUST_LIMIT = 1.0

#: Of a tester's call, as a share of what a loop in C with nothing else in it takes.
TESTER_LIMIT = 1.05

#: Two threads on disjoint regions are to move 1.9 times what one does.
SCALING_LIMIT = round(1 / 1.9, 4)

#: What calls cost, by (name of the cell, timing).
Costs = Mapping[tuple[str, Timing], Cost]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the twins are to reach, and what they do."""

    goal: str
    module: str
    reached: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.reached <= self.limit


def is_plain(timing: Timing) -> bool:
    """Tell whether calls are warm ones of one thread, by a tester, at an offset or none."""
    return (
        timing.buffers == "reused"
        and timing.loop == "tester"
        and timing.operation
        in (
            "pread",
            "pwrite",
            "add",
        )
    )


def find_plain(costs: Costs, cell: str, operation: str, size: int, path: str = "") -> Cost | None:
    """Return what warm calls at an offset cost, or None."""
    return costs.get((cell, Timing(operation=operation, size_bytes=size, path=path)))


def _iterate_sizes(costs: Costs, cell: str) -> Iterator[tuple[str, int, Cost]]:
    for (name, timing), cost in costs.items():
        if name == cell and is_plain(timing) and timing.operation != "add":
            yield timing.operation, timing.size_bytes, cost


def plan_goals(costs: Costs) -> list[Goal]:
    """Return what the twins are to reach in exact counts, with the C tester, and what they do."""
    return [
        *(goal for language in LANGUAGES for goal in _plan_own(costs, language)),
        *_plan_rust(costs),
        *(goal for tester in ("c", "rust") for goal in _plan_tester(costs, tester)),
    ]


def _plan_share(goal: str, module: str, own: float, other: float, limit: float) -> Goal:
    return Goal(goal=goal, module=module, reached=round(own / other, 4), limit=limit)


def _plan_own(costs: Costs, language: Language) -> Iterator[Goal]:
    """Yield the goals of one module beside the yardsticks."""
    cell = f"{language}/c"
    one = {op: cost for op, size, cost in _iterate_sizes(costs, cell) if size == 1}
    for operation, size, cost in _iterate_sizes(costs, cell):
        what = f"{operation} of {text.render_size(size)}"
        if size >= 64 * KIB and operation in one:
            yield _plan_share(
                f"{what}: instructions above 1 B, per n/8",
                language,
                cost.instructions - one[operation].instructions,
                size / 8,
                COPY_LIMIT,
            )
        tmpfs = find_plain(costs, YardsticksCell.name, operation, size, TMPFS_FILE)
        if tmpfs is not None:
            yield _plan_share(
                f"{what}: share of tmpfs's",
                language,
                cost.instructions,
                tmpfs.instructions,
                TMPFS_LIMIT,
            )
    zero = find_plain(costs, YardsticksCell.name, "pread", 1, "/dev/zero")
    if zero is not None and "pread" in one:
        yield _plan_share(
            "pread of 1 B: share of /dev/zero's",
            language,
            one["pread"].instructions,
            zero.instructions,
            FLOOR_LIMIT,
        )


def _plan_rust(costs: Costs) -> Iterator[Goal]:
    """Yield what Rust is to take at most of C."""
    for operation, size, c in _iterate_sizes(costs, "c/c"):
        rust = find_plain(costs, "rust/c", operation, size)
        if rust is not None:
            yield _plan_share(
                f"{operation} of {text.render_size(size)}: Rust's share of C's",
                "rust",
                rust.instructions,
                c.instructions,
                RUST_LIMIT,
            )


def _plan_tester(costs: Costs, tester: str) -> Iterator[Goal]:
    """Yield what a tester's loop is to take at most of a bare one."""
    for operation in ("pread", "pwrite"):
        bare = costs.get((f"c/{tester}", Timing(operation=operation, size_bytes=1, loop="bare")))
        own = find_plain(costs, f"c/{tester}", operation, 1)
        if bare is not None and own is not None:
            yield _plan_share(
                f"{operation} of 1 B: tester {tester}'s share of a bare loop's",
                "c",
                own.instructions,
                bare.instructions,
                TESTER_LIMIT,
            )


def plan_scaling_goals(turns: Iterable[Turns], languages: Mapping[str, Language]) -> list[Goal]:
    """Return how much of one thread's time two take for as many bytes each, on disjoint regions."""
    found = {(t.module, t.timing): median(t.latency_ns) for t in turns if t.tester == "c"}
    goals = []
    for (module, timing), two_ns in found.items():
        alone = replace(timing, threads=1, regions="one")
        if timing.threads != 2 or timing.regions != "disjoint" or not found.get((module, alone)):
            continue
        what = f"{timing.operation} of {text.render_size(timing.size_bytes)}"
        goals.append(
            Goal(
                goal=f"{what}, two threads, by a clock: share of one's time per byte",
                module=languages[module],
                reached=round(two_ns / (2 * found[module, alone]), 4),
                limit=SCALING_LIMIT,
            )
        )
    return goals


def plan_goal(goal: Goal) -> GoalEntry:
    """Return a goal as the report has it."""
    return GoalEntry(
        goal=goal.goal, module=goal.module, reached=goal.reached, limit=goal.limit, met=goal.met
    )
