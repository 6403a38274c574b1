# SPDX-License-Identifier: GPL-2.0-only
"""A recorded VM is repeated as it was, on what it ran on, and any other line is found."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base.sandbox import Chroot
from twinmod.errors import ConfigError
from twinmod.guest import protocol
from twinmod.guest.protocol import Job
from twinmod.kernels.model import KernelTree
from twinmod.project.model import VmSpec
from twinmod.vm import machine, recording

QEMU = ["qemu-system-x86_64", "-icount", "shift=1,rr=record,rrfile=/twinmod/recording/execution"]

WriteVm = Callable[[str, str], Path]


PLAN = protocol.Plan(
    mode=Job.MATRIX,
    port=recording.SERIAL_PORT,
    cells=(),
    modules={},
    testers={},
    matrix="/twinmod/matrix",
    version="0.1.0",
    limit_s=15.0,
    magic="/twinmod/native/magic.so",
    loop="/twinmod/native/loop",
)


def spoil_record(vm_dir: Path, **values: object) -> None:
    path = vm_dir / "recording.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def write_vm(tmp_path: Path, tree: KernelTree, root: Chroot) -> WriteVm:
    """A function that writes the folder of a recorded VM: its console, its events."""

    def write(console: str, events: str) -> Path:
        vm_dir = tmp_path / f"vm-{len(list(tmp_path.iterdir()))}"
        for name in ("results", "recording"):
            (vm_dir / name).mkdir(parents=True)
        record = {
            "schema": "twinmod.recording/1",
            "kernel": tree.name,
            "tree": tree.key,
            "chroot": root.key,
            "qemu": QEMU,
            "modules": {"mdriver_c": "ab12"},
        }
        (vm_dir / "recording.json").write_text(json.dumps(record))
        (vm_dir / "recording/execution").write_bytes(b"events of the machine")
        (vm_dir / "initramfs").write_bytes(b"all of it")
        (vm_dir / "results/plan.json").write_text(protocol.render_plan(PLAN))
        (vm_dir / "results/console.log").write_text(console)
        (vm_dir / "events.jsonl").write_text(events)
        return vm_dir

    return write


def test_a_replay_is_the_same_vm_that_reads_what_the_other_one_wrote(
    write_vm: WriteVm, tree: KernelTree, root: Chroot, vm: VmSpec, tmp_path: Path
) -> None:
    recorded = recording.read_recording(write_vm("", ""))
    found = recorded.document
    assert (found.kernel, found.modules) == (tree.name, {"mdriver_c": "ab12"})
    platform = recording.Platform(tree=tree, chroot=root, vm=vm)
    recording.require_same(recorded, platform)
    plan = recording.prepare_replay(recorded, platform, tmp_path / "replay", gdb=False)
    argv = plan.command.argv
    assert argv[-3:] == (*QEMU[:2], QEMU[2].replace("record,", "replay,", 1))
    assert plan.initramfs is None
    at = argv.index(str(recorded.vm_dir / "recording"))
    assert argv[at - 1] == "--ro-bind", "a replay that can write over what it repeats"
    assert plan.silence_timeout_s > recording.RECORD_PATIENCE * vm.silence_timeout_s


def test_a_debugger_is_waited_for_before_the_first_instruction(
    write_vm: WriteVm, tree: KernelTree, root: Chroot, vm: VmSpec, tmp_path: Path
) -> None:
    recorded = recording.read_recording(write_vm("", ""))
    platform = recording.Platform(tree=tree, chroot=root, vm=vm)
    plan = recording.prepare_replay(recorded, platform, tmp_path / "replay", gdb=True)
    assert plan.command.argv[-3:] == ("-gdb", f"unix:{machine.GDB_SOCKET},server=on,wait=off", "-S")
    assert plan.boot_timeout_s >= 3600


def test_the_first_line_that_differs_is_shown(write_vm: WriteVm) -> None:
    first = write_vm("a\nb\nc\n", '{"event": "boot"}\n')
    second = write_vm("a\nB\nC\n", '{"event": "boot"}\n')
    third = write_vm("a\nb\n", '{"event": "boot"}\n')
    same = recording.read_comparison(first, first)
    assert not same.different
    assert recording.render_comparison(same) == (
        "results/console.log: the same 3 lines\nevents.jsonl: the same 1 lines"
    )
    differs = recording.read_comparison(first, second)
    assert differs.different == {"results/console.log": (2, "b", "B")}
    assert recording.render_comparison(differs) == (
        "results/console.log: differs from line 2 on\n  was b\n  is  B\n"
        "events.jsonl: the same 1 lines"
    )
    assert recording.read_comparison(first, third).different == {
        "results/console.log": (3, "c", "(nothing)")
    }


def test_what_changed_since_is_named(
    write_vm: WriteVm, tree: KernelTree, root: Chroot, vm: VmSpec
) -> None:
    recorded = recording.read_recording(write_vm("", ""))
    other = recording.Platform(tree=replace(tree, key="trixie-1"), chroot=root, vm=vm)
    with pytest.raises(ConfigError, match="cannot be repeated") as caught:
        recording.require_same(recorded, other)
    assert caught.value.facts == (("kernel", f"was {tree.key}, is trixie-1"),)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda vm_dir: (vm_dir / "recording.json").unlink(), "nothing was recorded there"),
        (lambda vm_dir: (vm_dir / "recording.json").write_text("[]"), "not one of ours"),
        (lambda vm_dir: (vm_dir / "recording.json").write_text("{"), "not one of ours"),
        (lambda vm_dir: spoil_record(vm_dir, schema="twinmod.recording/2"), "not one of ours"),
        (lambda vm_dir: spoil_record(vm_dir, command=[]), "not one of ours"),
        (lambda vm_dir: spoil_record(vm_dir, qemu=[1]), "not one of ours"),
        (lambda vm_dir: spoil_record(vm_dir, modules=["mdriver_c"]), "not one of ours"),
        (lambda vm_dir: spoil_record(vm_dir, kernel=None), "not one of ours"),
        (lambda vm_dir: (vm_dir / "recording.json").write_bytes(b"\xff"), "not one of ours"),
        (lambda vm_dir: (vm_dir / "results/plan.json").write_text("["), "not one of ours"),
        (lambda vm_dir: (vm_dir / "results/plan.json").write_text("{}"), "not one of ours"),
        (lambda vm_dir: (vm_dir / "results/plan.json").unlink(), "not whole: no results/plan"),
        (lambda vm_dir: (vm_dir / "initramfs").unlink(), "not whole: no initramfs"),
        (lambda vm_dir: (vm_dir / "recording/execution").unlink(), "no recording/execution"),
    ],
)
def test_a_folder_that_cannot_be_replayed_is_refused(
    write_vm: WriteVm, spoil: Callable[[Path], object], why: str
) -> None:
    vm_dir = write_vm("", "")
    spoil(vm_dir)
    with pytest.raises(ConfigError, match=why):
        recording.read_recording(vm_dir)
