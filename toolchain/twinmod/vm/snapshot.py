# SPDX-License-Identifier: GPL-2.0-only
"""VMs that were saved once, and whose clones go on from there.

A *base* has booted and imported what runs a matrix. A *snapshot* is a clone of a base that has
collected one matrix: an edited test costs no boot.

The memory of both is a file that every clone maps privately, so that a clone is there at once and
takes only what it changes. The file is never written again: QEMU reads it while a clone lives.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import cache, files, sandbox
from twinmod.base.cache import CacheEntry, FoundEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Enter
from twinmod.errors import VmLostError
from twinmod.guest.protocol import Job, Plan, Waiting
from twinmod.vm import boot, delivery, devices, initramfs, machine, monitor, session
from twinmod.vm.boot import BootPlan, MatrixWork, Setting
from twinmod.vm.initramfs import Content
from twinmod.vm.machine import RESULTS, VM_DIR, AcceleratorName, SavedMemory
from twinmod.vm.session import VmEnd

BASE, SNAPSHOT = "base", "snapshot"

#: A base whose clones count.
COUNTING = "counting"

RAM, STATE = "ram", "state"

#: How many times as long a VM may take to boot that is saved: all of its root is unpacked first.
PATIENCE = 3

#: How many bases and snapshots of a kernel stay: each takes some 300 MB.
KEPT = 2

#: Where a VM that is saved leaves memory and state, and where one finds them that goes on from
#: there, as QEMU sees it.
SAVED, ORIGIN = sandbox.INSIDE / "saved", sandbox.INSIDE / "origin"

#: Changed when what is saved or how it is saved changes, and nothing in the key says so.
FORMAT = "2"

#: What of /twinmod a base has, and what no base has: the one package is in the other's folder.
PACKAGE, MATRIX = "package", "matrix"
BASE_PARTS = (PACKAGE, "site")

#: What is in a VM that boots alone, and differs there.
OWN_FILES = ("init", "results/plan.json")


def find_obstacle(setting: Setting) -> str:
    """Return why VMs cannot be clones, "" where they can."""
    if setting.root_dir is not None:
        return "its root is not the chroot"
    if setting.accelerator.name == AcceleratorName.RECORD:
        return f"{setting.accelerator.name} needs a VM that boots"
    return devices.find_obstacle(setting.devices)


def list_family(kind: str, kernel: str) -> tuple[str, ...]:
    """Return the keys of a kernel's bases or snapshots, the last one that was used first."""
    digits = f"[0-9a-f]{{{cache.DIGITS}}}"
    found = [
        path
        for path in (cache.find_cache_dir() / kind).glob(f"{kernel}-*")
        if re.fullmatch(re.escape(kernel) + "-" + digits, path.name)
    ]
    return tuple(
        path.name for path in sorted(found, key=lambda one: one.stat().st_mtime, reverse=True)
    )


def find_kept(kernel: str) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of the cache's folders with the saved VMs of a kernel that stay."""
    return tuple(
        (kind, key)
        for kind in (BASE, SNAPSHOT, COUNTING)
        for key in list_family(kind, kernel)[:KEPT]
    )


def use(entry: CacheEntry, kernel: str, progress: Progress) -> FoundEntry:
    """Return a saved VM, made when it is missing; the oldest ones of its kernel go.

    Raises:
        VmLostError: The VM did not come so far, or QEMU does not save it.
        OSError: The disk has no room for it.
    """
    found = entry.ensure(progress)
    os.utime(found.path)
    for key in list_family(entry.kind, kernel)[KEPT:]:
        cache.remove_unused(entry.kind, key)
    return found


def read_tests(entry: FoundEntry) -> Mapping[str, tuple[str, ...]]:
    """Return the rules of every test that a saved VM has collected, by its name, in its order."""
    return {name: tuple(rules) for name, rules in entry.record.get("tests", ())}


# -- the base ---------------------------------------------------------------------------------


def prepare_base(setting: Setting) -> CacheEntry:
    """Return the entry of a VM that has booted, and has imported what runs a matrix or measures.

    To make it raises VmLostError: the VM did not come so far, or QEMU does not save it.

    Args:
        setting: What its clones are made of. Matrix, testers and modules come later; where they
            count, the modules alone.
    """

    def make(work_dir: Path, progress: Progress) -> Made:
        title = f"VM that is saved ({setting.accelerator.name}): boot, imports"
        with progress.phase(title):
            _make_base(setting, work_dir, progress)
        return {"release": setting.tree.release}, (RAM, STATE)

    kind = COUNTING if setting.counted else BASE
    return CacheEntry(kind=kind, key=read_base_key(setting), make=make)


def find_base(setting: Setting) -> FoundEntry | None:
    """Return the base of a setting's clones, None when nobody has made it."""
    return prepare_base(setting).find()


def read_base_key(setting: Setting) -> str:
    """Return the key of a base: of all that is in it, and of the machine."""
    package = files.read_files(setting.userland.programs_dir / "package")
    parts = plan_base_parts(setting)
    inputs = (
        FORMAT,
        setting.tree.key,
        setting.chroot.key,
        files.plan_digest("", package),
        *((setting.layer.key,) if setting.layer else ()),
        # Folders of the cache, whose names follow from what is in them.
        *(f"{name} {path}" for name, path in parts.items() if name != PACKAGE),
        *(f"{name}={value}" for name, value in boot.plan_environment(setting.userland)),
        *plan_qemu(setting, SavedMemory(path=RAM)),
    )
    return cache.plan_key(setting.tree.name, inputs)


def plan_qemu(
    setting: Setting, memory: SavedMemory, *, interactive: bool = False
) -> tuple[str, ...]:
    """Return QEMU's argument vector of a VM that is saved, or that goes on from a state."""
    faults = () if setting.counted else (boot.FAULT_PARAMETERS,)
    parameters = " ".join((*faults, *setting.tree.parameters))
    name = setting.accelerator.name
    own = replace(memory, seed=setting.seed)
    return machine.plan_saved_qemu(setting.vm, name, own, parameters, interactive=interactive)


def plan_base_agent(setting: Setting) -> Plan:
    """Return what the agent of a base is told: to wait, for whatever matrix."""
    whole = plan_waiting(setting)
    return replace(whole, mode=Job.WAIT, testers={}, matrix="", version="", counted=setting.counted)


def plan_waiting(setting: Setting) -> Plan:
    """Return what the agent of a VM is told that waits: it has no device yet."""
    return boot.plan_agent(replace(setting, devices=()), plan_nothing())


def plan_nothing() -> MatrixWork:
    """Return the work of a VM that waits."""
    return MatrixWork(cells=(), products=(), limit_s=0.0)


def plan_base_parts(setting: Setting) -> dict[str, Path]:
    """Return what lies in /twinmod of a base: without a matrix, all that its clones need."""
    parts = boot.plan_parts(setting, ())
    if setting.counted:
        return {name: path for name, path in parts.items() if name != MATRIX}
    return {name: parts[name] for name in BASE_PARTS}


def read_base_content(setting: Setting, *, packages: bool = True) -> Content:
    """Return what a base has in memory; its packages are the largest part of it."""
    return boot.read_whole_content(
        setting,
        plan_base_agent(setting),
        plan_base_parts(setting),
        setting.tree.vm_module_paths,
        packages=packages,
    )


def prepare_saved_boot(setting: Setting, work_dir: Path, number: int) -> BootPlan:
    """Plan the VM that boots and is saved.

    Args:
        setting: What it is made of.
        work_dir: Gets its memory and its state, and its own folder.
        number: Of that folder.
    """
    vm_dir = work_dir / f"vm-{number}"
    binds = (
        Bind(source_path=vm_dir, target_path=VM_DIR),
        Bind(source_path=work_dir, target_path=SAVED, writable=True),
        Bind(source_path=setting.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
    )
    argv = plan_qemu(setting, SavedMemory(path=str(SAVED / RAM)))
    patient = replace(setting, vm=boot.plan_patience(setting.vm, PATIENCE))
    plan = plan_boot(patient, Qemu(argv=argv, binds=binds), plan_base_agent(setting), vm_dir)
    return replace(plan, initramfs=initramfs.plan_archive(read_base_content(setting)))


def _make_base(setting: Setting, work_dir: Path, progress: Progress) -> None:
    """Boot a VM, and save it when it waits.

    Raises:
        VmLostError: It did not come so far, or QEMU does not save it.
    """
    for number in range(session.STALLED_BOOTS + 1):
        plan = prepare_saved_boot(setting, work_dir, number)
        # QEMU would make it readable for others: it holds all that a VM knows.
        (work_dir / RAM).unlink(missing_ok=True)
        os.close(os.open(work_dir / RAM, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        found = _save(plan)
        if isinstance(found, Waiting):
            return
        if number == session.STALLED_BOOTS or not session.is_stalled(found):
            raise session.plan_boot_error(plan, found)
        progress.note(session.render_stall(plan, found))


# -- the snapshot -----------------------------------------------------------------------------


def prepare_snapshot(setting: Setting, base: FoundEntry) -> CacheEntry:
    """Return the entry of a base's clone that has collected the matrix.

    To make it raises VmLostError: the matrix has no test, or QEMU does not save it.

    Args:
        setting: What its clones are made of. The modules under test come later.
        base: It goes on from there.
    """

    def make(work_dir: Path, progress: Progress) -> Made:
        with progress.phase(f"clone that is saved ({setting.accelerator.name}): collection"):
            tests = _make_snapshot(setting, base, work_dir)
        # JSON keeps the order of a list; the record's keys are sorted.
        return {"base": base.key, "tests": list(tests.items())}, (RAM, STATE)

    return CacheEntry(kind=SNAPSHOT, key=plan_snapshot_key(setting, base), make=make)


def plan_snapshot_key(setting: Setting, base: FoundEntry) -> str:
    """Return the key of a snapshot: of its base, and of all that came to it."""
    userland = setting.userland
    inputs = (
        base.key,
        setting.version,
        # Folders of the cache, whose names follow from what is in them.
        str(userland.programs_dir),
        *(f"{tester.name} {path}" for tester, path in userland.tester_dirs),
    )
    return cache.plan_key(setting.tree.name, inputs)


def prepare_saved_clone(setting: Setting, base: FoundEntry, work_dir: Path) -> BootPlan:
    """Plan the clone of a base that is saved.

    Args:
        setting: What it is made of.
        base: It goes on from there.
        work_dir: Has a copy of the base's memory, gets its state, and its own folder.
    """
    vm_dir = work_dir / "clone-0"
    binds = (
        Bind(source_path=base.path, target_path=ORIGIN),
        Bind(source_path=work_dir, target_path=SAVED, writable=True),
    )
    argv = plan_qemu(setting, SavedMemory(path=str(SAVED / RAM), restored=True))
    agent = replace(plan_waiting(setting), mode=Job.WAIT)
    patient = replace(setting, vm=boot.plan_patience(setting.vm, PATIENCE))
    plan = plan_boot(patient, Qemu(argv=argv, binds=binds), agent, vm_dir)
    # Both have the same packages.
    parts = boot.plan_parts(setting, ())
    whole = boot.read_whole_content(setting, agent, parts, packages=False)
    brought, links = plan_additions(whole, read_base_content(setting, packages=False))
    return replace(
        plan,
        origin=base,
        restored=str(ORIGIN / STATE),
        delivery=delivery.make_delivery(agent, brought, links),
    )


def plan_additions(whole: Content, base: Content) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return what a root has that a base lacks: by path, content of files, and targets of links."""
    there = {*dict(base.files), *dict(base.links), *OWN_FILES}
    return (
        {f"/{name}": content for name, content in whole.files if name not in there},
        {f"/{name}": target for name, target in whole.links if name not in there},
    )


def _make_snapshot(
    setting: Setting, base: FoundEntry, work_dir: Path
) -> Mapping[str, tuple[str, ...]]:
    """Let a clone of a base collect the matrix, and save it; return the rules of its tests.

    Raises:
        VmLostError: It did not go on, collected nothing, or QEMU does not save it.
    """
    with cache.share(base):
        files.copy_sparsely(base.path / RAM, work_dir / RAM)
    plan = prepare_saved_clone(setting, base, work_dir)
    found = _save(plan)
    if not isinstance(found, Waiting):
        raise session.plan_boot_error(plan, found)
    if not found.tests:
        raise VmLostError("pytest collected no test in it", facts=(("folder", str(plan.vm_dir)),))
    return found.tests


# -- both -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    """How QEMU is called for a VM that is saved, or for a clone."""

    argv: tuple[str, ...]
    # What it sees, beside its folder of results.
    binds: tuple[Bind, ...]
    # Whether its standard input and output are the caller's terminal.
    terminal: bool = False


def plan_boot(setting: Setting, qemu: Qemu, agent: Plan, vm_dir: Path) -> BootPlan:
    """Return the plan of a VM that is saved, or of a clone, as far as both are alike.

    Args:
        setting: What they are made of.
        qemu: How QEMU is called.
        agent: What the agent is told.
        vm_dir: The VM's own folder.
    """
    results = Bind(source_path=vm_dir / "results", target_path=RESULTS, writable=True)
    kvm = setting.accelerator.name == AcceleratorName.KVM
    entered = sandbox.plan_enter(
        setting.chroot,
        qemu.argv,
        Enter(
            binds=(*qemu.binds, *boot.plan_native(setting), results),
            terminal=qemu.terminal,
            devices=("/dev/kvm",) if kvm else (),
        ),
    )
    command = Command(
        argv=entered,
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


def _save(plan: BootPlan) -> Waiting | VmEnd:
    """Run a VM and save it when it waits; return what it said then, or how it ended before."""
    with session.run_vm(plan, lambda line: None) as vm:
        while (event := vm.read_event()) is not None and not isinstance(event, Waiting):
            pass
        if event is None or vm.monitor is None:
            return session.read_end(vm)
        monitor.save(vm.monitor, str(SAVED / STATE))
    return event
