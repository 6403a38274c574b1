# SPDX-License-Identifier: GPL-2.0-only
"""The command ``twinmod``: its verbs, and what is common to them all."""

import sys
from collections.abc import Callable
from contextlib import suppress

import click

from twinmod import errors
from twinmod.base import process, progress, templates
from twinmod.errors import ExitCode
from twinmod.project import config as project_config
from twinmod.ui import failure, manual, reference
from twinmod.ui.command import Verbs
from twinmod.ui.verbs import debugging, environment, measuring, modules, publishing, testing


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    # Not click's own option, which takes a version that is known when this file is imported.
    del option
    if wanted:
        click.echo(f"{context.find_root().info_name}, version {templates.read_version()}")
        context.exit()


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


for family in (debugging, environment, measuring, modules, publishing, testing):
    cli.commands.update(family.verbs.commands)


@cli.command()
@click.argument("shell_name", metavar="SHELL", type=click.Choice(manual.SHELLS))
def completion(shell_name: str) -> ExitCode:
    """Print what completes this command in SHELL: bash, zsh or fish."""
    click.echo(manual.render_completion(cli, shell_name))
    return ExitCode.PASSED


@cli.command("manual", hidden=True)
@click.option("--configuration", is_flag=True, help="The keys, as docs/configuration.md has them.")
def print_manual(configuration: bool) -> ExitCode:
    """Print the manual page, as docs/man/twinmod.1 has it."""
    page = (
        reference.render_page(project_config.read_builtin())
        if configuration
        else manual.render_manual(cli)
    )
    click.echo(page, nl=False)
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
        found = failure.make_error(error)
        message, code = errors.render_error(found), found.exit_code
    process.drop_unwritable()
    if message:
        with suppress(OSError):
            click.echo(message, err=True)
    return code


def main() -> None:
    """Entry point of the command."""
    sys.exit(run_guarded(lambda: cli(standalone_mode=False)))
