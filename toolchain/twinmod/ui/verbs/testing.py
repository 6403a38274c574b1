# SPDX-License-Identifier: GPL-2.0-only
"""What modules are held to: `test`, `soak`, `matrix`, `zoo`, `mutate`."""

import secrets
import shutil
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TextIO

import click

from twinmod import errors
from twinmod.base import commands, documents
from twinmod.base.progress import Console
from twinmod.cells import report
from twinmod.cells import selection as cells_selection
from twinmod.cells.model import AbsentCell
from twinmod.differential import reproduce as differential_reproduce
from twinmod.differential import run as differential_run
from twinmod.errors import ConfigError, ExitCode
from twinmod.experiments import mutants, mutants_run, zoo, zoo_run
from twinmod.matrix import report as matrix_report
from twinmod.matrix import run as matrix_run
from twinmod.matrix import table
from twinmod.project import config as project_config
from twinmod.project import rules as project_rules
from twinmod.project.config import MEMORY_MIN_MIB
from twinmod.project.model import LANGUAGES, Language
from twinmod.ui import command
from twinmod.ui.command import State, Verbs, pass_state
from twinmod.workspace import Prepared, Workspace

#: They become verbs of the command itself.
verbs = Verbs()


@verbs.command()
@command.module_option
@click.option(
    "--tester",
    "testers",
    multiple=True,
    metavar="NAME",
    shell_complete=command.complete_testers,
    help="Only this tester; may be repeated.",
)
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="R1",
    help="Only the tests of this rule; may be repeated.",
)
@click.option(
    "-k", "keyword", default="", metavar="EXPR", help="Only tests whose names match, as pytest."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--long", "long", is_flag=True, help="Many more rounds of what repeats itself.")
@click.option(
    "--memory",
    "memory_mib",
    metavar="MIB",
    type=click.IntRange(min=MEMORY_MIN_MIB),
    help="Memory of the VM, for this run.",
)
@click.option(
    "--record",
    "record",
    is_flag=True,
    help="On one processor, so that the verb `replay` can repeat it.",
)
@click.option("-x", "exit_first", is_flag=True, help="End with the first test that fails.")
@command.cold_option
@command.kernel_option("Run on this kernel of [tool.twinmod]; all: on each.")
@click.option(
    "--replay",
    "script",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Carry out a script that the differential left, and nothing else.",
)
@pass_state
@command.each_driver
def test(
    state: State,
    modules: tuple[str, ...],
    testers: tuple[str, ...],
    rules: tuple[str, ...],
    keyword: str,
    as_json: bool,
    long: bool,
    memory_mib: int | None,
    record: bool,
    exit_first: bool,
    cold: bool,
    kernel: str,
    script: TextIO | None,
) -> ExitCode:
    """Run the matrix: every module with every tester, on the stock kernel."""
    if script is not None:
        others = modules or testers or rules or keyword or as_json or long or record
        others = others or exit_first or memory_mib is not None
        if others or kernel == "all":
            raise click.UsageError("--replay goes with --kernel NAME and --cold, and nothing else")
        return _run_reproduction(replace(state.select(kernel), cold=cold), script)
    config = state.workspace.config
    selection = cells_selection.Selection(
        labels=command.require_labels(config, "--module", modules),
        testers=command.require_testers(config, testers),
        rules=tuple(dict.fromkeys(rules)),
        keyword=keyword,
        long=long,
        record=record,
        exit_first=exit_first,
    )
    workspaces = tuple(replace(one, cold=cold) for one in state.select_kernels(kernel))
    workspaces[0].require_parts()
    project_rules.require_rules(workspaces[0].config, selection.rules)
    if memory_mib is not None:
        workspaces = tuple(
            replace(one, config=project_config.select_memory(one.config, memory_mib))
            for one in workspaces
        )
    testing = Testing(state, selection, memory_mib, quiet=as_json)
    with workspaces[0].hold():
        if len(workspaces) > 1:
            return _run_kernels(testing, workspaces)
        prepared = testing.prepare(workspaces[0])
        run = testing.run(workspaces[0], prepared, workspaces[0].out_dir / "test")
    if as_json:
        command.print_json(run.document)
    else:
        click.echo(report.render_totals(run.document.totals))
    return report.compare_outcomes(run.results)


@dataclass(frozen=True, slots=True)
class Testing:
    """A call of the verb `test`: what it runs on each kernel, and what it shows of that."""

    state: State
    selection: cells_selection.Selection
    memory_mib: int | None
    _: KW_ONLY
    quiet: bool

    def prepare(self, workspace: Workspace) -> Prepared:
        """Set up the kernel of a run, whose phases begin here."""
        self.state.progress.durations.clear()
        return workspace.setup()

    def run(self, workspace: Workspace, prepared: Prepared, out_dir: Path) -> matrix_run.Run:
        """Run the matrix on one kernel and show what came of it."""
        wanted = matrix_run.Wanted(selection=self.selection, out_dir=out_dir)
        run = matrix_run.run_test(workspace, prepared, wanted)
        if not self.quiet:
            Console(highlight=False).print(
                matrix_report.render_table(run.outcomes, run.rules, run.cells)
            )
            troubles = report.render_troubles(run.results)
            click.echo(f"\n{troubles}\n" if troubles else "")
            if again := matrix_report.render_again(run.results, self._plan_options(workspace)):
                click.echo(f"{again}\n")
            click.echo(matrix_report.render_run_notes(run.document, str(out_dir)))
        return run

    def _plan_options(self, workspace: Workspace) -> tuple[str, ...]:
        """Return what another run of the same needs beside modules, testers and rules."""
        name = workspace.config.kernel.name
        named = name != self.state.workspace.config.kernel.name
        kernel = ("--kernel", name) if named else ()
        long = ("--long",) if self.selection.long else ()
        cold = ("--cold",) if workspace.cold else ()
        memory = ("--memory", str(self.memory_mib)) if self.memory_mib is not None else ()
        several = len(workspace.config.drivers) > 1
        driver = ("--driver", workspace.config.driver.name) if several else ()
        return (*driver, *kernel, *long, *cold, *memory)


def _run_kernels(testing: Testing, workspaces: tuple[Workspace, ...]) -> ExitCode:
    """Run the matrix on each kernel, write the report of all of them, and show what came of it."""
    out_dir = workspaces[0].out_dir / "test"
    shutil.rmtree(out_dir, ignore_errors=True)

    def act(workspace: Workspace) -> matrix_run.Run | tuple[AbsentCell, ...]:
        prepared = testing.prepare(workspace)
        wanted = testing.selection.plan_cells(workspace.config)
        cells, absent = cells_selection.plan_presence(
            wanted, workspace.find_absences(prepared.tree)
        )
        if not cells:
            return absent
        return testing.run(workspace, prepared, out_dir / workspace.config.kernel.name)

    done, failed = command.run_each(workspaces, act)
    kernels = tuple(
        matrix_report.KernelRun(
            kernel=name,
            error=failed.get(name),
            document=run.document if isinstance(run := done.get(name), matrix_run.Run) else None,
            absent=run if isinstance(run, tuple) else (),
        )
        for name in (one.config.kernel.name for one in workspaces)
    )
    document = matrix_report.plan_runs_report(kernels)
    documents.write(out_dir / "report.json", document)
    if testing.quiet:
        command.print_json(document)
    else:
        click.echo(matrix_report.render_runs(document))
        click.echo(report.render_totals(document.totals))
    runs = tuple(run for run in done.values() if isinstance(run, matrix_run.Run))
    if not runs and not failed:
        raise ConfigError(
            "no kernel can have any of the selected cells", hint=commands.render("matrix")
        )
    return errors.compare_exit_codes(
        (
            *(report.compare_outcomes(run.results) for run in runs),
            *(error.exit_code for error in failed.values()),
        )
    )


def _run_reproduction(workspace: Workspace, script: TextIO) -> ExitCode:
    """Carry out a script of the differential and show what came of each step."""
    try:
        text = script.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{script.name} is not a script: {error}") from error
    reproducer = differential_run.load_reproducer(workspace.config, text, script.name)
    with workspace.hold():
        prepared = workspace.setup()
        reproduction = differential_run.run_reproduction(workspace, prepared, reproducer)
    click.echo(differential_reproduce.render_reproduction(reproduction))
    troubles = report.render_troubles((reproduction.result,))
    if troubles:
        click.echo(troubles)
    return report.compare_outcomes((reproduction.result,))


@verbs.command()
@click.option(
    "--minutes",
    default=20.0,
    show_default=True,
    metavar="N",
    type=command.Number(min=0, min_open=True, max=10_000),
    help="How long.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    metavar="N",
    help="Seed hypothesis with N, not with a fresh number. What it draws depends on the "
    "imported modules too: other code may draw other sequences.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@command.cold_option
@command.kernel_option("Run on this kernel of [tool.twinmod].")
@pass_state
@command.each_driver
def soak(
    state: State, minutes: float, seed: int | None, as_json: bool, cold: bool, kernel: str
) -> ExitCode:
    """Hold all modules to one model with fresh random steps, for as long as you like."""
    workspace = replace(state.select(kernel), cold=cold)
    chosen = seed if seed is not None else secrets.randbits(32)
    with workspace.hold():
        soaked = differential_run.run_soak(workspace, workspace.setup(), minutes, chosen)
    if as_json:
        command.print_json(soaked.document)
    else:
        click.echo(differential_run.render_soak(soaked.document))
        troubles = report.render_troubles((soaked.result,))
        if troubles:
            click.echo(troubles)
    return report.compare_outcomes((soaked.result,))


@verbs.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@pass_state
@command.each_driver
def matrix(state: State, as_json: bool) -> ExitCode:
    """Show kernels x modules x testers, with yes or the reason why not; make nothing."""
    cells = table.list_cells(state.workspace)
    if as_json:
        command.print_json(matrix_report.plan_matrix_report(cells))
    else:
        click.echo(matrix_report.render_matrix(cells))
    return ExitCode.PASSED


@verbs.command("zoo")
@command.experiment_options(
    keyword="Only what has this part in its name, such as double_free/rust.",
    module=command.language_option,
    listing="Print what there is and run nothing.",
)
@pass_state
@command.one_driver
def zoo_command(
    state: State,
    keyword: str,
    modules: tuple[str, ...],
    listing: bool,
    as_json: bool,
    cold: bool,
) -> ExitCode:
    """Build and run a collection of bugs in both languages; say what stopped each."""
    workspace = replace(state.workspace, cold=cold)
    entries = zoo_run.read_entries(workspace.config)
    attempts = zoo.select_attempts(entries, keyword, tuple(map(Language, modules)) or LANGUAGES)
    if listing:
        click.echo(zoo.render_list(attempts))
        return ExitCode.PASSED
    with workspace.hold():
        run = zoo_run.run_zoo(workspace, entries, attempts)
    return command.show_experiment(zoo_run.plan_shown(run), as_json=as_json)


@verbs.command()
@command.experiment_options(
    keyword="Only mutants whose name, such as c/end-short, has this part.",
    module=command.module_option,
    listing="Print the mutants and run none.",
)
@pass_state
@command.one_driver
def mutate(
    state: State,
    keyword: str,
    modules: tuple[str, ...],
    listing: bool,
    as_json: bool,
    cold: bool,
) -> ExitCode:
    """Put small faults into the modules, one at a time, and see that a rule catches each."""
    workspace = replace(state.workspace, cold=cold)
    config = workspace.config
    page = mutants_run.read_page(config)
    known = mutants_run.list_labels(config)
    labels = command.require_labels(config, "--module", modules) or known
    every = mutants.plan_mutants(page, known)
    selected = mutants.select_mutants(every, keyword, labels)
    if listing:
        click.echo(mutants.render_list(selected))
        return ExitCode.PASSED
    with workspace.hold():
        run = mutants_run.run_mutants(workspace, page, selected)
    return command.show_experiment(mutants_run.plan_shown(run), as_json=as_json)
