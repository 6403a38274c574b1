# SPDX-License-Identifier: GPL-2.0-only
"""The mutants' acts: build each, hold it to the tests of its rules, say what caught it."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from twinmod.base import commands, documents
from twinmod.builds import build, sources
from twinmod.builds.build import BuildPlan
from twinmod.builds.needs import add_first
from twinmod.builds.product import Product
from twinmod.cells import model
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import BuildError, ConfigError, ExitCode
from twinmod.experiments import engine, mutants, variants
from twinmod.experiments.engine import Bench, Built, Ran, Step
from twinmod.experiments.mutants import Mutant, Page, Verdict
from twinmod.experiments.variants import Shown
from twinmod.guest.protocol import Outcome
from twinmod.project import rules as project_rules
from twinmod.project.config import Config
from twinmod.vm import boot
from twinmod.workspace import Prepared, Workspace

#: VMs that boot get so many at a time, and those of the next batch are built meanwhile.
BATCH = 24

#: What a test, a boot, and a silent VM may take at least. Longer than in a run of the matrix: the
#: next mutants are built meanwhile, and what a mutant is blamed for must not be this machine's
#: doing.
TEST_TIMEOUT_S = 20.0
BOOT_TIMEOUT_S = 120.0
SILENCE_TIMEOUT_S = 60.0

#: A mutant that fails one test is caught, and some failures wait for seconds.
FIRST_FAILURE = ("--maxfail=1",)


# -- what there is ----------------------------------------------------------------------------


def read_page(config: Config) -> Page:
    """Return the faults of a driver.

    Raises:
        ConfigError: It has none, or its file is not there or not valid.
    """
    path = config.mutants_path
    if path is None:
        raise ConfigError(
            f"the driver {config.driver.name} has no mutants",
            hint=f"name their file with the key `mutants` of drivers.{config.driver.name}",
        )
    file = (("file", str(path)),)
    labels = list_labels(config)
    if not labels:
        raise ConfigError("no module has sources that a fault can be put into", facts=file)
    rules = tuple(number for number, _ in project_rules.read_rules(config))
    try:
        return mutants.parse_page(path.read_text(), labels, rules)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", error)
        raise ConfigError(f"the mutants cannot be read: {why}", facts=file) from error
    except ConfigError as error:
        facts = (*file, *error.facts)
        raise ConfigError(error.message, facts=facts, hint=error.hint) from error


def list_labels(config: Config) -> tuple[str, ...]:
    """Return the labels of the modules that somebody here builds."""
    return tuple(module.label for module in config.modules if not module.stock)


# -- builds -----------------------------------------------------------------------------------


def prepare_build(workspace: Workspace, prepared: Prepared, mutant: Mutant) -> BuildPlan:
    """Plan the build of a mutant, in a stage of its own.

    Raises:
        ConfigError: The module has changed, and the mutant must be written anew.
    """
    config, tree = workspace.config, prepared.tree
    module = config.find_module(mutant.label)
    found = build.read_all_sources(module, tree, config.root_dir)
    sources.require_options(module, tree, found)
    mutated = mutants.plan_sources(mutant, found)
    stage_dir = config.out_dir / "mutation/mutants" / mutant.name
    return build.plan_build(module, tree, mutated, stage_dir, workspace.read_version())


def prepare_complete(workspace: Workspace, prepared: Prepared) -> engine.Complete:
    """Return what adds to a mutant what is loaded before it."""
    builder = workspace.prepare_builder(prepared)
    first = workspace.take_first(builder)

    def complete(product: Product, plan: BuildPlan) -> Product:
        return add_first(builder.complete(product, build.list_modules(plan.stage_dir)), first)

    return complete


def build_one(plan: BuildPlan, mutant: Mutant, complete: engine.Complete) -> Built:
    """Build a mutant; whatever it does not build for is a result."""
    try:
        built = engine.build_or_refuse(plan, complete)
    except BuildError as error:
        return Built(words=dict(error.facts).get("output", error.message))
    product = built.product and replace(built.product, variant=mutant.fault)
    return replace(built, product=product)


# -- cells ------------------------------------------------------------------------------------


def plan_originals(config: Config, labels: tuple[str, ...]) -> dict[str, Cell]:
    """Return, by label, the cell of each module with the first tester, if there is one."""
    cells: dict[str, Cell] = {}
    for cell in model.plan_cells(config):
        if cell.label in labels:
            cells.setdefault(cell.label, cell)
    return cells


def require_originals(bench: Bench, products: tuple[Product, ...], cells: tuple[Cell, ...]) -> None:
    """See that the modules as they are pass: else to fail would mean nothing.

    Raises:
        BuildError: One of them failed.
    """
    work = boot.MatrixWork(
        cells=cells, products=products, limit_s=bench.limit_s, pytest_args=FIRST_FAILURE
    )
    found = bench.run("originals", work, bench.progress)
    for cell in cells:
        result = found[cell]
        if result.outcome != Outcome.PASSED:
            bad = [test.id for test in result.tests if test.outcome in mutants.CAUGHT]
            raise BuildError(
                f"{cell.module} fails with no fault in it, so no mutant can be judged",
                facts=(("tests", " ".join(bad)), ("problems", "; ".join(result.problems))),
                hint=commands.render("test"),
            )


def prepare_steps(
    config: Config, rules: tuple[str, ...], originals: dict[str, Cell]
) -> tuple[Step[Mutant], ...]:
    """Return the steps of each mutant: the tests of its rules; then all, when it passes those."""
    paths = sorted(config.matrix_dir.rglob("*.py"))
    files = tuple((str(path.relative_to(config.matrix_dir)), path.read_text()) for path in paths)

    def plan_cell(wanted: Callable[[Mutant], tuple[str, ...]], mutant: Mutant) -> Cell:
        return mutants.plan_cell(mutant, originals[mutant.label], wanted(mutant), files)

    def is_let_pass(mutant: Mutant, results: tuple[CellResult, ...]) -> bool:
        return bool(mutant.rules) and not mutants.is_caught(mutant, results[0], rules)

    return (
        Step(
            name="own-rules",
            plan_cell=lambda mutant, _: plan_cell(lambda one: one.rules, mutant),
            pytest_args=FIRST_FAILURE,
        ),
        Step(
            name="all-tests",
            plan_cell=lambda mutant, _: plan_cell(lambda _: (), mutant),
            is_wanted=is_let_pass,
        ),
    )


def prepare_setting(workspace: Workspace, prepared: Prepared) -> boot.Setting:
    """Return what every VM is made of, with more patience."""
    setting = workspace.prepare_clones(prepared, workspace.environment(prepared))
    vm = replace(
        setting.vm,
        boot_timeout_s=max(BOOT_TIMEOUT_S, setting.vm.boot_timeout_s),
        silence_timeout_s=max(SILENCE_TIMEOUT_S, setting.vm.silence_timeout_s),
    )
    return replace(setting, vm=vm)


# -- a run ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantsRun:
    """A finished run."""

    verdicts: tuple[Verdict, ...]
    # Those that caught none, of a run of all mutants.
    idle_rules: tuple[str, ...]
    document: mutants.MutationReport
    seconds: float


def run_mutants(workspace: Workspace, page: Page, selected: tuple[Mutant, ...]) -> MutantsRun:
    """Build mutants, hold them to the tests, and write what became of them.

    Raises:
        ConfigError: The kernel can have no module of a label that the mutants are of.
        BuildError: A module fails as it is.
    """
    began = time.monotonic()
    config, prepared = workspace.config, workspace.setup()
    rules = tuple(number for number, _ in project_rules.read_rules(config))
    verdicts = judge_mutants(workspace, prepared, selected, rules)
    whole = len(verdicts) == len(mutants.plan_mutants(page, list_labels(config)))
    idle = mutants.find_idle_rules(verdicts, rules, page.unmutated) if whole else ()
    seconds = time.monotonic() - began
    document = mutants.plan_report(verdicts, prepared.tree.release, idle, seconds)
    documents.write(config.out_dir / "mutation/report.json", document)
    return MutantsRun(verdicts=verdicts, idle_rules=idle, document=document, seconds=seconds)


def judge_mutants(
    workspace: Workspace, prepared: Prepared, selected: tuple[Mutant, ...], rules: tuple[str, ...]
) -> tuple[Verdict, ...]:
    """Return what became of each mutant that the kernel can have; see run_mutants."""
    config = workspace.config
    out_dir = config.out_dir / "mutation"
    shutil.rmtree(out_dir / "runs", ignore_errors=True)
    wanted = tuple(dict.fromkeys(mutant.label for mutant in selected))
    labels = workspace.require_labels(prepared.tree, wanted)
    selected = tuple(mutant for mutant in selected if mutant.label in labels)
    plans = {m: prepare_build(workspace, prepared, m) for m in variants.plan_order(selected)}
    originals = workspace.build(prepared, labels)
    cells = {
        cell.label: cell
        for cell in model.name_cells(tuple(plan_originals(config, labels).values()), originals)
    }
    bench = Bench(
        prepare=partial(prepare_setting, workspace, prepared),
        limit_s=max(TEST_TIMEOUT_S, config.vm.test_timeout_s),
        out_dir=out_dir / "runs",
        progress=workspace.progress,
        batch=BATCH,
    )
    complete = prepare_complete(workspace, prepared)
    jobs = {mutant: partial(build_one, plan, mutant, complete) for mutant, plan in plans.items()}
    with engine.start_builds(jobs) as builds:
        require_originals(bench, originals, tuple(cells.values()))
        found = engine.run_steps(bench, builds, prepare_steps(config, rules, cells))
    return tuple(judge(mutant, found[mutant], rules) for mutant in selected)


def judge(mutant: Mutant, ran: Ran, rules: tuple[str, ...]) -> Verdict:
    """Return what became of a mutant."""
    if not ran.results:
        return mutants.judge_refusal(mutant, ran.built.words, ran.built.seconds)
    return mutants.judge(mutant, ran.results, rules, ran.built.seconds)


def plan_shown(run: MutantsRun) -> Shown:
    """Return what a person gets of a run."""
    idle = (ExitCode.TESTS_FAILED for _ in run.idle_rules)
    return Shown(
        document=run.document,
        table=mutants.render_table(run.verdicts),
        troubles=mutants.render_troubles(run.verdicts, run.idle_rules),
        totals=mutants.render_totals(run.verdicts, run.seconds),
        exit_code=variants.compare_exit_codes(run.verdicts, *idle),
    )
