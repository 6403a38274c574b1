# SPDX-License-Identifier: GPL-2.0-only
"""Cells run in as many VMs as it takes: clones where there is a snapshot, else VMs that boot."""

from dataclasses import replace
from pathlib import Path

from twinmod.base.progress import Progress
from twinmod.cells import parts
from twinmod.cells.model import AnyCell, CellResult
from twinmod.cells.parts import Ended, Part, Tests
from twinmod.vm import pool, results, session, snapshot, strategy
from twinmod.vm.boot import CellsWork, MatrixWork, Setting
from twinmod.vm.options import RunOptions
from twinmod.vm.results import Run
from twinmod.vm.session import Boots

#: Known of VMs that boot: they collect what they run.
NO_TESTS: Tests = {}

#: Wants nothing beside what the cells are.
PLAIN = RunOptions()


def run_cells(
    setting: Setting,
    work: CellsWork,
    out_dir: Path,
    progress: Progress,
    options: RunOptions = PLAIN,
) -> tuple[tuple[CellResult, ...], Boots]:
    """Run cells: in clones if there is a snapshot, each in its own, and else one after the other.

    Args:
        setting: What a VM is made of.
        work: What is to be done.
        out_dir: Gets a folder for each VM.
        progress: Told of each VM, and of each test.
        options: How it is done.

    Returns:
        A result for every cell, in the order of the work, and what it took. Cells that had not
        begun when somebody stopped the run are left out.

    Raises:
        VmLostError: A VM did not come as far as a cell.
    """
    run = Run(setting=setting, work=work, out_dir=out_dir, progress=progress, options=options)
    left, tests = parts.plan_whole(work.cells), NO_TESTS
    if setting.snapshot is not None:
        left = pool.run_clones(run, setting.snapshot)
        tests = snapshot.read_tests(setting.snapshot)
    run_booted(run, left)
    merged = parts.merge(work.cells, tuple(run.ended))
    return parts.order_tests(merged, tests), run.boots


def keep_parts(work: CellsWork, left: tuple[Part, ...]) -> CellsWork:
    """Return what is left of some work, for VMs that run one cell after the other."""
    own = work.keep({part.cell for part in left})
    if not isinstance(own, MatrixWork):
        return own
    tests: dict[str, tuple[str, ...]] = {}
    for part in left:
        if part.tests:
            tests[part.cell.name] = (*tests.get(part.cell.name, ()), *part.tests)
    return replace(own, tests=tests)


def run_booted(run: Run, left: tuple[Part, ...]) -> None:
    """Run parts in a VM that is no clone, and in another one after each that a cell ended.

    Raises:
        VmLostError: A VM did not come as far as a cell, and nothing is known of any.
    """
    pending: tuple[AnyCell, ...] = tuple(dict.fromkeys(part.cell for part in left))
    work, booted = keep_parts(run.work, left), replace(run.setting, snapshot=None)
    while pending and not run.options.stopped.is_set():
        number = run.boots.total + 1
        run.boots = replace(run.boots, total=number)
        plan = strategy.prepare_vm(booted, work.keep(pending), run.plan_vm_dir(number))
        names = results.render_names(pending)
        with run.progress.phase(f"VM {number} ({run.setting.accelerator.name}): {names}"):
            end = run.boot(plan, run.progress)
        run.boots = results.add_phases(run.boots, number, end)
        if session.is_stalled(end) and run.boots.stalled < session.STALLED_BOOTS:
            run.boots = replace(run.boots, stalled=run.boots.stalled + 1)
            run.progress.note(session.render_stall(plan, end))
            continue
        found = run.read_results(end, plan, work.products, number)
        if not found and not run.ended and not run.options.stopped.is_set():
            raise session.plan_boot_error(plan, end)
        # What earlier VMs found is kept when a later one does not come as far as a cell.
        found = found or results.plan_unreached(pending, session.render_unreached(end))
        run.ended += [Ended(part=Part(cell=result.cell), result=result) for result in found]
        done = {result.cell for result in found}
        pending = tuple(cell for cell in pending if cell not in done)
