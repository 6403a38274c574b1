# SPDX-License-Identifier: GPL-2.0-only
"""A project and its modules: `new`, `build`, `lint-kernel`."""

import shlex
from pathlib import Path

import click

from twinmod import errors
from twinmod.base import commands
from twinmod.builds import build as builds_build
from twinmod.builds import product
from twinmod.errors import ExitCode
from twinmod.project import skeleton
from twinmod.ui import command
from twinmod.ui.command import State, Verbs, pass_state
from twinmod.workspace import Workspace

#: They become verbs of the command itself.
verbs = Verbs()


@verbs.command("new")
@click.argument("folder", type=click.Path(path_type=Path))
@pass_state
def new_project(state: State, folder: Path) -> ExitCode:
    """Make FOLDER, a project of your own: a copy of the drivers, testers, rules and tests."""
    target_dir = folder.absolute()
    skeleton.write_new(target_dir)
    enter = f"cd {shlex.quote(str(folder))}"
    state.progress.note(f"made {folder}; next: {enter} && {commands.render('build')}")
    return ExitCode.PASSED


@verbs.command()
@click.argument("labels", metavar="[MODULE]...", nargs=-1, shell_complete=command.complete_labels)
@click.option("--show", is_flag=True, help="Print the commands and run none of them.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@command.kernel_option("Build for this kernel of [tool.twinmod].")
@pass_state
@command.each_driver
def build(
    state: State, labels: tuple[str, ...], show: bool, as_json: bool, kernel: str
) -> ExitCode:
    """Build the modules for the stock kernel."""
    workspace = state.select(kernel)
    wanted = command.require_labels(workspace.config, "build", labels)
    for module in workspace.config.modules:
        builds_build.read_sources(module, workspace.config.root_dir)
    workspace.read_version()
    if show:
        click.echo(workspace.show_builds(wanted))
        return ExitCode.PASSED
    with workspace.hold():
        prepared = workspace.setup()
        products = workspace.build(prepared, workspace.require_labels(prepared.tree, wanted))
    if as_json:
        command.print_json(builds_build.plan_report(products, prepared.tree))
    else:
        click.echo(product.render_products(products))
    return ExitCode.PASSED


@verbs.command("lint-kernel")
@command.kernel_option("Check against this kernel of [tool.twinmod]; all: each.")
@pass_state
@command.each_driver
def lint_kernel(state: State, kernel: str) -> ExitCode:
    """Run checkpatch, the tree's rustfmt and clippy, with warnings as errors."""
    workspaces = state.select_kernels(kernel)

    def act(workspace: Workspace) -> None:
        workspace.lint(workspace.setup())

    with workspaces[0].hold():
        _, failed = command.run_each(workspaces, act)
    return errors.compare_exit_codes(tuple(error.exit_code for error in failed.values()))
