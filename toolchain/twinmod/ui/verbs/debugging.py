# SPDX-License-Identifier: GPL-2.0-only
"""A VM for a person: `shell`, `gdb`, `replay`."""

from pathlib import Path

import click

from twinmod.cells import report
from twinmod.errors import ExitCode
from twinmod.shell import replay as shell_replay
from twinmod.shell import run as shell_run
from twinmod.ui import command
from twinmod.ui.command import State, Verbs, pass_state
from twinmod.vm import recording
from twinmod.vm import shell as vm_shell

#: They become verbs of the command itself.
verbs = Verbs()


@verbs.command()
@command.kernel_option("Boot this kernel of [tool.twinmod].")
@click.option(
    "--gdb",
    "gdb",
    is_flag=True,
    help="Let the verb `gdb` in another terminal debug it and its modules.",
)
@pass_state
@command.one_driver
def shell(state: State, kernel: str, gdb: bool) -> ExitCode:
    """Boot a VM with the modules loaded and give its console to you."""
    workspace = state.select(kernel)
    vm_shell.require_terminal()
    with workspace.hold():
        return shell_run.run_shell(workspace, workspace.setup(), gdb=gdb)


@verbs.command()
@click.argument("vm_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--gdb",
    "gdb",
    is_flag=True,
    help="Wait for the verb `gdb` in another terminal before it begins.",
)
@pass_state
@command.one_driver
def replay(state: State, vm_dir: Path, gdb: bool) -> ExitCode:
    """Repeat, instruction for instruction, a VM that `test --record` left in the folder RUN."""
    recorded = recording.read_recording(vm_dir.resolve())
    workspace = state.select(recorded.document.kernel)
    with workspace.hold():
        prepared = workspace.setup()
        comparison, found = shell_replay.run_recording(workspace, prepared, recorded, gdb=gdb)
    click.echo(report.render_faults(found, tuple(recorded.document.modules)))
    click.echo(recording.render_comparison(comparison))
    return ExitCode.TESTS_FAILED if comparison.different else ExitCode.PASSED


# gdb has options of its own, and -h is a part of its -batch.
@verbs.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_state
def gdb(state: State, arguments: tuple[str, ...]) -> ExitCode:
    """Debug the VM of `shell --gdb`, which runs in another terminal; ARGUMENTS are gdb's own."""
    return shell_run.run_gdb(state.workspace.config, arguments)
