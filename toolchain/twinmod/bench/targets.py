# SPDX-License-Identifier: GPL-2.0-only
"""What a project wants its modules to reach, and what they reach. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

from twinmod.base import text
from twinmod.bench.document import GoalEntry
from twinmod.bench.figures import Cost
from twinmod.bench.project import Goals, Limit
from twinmod.cells.model import YardsticksCell
from twinmod.guest.protocol import TMPFS_FILE, BufferKind, Caller, Operation, Regions, Timing, Turns

#: What calls cost, by (name of the cell, timing).
Costs = Mapping[tuple[str, Timing], Cost]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a module is to reach, and what it does."""

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
        timing.buffers == BufferKind.REUSED
        and timing.loop == Caller.TESTER
        and timing.operation in (Operation.PREAD, Operation.PWRITE, Operation.ADD)
    )


def find_plain(
    costs: Costs, cell: str, operation: Operation, size: int, path: str = ""
) -> Cost | None:
    """Return what warm calls at an offset cost, or None."""
    return costs.get((cell, Timing(operation=operation, size_bytes=size, path=path)))


def _iterate_sizes(costs: Costs, cell: str) -> Iterator[tuple[Operation, int, Cost]]:
    for (name, timing), cost in costs.items():
        if name == cell and is_plain(timing) and timing.operation != Operation.ADD:
            yield timing.operation, timing.size_bytes, cost


def plan_goals(costs: Costs, labels: Iterable[str], goals: Goals) -> list[Goal]:
    """Return what modules are to reach in exact counts, with the C tester, and what they do."""
    return [
        *(goal for label in labels for goal in _plan_own(costs, label, goals)),
        *_plan_rust(costs, goals.rust),
        *(goal for tester in ("c", "rust") for goal in _plan_tester(costs, tester, goals.tester)),
    ]


def _plan_share(goal: str, module: str, own: float, other: float, limit: Limit) -> Goal:
    return Goal(goal=goal, module=module, reached=round(own / other, 4), limit=limit.at_most)


def _plan_own(costs: Costs, label: str, goals: Goals) -> Iterator[Goal]:
    """Yield the goals of one module beside the yardsticks."""
    cell = f"{label}/c"
    one = {op: cost for op, size, cost in _iterate_sizes(costs, cell) if size == 1}
    for operation, size, cost in _iterate_sizes(costs, cell):
        what = f"{operation} of {text.render_size(size)}"
        if goals.copy and goals.copy.covers(size) and size > 1 and operation in one:
            yield _plan_share(
                f"{what}: instructions above 1 B, per n/8",
                label,
                cost.instructions - one[operation].instructions,
                size / 8,
                goals.copy,
            )
        tmpfs = find_plain(costs, YardsticksCell.name, operation, size, TMPFS_FILE)
        if goals.tmpfs and goals.tmpfs.covers(size) and tmpfs is not None:
            yield _plan_share(
                f"{what}: share of tmpfs's",
                label,
                cost.instructions,
                tmpfs.instructions,
                goals.tmpfs,
            )
    for operation, size, cost in _iterate_sizes(costs, cell):
        zero = find_plain(costs, YardsticksCell.name, operation, size, "/dev/zero")
        if goals.zero and goals.zero.covers(size) and zero is not None:
            yield _plan_share(
                f"{operation} of {text.render_size(size)}: share of /dev/zero's",
                label,
                cost.instructions,
                zero.instructions,
                goals.zero,
            )


def _plan_rust(costs: Costs, limit: Limit | None) -> Iterator[Goal]:
    """Yield what Rust is to take at most of C."""
    for operation, size, c in _iterate_sizes(costs, "c/c"):
        rust = find_plain(costs, "rust/c", operation, size)
        if limit and limit.covers(size) and rust is not None:
            yield _plan_share(
                f"{operation} of {text.render_size(size)}: Rust's share of C's",
                "rust",
                rust.instructions,
                c.instructions,
                limit,
            )


def _plan_tester(costs: Costs, tester: str, limit: Limit | None) -> Iterator[Goal]:
    """Yield what a tester's loop is to take at most of a bare one."""
    for operation in (Operation.PREAD, Operation.PWRITE):
        bare = costs.get(
            (f"c/{tester}", Timing(operation=operation, size_bytes=1, loop=Caller.BARE))
        )
        own = find_plain(costs, f"c/{tester}", operation, 1)
        if limit and limit.covers(1) and bare is not None and own is not None:
            yield _plan_share(
                f"{operation} of 1 B: tester {tester}'s share of a bare loop's",
                "c",
                own.instructions,
                bare.instructions,
                limit,
            )


def plan_scaling_goals(
    turns: Iterable[Turns], labels: Mapping[str, str], wanted: Goals
) -> list[Goal]:
    """Return how much of one thread's time two take for as many bytes each, on disjoint regions."""
    found = {(t.module, t.timing): median(t.latency_ns) for t in turns if t.tester == "c"}
    goals = []
    limit = wanted.threads
    for (module, timing), two_ns in found.items():
        alone = replace(timing, threads=1, regions=Regions.ONE)
        if limit is None or not limit.covers(timing.size_bytes):
            continue
        if (
            timing.threads != 2
            or timing.regions != Regions.DISJOINT
            or not found.get((module, alone))
        ):
            continue
        what = f"{timing.operation} of {text.render_size(timing.size_bytes)}"
        goals.append(
            Goal(
                goal=f"{what}, two threads, by a clock: share of one's time per byte",
                module=labels[module],
                reached=round(two_ns / (2 * found[module, alone]), 4),
                limit=limit.at_most,
            )
        )
    return goals


def plan_goal(goal: Goal) -> GoalEntry:
    """Return a goal as the report has it."""
    return GoalEntry(
        goal=goal.goal, module=goal.module, reached=goal.reached, limit=goal.limit, met=goal.met
    )
