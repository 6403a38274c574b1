# SPDX-License-Identifier: GPL-2.0-only
"""The command ``twinmod``: arguments in, text and an exit code out."""

import math
import secrets
import shlex
import shutil
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from twinmod import errors
from twinmod.base import bugs, cache, commands, documents, each, process, progress, templates
from twinmod.base.documents import Document
from twinmod.base.progress import Console, TerminalProgress
from twinmod.bench import compare
from twinmod.bench import counter as bench_counter
from twinmod.bench import run as bench_run
from twinmod.bench import text as bench_text
from twinmod.builds import build as builds_build
from twinmod.builds import product, signing
from twinmod.cells import report
from twinmod.cells import selection as cells_selection
from twinmod.cells.model import AbsentCell
from twinmod.differential import replayer as differential_replayer
from twinmod.differential import run as differential_run
from twinmod.errors import ConfigError, ExitCode, MissingToolError, TwinmodError
from twinmod.experiments import zoo, zoo_run
from twinmod.html import run as html_run
from twinmod.kernels import proof
from twinmod.kernels.model import Origin
from twinmod.matrix import report as matrix_report
from twinmod.matrix import run as matrix_run
from twinmod.matrix import table
from twinmod.project import config as project_config
from twinmod.project import rules as project_rules
from twinmod.project import skeleton
from twinmod.project.config import MEMORY_MIN_MIB
from twinmod.project.model import LANGUAGES, Language
from twinmod.release import index, verify, verify_run
from twinmod.release import run as release_run
from twinmod.shell import replay as shell_replay
from twinmod.shell import run as shell_run
from twinmod.ui import doctor as ui_doctor
from twinmod.ui import manual
from twinmod.vm import recording
from twinmod.workspace import Prepared, Workspace

Result = TypeVar("Result")

PROBE_TIMEOUT_S = 10.0

COUNTER_LIMIT_S = 1500.0

#: click shows the name of an enumeration's member, not its value.
LANGUAGE_NAMES = tuple(language.value for language in LANGUAGES)


class State:
    """What every verb starts from."""

    def __init__(self) -> None:
        self.progress = TerminalProgress()
        self._workspace: Workspace | None = None

    @property
    def workspace(self) -> Workspace:
        """The project with its configured kernel, read when the first verb asks for it."""
        if self._workspace is None:
            config = skeleton.read_project(Path.cwd(), self.progress)
            self._workspace = Workspace(config=config, progress=self.progress, phases=self.phases)
        return self._workspace

    def select(self, kernel: str) -> Workspace:
        """Return the project with a kernel, the configured one for ""."""
        return self.workspace.select(kernel) if kernel else self.workspace

    def select_kernels(self, kernel: str) -> tuple[Workspace, ...]:
        """Return the project with a kernel, or with each of them for "all"."""
        if kernel != "all":
            return (self.select(kernel),)
        return tuple(map(self.workspace.select, (k.name for k in self.workspace.config.kernels)))

    def phases(self) -> tuple[tuple[str, float], ...]:
        """Return (title, seconds) of every phase so far."""
        return tuple(self.progress.durations)


pass_state = click.make_pass_decorator(State, ensure=True)


def kernel_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that names a kernel, with a verb's own words for it."""
    return click.option("--kernel", "kernel", default="", metavar="NAME", help=text)


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    # Not click's own option, which takes a version that is known when this file is imported.
    del option
    if wanted:
        click.echo(f"{context.find_root().info_name}, version {templates.read_version()}")
        context.exit()


class Context(click.Context):
    """Where a command line is; it calls the verbs what the person calls them."""

    @property
    def command_path(self) -> str:
        """How the command line began, up to the verb's own arguments."""
        verb = self.info_name or ""
        is_verb = self.parent is not None and self.parent.parent is None
        return commands.render_prefix(verb) if is_verb else super().command_path


class Verb(click.Command):
    """A verb of the command."""

    context_class = Context


class Verbs(click.Group):
    """The command itself, and a verb that has verbs."""

    context_class = Context
    command_class = Verb
    group_class = type


class Number(click.FloatRange):
    """A number in a range; "nan" is in none, and compares with nothing."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that an argument is."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Write a Linux kernel module twice, in C and in Rust, and hold both to one matrix."""


def _print_json(document: Document) -> None:
    click.echo(documents.render(document))


def _probe_url(url: str) -> bool:
    """Tell whether a URL answers."""
    if not url.startswith(("http://", "https://")):
        return False
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S):  # noqa: S310
            return True
    except (OSError, ValueError, urllib.error.URLError):
        return False


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@kernel_option("Look at this kernel of [tool.twinmod].")
@pass_state
def doctor(state: State, as_json: bool, kernel: str) -> ExitCode:
    """Say what is there and what is missing; change nothing."""
    checks = ui_doctor.run_doctor(state.select(kernel), _probe_url)
    document = ui_doctor.plan_doctor_report(checks)
    if as_json:
        _print_json(document)
    else:
        click.echo(ui_doctor.render_checks(checks))
    return ExitCode.PASSED if document.ready else ExitCode.ENVIRONMENT


@cli.command()
@kernel_option("Set up this kernel of [tool.twinmod]; all: each.")
@pass_state
def setup(state: State, kernel: str) -> ExitCode:
    """Make the chroot, the kernel tree and the userland, and compare the crates."""
    workspaces = state.select_kernels(kernel)

    def act(workspace: Workspace) -> None:
        _print_setup(workspace.setup())

    done, failed = _run_each(workspaces, act)
    if len(workspaces) > 1:
        names = f"; failed: {' '.join(failed)}" if failed else ""
        click.echo(f"{len(done)} of {len(workspaces)} kernels are set up{names}")
    return errors.compare_exit_codes(tuple(error.exit_code for error in failed.values()))


def _print_setup(prepared: Prepared) -> None:
    proved = prepared.tree.proof
    click.echo(f"kernel   {prepared.tree.release}, version {prepared.tree.version}")
    if prepared.tree.origin == Origin.BUILT:
        click.echo("config   has every option that was asked for")
    else:
        click.echo(f"config   identical to that of {proved.reference}")
    if not proved.rustc:
        click.echo("Rust     none: the kernel was built without it")
        return
    click.echo(f"rustc    {proved.rustc}, that of {proved.reference}")
    click.echo(
        f"names    {proved.checked_symbols} exported by the crates, each in the Module.symvers of "
        f"{proved.reference}"
    )
    click.echo(f"layouts  {proof.render_layouts(proved)}")


@cli.command()
@click.argument("languages", nargs=-1, type=click.Choice(LANGUAGE_NAMES))
@click.option("--show", is_flag=True, help="Print the commands and run none of them.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@kernel_option("Build for this kernel of [tool.twinmod].")
@pass_state
def build(
    state: State, languages: tuple[str, ...], show: bool, as_json: bool, kernel: str
) -> ExitCode:
    """Build the modules for the stock kernel."""
    workspace, wanted = state.select(kernel), tuple(map(Language, languages)) or LANGUAGES
    for module in workspace.config.modules:
        builds_build.read_sources(module, workspace.config.root_dir)
    workspace.read_version()
    if show:
        click.echo(workspace.show_builds(wanted))
        return ExitCode.PASSED
    with workspace.hold():
        prepared = workspace.setup()
        products = workspace.build(prepared, workspace.require_languages(prepared.tree, wanted))
    if as_json:
        _print_json(builds_build.plan_report(products, prepared.tree))
    else:
        click.echo(product.render_products(products))
    return ExitCode.PASSED


@cli.command()
@click.option(
    "--module",
    "modules",
    multiple=True,
    type=click.Choice(LANGUAGE_NAMES),
    help="Only the module in this language.",
)
@click.option(
    "--tester",
    "testers",
    multiple=True,
    type=click.Choice(LANGUAGE_NAMES),
    help="Only this tester.",
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
@kernel_option("Run on this kernel of [tool.twinmod]; all: on each.")
@click.option(
    "--replay",
    "script",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Carry out a script that the differential left, and nothing else.",
)
@pass_state
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
    kernel: str,
    script: TextIO | None,
) -> ExitCode:
    """Run the matrix: every module with every tester, on the stock kernel."""
    if script is not None:
        others = modules or testers or rules or keyword or as_json or long or record
        others = others or memory_mib is not None
        if others or kernel == "all":
            raise click.UsageError("--replay goes with --kernel NAME, and with nothing else")
        return _run_replay(state.select(kernel), script)
    selection = cells_selection.Selection(
        languages=tuple(map(Language, modules)) or LANGUAGES,
        testers=testers or LANGUAGES,
        rules=tuple(dict.fromkeys(rules)),
        keyword=keyword,
        long=long,
        record=record,
    )
    workspaces = state.select_kernels(kernel)
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
        _print_json(run.document)
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
        memory = ("--memory", str(self.memory_mib)) if self.memory_mib is not None else ()
        return (*kernel, *long, *memory)


def _run_kernels(testing: Testing, workspaces: tuple[Workspace, ...]) -> ExitCode:
    """Run the matrix on each kernel, write the report of all of them, and show what came of it."""
    out_dir = workspaces[0].out_dir / "test"
    shutil.rmtree(out_dir, ignore_errors=True)

    def act(workspace: Workspace) -> matrix_run.Run | tuple[AbsentCell, ...]:
        prepared = testing.prepare(workspace)
        wanted = testing.selection.plan_cells(workspace.config)
        cells, absent = cells_selection.plan_presence(wanted, prepared.tree)
        if not cells:
            return absent
        return testing.run(workspace, prepared, out_dir / workspace.config.kernel.name)

    done, failed = _run_each(workspaces, act)
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
        _print_json(document)
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


def _run_each(
    workspaces: tuple[Workspace, ...], act: Callable[[Workspace], Result]
) -> tuple[dict[str, Result], dict[str, TwinmodError]]:
    """Do the same on each kernel, and show at once why one failed; see each.run_each."""

    def guard(workspace: Workspace) -> Result:
        try:
            return act(workspace)
        except OSError as error:
            raise make_os_error(error) from error

    def tell(name: str, error: TwinmodError) -> None:
        click.echo(f"kernel {name}: {errors.render_error(error)}", err=True)

    return each.run_each({one.config.kernel.name: partial(guard, one) for one in workspaces}, tell)


def _run_replay(workspace: Workspace, script: TextIO) -> ExitCode:
    """Carry out a script of the differential and show what came of each step."""
    try:
        text = script.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{script.name} is not a script: {error}") from error
    replayer = differential_run.load_replay(workspace.config, text, script.name)
    with workspace.hold():
        prepared = workspace.setup()
        replay = differential_run.run_replay(workspace, prepared, replayer)
    click.echo(differential_replayer.render_replay(replay))
    troubles = report.render_troubles((replay.result,))
    if troubles:
        click.echo(troubles)
    return report.compare_outcomes((replay.result,))


@cli.command()
@click.option(
    "--minutes",
    default=20.0,
    show_default=True,
    metavar="N",
    type=Number(min=0, min_open=True, max=10_000),
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
@kernel_option("Run on this kernel of [tool.twinmod].")
@pass_state
def soak(state: State, minutes: float, seed: int | None, as_json: bool, kernel: str) -> ExitCode:
    """Hold all modules to one model with fresh random steps, for as long as you like."""
    workspace = state.select(kernel)
    chosen = seed if seed is not None else secrets.randbits(32)
    with workspace.hold():
        soaked = differential_run.run_soak(workspace, workspace.setup(), minutes, chosen)
    if as_json:
        _print_json(soaked.document)
    else:
        click.echo(differential_run.render_soak(soaked.document))
        troubles = report.render_troubles((soaked.result,))
        if troubles:
            click.echo(troubles)
    return report.compare_outcomes((soaked.result,))


@cli.command()
@click.option(
    "-n",
    "increments",
    default=100_000,
    show_default=True,
    type=click.IntRange(min=1, max=10**9),
    help="Increments of each thread.",
)
@click.option(
    "-w",
    "-W",
    "threads",
    default=30,
    show_default=True,
    type=click.IntRange(min=1, max=1024),
    help="Threads.",
)
@click.option(
    "--method",
    default="lock",
    show_default=True,
    type=click.Choice(("lock", "add", "racy")),
    help="One lock of all threads, the ADD ioctl, or neither.",
)
@click.option(
    "--repeat",
    "repeats",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="So often, each time in a fresh VM, with intervals.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@kernel_option("Count on this kernel of [tool.twinmod].")
@pass_state
def counter(
    state: State,
    increments: int,
    threads: int,
    method: str,
    repeats: int,
    as_json: bool,
    kernel: str,
) -> ExitCode:
    """Count up with threads on one device in every cell."""
    workspace = state.select(kernel)
    with workspace.hold():
        prepared = workspace.setup()
        counting = bench_counter.Counting(
            threads=threads,
            increments=increments,
            method=method,
            repeats=repeats,
            limit_s=COUNTER_LIMIT_S,
        )
        document, results = bench_counter.run_counter(workspace, prepared, counting)
    if as_json:
        _print_json(document)
    else:
        single = repeats == 1
        click.echo(
            bench_counter.render_counts(results)
            if single
            else bench_counter.render_counter(document)
        )
    if troubles := report.render_troubles(results):
        click.echo(troubles, err=as_json)
    return report.compare_outcomes(results)


@cli.command()
@click.option("--quick", is_flag=True, help="Fewer sizes, loads and turns, and no builds.")
@click.option(
    "--mode",
    type=click.Choice(bench_run.MODES),
    default="both",
    show_default=True,
    help="Instructions, a clock, or both.",
)
@click.option(
    "--parameters",
    default="",
    metavar="TEXT",
    help="Add to the kernel's command line, as in hardened_usercopy=off.",
)
@click.option(
    "--compare",
    "compared",
    metavar="OLD.json",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Say what changed since another report; exit 1 when a count grew.",
)
@click.option(
    "--save",
    "saved",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the exact counts for a later --compare.",
)
@click.option(
    "--share",
    default=0.01,
    show_default=True,
    type=Number(min=0.0),
    help="By how much a count may grow with --compare.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@kernel_option("Measure on this kernel of [tool.twinmod].")
@pass_state
def bench(
    state: State,
    quick: bool,
    mode: str,
    parameters: str,
    compared: Path | None,
    saved: Path | None,
    share: float,
    as_json: bool,
    kernel: str,
) -> ExitCode:
    """Count what each call costs in instructions, time it by a clock, and say why."""
    workspace = state.select(kernel)
    before = compare.parse_report(compared.read_bytes(), str(compared)) if compared else None
    if (compared or saved) and mode == "wall":
        raise ConfigError("--compare and --save need exact counts: --mode wall has none")
    wanted = bench_run.Wanted(mode=mode, quick=quick, parameters=parameters)
    with workspace.hold():
        document, results = bench_run.run_bench(workspace, wanted)
    if as_json:
        _print_json(document)
    else:
        click.echo(bench_text.render_report(document, "out/bench"))
    if troubles := report.render_troubles(results):
        click.echo(troubles, err=as_json)
    codes = [report.compare_outcomes(results), compare.compare_settled(document)]
    if before is not None:
        now = compare.select_compared(document)
        changes, count = compare.compare_reports(before, now)
        other = compare.find_other_ground(before, now)
        lost = compare.find_lost(before, now)
        click.echo(bench_text.render_changes(changes, count, share, other, lost), err=as_json)
        codes.append(compare.compare_changes(changes, count, share, other, lost))
    if saved is not None:
        text = compare.render_baseline(compare.plan_baseline(document))
        cache.write_atomically(saved, text)
    return errors.compare_exit_codes(tuple(codes))


@cli.command(name="report")
@click.option("--markdown", is_flag=True, help="Print the summary for a cover letter.")
@pass_state
def render_report(state: State, markdown: bool) -> ExitCode:
    """Make one page and a summary of what test, bench, counter and zoo left."""
    with state.workspace.hold():
        summary = html_run.run_report(state.workspace.config)
    click.echo(summary if markdown else "out/report/index.html\nout/report/summary.md")
    return ExitCode.PASSED


@cli.command()
@kernel_option("Boot this kernel of [tool.twinmod].")
@click.option(
    "--gdb",
    "gdb",
    is_flag=True,
    help="Let the verb `gdb` in another terminal debug it and its modules.",
)
@pass_state
def shell(state: State, kernel: str, gdb: bool) -> ExitCode:
    """Boot a VM with both modules loaded and give its console to you."""
    workspace = state.select(kernel)
    with workspace.hold():
        return shell_run.run_shell(workspace, workspace.setup(), gdb=gdb)


@cli.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--gdb",
    "gdb",
    is_flag=True,
    help="Wait for the verb `gdb` in another terminal before it begins.",
)
@pass_state
def replay(state: State, run_dir: Path, gdb: bool) -> ExitCode:
    """Repeat, instruction for instruction, a VM that `test --record` left in the folder RUN."""
    recorded = recording.read_recording(run_dir.resolve())
    workspace = state.select(recorded.document.kernel)
    with workspace.hold():
        prepared = workspace.setup()
        comparison, found = shell_replay.run_recording(workspace, prepared, recorded, gdb=gdb)
    click.echo(report.render_faults(found, tuple(recorded.document.modules)))
    click.echo(recording.render_comparison(comparison))
    return ExitCode.TESTS_FAILED if comparison.different else ExitCode.PASSED


# gdb has options of its own, and -h is a part of its -batch.
@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_state
def gdb(state: State, arguments: tuple[str, ...]) -> ExitCode:
    """Debug the VM of `shell --gdb`, which runs in another terminal; ARGUMENTS are gdb's own."""
    return shell_run.run_gdb(state.workspace.config, arguments)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@pass_state
def matrix(state: State, as_json: bool) -> ExitCode:
    """Show kernels x modules x testers, with yes or the reason why not; make nothing."""
    cells = table.list_cells(state.workspace)
    if as_json:
        _print_json(matrix_report.plan_matrix_report(cells))
    else:
        click.echo(matrix_report.render_matrix(cells))
    return ExitCode.PASSED


@cli.command("zoo")
@click.option(
    "-k",
    "keyword",
    default="",
    metavar="NAME",
    help="Only what has this part in its name, such as double_free/rust.",
)
@click.option(
    "--module",
    "modules",
    multiple=True,
    type=click.Choice(LANGUAGE_NAMES),
    help="Only what is written in this language.",
)
@click.option("--list", "listing", is_flag=True, help="Print what there is and run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@pass_state
def zoo_command(
    state: State, keyword: str, modules: tuple[str, ...], listing: bool, as_json: bool
) -> ExitCode:
    """Build and run a collection of bugs in both languages; say what stopped each."""
    entries = zoo_run.read_entries(state.workspace.config)
    attempts = zoo.select_attempts(entries, keyword, tuple(map(Language, modules)) or LANGUAGES)
    if listing:
        click.echo(zoo.render_list(attempts))
        return ExitCode.PASSED
    with state.workspace.hold():
        run = zoo_run.run_zoo(state.workspace, entries, attempts)
    if as_json:
        _print_json(run.document)
    else:
        Console(highlight=False, soft_wrap=True).print(zoo.render_table(run.verdicts))
        troubles = zoo.render_troubles(run.verdicts)
        click.echo(f"\n{troubles}\n" if troubles else "")
        for absent in run.document.absent:
            click.echo(f"{absent.attempt} is absent: {absent.reason}")
        for name, error in run.failed.items():
            click.echo(f"kernel {name} FAILED: {error.message}")
        click.echo(zoo.render_totals(run.verdicts, run.seconds))
    mismatched = ExitCode.TESTS_FAILED if run.document.mismatches else ExitCode.PASSED
    return errors.compare_exit_codes((mismatched, *(e.exit_code for e in run.failed.values())))


@cli.command("lint-kernel")
@kernel_option("Check against this kernel of [tool.twinmod]; all: each.")
@pass_state
def lint_kernel(state: State, kernel: str) -> ExitCode:
    """Run checkpatch, the tree's rustfmt and clippy, with warnings as errors."""
    workspaces = state.select_kernels(kernel)

    def act(workspace: Workspace) -> None:
        workspace.lint(workspace.setup())

    with workspaces[0].hold():
        _, failed = _run_each(workspaces, act)
    return errors.compare_exit_codes(tuple(error.exit_code for error in failed.values()))


@cli.command("new")
@click.argument("folder", type=click.Path(path_type=Path))
@pass_state
def new_project(state: State, folder: Path) -> ExitCode:
    """Make FOLDER, a project of your own: a copy of the drivers, testers, rules and tests."""
    target_dir = folder.absolute()
    skeleton.write_new(target_dir)
    enter = f"cd {shlex.quote(str(folder))}"
    state.progress.note(f"made {folder}; next: {enter} && {commands.render('build')}")
    return ExitCode.PASSED


@cli.command()
@click.argument("shell_name", metavar="SHELL", type=click.Choice(manual.SHELLS))
def completion(shell_name: str) -> ExitCode:
    """Print what completes this command in SHELL: bash, zsh or fish."""
    click.echo(manual.render_completion(cli, shell_name))
    return ExitCode.PASSED


@cli.command("manual", hidden=True)
def print_manual() -> ExitCode:
    """Print the manual page, as docs/man/twinmod.1 has it."""
    click.echo(manual.render_manual(cli), nl=False)
    return ExitCode.PASSED


@cli.command("release")
@click.option("--tag", default="", metavar="vX.Y.Z", help="Of this tag, not what is checked out.")
@click.option("--dev", is_flag=True, help="A tree with changes will do; every version says so.")
@click.option("--check", is_flag=True, help="Build all of it twice, elsewhere, and compare.")
@click.option(
    "--verify",
    "verified",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Make none; check the one in a folder, by installing it.",
)
@click.option(
    "--allowed-signers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --verify: who may have signed SHA256SUMS.",
)
@click.option(
    "--sign-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sign modules with this key, beside the tested ones.",
)
@click.option(
    "--sign-cert", type=click.Path(path_type=Path), metavar="FILE", help="The key's certificate."
)
@click.option(
    "--ssh-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sign SHA256SUMS with this SSH key.",
)
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Of keys that have a passphrase.",
)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="NAME",
    help="Modules for this kernel of [tool.twinmod]; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the index as JSON.")
@pass_state
def release_verb(
    state: State,
    tag: str,
    dev: bool,
    check: bool,
    verified: Path | None,
    sign_key: Path | None,
    sign_cert: Path | None,
    ssh_key: Path | None,
    passphrase_file: Path | None,
    allowed_signers: Path | None,
    kernels: tuple[str, ...],
    as_json: bool,
) -> ExitCode:
    """Make a release of a commit in ``dist``: what was tested, and what proves it."""
    workspace = state.workspace
    for name in kernels:
        workspace.select(name)
    keys = signing.Keys(
        module_key=sign_key,
        module_certificate=sign_cert,
        ssh_key=ssh_key,
        passphrase=passphrase_file,
    )
    if verified is not None:
        if tag or dev or check or keys.paths or len(kernels) > 1:
            raise click.UsageError("--verify goes with --allowed-signers and one --kernel alone")
        return _run_verify(state, kernels, verified, allowed_signers, as_json=as_json)
    if allowed_signers is not None:
        raise click.UsageError("--allowed-signers goes with --verify")
    wanted = release_run.Wanted(tag=tag, dev=dev, check=check, kernels=kernels, keys=keys)
    with workspace.hold():
        done = release_run.run_release(workspace, wanted)
    if done.document is None:
        click.echo("\n".join(difference.render() for difference in done.differences))
        click.echo(f"{len(done.differences)} files differ between two builds of one commit")
        return ExitCode.TESTS_FAILED
    if as_json:
        _print_json(done.document)
    else:
        click.echo(index.render_list(done.document))
        if check:
            click.echo("two builds of one commit: the same, byte for byte")
        click.echo(f"{done.document.version} is in {done.out_dir}")
    return ExitCode.PASSED


def _run_verify(
    state: State, kernels: tuple[str, ...], folder: Path, allowed: Path | None, *, as_json: bool
) -> ExitCode:
    """Check a release and show what came of each step."""
    workspace = state.select(kernels[0] if kernels else "")
    with workspace.hold():
        document = verify_run.run_verify(workspace, folder, allowed)
    if as_json:
        _print_json(document)
    else:
        click.echo(verify.render_report(document))
    return ExitCode.PASSED if document.passed else ExitCode.TESTS_FAILED


@cli.group("cache")
def cache_group() -> None:
    """Show and free what lies outside the checkout."""


@cache_group.command("list")
def cache_list() -> ExitCode:
    """Show every entry with its size."""
    click.echo(str(cache.find_cache_dir()))
    for kind, name, complete, size_bytes in cache.list_entries():
        state = "" if complete else "  (not complete)"
        click.echo(f"  {kind}/{name}  {size_bytes / 1e6:.0f} MB{state}")
    return ExitCode.PASSED


@cache_group.command("prune")
@click.option("--all", "everything", is_flag=True, help="Also what this project uses.")
@pass_state
def cache_prune(state: State, everything: bool) -> ExitCode:
    """Remove what this project's configuration does not use."""
    used = () if everything else state.workspace.find_used_entries()
    for kind, name, _, size_bytes in cache.list_entries():
        if (kind, name) not in used:
            cache.remove_entry(kind, name, state.progress)
            click.echo(f"removed {kind}/{name}  {size_bytes / 1e6:.0f} MB")
    return ExitCode.PASSED


def run_guarded(act: Callable[[], object]) -> int:
    """Run a verb; turn whatever ends it into one message and the documented exit code."""
    progress.accept_all_text()
    try:
        with process.interrupt_on_sigterm():
            code = act()
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        return _end(error)
    return code if isinstance(code, int) else ExitCode.PASSED


def _end(error: BaseException) -> int:
    """Say why a verb ended, if anybody reads it; return the exit code."""
    # click makes Abort of an EOFError, and SystemExit of a broken pipe.
    if isinstance(error, click.Abort) and isinstance(error.__cause__, EOFError):
        error = error.__cause__
    if isinstance(error, BrokenPipeError | SystemExit) and process.find_unread():
        message, code = "", ExitCode.UNREAD
    elif isinstance(error, SystemExit):
        raise error
    elif isinstance(error, KeyboardInterrupt | click.Abort):
        message, code = "interrupted", ExitCode.INTERRUPTED
    else:
        found = make_error(error)
        message, code = errors.render_error(found), found.exit_code
    process.drop_unwritable()
    if message:
        with suppress(OSError):
            click.echo(message, err=True)
    return code


def make_error(error: BaseException) -> TwinmodError:
    """Return what ended a verb in the form of all errors."""
    if isinstance(error, TwinmodError):
        return error
    if isinstance(error, click.ClickException):
        return plan_usage_error(error)
    if isinstance(error, OSError):
        return make_os_error(error)
    return bugs.make_error(error, bugs.keep_traceback(error))


def plan_usage_error(error: click.ClickException) -> ConfigError:
    """Return a wrong command line's error in the form of all others."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "twinmod"
    message = error.format_message().replace("\n", " ")
    return ConfigError(message[:1].lower() + message[1:], hint=f"{path} --help")


def make_os_error(error: OSError) -> TwinmodError:
    """Return the error of a system call that failed under us: a full disk, a missing right."""
    facts = [("file", str(error.filename))] if error.filename else []
    # The folder we are in may be what is gone.
    with suppress(OSError):
        free_bytes = shutil.disk_usage(Path.cwd()).free
        facts.append(("free here", f"{free_bytes / 1e9:.2f} GB"))
    return MissingToolError(
        f"the system refused: {error.strerror or error}",
        facts=tuple(facts),
        hint=commands.render("doctor"),
    )


def main() -> None:
    """Entry point of the command."""
    sys.exit(run_guarded(lambda: cli(standalone_mode=False)))
