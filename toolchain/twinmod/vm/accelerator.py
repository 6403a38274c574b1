# SPDX-License-Identifier: GPL-2.0-only
"""What a VM runs on: KVM if a real guest boots with it, else TCG."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twinmod.base import cache, process, sandbox, templates
from twinmod.base.check import Check
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import BuildError
from twinmod.guest import faults
from twinmod.kernels.model import KernelTree
from twinmod.project.model import VmSpec
from twinmod.vm import console as vm_console
from twinmod.vm import initramfs, machine
from twinmod.vm.machine import RESULTS, VM_DIR, Accelerator, AcceleratorName

#: A VM that prints this came as far as its first program.
PROBE_LINE = "twinmod: the guest runs"
PROBE_TIMEOUT_S = 10.0

#: Changed when the probe may find something else on the same host.
PROBE_FORMAT = "2"

#: How many of QEMU's last lines say why it did not boot a guest: an assertion follows its reason.
QEMU_WORDS = 2


def find_accelerator(
    tree: KernelTree | None, chroot: Chroot | None, vm: VmSpec, *, remember: bool = True
) -> Accelerator:
    """Return what a VM runs on: KVM when a real guest booted with it, TCG otherwise.

    A /dev/kvm that opens proves nothing: on some nested hosts it cannot run a guest.

    Args:
        tree: What to boot; without it nothing can be tried.
        chroot: Where QEMU is.
        vm: Memory and processors.
        remember: Keep what was found until this host boots again.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        exists = Path("/dev/kvm").exists()
        why = "this user may not open /dev/kvm" if exists else "this host has no /dev/kvm"
        return Accelerator(name=AcceleratorName.TCG, reason=why)
    if tree is None or chroot is None:
        return Accelerator(
            name=AcceleratorName.TCG, reason="KVM is tried with a real guest after setup"
        )
    path = cache.find_cache_dir() / "accelerator.json"
    identity = f"{_read_boot_id()} {tree.key} {PROBE_FORMAT}"
    try:
        known = json.loads(path.read_text())
        if known["identity"] == identity:
            return Accelerator(name=AcceleratorName(known["name"]), reason=known["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = probe_kvm(tree, chroot, vm)
    if remember:
        record = {"identity": identity, "name": found.name, "reason": found.reason}
        cache.write_atomically(path, json.dumps(record) + "\n")
    return found


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def _probe_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="twinmod-") as name:
        yield Path(name)


def probe_kvm(tree: KernelTree, chroot: Chroot, vm: VmSpec) -> Accelerator:
    """Boot a real guest with KVM and return what came of it."""
    init = templates.render_template(
        "init.j2",
        {
            "probe": PROBE_LINE,
            "vm_modules": (),
            "environment": (),
            "source_time": 0,
            "counted": False,
            "layered": False,
        },
    )
    busybox = (chroot.root_dir / "usr/bin/busybox").read_bytes()
    folders = ("bin", "proc", "dev")
    with _probe_dir() as vm_dir:
        (vm_dir / "results").mkdir()
        (vm_dir / "initramfs").write_bytes(
            initramfs.plan_archive(
                initramfs.Content(
                    folders=folders, files=(("bin/busybox", busybox), ("init", init.encode()))
                )
            )
        )
        binds = (
            Bind(source_path=vm_dir, target_path=VM_DIR),
            Bind(source_path=vm_dir / "results", target_path=RESULTS, writable=True),
            Bind(source_path=tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
        )
        entered = sandbox.plan_enter(
            chroot,
            machine.plan_qemu(vm, AcceleratorName.KVM),
            Enter(binds=binds, devices=("/dev/kvm",)),
        )
        log_path = vm_dir / "qemu.log"
        command = Command(
            argv=entered, purpose="KVM probe", timeout_s=PROBE_TIMEOUT_S, log_path=log_path
        )
        try:
            status: int | None = process.run_unchecked(command)[0]
        except BuildError:
            status = None
        output = log_path.read_text(errors="replace")
        return plan_accelerator(vm_console.read_console(vm_dir), output, status)


def plan_accelerator(console: str, qemu_output: str, status: int | None) -> Accelerator:
    """Return what a VM runs on, from what came of a guest that was booted with KVM.

    Args:
        console: What its kernel said.
        qemu_output: What QEMU said.
        status: QEMU's exit status, None when it had to be ended.
    """
    if PROBE_LINE in console:
        warned = vm_console.find_words(console) if faults.parse_faults(console) else ""
        reason = f"a guest booted with it, and {warned}" if warned else "a guest booted with it"
        return Accelerator(name=AcceleratorName.KVM, reason=reason)
    how = (
        f"it did not reach its first program within {PROBE_TIMEOUT_S:.0f} s"
        if status is None
        # -no-reboot: QEMU ends as if all were well.
        else "the guest reset itself or powered off, as after a triple fault"
        if status == 0
        else f"QEMU ended with status {status}"
    )
    said = [line.strip() for line in qemu_output.splitlines() if line.strip()][-QEMU_WORDS:]
    words = vm_console.find_words(console) or "the guest said nothing"
    why = "; ".join((how, *(f"QEMU said: {line}" for line in said), words))
    return Accelerator(
        name=AcceleratorName.TCG, reason=f"/dev/kvm opens, but no guest boots with it: {why}"
    )


def check_vm(accelerator: Accelerator) -> tuple[Check, ...]:
    """Return what the doctor says of the VM."""
    return (
        Check(
            group="VM",
            name="accelerator",
            needed="kvm or tcg",
            ok=True,
            found=f"{accelerator.name} ({accelerator.reason})",
        ),
    )
