# SPDX-License-Identifier: GPL-2.0-only
"""Run parts of a cell in very many clones, and see that none is lost and nothing is left.

``nox -s clones`` is for the night: a thousand clones take some minutes.
"""

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import click

from twinmod.base import cache
from twinmod.base.progress import TerminalProgress
from twinmod.cells import model, outcomes, parts
from twinmod.cells.model import Cell, CellResult
from twinmod.errors import ExitCode
from twinmod.guest.protocol import Outcome
from twinmod.project import config as project_config
from twinmod.ui import cli
from twinmod.vm import boot, pool, running, snapshot
from twinmod.vm.options import RunOptions
from twinmod.vm.session import Boots
from twinmod.workspace import Workspace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "terminal"))

import terminal

#: What is typed into the shell, when, and what that answers.
PROMPT = b"ends the VM"
LINE = b"echo $((6 * 7)) $(ls /dev/mdriver_c); exit\n"
ANSWER = b"42 /dev/mdriver_c"

#: Limit for all that a shell takes, in seconds.
SHELL_S = 120.0

#: What may seem to be left once all clones are gone: other work on the host comes and goes, and
#: lock files are folders' doing.
SLACK_MIB = 300
SLACK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What is in use of the host."""

    available_mib: int
    cache_bytes: int
    processes: int


def read_usage() -> Usage:
    """Return what is in use of the host now."""
    names = (path / "comm" for path in Path("/proc").glob("[0-9]*"))
    qemu = sum(_read(name).startswith("qemu-system") for name in names)
    saved = (cache.find_cache_dir() / kind for kind in (snapshot.BASE, snapshot.SNAPSHOT))
    return Usage(
        available_mib=pool.read_available_mib(),
        cache_bytes=sum(cache.read_size(path) for path in saved),
        processes=qemu,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def plan_work(
    one: Cell, work: boot.MatrixWork, tests: parts.Tests, count: int, shards: int
) -> boot.MatrixWork:
    """Return as many cells as there are to be clones, each with a part of one cell's tests."""
    names = tuple(tests)
    cells = tuple(replace(one, variant=str(number)) for number in range(count))
    (product,) = work.products
    return replace(
        work,
        cells=cells,
        products=tuple(replace(product, variant=cell.variant) for cell in cells),
        tests={cell.name: names[number % shards :: shards] for number, cell in enumerate(cells)},
    )


def find_lacks(results: tuple[CellResult, ...], work: boot.MatrixWork) -> list[str]:
    """Return a line for each clone that did not pass all of its tests."""
    lacks = []
    for result in results:
        good = {test.id for test in result.tests if test.outcome in outcomes.GOOD}
        missing = set(work.tests[result.cell.name]) - good
        if result.outcome != Outcome.PASSED or missing:
            lacks.append(f"{result.cell.name} {result.outcome}: {' '.join(sorted(missing))}")
    return lacks


def run(
    workspace: Workspace, count: int, shards: int, at_once: int
) -> tuple[tuple[CellResult, ...], Boots, boot.MatrixWork]:
    """Run the clones; return what came of them, what they took, and what they were to do."""
    prepared = workspace.setup()
    one = model.plan_cells(workspace.config)[0]
    products = workspace.build(prepared, (one.label,))
    setting = workspace.prepare_clones(prepared, workspace.environment(prepared))
    if setting.snapshot is None:
        return (), Boots(), boot.MatrixWork(cells=(), products=(), limit_s=0.0)
    empty = boot.MatrixWork(cells=(), products=products, limit_s=workspace.config.vm.test_timeout_s)
    work = plan_work(one, empty, snapshot.read_tests(setting.snapshot), count, shards)
    out_dir = workspace.out_dir / "clones"
    cache.remove_tree(out_dir)
    options = RunOptions(lanes=at_once, processors=at_once)
    found, boots = running.run_cells(setting, work, out_dir, workspace.progress, options)
    return found, boots, work


def prove(workspace: Workspace) -> list[str]:
    """Compare clones with a VM that boots once more; return a line for each difference."""
    prepared = workspace.setup()
    base = snapshot.find_base(workspace.environment(prepared))
    proof = workspace.prove(prepared, base) if base else None
    if proof is None:
        return ["nothing was compared: there is no base, or the first cell does not pass"]
    return list(proof.differences)


def use_shell(workspace: Workspace) -> list[str]:
    """Type a line into the shell of a clone; return a line for what is wrong with it."""
    setting = workspace.environment(workspace.setup())
    if workspace.find_clones(setting).snapshot is None:
        return ["the shell would not be a clone"]
    argv = (*terminal.TWINMOD, "shell")
    turns = ((PROMPT, lambda: LINE),)
    status, said = terminal.run(argv, workspace.config.root_dir, turns, SHELL_S)
    answered = ANSWER in said
    return [] if answered and status == 0 else [f"the shell ended with {status}: {said[-400:]!r}"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "count", default=1000, show_default=True, help="How many clones.")
@click.option("--shards", default=65, show_default=True, help="Parts of the cell's tests.")
@click.option("--at-once", default=0, help="How many at a time; 0: as many as a run has.")
def clones(count: int, shards: int, at_once: int) -> ExitCode:
    """Prove clones again, use a shell, run parts of the first cell in many, see what is left."""
    progress = TerminalProgress()
    config = project_config.read_config(project_config.find_project_dir(Path(__file__).parent))
    workspace = Workspace(config=config, progress=progress)
    with workspace.hold():
        # The first run may make the snapshot, which takes memory and disk for good.
        run(workspace, 1, shards, 1)
        lacks = prove(workspace)
    # The shell is a process of its own, which holds the checkout itself.
    lacks += use_shell(workspace)
    with workspace.hold():
        before, began = read_usage(), time.monotonic()
        found, boots, work = run(workspace, count, shards, at_once)
        seconds, after = time.monotonic() - began, read_usage()
    lacks += find_lacks(found, work)
    if not found:
        lacks.append("no clone ran")
    if after.processes > before.processes:
        lacks.append(f"{after.processes - before.processes} QEMU are left")
    if after.available_mib < before.available_mib - SLACK_MIB:
        lacks.append(f"{before.available_mib - after.available_mib} MiB did not come back")
    if after.cache_bytes > before.cache_bytes + SLACK_BYTES:
        lacks.append(f"the cache grew by {after.cache_bytes - before.cache_bytes} bytes")
    for line in lacks:
        click.echo(line)
    tests = Counter(test.outcome for result in found for test in result.tests)
    click.echo(
        f"{boots.total} clones in {seconds:.0f} s, {boots.stalled} stalled, "
        f"{sum(result.outcome == Outcome.LOST for result in found)} lost; "
        f"{tests[Outcome.PASSED]} tests passed; memory available {before.available_mib} and "
        f"{after.available_mib} MiB, load {os.getloadavg()[0]:.1f}"
    )
    return ExitCode.TESTS_FAILED if lacks or boots.stalled else ExitCode.PASSED


if __name__ == "__main__":
    sys.exit(cli.run_guarded(lambda: clones(prog_name="nox -s clones --", standalone_mode=False)))
