# SPDX-License-Identifier: GPL-2.0-only
"""A VM that is recorded, and the same again: the same instructions, and so the same lines.

Source: docs/system/replay.rst and docs/devel/replay.rst, QEMU 10.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import commands, documents, sandbox
from twinmod.base.documents import Document
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import ConfigError
from twinmod.guest import protocol
from twinmod.kernels.model import KernelTree
from twinmod.project.model import VmSpec
from twinmod.vm import boot, initramfs, machine
from twinmod.vm.boot import BootPlan, CellsWork, Setting
from twinmod.vm.machine import RECORDING, RESULTS, VM_DIR, Accelerator, AcceleratorName

#: What both VMs wrote, relative to their folders.
SAID = ("results/console.log", "events.jsonl")

#: What its agent was told.
AGENT_PLAN = "results/plan.json"

#: How long a person may think about a line.
GDB_TIMEOUT_S = 86400.0

#: Where the first VM of a recorded run of the matrix lies.
EXAMPLE = "out/test/vm-1"


#: What a recorded VM's folder has to say how it was booted.
RECORDING_FILE = "recording.json"

#: How a recorded VM, which has no virtio port, has its events on a serial line.
SERIAL_PORT = "/dev/ttyS1"

#: How many times as long a VM may take that is recorded, and one that is replayed: one thread
#: emulates all of it, and a replay was seen to take six times as long as what it repeats.
RECORD_PATIENCE = 4
REPLAY_PATIENCE = 10 * RECORD_PATIENCE


class RecordingDocument(Document, frozen=True, kw_only=True, tag="twinmod.recording/1"):
    """What it takes to replay a VM, beside its folder."""

    # The name of its kernel in [tool.twinmod.kernels].
    kernel: str
    # What identifies the kernel's tree and its chroot in the cache.
    tree: str
    chroot: str
    # QEMU's argument vector inside the chroot.
    qemu: tuple[str, ...]
    # By module, the digest of the file that ran.
    modules: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A VM that can be replayed."""

    # The folder of the VM.
    vm_dir: Path
    document: RecordingDocument


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
    path = vm_dir / RECORDING_FILE
    facts = (("folder", str(vm_dir)),)
    made, again = commands.render("test", "--record"), commands.render("replay", EXAMPLE)
    hint = f"{made}, then {again}"
    try:
        document = documents.parse(path.read_bytes(), RecordingDocument)
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


def plan_recorded(setting: Setting) -> Setting:
    """Return the setting of VMs that can be replayed, instruction for instruction.

    Raises:
        ConfigError: They have a disk.

    Source: docs/system/replay.rst, QEMU 10.0: one processor, and no device that it does not know.
    """
    if disks := machine.plan_disks(setting.devices):
        raise ConfigError(
            f"a VM with a disk cannot be recorded, and {len(disks)} of vm.devices have one: QEMU "
            "replays no disk that is a file",
            hint="leave --record out, or choose a driver without such a device",
        )
    why = "on one processor, with everything in memory, so that it can be replayed"
    return replace(
        setting,
        accelerator=Accelerator(name=AcceleratorName.RECORD, reason=why),
        vm=boot.plan_patience(replace(setting.vm, processors=1), RECORD_PATIENCE),
    )


def is_recorded(setting: Setting) -> bool:
    """Whether the VMs of a setting can be replayed: nothing comes in once they run."""
    return setting.accelerator.name == AcceleratorName.RECORD


def prepare_recorded(setting: Setting, work: CellsWork, vm_dir: Path) -> BootPlan:
    """Plan a VM that can be replayed: it has all that it needs in its first memory.

    Args:
        setting: From plan_recorded.
        work: What it is to do.
        vm_dir: Its own folder; must not exist.
    """
    agent = replace(boot.plan_agent(setting, work), port=SERIAL_PORT)
    content = boot.read_whole_content(setting, agent, boot.plan_parts(setting, work.products))
    qemu = (
        *machine.plan_recorded_qemu(setting.vm, boot.plan_parameters(setting, work, "nokaslr")),
        *machine.plan_devices(setting.devices),
    )
    command = Command(
        argv=sandbox.plan_enter(
            setting.chroot, qemu, Enter(binds=plan_recorded_view(setting, vm_dir))
        ),
        purpose="the VM did not run",
        log_path=vm_dir / "qemu.log",
        timeout_s=boot.RUN_TIMEOUT_S * RECORD_PATIENCE,
    )
    return BootPlan(
        command=command,
        initramfs=initramfs.plan_archive(content),
        agent_plan=agent,
        cells=work.cells,
        vm_dir=vm_dir,
        boot_timeout_s=setting.vm.boot_timeout_s,
        silence_timeout_s=setting.vm.silence_timeout_s,
        files={
            RECORDING_FILE: documents.encode(plan_recording(setting, work, qemu)),
            # QEMU writes it, and makes no folder.
            f"recording/{machine.EXECUTION.name}": b"",
        },
        kept=True,
    )


def plan_recorded_view(setting: Setting, vm_dir: Path) -> tuple[Bind, ...]:
    """Return what QEMU sees of a VM that has all it needs in its initramfs."""
    return (
        Bind(source_path=vm_dir, target_path=VM_DIR),
        Bind(source_path=vm_dir / "results", target_path=RESULTS, writable=True),
        Bind(source_path=vm_dir / "recording", target_path=RECORDING, writable=True),
        Bind(source_path=setting.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
    )


def plan_recording(setting: Setting, work: CellsWork, qemu: tuple[str, ...]) -> RecordingDocument:
    """Return what it takes to replay a VM, beside its folder."""
    return RecordingDocument(
        kernel=setting.tree.name,
        tree=setting.tree.key,
        chroot=setting.chroot.key,
        qemu=qemu,
        modules={p.module: p.sha256 for p in work.products},
    )


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
) -> BootPlan:
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
        Bind(source_path=recording.vm_dir, target_path=VM_DIR),
        Bind(source_path=out_dir / "results", target_path=RESULTS, writable=True),
        Bind(source_path=recording.vm_dir / "recording", target_path=RECORDING),
        Bind(source_path=platform.tree.image_path, target_path=sandbox.INSIDE / "vmlinux"),
    )
    patient = boot.plan_patience(platform.vm, REPLAY_PATIENCE)
    command = Command(
        argv=sandbox.plan_enter(platform.chroot, qemu, Enter(binds=binds)),
        purpose="the VM was not repeated",
        timeout_s=GDB_TIMEOUT_S if gdb else boot.RUN_TIMEOUT_S * REPLAY_PATIENCE,
        log_path=out_dir / "qemu.log",
    )
    agent_plan = protocol.parse_plan((recording.vm_dir / AGENT_PLAN).read_bytes())
    return BootPlan(
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
