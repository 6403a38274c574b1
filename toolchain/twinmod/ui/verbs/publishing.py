# SPDX-License-Identifier: GPL-2.0-only
"""What others get: `report`, `release`."""

from pathlib import Path

import click

from twinmod.builds import signing
from twinmod.errors import ExitCode
from twinmod.html import run as html_run
from twinmod.release import index, packages, verify, verify_run
from twinmod.release import run as release_run
from twinmod.ui import command
from twinmod.ui.command import State, Verbs, pass_state

#: They become verbs of the command itself.
verbs = Verbs()


@verbs.command(name="report")
@click.option("--markdown", is_flag=True, help="Print the summary for a cover letter.")
@pass_state
@command.each_driver
def render_report(state: State, markdown: bool) -> ExitCode:
    """Make one page and a summary of what test, bench, counter and zoo left."""
    workspace = state.workspace
    with workspace.hold():
        summary = html_run.run_report(workspace.config)
    folder = f"{workspace.config.shown_out}/report"
    click.echo(summary if markdown else f"{folder}/index.html\n{folder}/summary.md")
    return ExitCode.PASSED


@verbs.command("release")
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
@command.one_driver
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
    packages.require_modules(workspace.config)
    wanted = release_run.Wanted(tag=tag, dev=dev, check=check, kernels=kernels, keys=keys)
    with workspace.hold():
        done = release_run.run_release(workspace, wanted)
    if done.document is None:
        click.echo("\n".join(difference.render() for difference in done.differences))
        click.echo(f"{len(done.differences)} files differ between two builds of one commit")
        return ExitCode.TESTS_FAILED
    if as_json:
        command.print_json(done.document)
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
        command.print_json(document)
    else:
        click.echo(verify.render_report(document))
    return ExitCode.PASSED if document.passed else ExitCode.TESTS_FAILED
