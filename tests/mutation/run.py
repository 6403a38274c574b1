# SPDX-License-Identifier: GPL-2.0-only
"""Put each mutant into a VM, and see that a rule catches it: ``nox -s mutate``."""

import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

import mutants
from mutants import Mutant, Verdict
from twinmod.base import commands, documents
from twinmod.base.progress import TerminalProgress
from twinmod.builds import build
from twinmod.builds.build import BuildPlan
from twinmod.builds.product import Product
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import BuildError, ExitCode
from twinmod.experiments import engine, variants
from twinmod.experiments.engine import Bench, Built, Ran, Step
from twinmod.experiments.variants import Shown
from twinmod.guest.protocol import Outcome
from twinmod.project import config as project_config
from twinmod.project import rules as project_rules
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES, Language
from twinmod.ui import cli, command
from twinmod.vm import boot
from twinmod.workspace import Prepared, Workspace

MUTANTS_PATH = Path(__file__).with_name("mutants.toml")

#: VMs that boot get so many at a time, and those of the next batch are built meanwhile.
BATCH = 24

#: What a test, a boot, and a silent VM may take. Longer than in a run of the matrix: the next
#: mutants are built meanwhile, and what a mutant is blamed for must not be this machine's doing.
TEST_TIMEOUT_S = 20.0
BOOT_TIMEOUT_S = 120.0
SILENCE_TIMEOUT_S = 60.0

#: A mutant that fails one test is caught, and some failures wait for seconds.
FIRST_FAILURE = ("--maxfail=1",)


def prepare_build(workspace: Workspace, prepared: Prepared, mutant: Mutant) -> BuildPlan:
    """Plan the build of a mutant, in a stage of its own.

    Raises:
        ConfigError: The module has changed, and the mutant must be written anew.
    """
    config = workspace.config
    module = config.find_module(mutant.language)
    sources = mutants.plan_sources(mutant, build.read_sources(module, config.root_dir))
    stage_dir = config.out_dir / "mutation/mutants" / mutant.name
    return build.plan_build(module, prepared.tree, sources, stage_dir, workspace.read_version())


def build_one(plan: BuildPlan, mutant: Mutant) -> Built:
    """Build a mutant; whatever it does not build for is a result."""
    try:
        built = engine.build_or_refuse(plan)
    except BuildError as error:
        return Built(words=dict(error.facts).get("output", error.message))
    product = built.product and replace(built.product, variant=mutant.fault)
    return replace(built, product=product)


def require_originals(bench: Bench, products: tuple[Product, ...]) -> None:
    """See that the modules as they are pass: else to fail would mean nothing.

    Raises:
        BuildError: One of them failed.
    """
    cells = tuple(Cell(module=p.module, label=p.label, tester="c") for p in products)
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


def prepare_steps(config: Config, rules: tuple[str, ...]) -> tuple[Step[Mutant], ...]:
    """Return the steps of each mutant: the tests of its rules; then all, when it passes those."""
    files = tuple((path.name, path.read_text()) for path in sorted(config.matrix_dir.glob("*.py")))

    def is_let_pass(mutant: Mutant, results: tuple[CellResult, ...]) -> bool:
        return not set(mutants.find_caught(results[0], rules)) & set(mutant.rules)

    return (
        Step(
            name="own-rules",
            plan_cell=lambda m, product: mutants.plan_cell(m, product.module, m.rules, files),
            pytest_args=FIRST_FAILURE,
        ),
        Step(
            name="all-tests",
            plan_cell=lambda m, product: mutants.plan_cell(m, product.module, (), files),
            is_wanted=is_let_pass,
        ),
    )


def prepare_setting(workspace: Workspace, prepared: Prepared) -> boot.Setting:
    """Return what every VM is made of, with more patience."""
    setting = workspace.prepare_clones(prepared, workspace.environment(prepared))
    vm = replace(setting.vm, boot_timeout_s=BOOT_TIMEOUT_S, silence_timeout_s=SILENCE_TIMEOUT_S)
    return replace(setting, vm=vm)


def judge(mutant: Mutant, ran: Ran, rules: tuple[str, ...]) -> Verdict:
    """Return what became of a mutant."""
    if not ran.results:
        return mutants.judge_refusal(mutant, ran.built.words, ran.built.seconds)
    return mutants.judge(mutant, ran.results, rules, ran.built.seconds)


def run_mutants(
    workspace: Workspace, selected: tuple[Mutant, ...]
) -> tuple[tuple[Verdict, ...], tuple[str, ...], str]:
    """Build mutants, hold them to the matrix; return the verdicts, all rules, and the kernel.

    Raises:
        ConfigError: The kernel can have no module of a label that the mutants are of.
    """
    config, prepared = workspace.config, workspace.setup()
    out_dir = config.out_dir / "mutation"
    shutil.rmtree(out_dir / "runs", ignore_errors=True)
    wanted = tuple(sorted({mutant.language for mutant in selected}))
    labels = workspace.require_labels(prepared.tree, wanted)
    selected = tuple(mutant for mutant in selected if mutant.language in labels)
    plans = {m: prepare_build(workspace, prepared, m) for m in variants.plan_order(selected)}
    originals = workspace.build(prepared, labels)
    rules = tuple(number for number, _ in project_rules.read_rules(config))
    bench = Bench(
        prepare=partial(prepare_setting, workspace, prepared),
        limit_s=TEST_TIMEOUT_S,
        out_dir=out_dir / "runs",
        progress=workspace.progress,
        batch=BATCH,
    )
    jobs = {mutant: partial(build_one, plan, mutant) for mutant, plan in plans.items()}
    with engine.start_builds(jobs) as builds:
        require_originals(bench, originals)
        found = engine.run_steps(bench, builds, prepare_steps(config, rules))
    verdicts = tuple(judge(mutant, found[mutant], rules) for mutant in selected)
    return verdicts, rules, prepared.tree.release


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@command.experiment_options(
    keyword="Only mutants whose name, such as c/end-short, has this part.",
    module="Only the module in this language.",
    listing="Print the mutants and run none.",
)
def mutate(
    keyword: str, modules: tuple[str, ...], listing: bool, as_json: bool, cold: bool
) -> ExitCode:
    """Put small faults into the modules, one at a time, and see that a rule catches each."""
    began = time.monotonic()
    page = mutants.parse_page(MUTANTS_PATH.read_text())
    every = mutants.plan_mutants(page)
    selected = mutants.select_mutants(every, keyword, tuple(map(Language, modules)) or LANGUAGES)
    if listing:
        click.echo(mutants.render_list(selected))
        return ExitCode.PASSED
    config = project_config.read_config(project_config.find_project_dir(MUTANTS_PATH.parent))
    workspace = Workspace(config=config, progress=TerminalProgress(), cold=cold)
    with workspace.hold():
        verdicts, rules, release = run_mutants(workspace, selected)
    whole = len(verdicts) == len(every)
    idle = mutants.find_idle_rules(verdicts, rules, page.unmutated) if whole else ()
    seconds = time.monotonic() - began
    document = mutants.plan_report(verdicts, release, idle, seconds)
    documents.write(config.out_dir / "mutation/report.json", document)
    shown = Shown(
        document=document,
        table=mutants.render_table(verdicts),
        troubles=mutants.render_troubles(verdicts, idle),
        totals=mutants.render_totals(verdicts, seconds),
        exit_code=variants.compare_exit_codes(verdicts, *(ExitCode.TESTS_FAILED for _ in idle)),
    )
    return command.show_experiment(shown, as_json=as_json)


if __name__ == "__main__":
    sys.exit(cli.run_guarded(lambda: mutate(prog_name="nox -s mutate --", standalone_mode=False)))
