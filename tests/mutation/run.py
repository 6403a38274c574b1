# SPDX-License-Identifier: GPL-2.0-only
"""Put each mutant into a VM, and see that a rule catches it: ``nox -s mutate``."""

import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

import mutants
from mutants import Mutant, Verdict
from twinmod.base import commands, documents
from twinmod.base import text as base_text
from twinmod.base.progress import Console, Progress, TerminalProgress
from twinmod.builds import build, signing
from twinmod.builds.product import Product
from twinmod.cells.model import AnyCell, Cell, CellResult
from twinmod.errors import BuildError, ExitCode
from twinmod.guest.protocol import Outcome
from twinmod.project import config as project_config
from twinmod.project import rules as project_rules
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES, Language
from twinmod.ui import cli
from twinmod.vm import boot, running
from twinmod.workspace import Prepared, Workspace

MUTANTS_PATH = Path(__file__).with_name("mutants.toml")

#: A VM is in need of a processor beside them.
BUILDERS = 1

#: A VM for so many, and those of the next batch are built meanwhile.
BATCH = 24

#: What a test, a boot, and a silent VM may take. Longer than in a run of the matrix: the next
#: mutants are built meanwhile, and what a mutant is blamed for must not be this machine's doing.
TEST_TIMEOUT_S = 40.0
BOOT_TIMEOUT_S = 120.0
SILENCE_TIMEOUT_S = 60.0

#: A mutant that fails one test is caught, and some failures wait for seconds.
MAX_FAILURES = 1


class Quiet:
    """Progress of builds that run beside each other: their caller says how far they are."""

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Say nothing."""
        del title
        yield

    def note(self, text: str) -> None:
        """Say nothing."""

    def detail(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A mutant that the compiler has seen."""

    mutant: Mutant
    # None: it did not build.
    product: Product | None
    # The compiler's words then.
    words: str
    seconds: float


def build_one(workspace: Workspace, prepared: Prepared, mutant: Mutant, out_dir: Path) -> Built:
    """Build a mutant in a stage of its own; one that did not change is there already."""
    config = workspace.config
    module = config.find_module(mutant.language)
    sources = mutants.plan_sources(mutant, build.read_sources(module, config.root_dir))
    plan = build.plan_build(
        module,
        prepared.tree,
        sources,
        out_dir / "mutants" / mutant.full_name,
        workspace.read_version(),
    )
    began = time.monotonic()
    try:
        product = signing.sign_product(prepared.tree, build.build(plan, Quiet()))
    except BuildError as error:
        words = dict(error.facts).get("output", error.message)
        return Built(mutant=mutant, product=None, words=words, seconds=time.monotonic() - began)
    return Built(
        mutant=mutant,
        product=replace(product, variant=mutant.name),
        words="",
        seconds=time.monotonic() - began,
    )


def run_sure(
    setting: boot.Setting, work: boot.MatrixWork, out_dir: Path, progress: Progress
) -> dict[AnyCell, CellResult]:
    """Run cells; those that ended a VM which was not theirs from its start run once more."""
    found: dict[AnyCell, CellResult] = {}
    pending: tuple[AnyCell, ...] = work.cells
    attempt = 0
    while pending:
        attempt += 1
        folder = out_dir / f"attempt-{attempt}"
        ended, _ = running.run_cells(setting, work.keep(pending), folder, progress)
        found.update({result.cell: result for result in ended})
        pending = mutants.find_doubtful(ended)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What mutants are held to the matrix with."""

    config: Config
    setting: boot.Setting
    rules: tuple[str, ...]
    # (name, text) of the matrix.
    files: tuple[tuple[str, str], ...]
    out_dir: Path
    progress: Progress

    def run(
        self, name: str, cells: tuple[Cell, ...], products: tuple[Product, ...], failures: int
    ) -> dict[AnyCell, CellResult]:
        """Run cells, each until so many tests of it failed; 0: to its end."""
        work = boot.MatrixWork(
            cells=cells,
            products=products,
            limit_s=TEST_TIMEOUT_S,
            pytest_args=(f"--maxfail={failures}",) if failures else (),
        )
        return run_sure(self.setting, work, self.out_dir / name, self.progress)

    def run_built(
        self, name: str, built: tuple[Built, ...], failures: int, *, everything: bool = False
    ) -> dict[Mutant, CellResult]:
        """Hold those that did build to the tests of their own rules, or to all."""
        cells = {
            b.mutant: mutants.plan_cell(
                b.mutant,
                self.config.find_module(b.mutant.language).name,
                () if everything else b.mutant.rules,
                self.files,
            )
            for b in built
            if b.product
        }
        products = tuple(b.product for b in built if b.product)
        found = self.run(name, tuple(cells.values()), products, failures)
        return {mutant: found[cell] for mutant, cell in cells.items()}


def require_originals(bench: Bench, products: tuple[Product, ...]) -> None:
    """See that the modules as they are pass: else to fail would mean nothing.

    Raises:
        BuildError: One of them failed.
    """
    cells = tuple(Cell(module=p.module, language=p.language, tester="c") for p in products)
    found = bench.run("originals", cells, products, MAX_FAILURES)
    for cell in cells:
        result = found[cell]
        if result.outcome != Outcome.PASSED:
            bad = [test.id for test in result.tests if test.outcome in mutants.CAUGHT]
            raise BuildError(
                f"{cell.module} fails with no fault in it, so no mutant can be judged",
                facts=(("tests", " ".join(bad)), ("problems", "; ".join(result.problems))),
                hint=commands.render("test"),
            )


def wait_for_builds(
    tasks: dict[Mutant, Future[Built]], batch: tuple[Mutant, ...], progress: Progress
) -> tuple[Built, ...]:
    """Return the mutants of a batch when all of them have been built."""
    built = []
    with progress.phase(f"{len(batch)} mutants are built"):
        for mutant in batch:
            built.append(tasks[mutant].result())
            progress.detail(f"{len(built)} built")
    return tuple(built)


def run_batches(
    bench: Bench, tasks: dict[Mutant, Future[Built]], selected: tuple[Mutant, ...]
) -> tuple[Verdict, ...]:
    """Hold mutants to the tests of their rules, then those that pass them to all tests.

    A batch is in its VM while the next one is built.
    """
    built: dict[Mutant, Built] = {}
    named: dict[Mutant, CellResult] = {}
    for number, batch in enumerate(mutants.plan_batches(selected, BATCH), 1):
        ready = wait_for_builds(tasks, batch, bench.progress)
        built.update({b.mutant: b for b in ready})
        named.update(bench.run_built(f"batch-{number}", ready, MAX_FAILURES))
    passed = tuple(
        built[mutant]
        for mutant, result in named.items()
        if not set(mutants.find_caught(result, bench.rules)) & set(mutant.rules)
    )
    every = bench.run_built("all-tests", passed, 0, everything=True)
    return tuple(
        mutants.judge(m, named[m], every.get(m), bench.rules, built[m].seconds)
        if m in named
        else mutants.judge_refusal(m, built[m].words, built[m].seconds)
        for m in selected
    )


def prepare_setting(workspace: Workspace, prepared: Prepared) -> boot.Setting:
    """Return what every VM is made of, with more patience."""
    setting = workspace.environment(prepared)
    vm = replace(setting.vm, boot_timeout_s=BOOT_TIMEOUT_S, silence_timeout_s=SILENCE_TIMEOUT_S)
    return replace(setting, vm=vm)


def run_mutants(
    workspace: Workspace, selected: tuple[Mutant, ...]
) -> tuple[tuple[Verdict, ...], tuple[str, ...], str]:
    """Build mutants, hold them to the matrix; return the verdicts, all rules, and the kernel.

    Raises:
        ConfigError: The kernel can have no module in a language of the mutants.
    """
    config, prepared = workspace.config, workspace.setup()
    out_dir = config.out_dir / "mutation"
    shutil.rmtree(out_dir / "runs", ignore_errors=True)
    wanted = tuple(sorted({mutant.language for mutant in selected}))
    languages = workspace.require_languages(prepared.tree, wanted)
    selected = tuple(mutant for mutant in selected if mutant.language in languages)
    originals = workspace.build(prepared, languages)
    bench = Bench(
        config=config,
        setting=prepare_setting(workspace, prepared),
        rules=tuple(number for number, _ in project_rules.read_rules(config)),
        files=tuple(
            (path.name, path.read_text()) for path in sorted(config.matrix_dir.glob("*.py"))
        ),
        out_dir=out_dir / "runs",
        progress=workspace.progress,
    )
    order = [mutant for batch in mutants.plan_batches(selected, BATCH) for mutant in batch]
    with ThreadPoolExecutor(BUILDERS) as pool:
        tasks = {m: pool.submit(build_one, workspace, prepared, m, out_dir) for m in order}
        try:
            require_originals(bench, originals)
            verdicts = run_batches(bench, tasks, selected)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return verdicts, bench.rules, prepared.tree.release


def render_list(selected: tuple[Mutant, ...]) -> str:
    """Return a line for each mutant."""
    rows = [(m.full_name, f"{m.refused or ' '.join(m.rules)}: {m.why}") for m in selected]
    return "\n".join(base_text.render_columns(rows, others="left"))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-k",
    "keyword",
    default="",
    metavar="NAME",
    help="Only mutants whose name, such as c/end-short, has this part.",
)
@click.option(
    "--module",
    "modules",
    multiple=True,
    type=click.Choice([language.value for language in LANGUAGES]),
    help="Only the module in this language.",
)
@click.option("--list", "listing", is_flag=True, help="Print the mutants and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def mutate(keyword: str, modules: tuple[str, ...], listing: bool, as_json: bool) -> ExitCode:
    """Put small faults into the modules, one at a time, and see that a rule catches each."""
    began = time.monotonic()
    page = mutants.parse_page(MUTANTS_PATH.read_text())
    every = mutants.plan_mutants(page)
    selected = mutants.select_mutants(every, keyword, tuple(map(Language, modules)) or LANGUAGES)
    if listing:
        click.echo(render_list(selected))
        return ExitCode.PASSED
    progress = TerminalProgress()
    config = project_config.read_config(project_config.find_project_dir(MUTANTS_PATH.parent))
    workspace = Workspace(config=config, progress=progress)
    with workspace.hold():
        verdicts, rules, release = run_mutants(workspace, selected)
    whole = len(verdicts) == len(every)
    idle = mutants.find_idle_rules(verdicts, rules, page.unmutated) if whole else ()
    seconds = time.monotonic() - began
    document = mutants.plan_report(verdicts, release, idle, seconds)
    documents.write(config.out_dir / "mutation/report.json", document)
    if as_json:
        click.echo(documents.render(document))
    else:
        Console(highlight=False, soft_wrap=True).print(mutants.render_table(verdicts))
        troubles = mutants.render_troubles(verdicts, idle)
        click.echo(f"\n{troubles}\n" if troubles else "")
        click.echo(mutants.render_totals(verdicts, seconds))
    good = all(verdict.passed for verdict in verdicts) and not idle
    return ExitCode.PASSED if good else ExitCode.TESTS_FAILED


if __name__ == "__main__":
    sys.exit(cli.run_guarded(lambda: mutate(prog_name="nox -s mutate --", standalone_mode=False)))
