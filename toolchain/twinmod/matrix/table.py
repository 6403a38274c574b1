# SPDX-License-Identifier: GPL-2.0-only
"""The verb `matrix`: every kernel, module and tester, and what can run."""

from twinmod import workspace
from twinmod.builds import build
from twinmod.cells import model
from twinmod.cells.model import KernelCell
from twinmod.kernels import roots
from twinmod.project import config as project_config
from twinmod.project.config import Config


def list_cells(config: Config) -> tuple[KernelCell, ...]:
    """Return every kernel x module x tester of the configuration; make nothing."""
    found = []
    for spec in config.kernels:
        selected = project_config.select_kernel(config, spec.name)
        root = roots.find_chroot(selected.chroot)
        tree, error = workspace.look_for_tree(selected, root)
        for cell in model.plan_cells(config):
            reason = build.find_absence(cell.language, tree) if tree else error.message
            found.append(
                KernelCell(
                    kernel=spec.name,
                    release=tree.release if tree else "",
                    cell=cell,
                    reason=reason,
                    fix="" if tree else error.hint,
                )
            )
    return tuple(found)
