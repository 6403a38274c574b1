# SPDX-License-Identifier: GPL-2.0-only
"""Cells run in as many VMs as it takes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from twinmod.base.progress import Progress
from twinmod.builds.product import Product
from twinmod.cells import decode, outcomes
from twinmod.cells.model import AnyCell, CellResult
from twinmod.guest import faults
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Outcome
from twinmod.vm import boot, session, snapshot
from twinmod.vm.boot import BootPlan, CellsWork, Setting
from twinmod.vm.session import Boots, Vm, Watch

#: How many cells the title of a VM's phase names.
SHOWN_CELLS = 6


def run_cells(
    setting: Setting,
    work: CellsWork,
    out_dir: Path,
    progress: Progress,
    converse: Callable[[Vm], None] | None = None,
) -> tuple[tuple[CellResult, ...], Boots]:
    """Run cells, in as many VMs as it takes: one, and another for each that a cell ended.

    Args:
        setting: What a VM is made of.
        work: What is to be done.
        out_dir: Gets a folder for each VM.
        progress: Told of each VM, and of each test.
        converse: Holds the conversation of the differential's cell, once.

    Returns:
        A result for every cell, in the order of the work, and what it took.

    Raises:
        VmLostError: A VM did not come as far as a cell.
    """
    pending: tuple[AnyCell, ...] = work.cells
    found: list[CellResult] = []
    boots = Boots()
    while pending:
        boots = replace(boots, total=boots.total + 1)
        plan = prepare_vm(setting, work.keep(pending), out_dir / f"vm-{boots.total}")
        kind = "clone" if plan.snapshot else "VM"
        names = render_names(pending)
        with progress.phase(f"{kind} {boots.total} ({setting.accelerator.name}): {names}"):
            end = session.boot(plan, Watch(progress), converse)
        if plan.snapshot and not end.transcript.booted:
            setting = replace(setting, snapshot=None)
            progress.note(f"{session.render_unreached(end)}; VMs boot from now on")
            continue
        spent = tuple((boots.total, title, seconds) for title, seconds in end.phases)
        boots = replace(boots, phases=(*boots.phases, *spent))
        if session.is_stalled(end) and boots.stalled < session.STALLED_BOOTS:
            boots = replace(boots, stalled=boots.stalled + 1)
            progress.note(session.render_stall(plan, end))
            continue
        found_faults, tolerated = find_faults(
            end.console, work.products, plan.vm_dir, end.by_programs
        )
        if tolerated:
            progress.note(f"{tolerated} data races in the kernel's own code, none in a module")
        ended = outcomes.classify(end.transcript, end.end, found_faults)
        ended = decode.decode(ended, work.products, setting.tree.compilers)
        ended = tuple(replace(result, vm=boots.total) for result in ended)
        if not ended and not found:
            raise session.plan_boot_error(plan, end)
        # What earlier VMs found is kept when a later one does not come as far as a cell.
        found += ended or plan_unreached(pending, session.render_unreached(end))
        done = {result.cell for result in found}
        pending = tuple(cell for cell in pending if cell not in done)
    return tuple(found), boots


def prepare_vm(setting: Setting, work: CellsWork, vm_dir: Path) -> BootPlan:
    """Plan a VM: a clone where there is a snapshot, and else one that boots."""
    if setting.snapshot is None:
        return boot.prepare_boot(setting, work, vm_dir)
    return snapshot.prepare_clone(setting, setting.snapshot, work, vm_dir)


def find_faults(
    console: str, products: tuple[Product, ...], vm_dir: Path, by_programs: tuple[str, ...] = ()
) -> tuple[tuple[KernelFault, ...], int]:
    """Return the faults that end a cell, and how many others a VM's kernel reported."""
    modules = tuple(product.module for product in products)
    log = str(vm_dir / "results/console.log")
    told = faults.parse_faults(console, by_programs)
    bad = tuple(
        replace(fault, log=log) for fault in told if not faults.is_tolerated(fault, modules)
    )
    return bad, len(told) - len(bad)


def render_names(cells: tuple[AnyCell, ...]) -> str:
    """Return the names of cells, or of the first of many."""
    shown = " ".join(cell.name for cell in cells[:SHOWN_CELLS])
    more = len(cells) - SHOWN_CELLS
    return f"{shown} and {more} more" if more > 0 else shown


def plan_unreached(cells: tuple[AnyCell, ...], why: str) -> tuple[CellResult, ...]:
    """Return the results of cells whose VM did not come as far as any of them."""
    return tuple(CellResult(cell=cell, outcome=Outcome.LOST, problems=(why,)) for cell in cells)
