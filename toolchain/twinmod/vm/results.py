# SPDX-License-Identifier: GPL-2.0-only
"""What came of the cells of one VM, once it is gone."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from twinmod.base.progress import Progress
from twinmod.builds.product import Product
from twinmod.cells import decode, outcomes
from twinmod.cells.model import AnyCell, CellResult
from twinmod.cells.parts import Ended
from twinmod.guest import faults
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Outcome
from twinmod.vm import session
from twinmod.vm.boot import BootPlan, CellsWork, Setting
from twinmod.vm.options import RunOptions
from twinmod.vm.session import Boots, VmEnd

#: How many cells the title of a VM's phase names.
SHOWN_CELLS = 6


@dataclass(slots=True, kw_only=True)
class Run:
    """Cells that are being run, and what came of them so far."""

    setting: Setting
    work: CellsWork
    # Gets a folder for each VM.
    out_dir: Path
    # Told of each VM, and of each test.
    progress: Progress
    options: RunOptions
    ended: list[Ended] = field(default_factory=list)
    boots: Boots = field(default_factory=Boots)

    def plan_vm_dir(self, number: int) -> Path:
        """Return the folder of a VM."""
        return self.out_dir / f"vm-{number}"

    def boot(self, plan: BootPlan, progress: Progress) -> VmEnd:
        """Run one VM to its end."""
        watch = session.Watch(progress, self.options.told)
        stopped = self.options.stopped.is_set
        return session.boot(plan, watch, self.options.converse, stopped)

    def read_results(
        self, end: VmEnd, plan: BootPlan, products: tuple[Product, ...], number: int
    ) -> tuple[CellResult, ...]:
        """Return a result for every cell that began in a VM, and tell of what it did not survive.

        Args:
            end: How the VM ended.
            plan: The VM.
            products: The modules that were in it.
            number: Of the VM.
        """
        if self.options.stopped.is_set():
            return tuple(map(outcomes.end_early, end.transcript.cells))
        found, tolerated = find_faults(end.console, products, plan.vm_dir, end.by_programs)
        if tolerated:
            self.progress.note(f"{tolerated} data races in the kernel's own code, none in a module")
        ended = outcomes.classify(end.transcript, end.end, found)
        ended = decode.decode(ended, products, self.setting.tree.compilers)
        tell_broken(ended, self.options)
        return tuple(replace(result, vm=number) for result in ended)


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


def tell_broken(results: tuple[CellResult, ...], options: RunOptions) -> None:
    """Tell of the tests that their VM did not survive: it could not do so itself."""
    for result in results:
        for test in result.tests:
            if test.outcome in outcomes.BROKEN_OFF:
                options.told(result.cell.name, test)


def render_names(cells: tuple[AnyCell, ...]) -> str:
    """Return the names of cells, or of the first of many."""
    shown = " ".join(cell.name for cell in cells[:SHOWN_CELLS])
    more = len(cells) - SHOWN_CELLS
    return f"{shown} and {more} more" if more > 0 else shown


def plan_unreached(cells: tuple[AnyCell, ...], why: str) -> tuple[CellResult, ...]:
    """Return the results of cells whose VM did not come as far as any of them."""
    return tuple(CellResult(cell=cell, outcome=Outcome.LOST, problems=(why,)) for cell in cells)


def add_phases(boots: Boots, number: int, end: VmEnd) -> Boots:
    """Return what a run took, with what one more VM spent its time on."""
    spent = tuple((number, title, seconds) for title, seconds in end.phases)
    return replace(boots, phases=(*boots.phases, *spent))
