# SPDX-License-Identifier: GPL-2.0-only
"""The verb `matrix`: every kernel, module and tester, and what can run."""

from twinmod.cells import model
from twinmod.cells.model import KernelCell
from twinmod.workspace import Workspace


def list_cells(workspace: Workspace) -> tuple[KernelCell, ...]:
    """Return every kernel x module x tester of the project; make nothing."""
    found: list[KernelCell] = []
    for spec in workspace.config.kernels:
        tree, error = workspace.select(spec.name).look_for_tree()
        reasons = workspace.find_absences(tree) if tree else {}
        found += [
            KernelCell(
                kernel=spec.name,
                release=tree.release if tree else "",
                cell=cell,
                reason=reasons[cell.label] if tree else error.message,
                fix="" if tree else error.hint,
            )
            for cell in model.plan_cells(workspace.config)
        ]
    return tuple(found)
