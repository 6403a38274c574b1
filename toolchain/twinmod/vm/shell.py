# SPDX-License-Identifier: GPL-2.0-only
"""A VM whose console is the terminal of a person."""

from pathlib import Path

from twinmod.base import process
from twinmod.vm import boot
from twinmod.vm.boot import Setting, ShellWork


def run_shell(setting: Setting, work: ShellWork, vm_dir: Path) -> int:
    """Boot a VM for a person; return QEMU's status."""
    plan = boot.prepare_boot(setting, work, vm_dir)
    with boot.write_vm_dir(plan):
        return process.run_interactive(plan.command)
