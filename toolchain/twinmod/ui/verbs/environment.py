# SPDX-License-Identifier: GPL-2.0-only
"""What a run needs: `doctor`, `setup`, `cache`."""

import urllib.request
from typing import assert_never

import click

from twinmod import errors
from twinmod.base import cache
from twinmod.errors import ExitCode
from twinmod.kernels import proof
from twinmod.kernels.model import Origin
from twinmod.ui import command
from twinmod.ui import doctor as ui_doctor
from twinmod.ui.command import State, Verbs, pass_state
from twinmod.workspace import Prepared, Workspace

PROBE_TIMEOUT_S = 10.0

#: They become verbs of the command itself.
verbs = Verbs()


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


@verbs.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@command.kernel_option("Look at this kernel of [tool.twinmod].")
@pass_state
def doctor(state: State, as_json: bool, kernel: str) -> ExitCode:
    """Say what is there and what is missing; change nothing."""
    checks = ui_doctor.run_doctor(state.select(kernel), _probe_url)
    document = ui_doctor.plan_doctor_report(checks)
    if as_json:
        command.print_json(document)
    else:
        click.echo(ui_doctor.render_checks(checks))
    return ExitCode.PASSED if document.ready else ExitCode.ENVIRONMENT


@verbs.command()
@command.kernel_option("Set up this kernel of [tool.twinmod]; all: each.")
@pass_state
@command.each_driver
def setup(state: State, kernel: str) -> ExitCode:
    """Make the chroot, the kernel tree and the userland, and compare the crates."""
    workspaces = state.select_kernels(kernel)

    def act(workspace: Workspace) -> None:
        _print_setup(workspace.setup())

    done, failed = command.run_each(workspaces, act)
    if len(workspaces) > 1:
        names = f"; failed: {' '.join(failed)}" if failed else ""
        click.echo(f"{len(done)} of {len(workspaces)} kernels are set up{names}")
    return errors.compare_exit_codes(tuple(error.exit_code for error in failed.values()))


def _print_setup(prepared: Prepared) -> None:
    proved = prepared.tree.proof
    click.echo(f"kernel   {prepared.tree.release}, version {prepared.tree.version}")
    match prepared.tree.origin:
        case Origin.BUILT:
            click.echo("config   has every option that was asked for")
        case Origin.STOCK | Origin.TREE:
            click.echo(f"config   identical to that of {proved.reference}")
        case other:
            assert_never(other)
    if not proved.rustc:
        click.echo("Rust     none: the kernel was built without it")
        return
    click.echo(f"rustc    {proved.rustc}, that of {proved.reference}")
    click.echo(
        f"names    {proved.checked_symbols} exported by the crates, each in the Module.symvers of "
        f"{proved.reference}"
    )
    click.echo(f"layouts  {proof.render_layouts(proved)}")


@verbs.group("cache")
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
