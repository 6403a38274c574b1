# SPDX-License-Identifier: GPL-2.0-only
"""A VM that was recorded, again: the same instructions, and so the same lines.

Source: docs/system/replay.rst and docs/devel/replay.rst, QEMU 10.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from twinmod.base import commands, documents, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import ConfigError
from twinmod.guest import protocol
from twinmod.kernels.model import KernelTree
from twinmod.project.model import VmSpec
from twinmod.vm import boot, machine

#: What both VMs wrote, relative to their folders.
SAID = ("results/console.log", "events.jsonl")

#: What its agent was told.
AGENT_PLAN = "results/plan.json"

#: How long a person may think about a line.
GDB_TIMEOUT_S = 86400.0

#: Where the first VM of a recorded run of the matrix lies.
EXAMPLE = "out/test/vm-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A VM that can be replayed."""

    # The folder of the VM.
    vm_dir: Path
    document: boot.RecordingDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a recorded VM is replayed on."""

    tree: KernelTree
    # With QEMU.
    chroot: Chroot
    # How long a VM may take that is not replayed.
    vm: VmSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a replay compares with what it repeats."""

    # By SAID, the number of lines.
    lines: Mapping[str, int]
    # By SAID, the first line that differs: its number, as it was, as it is.
    different: Mapping[str, tuple[int, str, str]]


def read_recording(vm_dir: Path) -> Recording:
    """Return the recording in a VM's folder.

    Raises:
        ConfigError: There is none, or not all of it.
    """
    path = vm_dir / boot.RECORDING_FILE
    facts = (("folder", str(vm_dir)),)
    made, again = commands.render("test", "--record"), commands.render("replay", EXAMPLE)
    hint = f"{made}, then {again}"
    try:
        document = documents.parse(path.read_bytes(), boot.RecordingDocument)
        agent_path = vm_dir / AGENT_PLAN
        if agent_path.exists():
            protocol.parse_plan(agent_path.read_bytes())
    except OSError as error:
        raise ConfigError("nothing was recorded there", facts=facts, hint=hint) from error
    except documents.INVALID as error:
        raise ConfigError(f"{path.name} is not one of ours", facts=facts, hint=hint) from error
    needed = ("initramfs", f"recording/{machine.EXECUTION.name}", AGENT_PLAN, *SAID)
    missing = [name for name in needed if not (vm_dir / name).is_file()]
    if missing:
        raise ConfigError(
            f"the recording is not whole: no {', no '.join(missing)}", facts=facts, hint=hint
        )
    return Recording(vm_dir=vm_dir, document=document)


def require_same(recording: Recording, platform: Platform) -> None:
    """Refuse to replay on another kernel, or with another QEMU.

    Raises:
        ConfigError: Either is not what it was.
    """
    was = recording.document
    tree, chroot = platform.tree, platform.chroot
    pairs = (("kernel", was.tree, tree.key), ("chroot", was.chroot, chroot.key))
    changed = [(what, f"was {old}, is {new}") for what, old, new in pairs if old != new]
    if changed:
        raise ConfigError(
            "it cannot be repeated: what it ran on has changed since",
            facts=tuple(changed),
            hint=commands.render("test", "--record"),
        )


def prepare_replay(
    recording: Recording, platform: Platform, out_dir: Path, *, gdb: bool
) -> boot.BootPlan:
    """Plan the VM that repeats another one.

    Args:
        recording: The other one.
        platform: What that one ran on.
        out_dir: The folder of this one.
        gdb: Wait, before the first instruction, until a debugger lets it go on.
    """
    qemu = tuple(part.replace("rr=record", "rr=replay") for part in recording.document.qemu)
    qemu += (*machine.plan_gdb_stub(), "-S") if gdb else ()
    binds = (
        Bind(source_path=recording.vm_dir, target_path=machine.VM_DIR),
        Bind(source_path=out_dir / "results", target_path=machine.RESULTS, writable=True),
        Bind(source_path=recording.vm_dir / "recording", target_path=machine.RECORDING),
        Bind(source_path=platform.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
    )
    patient = boot.plan_patience(platform.vm, boot.REPLAY_PATIENCE)
    command = Command(
        argv=sandbox.plan_enter(platform.chroot, qemu, Enter(binds=binds)),
        purpose="the VM was not repeated",
        timeout_s=GDB_TIMEOUT_S if gdb else boot.RUN_TIMEOUT_S * boot.REPLAY_PATIENCE,
        log_path=out_dir / "qemu.log",
    )
    agent_plan = protocol.parse_plan((recording.vm_dir / AGENT_PLAN).read_bytes())
    return boot.BootPlan(
        command=command,
        initramfs=None,
        agent_plan=agent_plan,
        vm_dir=out_dir,
        boot_timeout_s=GDB_TIMEOUT_S if gdb else patient.boot_timeout_s,
        silence_timeout_s=GDB_TIMEOUT_S if gdb else patient.silence_timeout_s,
    )


def read_comparison(first_dir: Path, second_dir: Path) -> Comparison:
    """Compare what two VMs said, line by line."""
    lines, different = {}, {}
    for name in SAID:
        first, second = (
            (folder / name).read_text(errors="replace").splitlines()
            for folder in (first_dir, second_dir)
        )
        lines[name] = len(second)
        length = max(len(first), len(second))
        padded = zip(_pad(first, length), _pad(second, length), strict=True)
        for number, (was, now) in enumerate(padded, 1):
            if was != now:
                different[name] = (number, was, now)
                break
    return Comparison(lines=lines, different=different)


def _pad(lines: list[str], length: int) -> list[str]:
    return lines + ["(nothing)"] * (length - len(lines))


def render_comparison(comparison: Comparison) -> str:
    """Return how a replay compares, a line for each thing that a VM writes."""
    lines = []
    for name, count in comparison.lines.items():
        if name in comparison.different:
            number, was, now = comparison.different[name]
            lines += [f"{name}: differs from line {number} on", f"  was {was}", f"  is  {now}"]
        else:
            lines.append(f"{name}: the same {count} lines")
    return "\n".join(lines)
