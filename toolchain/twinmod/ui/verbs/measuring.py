# SPDX-License-Identifier: GPL-2.0-only
"""What calls cost: `bench`, `counter`."""

from dataclasses import replace
from pathlib import Path

import click

from twinmod import errors
from twinmod.base import cache
from twinmod.bench import compare
from twinmod.bench import counter as bench_counter
from twinmod.bench import run as bench_run
from twinmod.bench import text as bench_text
from twinmod.bench.document import Mode
from twinmod.cells import report
from twinmod.errors import ConfigError, ExitCode
from twinmod.ui import command
from twinmod.ui.command import State, Verbs, pass_state

COUNTER_LIMIT_S = 1500.0

#: They become verbs of the command itself.
verbs = Verbs()


@verbs.command()
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
@command.cold_option
@command.kernel_option("Count on this kernel of [tool.twinmod].")
@pass_state
@command.each_driver
def counter(
    state: State,
    increments: int,
    threads: int,
    method: str,
    repeats: int,
    as_json: bool,
    cold: bool,
    kernel: str,
) -> ExitCode:
    """Count up with threads on one device in every cell."""
    workspace = replace(state.select(kernel), cold=cold)
    workspace.require_testers("counter")
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
        command.print_json(document)
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


@verbs.command()
@click.option("--quick", is_flag=True, help="Fewer sizes, loads and turns, and no builds.")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
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
    type=command.Number(min=0.0),
    help="By how much a count may grow with --compare.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@command.kernel_option("Measure on this kernel of [tool.twinmod].")
@pass_state
@command.each_driver
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
    if (compared or saved) and mode == Mode.WALL:
        raise ConfigError("--compare and --save need exact counts: --mode wall has none")
    wanted = bench_run.Wanted(mode=Mode(mode), quick=quick, parameters=parameters)
    with workspace.hold():
        document, results = bench_run.run_bench(workspace, wanted)
    if as_json:
        command.print_json(document)
    else:
        click.echo(bench_text.render_report(document, f"{workspace.config.shown_out}/bench"))
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
