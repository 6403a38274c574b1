# SPDX-License-Identifier: GPL-2.0-only
"""Runs of a few tests, whose VMs are cloned from a snapshot, with QEMU played by a program.

bwrap is a program that plays a script; everything else is as it is in a run. See tests/fakevm.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fakevm
from fakevm import BOOT, KILL, Host, MakeElf
from twinmod.base import cache
from twinmod.base.progress import Progress
from twinmod.errors import ExitCode
from twinmod.guest import protocol
from twinmod.kernels.model import Origin
from twinmod.vm import boot, machine, session, snapshot

#: What a run of the tests of one rule is called with.
NARROWED = ("test", "--rule", "R1", "--module", "c")

SAVED, CLONE = "vm-0", "test/vm-1"


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    made = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    cell = (fakevm.begin("@CELL@"), *fakevm.run_test("R1"), fakevm.end())
    for name in (cell.name for cell in fakevm.CELLS):
        made.play_cell(name, *cell)
    folder = cache.find_cache_dir() / snapshot.KIND
    cache.remove_tree(folder)
    yield made
    cache.remove_tree(folder)


def list_snapshots() -> list[Path]:
    folder = cache.find_cache_dir() / snapshot.KIND
    return sorted(folder.iterdir()) if folder.is_dir() else []


def list_vms(host: Host) -> list[str]:
    """Return the names of the folders of all VMs, but for one that tries KVM."""
    names = (Path(one["vm"]).name for one in host.started if "vm" in one)
    return [name for name in names if name.startswith("vm-")]


def find_words(host: Host, vm: str) -> list[str]:
    """Return QEMU's arguments of the last VM in a folder."""
    return next(one["argv"] for one in reversed(host.started) if one.get("vm", "").endswith(vm))


def test_a_snapshot_is_made_once_and_cloned_by_each_run(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert list_vms(host) == [SAVED, "vm-1", "vm-1"]
    assert len(host.read("test/report.json")["cells"]) == 2
    first, second = (one for one in host.started if "delivered" in one)
    assert first["delivered"] == ["/twinmod/module/toy_c.ko"]
    assert first["entropy"] != second["entropy"]


def test_a_clone_is_the_machine_that_was_saved_and_maps_its_memory_privately(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    saved, clone = find_words(host, SAVED), find_words(host, CLONE)
    (ram,) = (word for word in saved if word.startswith("memory-backend-file"))
    assert ram.endswith(",mem-path=/twinmod/snapshot/ram,share=on")
    assert ram.replace("share=on", "share=off,readonly=on,rom=off") in clone
    assert clone[clone.index("-incoming") + 1] == "defer"
    own = ("-kernel", "-initrd", "-append")
    assert [name for name in own if name in saved] == list(own)
    assert [name for name in own if name in clone] == []
    for name in ("-M", "-accel", "-cpu", "-smp", "-m", "-device", "-serial"):
        assert saved[saved.index(name) + 1] == clone[clone.index(name) + 1]
    (entry,) = list_snapshots()
    assert stat.S_IMODE((entry / snapshot.RAM).stat().st_mode) == 0o600
    assert not list(entry.rglob("initramfs"))
    assert not list(entry.rglob(machine.MONITOR))


@pytest.mark.parametrize("words", [(), ("--record", "--rule", "R1")])
def test_a_whole_run_and_a_recorded_one_boot_their_vms(host: Host, words: tuple[str, ...]) -> None:
    for name in (cell.name for cell in fakevm.CELLS):
        host.play_cell(name, *fakevm.run_cell())
    assert host.call("test", *words) == ExitCode.PASSED
    assert list_snapshots() == []
    assert "-incoming" not in find_words(host, CLONE)


def test_only_what_was_compared_with_vms_that_boot_is_cloned(
    host: Host, progress: Progress, tmp_path: Path
) -> None:
    setting = fakevm.make_bench(host, progress).setting
    assert snapshot.is_possible(setting)
    built = replace(setting.tree, origin=Origin.BUILT)
    kvm = replace(setting.accelerator, name=machine.AcceleratorName.KVM)
    for other in (
        replace(setting, tree=built),
        replace(setting, accelerator=kvm),
        replace(setting, root_dir=tmp_path),
        boot.plan_recorded(setting),
    ):
        assert not snapshot.is_possible(other)


@pytest.mark.parametrize(
    ("vm", "script", "said"),
    [
        (
            SAVED,
            (BOOT, ("waiting",), ("save", "nvme cannot be saved")),
            "no snapshot, so each VM boots: QEMU refuses migrate: nvme cannot be saved",
        ),
        (SAVED, (BOOT, KILL), "no snapshot, so each VM boots: the VM ended before its first cell"),
        (SAVED, (BOOT, ("waiting",), KILL), "no snapshot, so each VM boots: the VM ended"),
    ],
)
def test_where_no_snapshot_can_be_had_vms_boot_and_that_is_said(
    host: Host,
    vm: str,
    script: tuple[fakevm.Act, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host.play(vm, *script)
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert said in capsys.readouterr().err
    assert host.vms == ["test/vm-1"]
    assert "-incoming" not in find_words(host, CLONE)
    assert [path for path in list_snapshots() if (path / cache.RECORD).exists()] == []


def test_a_disk_without_room_for_a_snapshot_ends_no_run(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.open

    def open_file(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(f"/{snapshot.RAM}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_file)
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert "no snapshot, so each VM boots: No space left on device" in capsys.readouterr().err
    assert host.vms == ["test/vm-1"]
    assert [path for path in list_snapshots() if (path / cache.RECORD).exists()] == []


@pytest.mark.parametrize("script", [(("incoming", "Invalid argument"),), (("incoming",), KILL)])
def test_a_clone_that_does_not_go_on_is_followed_by_vms_that_boot(
    host: Host, script: tuple[fakevm.Act, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    host.play("vm-1", *script)
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert "VMs boot from now on" in capsys.readouterr().err
    assert host.vms == ["test/vm-1", "test/vm-2"]
    assert "-incoming" not in find_words(host, "test/vm-2")
    assert host.left == []


def send(name: str, content: str) -> fakevm.Act:
    return fakevm.say(protocol.FileWritten(name=name, content=content))


def test_the_files_that_a_clone_sends_lie_where_a_vm_leaves_them(host: Host) -> None:
    host.play("vm-1", BOOT, ("cells",), send("c-c.pytest.log", "MiBwYXNzZWQ="), ("end",))
    assert host.call(*NARROWED) == ExitCode.PASSED
    results = host.project_dir / "out/test/vm-1/results"
    assert (results / "c-c.pytest.log").read_text() == "2 passed"
    assert '"file"' not in (results.parent / "events.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("../x", "", "a file of no name"),
        ("..", "", "a file of no name"),
        ("", "", "a file of no name"),
        ("console.log", "", "a file of no name"),
        ("plan.json", "", "a file of no name"),
        ("x.log", "MiB*", "a file that is not whole"),
    ],
)
def test_a_file_that_a_vm_may_not_send_is_an_error(
    host: Host, name: str, content: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play("vm-1", BOOT, send(name, content), ("cells",), ("end",))
    assert host.call(*NARROWED) == ExitCode.VM_LOST
    assert why in capsys.readouterr().err
    assert host.left == []


def test_a_clone_that_dies_in_a_cell_is_followed_by_another_clone(host: Host) -> None:
    host.play("vm-1", BOOT, fakevm.begin("c/c"), fakevm.begin_test("R1", "R1"), KILL)
    assert host.call(*NARROWED) == ExitCode.VM_LOST
    assert host.vms == ["test/vm-1", "test/vm-2"]
    assert "-incoming" in find_words(host, "test/vm-2")
    outcomes = [cell["outcome"] for cell in host.read("test/report.json")["cells"]]
    assert outcomes == ["lost", "passed"]


def test_a_changed_matrix_has_a_snapshot_of_its_own_and_two_stay(host: Host) -> None:
    path = host.project_dir / "matrix/test_toy.py"
    made = []
    for text in ("", "# one\n", "# two\n"):
        path.write_text(text)
        assert host.call(*NARROWED) == ExitCode.PASSED
        made.append(max(list_snapshots(), key=lambda one: one.stat().st_mtime))
    assert len(set(made)) == 3
    assert list_snapshots() == sorted(made[1:])
    path.write_text(fakevm.PROJECT["matrix/test_toy.py"])


def test_a_snapshot_that_a_clone_uses_stays(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    (path,) = list_snapshots()
    entry = cache.find_entry(snapshot.KIND, path.name)
    assert entry is not None
    with cache.share(entry), cache.share(entry):
        cache.remove_unused(snapshot.KIND, path.name)
        assert path.is_dir()
    cache.remove_unused(snapshot.KIND, path.name)
    assert not path.exists()


def test_nobody_removes_what_a_clone_lives_on(host: Host, progress: Progress) -> None:
    bench = fakevm.make_bench(host, progress)
    setting = snapshot.ensure(bench.setting, progress)
    assert setting.snapshot is not None
    work = bench.plan_matrix(fakevm.CELLS[0])
    plan = snapshot.prepare_clone(setting, setting.snapshot, work, bench.out_dir / "vm-1")
    with session.run_vm(plan, lambda line: None):
        cache.remove_unused(snapshot.KIND, setting.snapshot.key)
        assert setting.snapshot.path.is_dir()
    cache.remove_unused(snapshot.KIND, setting.snapshot.key)
    assert not setting.snapshot.path.exists()


def test_whatever_is_in_a_snapshot_is_in_its_key(
    host: Host, progress: Progress, tmp_path: Path
) -> None:
    setting = fakevm.make_bench(host, progress).setting
    userland, vm = setting.userland, setting.vm
    (tester, _), *others = userland.tester_dirs
    changed = (
        replace(setting, tree=replace(setting.tree, key="other")),
        replace(setting, tree=replace(setting.tree, parameters=("nokaslr",))),
        replace(setting, chroot=replace(setting.chroot, key="other")),
        replace(setting, version="0.2.0"),
        replace(setting, userland=replace(userland, site_dir=tmp_path)),
        replace(setting, userland=replace(userland, programs_dir=tmp_path)),
        replace(setting, userland=replace(userland, tester_dirs=((tester, tmp_path), *others))),
        replace(setting, vm=replace(vm, memory_mib=vm.memory_mib + 1)),
        replace(setting, vm=replace(vm, processors=vm.processors + 1)),
    )
    keys = {snapshot.plan_key(one) for one in (setting, *changed)}
    assert len(keys) == 1 + len(changed)
    patient = replace(setting, vm=replace(vm, boot_timeout_s=999.0))
    assert snapshot.plan_key(patient) in keys


def test_a_snapshot_whose_memory_was_cut_is_made_again(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    (path,) = list_snapshots()
    os.truncate(path / snapshot.STATE, 1)
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert list_vms(host) == [SAVED, "vm-1", SAVED, "vm-1"]
    assert list_snapshots() == [path]


def test_only_the_last_snapshots_of_each_kernel_are_kept(host: Host) -> None:
    folder = cache.find_cache_dir() / snapshot.KIND
    for number, name in enumerate(("toy-000000000001", "toy-000000000002", "toy-000000000003")):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (number, number))
    (folder / "toy-kasan-000000000004").mkdir()
    assert snapshot.find_kept("toy") == (
        (snapshot.KIND, "toy-000000000003"),
        (snapshot.KIND, "toy-000000000002"),
    )
    assert snapshot.find_kept("toy-kasan") == ((snapshot.KIND, "toy-kasan-000000000004"),)
    assert snapshot.find_kept("other") == ()
