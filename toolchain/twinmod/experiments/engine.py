# SPDX-License-Identifier: GPL-2.0-only
"""Many variants of a module: each is built or refused by its compiler, what was built is run.

The zoo, the mutants and the layouts are experiments. Each brings its variants, says which cells
they run in, and judges how those ended.
"""

import os
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from twinmod.base import documents, parallel
from twinmod.base.documents import Part
from twinmod.base.progress import Progress, Quiet
from twinmod.builds import build, signing
from twinmod.builds.build import BuildPlan
from twinmod.builds.product import Product
from twinmod.cells import history, outcomes, parts
from twinmod.cells.history import History
from twinmod.cells.model import AnyCell, Cell, CellResult
from twinmod.errors import BuildError
from twinmod.experiments import variants as experiments_variants
from twinmod.vm import pool, running, snapshot
from twinmod.vm.boot import MatrixWork, Setting
from twinmod.vm.options import RunOptions
from twinmod.vm.session import Boots

Variant = TypeVar("Variant", bound=Hashable)

#: A compiler's last words on a variant that it refused, beside the variant's stage.
REFUSAL = ".twinmod.refused.json"

#: How many more clones run at a time than the host has processors: one whose variant leaks or hangs
#: waits, and needs none meanwhile.
WAITING = 1

#: How many variants are built at the same time: VMs need the other processors.
BUILDERS = 1


# -- builds -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What became of a variant in the compiler's hands."""

    # The module to run it with; None: it was refused.
    product: Product | None = None
    # The compiler's words when it refused.
    words: str = ""
    seconds: float = 0.0


class Refusal(Part, frozen=True, kw_only=True):
    """The record of a variant that did not compile."""

    # Of the plan of its build.
    digest: str
    # The compiler's.
    words: str


def keep_product(product: Product, plan: BuildPlan) -> Product:
    """Return a product as it is: of a variant that needs no other module."""
    del plan
    return product


#: Completes what was built by a plan with what it needs.
Complete = Callable[[Product, BuildPlan], Product]


def build_module(plan: BuildPlan, complete: Complete = keep_product) -> Built:
    """Build a variant, and sign it where its kernel takes no other.

    Args:
        plan: Of the build.
        complete: Adds what is loaded before it.

    Raises:
        BuildError: It does not compile, or is not what it should be.
    """
    product = complete(build.build(plan, Quiet()), plan)
    return Built(product=signing.sign_product(plan.tree, product))


def build_or_refuse(plan: BuildPlan, complete: Complete = keep_product) -> Built:
    """Build a variant; a refusal is a result, and is remembered as a product is.

    See build_module for the arguments.

    Raises:
        BuildError: The compiler refused nothing: something else went wrong.
    """
    path = plan.stage_dir / REFUSAL
    words = read_refusal(path, plan.digest)
    if words:
        return Built(words=words)
    try:
        return build_module(plan, complete)
    except BuildError as error:
        words = find_refusal(error)
        documents.write(path, Refusal(digest=plan.digest, words=words))
        return Built(words=words)


def read_refusal(path: Path, digest: str) -> str:
    """Return the compiler's words on exactly the same variant, "" when there are none."""
    try:
        record = documents.parse_part(path.read_bytes(), Refusal)
    except (OSError, *documents.INVALID):
        return ""
    return record.words if record.digest == digest else ""


def find_refusal(error: BuildError) -> str:
    """Return a compiler's words in the error that it made.

    Raises:
        BuildError: It refused nothing, or was ended before it had said all.
    """
    words = dict(error.facts).get("output", "")
    if not experiments_variants.is_refusal(words):
        raise error
    return words


class Builds(Generic[Variant]):
    """Variants that are built in the background, in their order.

    Args:
        tasks: By variant, its build, which is running or will.
    """

    def __init__(self, tasks: Mapping[Variant, Future[Built]]) -> None:
        self._tasks = tasks

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All of them, in the order in which they are built."""
        return tuple(self._tasks)

    @property
    def done(self) -> int:
        """How many have been built or refused."""
        return sum(task.done() for task in self._tasks.values())

    def find(self, variant: Variant) -> Built:
        """Return what became of a variant, when that is known.

        Raises:
            Exception: What its build raised.
        """
        return self._tasks[variant].result()

    def wait_for_one(self, progress: Progress) -> bool:
        """Wait until there is something to run; tell whether there is."""
        with self._show_wait(progress):
            return any(built.product for built in self._iterate_built(progress))

    def wait_for_all(self, progress: Progress) -> tuple[Built, ...]:
        """Wait until nothing is left to build."""
        with self._show_wait(progress):
            return tuple(self._iterate_built(progress))

    def _show_wait(self, progress: Progress) -> AbstractContextManager[None]:
        return nullcontext() if self.done == len(self._tasks) else progress.phase("builds")

    def _iterate_built(self, progress: Progress) -> Iterator[Built]:
        for number, variant in enumerate(self._tasks):
            progress.detail(f"{number} of {len(self._tasks)} built")
            yield self.find(variant)

    def iterate_batches(self, size: int, progress: Progress) -> Iterator[tuple[Variant, ...]]:
        """Yield so many variants at a time, as soon as they are built; each once, in their order.

        Args:
            size: How many, as far as there are so many.
            progress: Told before each wait.
        """
        for first in range(0, len(self.variants), size):
            batch = self.variants[first : first + size]
            for variant in batch:
                progress.detail("")
                self.find(variant)
            yield batch


@contextmanager
def start_builds(jobs: Mapping[Variant, Callable[[], Built]]) -> Iterator[Builds[Variant]]:
    """Build variants in the background, for no longer than the context lasts.

    Args:
        jobs: By variant, what builds it. What a job raises, Builds.find raises for its variant.
    """
    tasks: dict[Variant, Future[Built]] = {}
    with ThreadPoolExecutor(BUILDERS) as pool:
        try:
            for variant, job in jobs.items():
                tasks[variant] = pool.submit(_build, job)
            yield Builds(tasks)
        except BaseException:
            for task in tasks.values():
                task.cancel()
            parallel.end_all(tuple(tasks.values()))
            raise


def plan_built(built: Built) -> Callable[[], Built]:
    """Return the job of a variant that is built."""
    return lambda: built


def _build(job: Callable[[], Built]) -> Built:
    began = time.monotonic()
    return replace(job(), seconds=time.monotonic() - began)


# -- cells ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[Variant]):
    """Cells, one for each variant."""

    # Of its folder, and for whoever watches.
    name: str
    plan_cell: Callable[[Variant, Product], Cell]
    pytest_args: tuple[str, ...] = ()
    # Tells of a variant, by how it ended in earlier steps, whether it has this one.
    is_wanted: Callable[[Variant, tuple[CellResult, ...]], bool] = lambda *_: True


#: By variant, how its cells ended so far, in the order of the steps.
Results = dict[Variant, tuple[CellResult, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of a variant."""

    built: Built
    # How its cells ended, in the order of the steps; () of one that was refused.
    results: tuple[CellResult, ...]


@dataclass(kw_only=True)
class Bench:
    """What the cells of an experiment run in, and what that took so far.

    Where VMs can be cloned, each cell has one of its own, and runs as soon as its variant is built.
    Elsewhere cells share VMs.
    """

    # Called when the first cell is to run: variants of which none compiles need no VM.
    prepare: Callable[[], Setting]
    # Seconds that a cell may go without a step.
    limit_s: float
    # Gets a folder for each step.
    out_dir: Path
    progress: Progress
    # Of VMs that boot: for how many variants, which must be built before, 0 for all of them.
    batch: int = 0
    # Of VMs that boot: how many run at a time.
    lanes: int = 1
    # Whether a VM needs the host for itself, as for a data race.
    racing: bool = False
    boots: list[Boots] = field(default_factory=list)

    @cached_property
    def setting(self) -> Setting:
        """What every VM is made of."""
        return self.prepare()

    @property
    def history_path(self) -> Path:
        """Where it stands which tests failed last time: beside the folder of this time's VMs."""
        return self.out_dir.with_name("history.json")

    @cached_property
    def known(self) -> History:
        """Which tests failed last time."""
        return history.read_history(self.history_path)

    def keep_history(self, results: Iterable[CellResult]) -> None:
        """Write down which tests failed this time."""
        history.write_history(self.history_path, self.known, results)

    def plan_tests(self, cells: Collection[Cell]) -> dict[str, tuple[str, ...]]:
        """Return, by the name of a cell that failed tests last time, its tests, those first.

        Only a VM that goes on from a snapshot has tests that are known before it runs.
        """
        if self.setting.snapshot is None:
            return {}
        tests = snapshot.read_tests(self.setting.snapshot)
        planned = (parts.plan_failed_first(cell, tests, self.known) for cell in cells)
        return {cell.name: names for cell, names in zip(cells, planned, strict=True) if names}

    def run(self, name: str, work: MatrixWork, progress: Progress) -> dict[AnyCell, CellResult]:
        """Run cells; those that ended a VM which was not theirs from its start run once more.

        Args:
            name: Of the folder of their VMs.
            work: The cells.
            progress: Told of the VMs.

        Raises:
            VmLostError: A VM did not come as far as a cell.
        """
        found: dict[AnyCell, CellResult] = {}
        pending: tuple[AnyCell, ...] = work.cells
        attempt = 0
        while pending:
            attempt += 1
            own_dir = self.out_dir / name / f"attempt-{attempt}"
            lanes = self._run_lanes(own_dir, work.keep(pending), progress)
            found.update({result.cell: result for ended in lanes for result in ended})
            pending = tuple(cell for ended in lanes for cell in find_doubtful(ended))
        return found

    def _run_lanes(
        self, out_dir: Path, work: MatrixWork, progress: Progress
    ) -> tuple[tuple[CellResult, ...], ...]:
        """Run cells in VMs; return how those of each lane ended."""
        setting, options = self.setting, RunOptions(lanes=1 if self.racing else 0)
        count = 1 if setting.snapshot else min(self.lanes, len(work.cells))

        def plan_lane(number: int) -> Callable[[Progress], tuple[CellResult, ...]]:
            own, own_dir = work.keep(work.cells[number::count]), out_dir / f"lane-{number + 1}"

            def run(progress: Progress) -> tuple[CellResult, ...]:
                ended, boots = running.run_cells(setting, own, own_dir, progress, options)
                self.boots.append(boots)
                return ended

            return run

        lanes = tuple(plan_lane(number) for number in range(count))
        if count == 1:
            return (lanes[0](progress),)
        return parallel.run_all(lanes, f"{count} VMs at a time", progress)


def find_doubtful(ended: tuple[CellResult, ...]) -> tuple[AnyCell, ...]:
    """Return the cells that ended a VM which others had used before.

    What a VM dies of may be the doing of an earlier cell: only the first one is sure to be at
    fault.

    Args:
        ended: Cells in the order in which they ran.
    """
    used: set[int] = set()
    doubtful = []
    for result in ended:
        if result.outcome in outcomes.BROKEN_OFF and result.vm in used:
            doubtful.append(result.cell)
        if result.vm:
            used.add(result.vm)
    return tuple(doubtful)


def run_steps(
    bench: Bench, builds: Builds[Variant], steps: tuple[Step[Variant], ...]
) -> dict[Variant, Ran]:
    """Run each variant that is built through steps; return what became of all.

    Raises:
        TwinmodError: A step that is no variant's doing failed.
    """
    results: Results[Variant] = {}
    if builds.wait_for_one(bench.progress):
        setting = bench.setting
        for step in steps:
            if next(_iterate_wanted(step, builds, builds.variants, results), None) is not None:
                with bench.progress.phase(f"{step.name} ({setting.accelerator.name})"):
                    _run_step(bench, builds, step, results)
        bench.keep_history(result for ended in results.values() for result in ended)
    return {v: Ran(built=builds.find(v), results=results.get(v, ())) for v in builds.variants}


def _iterate_wanted(
    step: Step[Variant],
    builds: Builds[Variant],
    variants: tuple[Variant, ...],
    results: Results[Variant],
) -> Iterator[tuple[Variant, Product]]:
    """Yield those of some variants that have a step, each with its module, when that is built."""
    for variant in variants:
        product = builds.find(variant).product
        if product and step.is_wanted(variant, results.get(variant, ())):
            yield variant, product


def _run_step(
    bench: Bench, builds: Builds[Variant], step: Step[Variant], results: Results[Variant]
) -> None:
    """Run the cells of a step as they are built; add how they ended to the results."""
    running = _Running(bench=bench, builds=builds, step=step, results=results)
    if bench.setting.snapshot is None:
        running.run_batches()
    else:
        running.run_clones()
    for variant, result in running.done.items():
        results[variant] = (*results.get(variant, ()), result)


@dataclass(kw_only=True)
class _Running(Generic[Variant]):
    """A step whose cells are being run."""

    bench: Bench
    builds: Builds[Variant]
    step: Step[Variant]
    # Of earlier steps.
    results: Results[Variant]
    done: dict[Variant, CellResult] = field(default_factory=dict)
    # How often cells were run together.
    count: int = 0
    lock: Lock = field(default_factory=Lock)

    def render_state(self) -> str:
        """Return how far it is."""
        total = len(self.builds.variants)
        return f"{self.builds.done} of {total} built, {len(self.done)} run"

    def run_batches(self) -> None:
        """Run the cells of many variants, which share VMs, after those of others."""
        bench, builds = self.bench, self.builds
        size = bench.batch or len(builds.variants)
        lane = parallel.Lane(parallel.Board(bench.progress, 1, self.render_state), 0)
        for ready in builds.iterate_batches(size, lane):
            self.run(dict(_iterate_wanted(self.step, builds, ready, self.results)), lane)

    def run_clones(self) -> None:
        """Run the cell of each variant, once it is built, in a clone; several at a time."""
        wanted = _iterate_wanted(self.step, self.builds, self.builds.variants, self.results)
        processors = len(os.sched_getaffinity(0)) + WAITING
        most = RunOptions(lanes=1 if self.bench.racing else 0, processors=processors)
        lanes = pool.find_lanes(self.bench.setting.vm, most)

        def work_off(lane: Progress) -> None:
            while (taken := self.take(wanted)) is not None:
                self.run(dict((taken,)), lane)

        title = f"{lanes} clones at a time"
        parallel.run_all((work_off,) * lanes, title, self.bench.progress, self.render_state)

    def take(self, wanted: Iterator[tuple[Variant, Product]]) -> tuple[Variant, Product] | None:
        """Return the next variant, as soon as it is built; None: there are no more."""
        with self.lock:
            return next(wanted, None)

    def run(self, products: Mapping[Variant, Product], progress: Progress) -> None:
        """Run the cells of some variants."""
        with self.lock:
            self.count += 1
            name = f"{self.step.name}-{self.count}"
        cells = {variant: self.step.plan_cell(variant, p) for variant, p in products.items()}
        work = MatrixWork(
            cells=tuple(cells.values()),
            products=tuple(dict.fromkeys(products.values())),
            limit_s=self.bench.limit_s,
            pytest_args=self.step.pytest_args,
            tests=self.bench.plan_tests(cells.values()),
        )
        found = self.bench.run(name, work, progress)
        self.done.update({variant: found[cell] for variant, cell in cells.items()})
        progress.detail("")
