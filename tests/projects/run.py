# SPDX-License-Identifier: GPL-2.0-only
"""Work on projects of other people as they would: ``nox -s projects``.

Each try begins in an empty folder, has commands of twinmod, and says how each must end. The
packages of Debian's come from the mirror; nothing of them stays here.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

import tries
from tries import Step, Try
from twinmod.base import process, sandbox, text
from twinmod.base.process import Command
from twinmod.base.progress import TerminalProgress
from twinmod.base.sandbox import Bind, Enter
from twinmod.errors import ConfigError, ExitCode, MissingToolError
from twinmod.kernels import packages
from twinmod.project import config as project_config
from twinmod.ui import cli
from twinmod.workspace import Workspace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "terminal"))

import terminal

#: A call of twinmod, at most; a kernel with other options is built in some of them.
LIMIT_S = 3600.0

#: What a shell says when somebody can type.
PROMPT = b"ends the VM"

#: Of what a call said that was not expected, so many lines are shown.
SHOWN_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a call of twinmod ended."""

    attempt: Try
    step: Step
    code: int
    said: str
    # What gdb said beside it.
    debugged: str
    seconds: float

    @property
    def lack(self) -> str:
        """What is not as it was expected, "" for nothing."""
        if self.code != self.step.code:
            return f"exit code {self.code}, not {self.step.code}"
        wanted = ((self.step.says, self.said), (self.step.answer, self.debugged))
        for pattern, said in wanted:
            if not re.search(pattern, said):
                return f"nobody said {pattern}"
        return ""

    @property
    def last_line(self) -> str:
        """The last line that it said and that is not empty."""
        return next((line for line in reversed(self.said.splitlines()) if line.strip()), "")


def fetch_packages(workspace: Workspace, work_dir: Path) -> None:
    """Fetch Debian's packages, verified by apt, and unpack them into folders of their names.

    Raises:
        MissingToolError: The mirror does not answer, or has no such package.
    """
    chroot = workspace.setup().chroot
    mirror = workspace.config.mirror or chroot.mirror
    with workspace.progress.phase(f"packages of {tries.SUITE}"):
        packages.update_lists(tries.SUITE, chroot, mirror, work_dir)
        argv = ("apt-get", "download", *tries.PACKAGES)
        purpose = f"packages of {tries.SUITE} were not downloaded"
        process.run(packages.prepare_apt(chroot, argv, work_dir, purpose), error=MissingToolError)
        script = (
            f"set -e; cd {packages.WORK}; "
            'for deb in deb/*.deb; do name=${deb#deb/}; dpkg-deb -x "$deb" "${name%%_*}"; done'
        )
        bind = Bind(source_path=work_dir, target_path=packages.WORK, writable=True)
        command = sandbox.plan_command(
            chroot,
            ("sh", "-c", script),
            Enter(binds=(bind,)),
            purpose=f"packages of {tries.SUITE} were not unpacked",
            timeout_s=60.0,
        )
        process.run(command, error=MissingToolError)


def write_files(attempt: Try, packages_dir: Path, folder: Path) -> Path:
    """Make the folder of a try; return the one that its commands work in."""
    if attempt.package:
        (sources,) = (packages_dir / attempt.package / tries.SOURCES).iterdir()
        return sources
    folder.mkdir()
    for name, content in attempt.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def call(attempt: Try, step: Step, folder: Path) -> Call:
    """Call twinmod as a step has it."""
    folder = folder / step.folder
    step.change(folder)
    argv, debugged = (*terminal.TWINMOD, *step.arguments), []

    def debug() -> bytes:
        if step.asked:
            asked = ("gdb", "-batch", "-ex", step.asked, "-ex", "detach")
            debugged.append(run((*terminal.TWINMOD, *asked), folder)[1])
        return tries.LINE.encode()

    began = time.monotonic()
    if step.arguments[0] == "shell":
        code, words = terminal.run(argv, folder, ((PROMPT, debug),), LIMIT_S)
        said = words.decode(errors="replace").replace("\r", "")
    else:
        code, said = run(argv, folder)
    return Call(
        attempt=attempt,
        step=step,
        code=code,
        said=said,
        debugged="".join(debugged),
        seconds=time.monotonic() - began,
    )


def run(argv: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Run twinmod without a terminal; return its exit code and what it said."""
    command = Command(
        argv=argv,
        purpose="a call of twinmod",
        environment=tuple(os.environ.items()),
        working_dir=folder,
        timeout_s=LIMIT_S,
    )
    return process.run_unchecked(command)


def show_call(one: Call) -> str:
    """Return the lines on a call that has just ended."""
    words = " ".join(("twinmod", *one.step.arguments))
    line = f"{one.attempt.name}: {words}: exit code {one.code}, {one.seconds:.1f} s"
    tail = "\n".join(one.said.splitlines()[-SHOWN_LINES:])
    return f"{line}: {one.lack}\n{tail}\n{one.debugged}" if one.lack else line


def render_table(calls: Iterable[Call]) -> str:
    """Return a line for each call."""
    rows = [("try", "twinmod", "exit", "seconds", "last line")]
    rows += [
        (
            one.attempt.name,
            " ".join(one.step.arguments),
            str(one.code),
            f"{one.seconds:.1f}",
            f"FAIL: {one.lack}" if one.lack else one.last_line.strip(),
        )
        for one in calls
    ]
    return "\n".join(text.render_columns(rows, others="left"))


def run_tries(selected: tuple[Try, ...], workspace: Workspace) -> tuple[Call, ...]:
    """Work through tries; one that ends otherwise than expected ends none of the others."""
    calls: list[Call] = []
    with tempfile.TemporaryDirectory(prefix="twinmod-projects-") as name:
        packages_dir = Path(name) / "packages"
        if any(one.package for one in selected):
            packages_dir.mkdir()
            with workspace.hold():
                fetch_packages(workspace, packages_dir)
        for attempt in selected:
            folder = write_files(attempt, packages_dir, Path(name) / attempt.name)
            for step in attempt.steps:
                calls.append(call(attempt, step, folder))
                click.echo(show_call(calls[-1]), err=True)
    return tuple(calls)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-k", "keyword", default="", metavar="NAME", help="Only tries with this in a name.")
@click.option("--list", "listing", is_flag=True, help="Print the tries and begin none.")
def projects(keyword: str, listing: bool) -> ExitCode:
    """Work on projects of other people: Debian's, those of `new`, those of a page."""
    selected = tuple(one for one in tries.plan_all() if keyword in one.name)
    if not selected:
        raise ConfigError(f"-k {keyword} leaves no try", hint="--list shows their names")
    if listing:
        for one in selected:
            for step in one.steps:
                click.echo(f"{one.name}: twinmod {' '.join(step.arguments)}")
        return ExitCode.PASSED
    config = project_config.read_config(project_config.find_project_dir(Path(__file__).parent))
    calls = run_tries(selected, Workspace(config=config, progress=TerminalProgress()))
    click.echo(render_table(calls))
    lacks = sum(bool(one.lack) for one in calls)
    seconds = sum(one.seconds for one in calls)
    click.echo(
        f"{len(selected)} projects, {len(calls)} calls in {seconds:.0f} s: "
        f"{len(calls) - lacks} as expected, {lacks} not"
    )
    return ExitCode.TESTS_FAILED if lacks else ExitCode.PASSED


if __name__ == "__main__":
    sys.exit(
        cli.run_guarded(lambda: projects(prog_name="nox -s projects --", standalone_mode=False))
    )
