# SPDX-License-Identifier: GPL-2.0-only
"""How a VM comes to its work: it boots, is recorded from the beginning, is counted, or cloned."""

from pathlib import Path

from twinmod.vm import boot, clone, counting, recording
from twinmod.vm.boot import BootPlan, Setting, ShellWork, Work


def prepare_vm(setting: Setting, work: Work, vm_dir: Path) -> BootPlan:
    """Plan a VM.

    Args:
        setting: What it is made of.
        work: What it is to do.
        vm_dir: Its own folder; must not exist.
    """
    if recording.is_recorded(setting) and not isinstance(work, ShellWork):
        return recording.prepare_recorded(setting, work, vm_dir)
    if setting.snapshot is not None:
        return clone.prepare_clone(setting, setting.snapshot, work, vm_dir)
    if setting.counted and not isinstance(work, ShellWork):
        return counting.prepare_counting(setting, work, vm_dir)
    return boot.prepare_boot(setting, work, vm_dir)
