# SPDX-License-Identifier: GPL-2.0-only
"""The verb `doctor`: what is there, what is needed, how to mend it."""

from collections.abc import Callable

from twinmod.base.check import Check
from twinmod.base.documents import Document, Part
from twinmod.kernels import find, roots
from twinmod.vm import accelerator as vm_accelerator
from twinmod.workspace import Workspace


class CheckEntry(Part, frozen=True, kw_only=True):
    """One thing that the doctor looked at; Check says what the keys mean."""

    group: str
    name: str
    found: str
    needed: str
    ok: bool
    required: bool
    fix: str


class DoctorReport(Document, frozen=True, kw_only=True, tag="twinmod.doctor/1"):
    """What `doctor` saw."""

    ready: bool
    checks: tuple[CheckEntry, ...]


def plan_doctor_report(checks: tuple[Check, ...]) -> DoctorReport:
    """Return the doctor's report."""
    return DoctorReport(
        ready=all(check.ok or not check.required for check in checks),
        checks=tuple(
            CheckEntry(
                group=check.group,
                name=check.name,
                found=check.found,
                needed=check.needed,
                ok=check.ok,
                required=check.required,
                fix=check.fix,
            )
            for check in checks
        ),
    )


def render_checks(checks: tuple[Check, ...]) -> str:
    """Return the doctor's lines, by group."""
    lines = []
    group = ""
    width = max(len(check.name) for check in checks)
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(group)
        word = "ok  " if check.ok else "FAIL" if check.required else "--  "
        lines.append(f"  {word} {check.name:<{width}}  found: {check.found}")
        if not check.ok:
            pad = " " * (width + 9)
            lines.append(f"{pad}needed: {check.needed}")
            if check.fix:
                lines.append(f"{pad}fix: {check.fix}")
    return "\n".join(lines)


def run_doctor(workspace: Workspace, probe: Callable[[str], bool]) -> tuple[Check, ...]:
    """Look at everything that a build needs; change nothing."""
    config = workspace.config
    root = roots.find_chroot(config.chroot)
    tree, error = workspace.look_for_tree()
    accelerator = vm_accelerator.find_accelerator(tree, root, config.vm, remember=False)
    return (
        *roots.check_host(),
        *roots.check_chroot(config.chroot, config.mirror, probe, config.kernel.name),
        *find.check_tree(find.choose_kernel(config), tree, error),
        *vm_accelerator.check_vm(accelerator),
    )
