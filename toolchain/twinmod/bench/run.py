# SPDX-License-Identifier: GPL-2.0-only
"""The acts of a benchmark: VMs that count, a VM with a clock, and builds."""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import documents, parallel, process, sandbox
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.bench import figures as bench_figures
from twinmod.bench import project as bench_project
from twinmod.bench import report
from twinmod.bench.document import BenchReport, BuildEntry, ExactRun, Mode, WallRun
from twinmod.bench.figures import Figure
from twinmod.builds import build as builds_build
from twinmod.builds.product import Product
from twinmod.cells import decode, selection
from twinmod.cells import model as cells_model
from twinmod.cells import report as cells_report
from twinmod.cells.model import Cell, CellResult, YardsticksCell
from twinmod.errors import VmLostError
from twinmod.guest.protocol import LoopShape
from twinmod.kernels import elf, model
from twinmod.vm import boot, machine, running, session, snapshot
from twinmod.vm import results as vm_results
from twinmod.vm.options import RunOptions
from twinmod.workspace import Prepared, Workspace

#: How many VMs boot, and are saved: every cell runs in a clone of each. The kernel and its memory
#: lie elsewhere in each of them, which is what a spread is of.
BOOTS = 2
QUICK_BOOTS = 1

#: Seconds of a guest's clock that a cell may go without a figure. It runs ahead of the host's when
#: the guest has nothing to do.
LIMIT_S = 600.0

TOOL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What VMs that counted came to."""

    # Of every cell, in each of them.
    results: tuple[CellResult, ...]
    figures: tuple[Figure, ...]
    boots: tuple[session.Boots, ...]


def name_functions(figures: Iterable[Figure], compilers: Chroot) -> tuple[Figure, ...]:
    """Return figures with their functions as a person knows them: Rust's are mangled."""
    kept = tuple(figures)
    mangled = {
        name.partition(" ")[0] for f in kept for name, _ in f.functions if name.startswith("_R")
    }
    known = decode.read_names(sorted(mangled), compilers)
    return tuple(
        replace(figure, functions=bench_figures.rename_functions(figure.functions, known))
        for figure in kept
    )


def read_figures(results: tuple[CellResult, ...], out_dir: Path) -> tuple[Figure, ...]:
    """Return what the calls of some cells cost, from what their VMs left in a folder.

    Raises:
        VmLostError: What a VM counted is not whole.
    """
    found: list[Figure] = []
    for number in dict.fromkeys(result.vm for result in results):
        counted = [c for result in results if result.vm == number for c in result.counted]
        wanted = {(c.section, end) for c in counted for end in bench_figures.find_ends(c)}
        path = out_dir / f"vm-{number}/results" / machine.COUNTS
        try:
            with path.open() as lines:
                segments = bench_figures.parse_counts(lines, wanted)
            found += (bench_figures.plan_figure(c, segments) for c in counted)
        except (OSError, ValueError, KeyError) as error:
            raise VmLostError(
                "what a VM counted is not whole", facts=(("file", str(path)), ("why", repr(error)))
            ) from error
    return tuple(found)


def prepare_clones(setting: boot.Setting, progress: Progress) -> boot.Setting:
    """Return the setting of VMs that count, as clones; where they cannot be, that is said."""
    try:
        base = snapshot.use(snapshot.prepare_base(setting), setting.tree.name, progress)
    except (VmLostError, OSError) as error:
        why = error.message if isinstance(error, VmLostError) else error.strerror or str(error)
        progress.note(f"no clones, so each VM boots: {why}")
        return setting
    return replace(setting, snapshot=base)


def measure(
    setting: boot.Setting, work: boot.MeasureWork, boots: int, out_dir: Path, progress: Progress
) -> Measured:
    """Count after several boots, in some VMs at a time: how busy the host is changes no count.

    Each cell runs in a clone of the VM that booted: C and Rust begin with the same memory. Where
    VMs cannot be cloned, one VM for each boot runs all cells, and that is said.

    Args:
        setting: Of VMs that count.
        work: What is counted.
        boots: How many VMs boot.
        out_dir: Gets a folder for each.
        progress: Told of them.
    """
    options = RunOptions(lanes=max(1, len(os.sched_getaffinity(0)) // boots))

    def plan_lane(
        number: int,
    ) -> Callable[[Progress], tuple[tuple[CellResult, ...], session.Boots]]:
        def run(progress: Progress) -> tuple[tuple[CellResult, ...], session.Boots]:
            own = prepare_clones(replace(setting, seed=number), progress)
            return running.run_cells(own, work, out_dir / f"exact-{number}", progress, options)

        return run

    title = f"VMs that count, {boots} booted: {vm_results.render_names(work.cells)}"
    runs = parallel.run_all(tuple(plan_lane(n) for n in range(1, boots + 1)), title, progress)
    figures = tuple(
        figure
        for number, (ended, _) in enumerate(runs, 1)
        for figure in read_figures(ended, out_dir / f"exact-{number}")
    )
    return Measured(
        results=tuple(result for ended, _ in runs for result in ended),
        figures=name_functions(figures, setting.tree.compilers),
        boots=tuple(taken for _, taken in runs),
    )


# -- builds -----------------------------------------------------------------------------------


def time_build(workspace: Workspace, prepared: Prepared, product: Product) -> BuildEntry:
    """Return what building one module takes, and what comes of it.

    Args:
        workspace: The project.
        prepared: Its kernel.
        product: The module as it was built for the run.
    """
    config = workspace.config
    (module,) = (m for m in config.modules if m.name == product.module)
    sources = builds_build.read_sources(module, config.root_dir)
    version = workspace.read_version()
    out_dir = workspace.out_dir / "bench/builds"

    def build(files: tuple[tuple[str, bytes], ...]) -> float:
        plan = builds_build.plan_build(module, prepared.tree, files, out_dir, version)
        began = time.monotonic()
        builds_build.build(plan, workspace.progress)
        return time.monotonic() - began

    changed = tuple(
        (name, text + b"/* one more line */\n" if Path(name).stem == module.name else text)
        for name, text in sources
    )
    shutil.rmtree(out_dir, ignore_errors=True)
    cold_s, unchanged_s, changed_s = build(sources), build(sources), build(changed)
    shutil.rmtree(out_dir)
    data = product.path.read_bytes()
    return BuildEntry(
        module=module.name,
        language=product.language,
        cold_s=round(cold_s, 3),
        changed_s=round(changed_s, 3),
        unchanged_s=round(unchanged_s, 3),
        size_bytes=len(data),
        text_bytes=elf.count_text(data),
        stripped_bytes=read_stripped_size(
            product, prepared.tree.compilers, workspace.out_dir / "bench/stripped"
        ),
        symbols=len(set(elf.parse_module(data).symbols)),
        lines=sum(bool(line.strip()) for _, text in sources for line in text.splitlines()),
    )


def read_stripped_size(product: Product, compilers: Chroot, out_dir: Path) -> int:
    """Return the bytes of a module's file without what only a debugger wants.

    Args:
        product: The module.
        compilers: Have the tool.
        out_dir: Gets the smaller file.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    inside = sandbox.INSIDE
    command = sandbox.plan_command(
        compilers,
        (
            "strip",
            "--strip-debug",
            "-o",
            str(inside / "out" / product.file_name),
            str(inside / product.file_name),
        ),
        Enter(
            binds=(
                Bind(source_path=product.path, target_path=inside / product.file_name),
                Bind(source_path=out_dir, target_path=inside / "out", writable=True),
            )
        ),
        purpose=f"{product.file_name} was not stripped",
        timeout_s=TOOL_TIMEOUT_S,
    )
    process.run(command)
    return (out_dir / product.file_name).stat().st_size


# -- the whole --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller wants of a benchmark."""

    mode: Mode = Mode.BOTH
    quick: bool = False
    # Added to the kernel's command line.
    parameters: str = ""


def run_bench(workspace: Workspace, wanted: Wanted) -> tuple[BenchReport, tuple[CellResult, ...]]:
    """Measure; write and return the report, and how every cell ended.

    Raises:
        TwinmodError: See the steps.
    """
    workspace.require_testers("bench")
    own = bench_project.read_bench(workspace.config)
    prepared = workspace.setup()
    labels, config = workspace.require_labels(prepared.tree), workspace.config
    cells, absent = selection.plan_presence(
        cells_model.plan_cells(config), workspace.find_absences(prepared.tree)
    )
    products = workspace.build(prepared, labels)
    cells = cells_model.name_cells(cells, products)
    setting = workspace.environment(prepared)
    parameters = (*setting.tree.parameters, *wanted.parameters.split())
    setting = replace(
        setting,
        measured=True,
        tree=replace(setting.tree, parameters=parameters),
    )
    bench = Bench(workspace=workspace, wanted=wanted, setting=setting, products=products)
    shutil.rmtree(bench.out_dir, ignore_errors=True)
    loop = own.demonstration.shape if own.demonstration else None
    measured, exact = bench.run_exact(cells, loop)
    timed, wall = bench.run_wall()
    document = report.plan_report(
        report.Subject(
            kernel=model.plan_kernel(prepared.tree),
            parameters=wanted.parameters,
            products=products,
            absent=cells_report.plan_absent(absent),
        ),
        report.Scope(mode=wanted.mode, quick=wanted.quick, goals=own.goals),
        report.Counts(
            run=exact,
            figures=measured.figures,
            loops=tuple(loop for result in measured.results for loop in result.loops),
        ),
        report.Times(run=wall, turns=tuple(t for result in timed for t in result.turns)),
        bench.run_builds(prepared),
    )
    documents.write(bench.out_dir / "report.json", document)
    return document, (*measured.results, *timed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A benchmark whose modules are built: its three parts, of which a mode leaves some out."""

    workspace: Workspace
    wanted: Wanted
    # Of its VMs.
    setting: boot.Setting
    products: tuple[Product, ...]

    @property
    def out_dir(self) -> Path:
        """Gets the report, and the folders of the VMs."""
        return self.workspace.out_dir / "bench"

    def run_exact(
        self, cells: tuple[Cell, ...], loop: LoopShape | None
    ) -> tuple[Measured, ExactRun]:
        """Count instructions in cells, and in the loop of a demonstration when there is one."""
        if self.wanted.mode == Mode.WALL:
            return Measured(results=(), figures=(), boots=()), ExactRun(spread=0.0)
        measurement = bench_figures.plan_exact(quick=self.wanted.quick, loop=loop)
        work = boot.MeasureWork(
            cells=(*cells, YardsticksCell()),
            products=self.products,
            limit_s=LIMIT_S,
            measurement=measurement,
        )
        exact = boot.plan_exact(self.setting)
        boots = QUICK_BOOTS if self.wanted.quick else BOOTS
        measured = measure(exact, work, boots, self.out_dir, self.workspace.progress)
        return measured, ExactRun(
            qemu=read_qemu_version(self.setting.chroot),
            machine=" ".join(machine.COUNTING_MACHINE),
            vms=boots,
            loads=measurement.loads,
            rounds=measurement.rounds,
            stalled_boots=sum(boots.stalled for boots in measured.boots),
            spread=0.0,
        )

    def run_wall(self) -> tuple[tuple[CellResult, ...], WallRun]:
        """Time calls by a clock, module by module in turns."""
        if self.wanted.mode == Mode.EXACT:
            return (), WallRun()
        setting = self.setting
        measurement = bench_figures.plan_turns(
            quick=self.wanted.quick, processors=setting.vm.processors
        )
        work = boot.TurnsWork(products=self.products, limit_s=LIMIT_S, measurement=measurement)
        ended, boots = running.run_cells(
            setting, work, self.out_dir / "wall", self.workspace.progress
        )
        return ended, WallRun(
            accelerator=setting.accelerator.name,
            reason=setting.accelerator.reason,
            processors=setting.vm.processors,
            turns=measurement.turns,
            stalled_boots=boots.stalled,
        )

    def run_builds(self, prepared: Prepared) -> tuple[BuildEntry, ...]:
        """Time the builds of all modules."""
        if self.wanted.quick or self.wanted.mode == Mode.EXACT:
            return ()
        return tuple(time_build(self.workspace, prepared, p) for p in self.products)


def read_qemu_version(chroot: Chroot) -> str:
    """Return what the chroot's QEMU says it is."""
    command = sandbox.plan_command(
        chroot,
        ("qemu-system-x86_64", "--version"),
        purpose="QEMU does not start",
        timeout_s=TOOL_TIMEOUT_S,
    )
    return process.run(command).splitlines()[0]
