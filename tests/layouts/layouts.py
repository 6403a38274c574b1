# SPDX-License-Identifier: GPL-2.0-only
"""Other ways to lay out the device's memory: what each costs, and which rules it breaks.

Each is a module of this folder. It is measured beside the twins in exact instructions, and held
to the rules that a layout decides. docs/layout.md tells what came of it.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from twinmod import errors
from twinmod.base import documents
from twinmod.base import text as base_text
from twinmod.base.documents import Document, Part
from twinmod.bench import figures as bench_figures
from twinmod.bench import labels
from twinmod.bench import run as bench_run
from twinmod.bench.document import MeasuredModule
from twinmod.bench.figures import Figure
from twinmod.builds import build as builds_build
from twinmod.builds import lint as builds_lint
from twinmod.builds.product import Product
from twinmod.cells import outcomes, report
from twinmod.cells.model import AnyCell, Cell, CellResult, YardsticksCell
from twinmod.errors import ExitCode
from twinmod.experiments import engine
from twinmod.experiments.engine import Bench, Built, Step
from twinmod.guest.protocol import (
    BufferKind,
    Caller,
    Measurement,
    Operation,
    Outcome,
    Regions,
    Timing,
)
from twinmod.kernels import model
from twinmod.kernels.model import KernelEntry, KernelTree
from twinmod.project.config import Config
from twinmod.project.model import ModuleSpec
from twinmod.ui import cli, command
from twinmod.ui.command import State
from twinmod.userland import entries
from twinmod.vm import boot, machine, session
from twinmod.workspace import Prepared, Workspace

#: In the order in which they are shown.
LAYOUTS = ("mutex", "prefault", "stripe", "coarse", "twice", "direct", "seqlock")

#: What a layout decides. Each rule gets VMs of its own: a layout that hangs in one still answers
#: for the next.
RULES = ("R10", "R11", "R12", "R17", "R20")

#: What takes a larger device than a layout is, of which a call is over before a kill comes.
TOO_SHORT = "between_two_pages"

SIZES = (1, 4096, 65536, 524288)
YARDSTICK = "/dev/zero"

BOOTS = 2

MEASUREMENT = Measurement(
    timings=(
        *(
            Timing(operation=operation, size_bytes=size)
            for size in SIZES
            for operation in (Operation.PREAD, Operation.PWRITE)
        ),
        *(Timing(operation=Operation.PREAD, size_bytes=size, path=YARDSTICK) for size in SIZES),
    ),
    loads=2,
    rounds=bench_figures.ROUNDS,
)

#: How many times as long as elsewhere a test may take: a call that hangs does so for good, and a
#: busy host is not taken for one.
PATIENCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that is known of one layout, a twin's too."""

    cell: Cell
    # (timing, what it came to), as far as it was measured.
    costs: tuple[tuple[Timing, bench_figures.Cost], ...]
    # (rule, how its cell ended).
    rules: tuple[tuple[str, CellResult], ...]


class CostEntry(Part, frozen=True, kw_only=True):
    """What calls of one kind cost; Timing and Cost say what the keys mean."""

    operation: Operation
    size_bytes: int
    path: str
    buffers: BufferKind
    loop: Caller
    threads: int
    regions: Regions
    instructions: float
    user: float
    spread: float
    samples: tuple[float, ...]
    settled: bool


class FailureEntry(Part, frozen=True, kw_only=True):
    """A test that did not pass."""

    id: str
    outcome: str
    message: str


class RuleEntry(Part, frozen=True, kw_only=True):
    """How a layout did with a rule."""

    rule: str
    outcome: str
    failures: tuple[FailureEntry, ...]
    problems: tuple[str, ...]


class LayoutEntry(Part, frozen=True, kw_only=True):
    """A layout: what its calls cost, and which rules it keeps."""

    layout: str
    module: str
    costs: tuple[CostEntry, ...]
    rules: tuple[RuleEntry, ...]


class ExactRun(Part, frozen=True, kw_only=True):
    """How it was counted; Measurement says what the last keys mean."""

    qemu: str
    # What QEMU and the kernel were told.
    machine: str
    parameters: str
    vms: int
    loads: int
    rounds: int
    turns: int
    loop: bool
    device_bytes: int


class LayoutsReport(Document, frozen=True, kw_only=True, tag="twinmod.layouts/1"):
    """What the layouts cost, and which rules they break."""

    kernel: KernelEntry
    # What the rules were held on.
    accelerator: str
    boots: int
    stalled_boots: int
    exact: ExactRun
    modules: tuple[MeasuredModule, ...]
    yardsticks: tuple[CostEntry, ...]
    layouts: tuple[LayoutEntry, ...]


# -- plan -------------------------------------------------------------------------------------


def plan_modules() -> tuple[ModuleSpec, ...]:
    """Return the layouts as modules, each of which is built of this whole folder."""
    return tuple(
        ModuleSpec(label=name, name=f"layout_{name}", sources="tests/layouts") for name in LAYOUTS
    )


def plan_builds(config: Config, prepared: Prepared) -> tuple[builds_build.BuildPlan, ...]:
    """Plan the build of every layout."""
    uapi = tuple((Path(path).name, content) for path, content in entries.read_uapi(config))
    return tuple(
        builds_build.plan_build(
            module,
            prepared.tree,
            (*builds_build.read_sources(module, config.root_dir), *uapi),
            config.out_dir,
        )
        for module in plan_modules()
    )


def plan_cells(modules: tuple[ModuleSpec, ...]) -> tuple[Cell, ...]:
    """Return a cell with the C tester for each module, the twins' and the layouts'."""
    return tuple(
        Cell(
            module=module.name,
            # The twins have their names here: their labels are those of other reports.
            label=module.name.removeprefix("layout_"),
            tester="c",
        )
        for module in modules
    )


def plan_result(
    cell: Cell, figures: tuple[Figure, ...], held: tuple[tuple[str, CellResult], ...]
) -> Result:
    """Return what is known of one cell.

    Args:
        cell: The layout.
        figures: What was counted of every cell.
        held: (rule, how a cell ended), for every rule and cell.
    """
    costs = summarize(figures, cell)
    rules = tuple((rule, result) for rule, result in held if result.cell == cell)
    return Result(cell=cell, costs=costs, rules=rules)


def summarize(
    figures: tuple[Figure, ...], cell: AnyCell
) -> tuple[tuple[Timing, bench_figures.Cost], ...]:
    """Return (timing, what its figures amount to), for every timing that a cell made."""
    own = tuple(figure for figure in figures if figure.cell == cell.name)
    return tuple(
        (timing, bench_figures.summarize(tuple(f for f in own if f.timing == timing)))
        for timing in dict.fromkeys(figure.timing for figure in own)
    )


def plan_costs(costs: tuple[tuple[Timing, bench_figures.Cost], ...]) -> tuple[CostEntry, ...]:
    """Return costs as the report has them."""
    return tuple(
        CostEntry(
            operation=timing.operation,
            size_bytes=timing.size_bytes,
            path=timing.path,
            buffers=timing.buffers,
            loop=timing.loop,
            threads=timing.threads,
            regions=timing.regions,
            instructions=cost.instructions,
            user=cost.user,
            spread=cost.spread,
            samples=cost.samples,
            settled=cost.settled,
        )
        for timing, cost in costs
    )


def compare_rule(ended: CellResult, rule: str) -> str:
    """Return the outcome of a rule; that of its cell where no test came so far."""
    outcome = outcomes.compare_rule(ended, rule)
    unanswered = outcome == Outcome.MISSING and ended.outcome != Outcome.PASSED
    return ended.outcome if unanswered else outcome


def plan_rules(result: Result) -> tuple[RuleEntry, ...]:
    """Return how a layout did with each rule, as the report has it."""
    return tuple(
        RuleEntry(
            rule=rule,
            outcome=compare_rule(ended, rule),
            failures=tuple(
                FailureEntry(id=test.id, outcome=test.outcome, message=test.message)
                for test in ended.tests
                if test.outcome not in outcomes.GOOD
            ),
            problems=ended.problems,
        )
        for rule, ended in result.rules
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the modules ran on."""

    tree: KernelTree
    # Of the VMs in which the rules were checked; those that count have one of their own.
    accelerator: str
    # QEMU's version.
    qemu: str


def plan_report(
    host: Host,
    found: tuple[Result, ...],
    figures: tuple[Figure, ...],
    products: tuple[Product, ...],
    boots: tuple[session.Boots, ...],
) -> LayoutsReport:
    """Return the report.

    Args:
        host: What the modules ran on.
        found: Every layout.
        figures: What was counted, of the yardstick too.
        products: The modules that ran.
        boots: How many VMs it took.
    """
    return LayoutsReport(
        kernel=model.plan_kernel(host.tree),
        accelerator=host.accelerator,
        boots=sum(taken.total for taken in boots),
        stalled_boots=sum(taken.stalled for taken in boots),
        exact=ExactRun(
            qemu=host.qemu,
            machine=" ".join(machine.COUNTING_MACHINE),
            parameters=" ".join(machine.ACCELERATOR_PARAMETERS[machine.AcceleratorName.ICOUNT]),
            vms=BOOTS,
            loads=MEASUREMENT.loads,
            rounds=MEASUREMENT.rounds,
            turns=MEASUREMENT.turns,
            loop=MEASUREMENT.loop is not None,
            device_bytes=MEASUREMENT.device_bytes,
        ),
        modules=tuple(
            MeasuredModule(module=p.module, language=p.language, sha256=p.sha256) for p in products
        ),
        yardsticks=plan_costs(summarize(figures, YardsticksCell())),
        layouts=tuple(
            LayoutEntry(
                layout=result.cell.label,
                module=result.cell.module,
                costs=plan_costs(result.costs),
                rules=plan_rules(result),
            )
            for result in found
        ),
    )


def compare_outcomes(
    measured: bench_run.Measured, held: tuple[tuple[str, CellResult], ...]
) -> ExitCode:
    """Return the exit code: all counts must settle, and the twins keep the rules.

    A layout may break a rule; that is what it is here to show.
    """
    twins = tuple(
        ended
        for _, ended in held
        if isinstance(ended.cell, Cell) and not ended.cell.module.startswith("layout_")
    )
    settled = all(figure.settled for figure in measured.figures)
    return errors.compare_exit_codes(
        (
            report.compare_outcomes(measured.results),
            report.compare_outcomes(twins),
            ExitCode.PASSED if settled else ExitCode.TESTS_FAILED,
        )
    )


# -- text -------------------------------------------------------------------------------------


def render_costs(costs: tuple[CostEntry, ...], size_bytes: int) -> str:
    """Return the counts of one size, the read's before the write's; "?" marks one unsettled."""
    shown = (
        f"{labels.render_count(c.instructions)}{'' if c.settled else '?'}"
        for c in costs
        if c.size_bytes == size_bytes
    )
    return " / ".join(shown) or "-"


def render_broken(rules: tuple[RuleEntry, ...]) -> str:
    """Return the rules that were not kept, each with its outcome where that is not "failed"."""
    shown = (
        rule.rule if rule.outcome == Outcome.FAILED else f"{rule.rule} ({rule.outcome})"
        for rule in rules
        if rule.outcome != Outcome.PASSED
    )
    return " ".join(shown) or "none"


def render_report(document: LayoutsReport) -> str:
    """Return the table: instructions of a call, read / write, and the rules that broke."""
    rows = [("instructions, read / write", *map(base_text.render_size, SIZES), "breaks")]
    rows += [
        (
            layout.layout,
            *(render_costs(layout.costs, size) for size in SIZES),
            render_broken(layout.rules),
        )
        for layout in document.layouts
    ]
    rows.append((YARDSTICK, *(render_costs(document.yardsticks, size) for size in SIZES), ""))
    lines = base_text.render_columns(rows, others="left")
    exact = document.exact
    spread = max((c.spread for c in plan_all_costs(document)), default=0.0)
    lines += [
        "",
        f"kernel {document.kernel.release}; {exact.qemu}, {exact.machine}",
        f"boots: {exact.vms}, loads after each: {exact.loads}; largest spread {spread:.2%}",
        f"the rules: {document.accelerator}",
    ]
    if document.stalled_boots:
        lines.append(f"{document.stalled_boots} VM stalled at boot and was booted again")
    return "\n".join(lines)


def plan_all_costs(document: LayoutsReport) -> tuple[CostEntry, ...]:
    """Return every cost of a report."""
    return (*document.yardsticks, *(c for one in document.layouts for c in one.costs))


# -- act --------------------------------------------------------------------------------------


def prepare_jobs(workspace: Workspace, prepared: Prepared) -> dict[Cell, Callable[[], Built]]:
    """Return what builds each cell's module; the twins, which come first, are built.

    The kernel may not have both of them.
    """
    config, labels = workspace.config, workspace.find_labels(prepared.tree)
    twins = tuple(config.find_module(label) for label in labels)
    jobs: tuple[Callable[[], Built], ...] = (
        *(engine.plan_built(Built(product=p)) for p in workspace.build(prepared, labels)),
        *(partial(engine.build_module, plan) for plan in plan_builds(config, prepared)),
    )
    return dict(zip(plan_cells((*twins, *plan_modules())), jobs, strict=True))


def plan_steps() -> tuple[Step[Cell], ...]:
    """Return the steps of every cell: a rule each."""
    return tuple(
        Step(
            name=rule,
            plan_cell=lambda cell, _: cell,
            pytest_args=("--rule", rule, "-k", f"not {TOO_SHORT}"),
        )
        for rule in RULES
    )


def run(workspace: Workspace) -> tuple[LayoutsReport, ExitCode]:
    """Build, measure and hold all layouts to the rules; write and return the report."""
    config, progress = workspace.config, workspace.progress
    prepared = workspace.setup()
    out_dir = config.out_dir / "layouts"
    shutil.rmtree(out_dir, ignore_errors=True)
    with engine.start_builds(prepare_jobs(workspace, prepared)) as builds:
        setting = workspace.environment(prepared)
        bench = Bench(
            prepare=partial(workspace.prepare_clones, prepared, setting),
            limit_s=PATIENCE * config.vm.test_timeout_s,
            out_dir=out_dir,
            progress=progress,
        )
        products = tuple(one.product for one in builds.wait_for_all(progress) if one.product)
        counting = boot.MeasureWork(
            cells=(*builds.variants, YardsticksCell()),
            products=products,
            measurement=MEASUREMENT,
            limit_s=bench_run.LIMIT_S,
        )
        measured = bench_run.measure(boot.plan_exact(setting), counting, BOOTS, out_dir, progress)
        found = engine.run_steps(bench, builds, plan_steps())
    held = tuple(
        (rule, ran.results[number]) for number, rule in enumerate(RULES) for ran in found.values()
    )
    host = Host(
        tree=prepared.tree,
        accelerator=setting.accelerator.name,
        qemu=bench_run.read_qemu_version(prepared.chroot),
    )
    document = plan_report(
        host,
        tuple(plan_result(cell, measured.figures, held) for cell in found),
        measured.figures,
        products,
        (*measured.boots, *bench.boots),
    )
    documents.write(out_dir / "report.json", document)
    return document, compare_outcomes(measured, held)


def lint(workspace: Workspace) -> None:
    """Hold the layouts' sources to the kernel's own checks."""
    for plan in plan_builds(workspace.config, workspace.setup()):
        builds_lint.lint(plan, workspace.progress)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--lint",
    "only_lint",
    is_flag=True,
    help="Hold the sources to the kernel's own checks, and measure nothing.",
)
@command.cold_option
@command.kernel_option("Measure on this kernel of [tool.twinmod].")
def layouts(as_json: bool, only_lint: bool, cold: bool, kernel: str) -> ExitCode:
    """Say what other layouts of the device's memory cost, and which rules they break."""
    workspace = replace(State().select(kernel), cold=cold)
    with workspace.hold():
        if only_lint:
            lint(workspace)
            return ExitCode.PASSED
        document, code = run(workspace)
    click.echo(documents.render(document) if as_json else render_report(document))
    return code


if __name__ == "__main__":
    sys.exit(cli.run_guarded(lambda: layouts(prog_name="nox -s layouts --", standalone_mode=False)))
