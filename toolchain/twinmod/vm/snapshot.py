# SPDX-License-Identifier: GPL-2.0-only
"""A VM that has booted and collected the matrix, saved once: its clones go on from there.

A snapshot's memory is a file that every clone maps privately, so that a clone is there at once and
takes only what it changes. The file is never written again: QEMU reads it while a clone lives.
"""

import os
import re
import secrets
import time
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from twinmod.base import cache, sandbox
from twinmod.base.cache import CacheEntry, FoundEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Enter
from twinmod.builds.product import Product
from twinmod.errors import VmLostError
from twinmod.guest.protocol import Delivery, Job, Plan, Waiting
from twinmod.kernels.model import Origin
from twinmod.vm import boot, initramfs, machine, monitor, session
from twinmod.vm.boot import BootPlan, CellsWork, MatrixWork, Setting
from twinmod.vm.machine import RESULTS, VM_DIR, AcceleratorName, SavedMemory
from twinmod.vm.session import VmEnd

KIND = "snapshot"

RAM, STATE = "ram", "state"

#: How many times as long a VM may take to boot that is saved: all of its root is unpacked first.
PATIENCE = 3

#: How many snapshots of a kernel stay: each takes some 300 MB.
KEPT = 2

#: Where a clone finds the snapshot, as QEMU sees it.
SNAPSHOT = sandbox.INSIDE / "snapshot"

#: Changed when what is saved or how it is saved changes, and nothing in the key says so.
FORMAT = "1"

#: How much a clone's random number generator gets: what its key takes.
ENTROPY_BYTES = 32


def is_possible(setting: Setting) -> bool:
    """Whether VMs may be clones: of what was compared with VMs that boot, and of nothing else."""
    match setting.tree.origin:
        case Origin.STOCK:
            emulated = setting.accelerator.name == AcceleratorName.TCG
            return emulated and setting.root_dir is None
        case Origin.BUILT | Origin.TREE:
            return False
        case _:
            assert_never(setting.tree.origin)


def ensure(setting: Setting, progress: Progress) -> Setting:
    """Return the setting of VMs that are cloned from a snapshot, which is made when it is missing.

    Where it cannot be made, the setting stays, its VMs boot, and that is said.
    """
    entry = prepare_entry(setting)
    try:
        found = entry.ensure(progress)
        os.utime(found.path)
    except (VmLostError, OSError) as error:
        why = error.message if isinstance(error, VmLostError) else error.strerror or str(error)
        progress.note(f"no snapshot, so each VM boots: {why}")
        return setting
    for key in list_family(setting.tree.name)[KEPT:]:
        cache.remove_unused(KIND, key)
    return replace(setting, snapshot=found)


def list_family(kernel: str) -> tuple[str, ...]:
    """Return the keys of a kernel's snapshots, the last one that was used first."""
    digits = f"[0-9a-f]{{{cache.DIGITS}}}"
    found = [
        path
        for path in (cache.find_cache_dir() / KIND).glob(f"{kernel}-*")
        if re.fullmatch(re.escape(kernel) + "-" + digits, path.name)
    ]
    return tuple(
        path.name for path in sorted(found, key=lambda one: one.stat().st_mtime, reverse=True)
    )


def find_kept(kernel: str) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of the cache's folders with the snapshots of a kernel that stay."""
    return tuple((KIND, key) for key in list_family(kernel)[:KEPT])


def prepare_entry(setting: Setting) -> CacheEntry:
    """Return the entry with the snapshot that a setting's VMs are cloned from.

    To make it raises VmLostError: the VM did not come so far, or QEMU does not save it.

    Args:
        setting: What its clones are made of. The modules under test come later.
    """

    def make(work_dir: Path, progress: Progress) -> Made:
        with progress.phase(f"snapshot ({setting.accelerator.name}): boot, imports, collection"):
            _make(setting, work_dir, progress)
        return {"release": setting.tree.release}, (RAM, STATE)

    return CacheEntry(kind=KIND, key=plan_key(setting), make=make)


def plan_key(setting: Setting) -> str:
    """Return the key of a snapshot: of all that is in it, and of the machine."""
    userland = setting.userland
    inputs = (
        FORMAT,
        setting.tree.key,
        setting.chroot.key,
        setting.version,
        # Folders of the cache, whose names follow from what is in them.
        *(str(path) for path in (userland.site_dir, userland.programs_dir)),
        *(f"{tester.name} {path}" for tester, path in userland.tester_dirs),
        *plan_qemu(setting, SavedMemory(path=RAM)),
    )
    return cache.plan_key(setting.tree.name, inputs)


def plan_qemu(setting: Setting, memory: SavedMemory) -> tuple[str, ...]:
    """Return QEMU's argument vector of the VM that is saved, or of a clone."""
    parameters = " ".join((boot.FAULT_PARAMETERS, *setting.tree.parameters))
    return machine.plan_saved_qemu(setting.vm, setting.accelerator.name, memory, parameters)


def prepare_saved(setting: Setting, work_dir: Path, number: int) -> BootPlan:
    """Plan the VM that is saved.

    Args:
        setting: What it is made of.
        work_dir: Gets its memory and its state, and its own folder.
        number: Of that folder.
    """
    vm_dir = work_dir / f"vm-{number}"
    work = MatrixWork(cells=(), products=(), limit_s=0.0)
    agent_plan = replace(boot.plan_agent(setting, work), mode=Job.WAIT)
    view = boot.plan_view(setting, (), vm_dir)
    content = boot.read_whole_content(setting, view, agent_plan)
    binds = (
        Bind(source_path=vm_dir, target_path=VM_DIR),
        Bind(source_path=work_dir, target_path=SNAPSHOT, writable=True),
        Bind(source_path=setting.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
    )
    qemu = plan_qemu(setting, SavedMemory(path=str(SNAPSHOT / RAM)))
    patient = replace(setting, vm=boot.plan_patience(setting.vm, PATIENCE))
    plan = plan_boot(patient, qemu, binds, agent_plan, vm_dir)
    return replace(plan, initramfs=initramfs.plan_archive(content))


def prepare_clone(setting: Setting, entry: FoundEntry, work: CellsWork, vm_dir: Path) -> BootPlan:
    """Plan a clone that does some work.

    Args:
        setting: What the snapshot was made of.
        entry: The snapshot.
        work: What the clone is to do.
        vm_dir: Its own folder; must not exist.
    """
    binds = (Bind(source_path=entry.path, target_path=SNAPSHOT),)
    qemu = plan_qemu(setting, SavedMemory(path=str(SNAPSHOT / RAM), cloned=True))
    plan = plan_boot(setting, qemu, binds, boot.plan_agent(setting, work), vm_dir)
    delivery = Delivery(
        time_s=time.time(),
        entropy=secrets.token_hex(ENTROPY_BYTES),
        files=read_modules(work.products),
        ports=tuple(map(machine.plan_port_address, range(len(setting.devices)))),
        plan=plan.agent_plan,
    )
    return replace(
        plan,
        cells=work.cells,
        snapshot=entry,
        restored=str(SNAPSHOT / STATE),
        devices=setting.devices,
        delivery=delivery,
    )


def read_modules(products: tuple[Product, ...]) -> dict[str, str]:
    """Return modules as a clone gets them: by path in the VM, their content in base64."""
    return {
        str(sandbox.INSIDE / "module" / product.file_name): b64encode(
            product.path.read_bytes()
        ).decode()
        for product in products
    }


def plan_boot(
    setting: Setting, qemu: tuple[str, ...], binds: tuple[Bind, ...], agent: Plan, vm_dir: Path
) -> BootPlan:
    """Return the plan of a VM that is saved, or of a clone, as far as both are alike.

    Args:
        setting: What they are made of.
        qemu: QEMU's argument vector.
        binds: What QEMU sees, beside its folder of results.
        agent: What the agent is told.
        vm_dir: The VM's own folder.
    """
    results = Bind(source_path=vm_dir / "results", target_path=RESULTS, writable=True)
    kvm = setting.accelerator.name == AcceleratorName.KVM
    command = Command(
        argv=sandbox.plan_enter(
            setting.chroot,
            qemu,
            Enter(binds=(*binds, results), devices=("/dev/kvm",) if kvm else ()),
        ),
        purpose="the VM did not run",
        log_path=vm_dir / "qemu.log",
        timeout_s=boot.RUN_TIMEOUT_S,
    )
    return BootPlan(
        command=command,
        initramfs=None,
        agent_plan=agent,
        vm_dir=vm_dir,
        boot_timeout_s=setting.vm.boot_timeout_s,
        silence_timeout_s=setting.vm.silence_timeout_s,
        monitored=True,
    )


def _make(setting: Setting, work_dir: Path, progress: Progress) -> None:
    """Boot a VM, and save it when it waits.

    Raises:
        VmLostError: It did not come so far, or QEMU does not save it.
    """
    for number in range(session.STALLED_BOOTS + 1):
        plan = prepare_saved(setting, work_dir, number)
        # QEMU would make it readable for others: it holds all that a VM knows.
        (work_dir / RAM).unlink(missing_ok=True)
        os.close(os.open(work_dir / RAM, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        end = _save(plan)
        if end is None:
            return
        if number == session.STALLED_BOOTS or not session.is_stalled(end):
            raise session.plan_boot_error(plan, end)
        progress.note(session.render_stall(plan, end))


def _save(plan: BootPlan) -> VmEnd | None:
    """Boot a VM and save it; return None, or how it ended before it waited."""
    with session.run_vm(plan, lambda line: None) as vm:
        while (event := vm.read_event()) is not None and not isinstance(event, Waiting):
            pass
        if event is None or vm.monitor is None:
            return session.read_end(vm)
        monitor.save(vm.monitor, str(SNAPSHOT / STATE))
    return None
