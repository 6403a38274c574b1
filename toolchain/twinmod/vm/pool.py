# SPDX-License-Identifier: GPL-2.0-only
"""Cells run in clones: each part of a cell in one of its own, several at a time."""

import os
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from twinmod.base import parallel
from twinmod.base.cache import FoundEntry
from twinmod.base.progress import Progress
from twinmod.builds.product import Product
from twinmod.cells import parts
from twinmod.cells.model import Cell
from twinmod.cells.parts import Ended, Part
from twinmod.project.model import VmSpec
from twinmod.vm import clone, results, session, snapshot
from twinmod.vm.boot import BootPlan, CellsWork, MatrixWork
from twinmod.vm.options import RunOptions
from twinmod.vm.results import Run
from twinmod.vm.session import VmEnd

#: What a clone takes of the host's memory beside its own.
OVERHEAD_MIB = 100

MEMORY = Path("/proc/meminfo")


def plan_lanes(vm: VmSpec, processors: int, available_mib: int, most: int) -> int:
    """Return how many clones run at a time.

    Args:
        vm: What each of them is.
        processors: The host's.
        available_mib: The host's memory that is not in use.
        most: How many the caller wants at most, 0 for no limit.
    """
    room = available_mib // (vm.memory_mib + OVERHEAD_MIB)
    return max(1, min(processors, room, *((most,) if most else ())))


def read_available_mib() -> int:
    """Return how much memory of the host is not in use. Source: proc_meminfo(5)."""
    lines = (line.split() for line in MEMORY.read_text().splitlines())
    return next(int(words[1]) // 1024 for words in lines if words[0] == "MemAvailable:")


def find_lanes(vm: VmSpec, options: RunOptions) -> int:
    """Return how many clones run at a time on this host, now."""
    processors = options.processors or len(os.sched_getaffinity(0))
    return plan_lanes(vm, processors, read_available_mib(), options.lanes)


def plan_queue(
    work: CellsWork, entry: FoundEntry, options: RunOptions, lanes: int
) -> tuple[Part, ...]:
    """Return what the clones of a snapshot have to do, in the order in which it begins."""
    if not (isinstance(work, MatrixWork) and work.divisible):
        return parts.plan_whole(work.cells)
    return parts.plan_parts(work.cells, snapshot.read_tests(entry), options.history, lanes)


def keep_part(work: CellsWork, part: Part) -> CellsWork:
    """Return the work that one clone does: its part, with no more modules than that needs."""
    own = work.keep((part.cell,))
    if isinstance(part.cell, Cell):
        own = replace(own, products=pick_products(part.cell, work.products))
    if isinstance(own, MatrixWork) and part.tests:
        own = replace(own, tests={part.cell.name: part.tests})
    return own


def pick_products(cell: Cell, products: tuple[Product, ...]) -> tuple[Product, ...]:
    """Return the module that a cell is for."""
    return tuple(p for p in products if (p.module, p.variant) == (cell.module, cell.variant))


@dataclass(slots=True, kw_only=True)
class Pool:
    """Clones that take parts from one queue until it is empty."""

    run: Run
    # The snapshot that they go on from.
    entry: FoundEntry
    queue: deque[Part]
    # Why no more clones are made, "" while they are.
    failure: str = ""
    lock: Lock = field(default_factory=Lock)

    def work_off(self, progress: Progress) -> None:
        """Run parts, one after the other, until none is left; several threads do so."""
        while (taken := self.take()) is not None:
            self.run_part(*taken, progress)

    def take(self) -> tuple[int, Part] | None:
        """Return the number of the next clone, and its part; None: there is nothing to do."""
        with self.lock:
            if not self.queue or self.failure or self.run.options.stopped.is_set():
                return None
            self.run.boots = replace(self.run.boots, total=self.run.boots.total + 1)
            return self.run.boots.total, self.queue.popleft()

    def run_part(self, number: int, part: Part, progress: Progress) -> None:
        """Run one part in a clone, and note what came of it."""
        own = keep_part(self.run.work, part)
        vm_dir = self.run.plan_vm_dir(number)
        plan = clone.prepare_clone(self.run.setting, self.entry, own, vm_dir)
        with progress.phase(f"{part.cell.name}, clone {number}"):
            end = self.run.boot(plan, progress)
        if end.transcript.booted:
            self.note_end(part, plan, end, number)
        elif not self.run.options.stopped.is_set():
            self.note_unreached(part, end, progress)

    def note_unreached(self, part: Part, end: VmEnd, progress: Progress) -> None:
        """Take note of a clone that did not go on: its part is for another one."""
        why = session.render_unreached(end)
        with self.lock:
            self.queue.appendleft(part)
            boots = self.run.boots
            # What QEMU refuses once it refuses each time.
            if end.refusal or boots.stalled == session.STALLED_BOOTS:
                self.failure = why
                return
            self.run.boots = replace(boots, stalled=boots.stalled + 1)
        progress.note(f"{why}; once more")

    def note_end(self, part: Part, plan: BootPlan, end: VmEnd, number: int) -> None:
        """Take note of how a part ended; what it left undone is for another clone."""
        products = keep_part(self.run.work, part).products
        found = self.run.read_results(end, plan, products, number)
        if not found and not self.run.options.stopped.is_set():
            found = results.plan_unreached(plan.cells, session.render_unreached(end))
        with self.lock:
            self.run.boots = results.add_phases(self.run.boots, number, end)
            for result in found:
                self.run.ended.append(Ended(part=part, result=result))
                if rest := parts.plan_rest(part, result):
                    self.queue.appendleft(rest)
            self.give_up()

    def give_up(self) -> None:
        """Run nothing more of the cells that cost too many VMs, and say so in their results."""
        for cell in parts.find_exhausted(tuple(self.run.ended)):
            left = tuple(part for part in self.queue if part.cell == cell)
            self.queue = deque(part for part in self.queue if part.cell != cell)
            if left:
                self.run.ended.append(parts.plan_end(left))


def run_clones(run: Run, entry: FoundEntry) -> tuple[Part, ...]:
    """Run cells in clones of a snapshot; return what is left where clones do not go on."""
    name, most = run.setting.accelerator.name, find_lanes(run.setting.vm, run.options)
    queue = plan_queue(run.work, entry, run.options, most)
    lanes = min(most, len(queue))
    clones = Pool(run=run, entry=entry, queue=deque(queue))
    how = f"{len(queue)} clones ({name}), {lanes} at a time" if lanes > 1 else f"clone ({name})"
    title = f"{how}: {results.render_names(run.work.cells)}"
    parallel.run_all((clones.work_off,) * lanes, title, run.progress)
    if clones.failure:
        run.progress.note(f"{clones.failure}; VMs boot from now on")
    return tuple(clones.queue) if clones.failure else ()
