# SPDX-License-Identifier: GPL-2.0-only
"""A project and its modules: `new`, `init`, `build`, `lint-kernel`."""

import shlex
from pathlib import Path

import click
from click.core import ParameterSource

from twinmod import errors
from twinmod.base import commands
from twinmod.builds import build as builds_build
from twinmod.builds import product
from twinmod.errors import ExitCode
from twinmod.project import kbuild, skeleton, starter
from twinmod.project.config import FILE
from twinmod.project.model import LANGUAGES
from twinmod.project.starter import KINDS
from twinmod.ui import command
from twinmod.ui.command import State, Verbs, pass_state
from twinmod.workspace import Workspace

#: They become verbs of the command itself.
verbs = Verbs()

#: The kind of a new project that is a copy.
MDRIVER = "mdriver"


@verbs.command("new")
@click.argument("folder", metavar="NAME", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice((*KINDS, MDRIVER)),
    default=KINDS[0],
    show_default=True,
    help="misc: a character device. pci: a PCI driver. bare: a module with a parameter. "
    "mdriver: a copy of the project that twinmod ships with.",
)
@click.option(
    "--languages",
    metavar="LIST",
    default=",".join(LANGUAGES),
    show_default=True,
    help="What the modules are written in: c, rust, or both.",
)
@click.option(
    "--skeleton",
    "bare_bodies",
    is_flag=True,
    help="Leave out the bodies of functions: an exercise, whose rules all fail.",
)
@pass_state
@click.pass_context
def new_project(
    context: click.Context,
    state: State,
    folder: Path,
    kind: str,
    languages: str,
    bare_bodies: bool,
) -> ExitCode:
    """Make the project NAME in a folder of that name: modules, rules, and tests that pass."""
    target_dir = folder.absolute()
    if kind == MDRIVER:
        given = (context.get_parameter_source(name) for name in ("languages", "bare_bodies"))
        if ParameterSource.COMMANDLINE in given:
            raise click.UsageError("--kind mdriver is a copy: no --languages and no --skeleton")
        files = skeleton.read_shipped()
    else:
        wanted = tuple(map(str.strip, languages.split(",")))
        planned = starter.plan_project(target_dir.name, kind, wanted, skeleton=bare_bodies)
        files = starter.make_files(planned)
    skeleton.write_new(target_dir, files)
    enter = f"cd {shlex.quote(str(folder))}"
    state.progress.note(f"made {folder}; next: {enter} && {commands.render('test')}")
    return ExitCode.PASSED


@verbs.command()
@pass_state
def init(state: State) -> ExitCode:
    """Write twinmod.toml for the modules that this folder's Kbuild builds."""
    kbuild.write_config(Path.cwd())
    state.progress.note(f"wrote {FILE}; next: {commands.render('test')}")
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
