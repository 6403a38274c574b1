# SPDX-License-Identifier: GPL-2.0-only
"""A VM that boots and whose instructions are counted, where it cannot be a clone."""

from pathlib import Path

from twinmod.base import sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Enter
from twinmod.vm import boot, initramfs, machine
from twinmod.vm.boot import BootPlan, CellsWork, Setting
from twinmod.vm.machine import RESULTS, VM_DIR


def prepare_counting(setting: Setting, work: CellsWork, vm_dir: Path) -> BootPlan:
    """Plan a VM that counts: its root lies where that of a clone does, which calls can tell.

    Args:
        setting: From boot.plan_exact.
        work: What it is to do.
        vm_dir: Its own folder; must not exist.
    """
    agent = boot.plan_agent(setting, work)
    content = boot.read_whole_content(setting, agent, boot.plan_parts(setting, work.products))
    qemu = machine.plan_counting_qemu(setting.vm, boot.plan_parameters(setting, work, ""))
    qemu += machine.plan_devices(setting.devices)
    binds = (
        Bind(source_path=vm_dir, target_path=VM_DIR),
        Bind(source_path=vm_dir / "results", target_path=RESULTS, writable=True),
        Bind(source_path=setting.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
        *boot.plan_native(setting),
        *boot.plan_disks(setting, vm_dir),
    )
    command = Command(
        argv=sandbox.plan_enter(setting.chroot, qemu, Enter(binds=binds)),
        purpose="the VM did not run",
        log_path=vm_dir / "qemu.log",
        timeout_s=boot.RUN_TIMEOUT_S,
    )
    return BootPlan(
        command=command,
        initramfs=initramfs.plan_archive(content),
        agent_plan=agent,
        cells=work.cells,
        vm_dir=vm_dir,
        boot_timeout_s=setting.vm.boot_timeout_s,
        silence_timeout_s=setting.vm.silence_timeout_s,
        devices=setting.devices,
    )
