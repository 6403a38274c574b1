# SPDX-License-Identifier: GPL-2.0-only
"""A clone: a VM that goes on from a snapshot, and is given the modules and its work there."""

from dataclasses import replace
from pathlib import Path

from twinmod.base import sandbox
from twinmod.base.cache import FoundEntry
from twinmod.base.sandbox import Bind
from twinmod.builds.product import Product
from twinmod.guest import protocol
from twinmod.vm import boot, delivery, machine, snapshot
from twinmod.vm.boot import BootPlan, Setting, ShellWork, Work
from twinmod.vm.machine import VM_DIR, SavedMemory
from twinmod.vm.snapshot import ORIGIN, RAM, STATE, Qemu


def prepare_clone(setting: Setting, entry: FoundEntry, work: Work, vm_dir: Path) -> BootPlan:
    """Plan a clone that does some work.

    Args:
        setting: What the snapshot was made of.
        entry: The snapshot.
        work: What the clone is to do.
        vm_dir: Its own folder; must not exist.
    """
    binds = (
        Bind(source_path=entry.path, target_path=ORIGIN),
        *((Bind(source_path=vm_dir, target_path=VM_DIR),) if setting.counted else ()),
        *boot.plan_disks(setting, vm_dir),
    )
    memory = SavedMemory(path=str(ORIGIN / RAM), restored=True, private=True)
    interactive = isinstance(work, ShellWork)
    argv = snapshot.plan_qemu(setting, memory, interactive=interactive)
    qemu = Qemu(argv=argv, binds=binds, terminal=interactive)
    plan = replace(
        snapshot.plan_boot(setting, qemu, boot.plan_agent(setting, work), vm_dir),
        cells=() if isinstance(work, ShellWork) else work.cells,
        origin=entry,
        restored=str(ORIGIN / STATE),
        devices=setting.devices,
    )
    ports = machine.plan_addresses(setting.devices)
    given = delivery.make_delivery(plan.agent_plan, read_modules(work.products), ports=ports)
    if not setting.counted:
        return replace(plan, delivery=given)
    held = protocol.render_delivery(delivery.plan_constant(given)).encode()
    return replace(plan, files={machine.DELIVERY: held})


def read_modules(products: tuple[Product, ...]) -> dict[str, bytes]:
    """Return the content of modules and of what they need, by their paths in a VM."""
    found = boot.plan_module_files(products)
    return {str(sandbox.INSIDE / name): path.read_bytes() for name, path in found.items()}
