# SPDX-License-Identifier: GPL-2.0-only
"""Whether clones do what VMs do that boot: one cell in both, test by test."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from twinmod.base import documents, parallel
from twinmod.base.cache import FoundEntry
from twinmod.base.documents import Part
from twinmod.base.progress import Progress
from twinmod.cells import differences
from twinmod.cells.model import CellResult
from twinmod.guest.protocol import Outcome
from twinmod.project.model import DifferenceSpec
from twinmod.vm import running
from twinmod.vm.boot import MatrixWork, Setting

#: In the folder of a base.
PROOF = "proof.json"


class Proof(Part, frozen=True, kw_only=True):
    """What came of the comparison."""

    # The cell that was compared, and how many tests it had.
    cell: str
    tests: int
    # A line for each test, or for the cell, that ended otherwise in a clone.
    differences: tuple[str, ...]


def read_proof(base: FoundEntry) -> Proof | None:
    """Return what was found of a base's clones, None when nobody has compared them."""
    try:
        return documents.parse_part((base.path / PROOF).read_bytes(), Proof)
    except (OSError, *documents.INVALID):
        return None


def note_proof(base: FoundEntry, proof: Proof) -> None:
    """Note with a base what was found of its clones."""
    documents.write(base.path / PROOF, proof)


def prove(
    setting: Setting,
    work: MatrixWork,
    declared: tuple[DifferenceSpec, ...],
    out_dir: Path,
    progress: Progress,
) -> Proof | None:
    """Run a cell in a VM that boots and in a clone, and find what differs.

    Args:
        setting: What the clone is made of.
        work: Has one cell.
        declared: Differences with which the cell passes all the same.
        out_dir: Gets the folders of both VMs.
        progress: Told of them.

    Returns:
        What was found; None when the cell did not pass in the VM that boots: a module that fails
        may fail otherwise each time.

    Raises:
        VmLostError: A VM did not come as far as the cell.
    """

    def plan(own: Setting, name: str) -> Callable[[Progress], CellResult]:
        return lambda lane: running.run_cells(own, work, out_dir / name, lane)[0][0]

    title = f"proof of the clones: {work.cells[0].name} in a VM that boots and in a clone"
    works = (plan(replace(setting, snapshot=None), "booted"), plan(setting, "cloned"))
    booted, cloned = differences.declare(parallel.run_all(works, title, progress), declared)
    if booted.outcome != Outcome.PASSED:
        return None
    return Proof(
        cell=work.cells[0].name,
        tests=len(booted.tests),
        differences=find_differences(booted, cloned),
    )


def find_differences(booted: CellResult, cloned: CellResult) -> tuple[str, ...]:
    """Return a line for each test, or for the cell, that ended otherwise in a clone."""
    first = {test.id: test.outcome.value for test in booted.tests}
    second = {test.id: test.outcome.value for test in cloned.tests}
    lines = [
        f"{name}: {first.get(name, 'did not run')} in a VM that boots, "
        f"{second.get(name, 'did not run')} in a clone"
        for name in dict.fromkeys((*first, *second))
        if first.get(name) != second.get(name)
    ]
    if booted.outcome != cloned.outcome:
        problems = "; ".join(cloned.problems)
        lines.append(f"the cell: {booted.outcome} in a VM that boots, {cloned.outcome}: {problems}")
    return tuple(lines)
