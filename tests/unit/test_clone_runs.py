# SPDX-License-Identifier: GPL-2.0-only
"""Runs whose VMs are cloned from a snapshot, with QEMU played by a program.

bwrap is a program that plays a script; everything else is as it is in a run. See tests/fakevm.
"""

import errno
import json
import os
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import fakevm
from fakevm import BOOT, END, KILL, SILENCE, Host, MakeElf
from twinmod.base import cache
from twinmod.base.progress import Progress
from twinmod.cells import parts
from twinmod.errors import ExitCode
from twinmod.guest import protocol
from twinmod.project.model import LANGUAGES
from twinmod.userland.debs import Layer
from twinmod.vm import boot, clone, machine, proving, recording, session, shell, snapshot
from twinmod.workspace import Workspace

#: Limit for what takes a moment, in seconds.
LIMIT_S = 60.0

#: What an agent says that waits for a cell.
ALIVE = protocol.render_event(protocol.Alive(), 3.0)

#: What a run of the tests of one rule is called with.
NARROWED = ("test", "--rule", "R1", "--module", "c")

#: All rules in one cell, and no differential beside it.
ONE_CELL = ("test", "--rule", "R1", "--rule", "R2", "--module", "c", "--tester", "c")

#: The VM that boots and is saved, and the clone of it that is.
BASE, COLLECTED = "vm-0", "clone-0"

#: The VMs of a comparison.
PROOF = ["proof/booted/vm-1", "proof/cloned/vm-1"]

#: The clones of a run with two cells.
CLONES = ["test/vm-1", "test/vm-2"]


DIFFERENCE = """
[[tool.twinmod.drivers.toy.differences]]
module = "c"
rule = "R1"
why = "it rounds down"
"""


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    made = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    made.cold = False
    for name in (cell.name for cell in fakevm.CELLS):
        made.play_cell(name, fakevm.begin("@CELL@"), *fakevm.run_test("R1"), fakevm.end())
    fakevm.remove_saved()
    yield made
    fakevm.remove_saved()


@pytest.fixture
def proved(host: Host) -> Host:
    """A host with a snapshot that was compared, and nothing else of that run."""
    assert host.call(*NARROWED) == ExitCode.PASSED
    (host.home_dir / "started.jsonl").unlink()
    return host


def list_saved(kind: str) -> list[Path]:
    folder = cache.find_cache_dir() / kind
    return sorted(path for path in folder.glob("*") if (path / cache.RECORD).exists())


def find_words(host: Host, vm: str) -> list[str]:
    """Return QEMU's arguments of the last VM in a folder."""
    return next(one["argv"] for one in reversed(host.started) if one.get("vm", "").endswith(vm))


def list_saving(host: Host) -> list[str]:
    """Return the names of the folders of VMs that were to be saved."""
    names = (Path(one["vm"]).name for one in host.started if "argv" in one and "vm" in one)
    return [name for name in names if name in (BASE, COLLECTED)]


def test_a_snapshot_is_made_once_and_cloned_by_each_run(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert sorted(host.vms) == [*PROOF, *CLONES]
    assert list_saving(host) == [BASE, COLLECTED]
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert sorted(host.vms[4:]) == CLONES
    assert list_saving(host) == [BASE, COLLECTED]
    assert len(host.read("test/report.json")["cells"]) == 2


def test_each_clone_gets_its_module_and_randomness_of_its_own(proved: Host) -> None:
    assert proved.call("test") == ExitCode.TESTS_FAILED, "R2 has no test in this matrix"
    given = [one for one in proved.started if "delivered" in one]
    assert len({one["entropy"] for one in given}) == len(given) == 5
    modules = [[Path(path).name for path in one["delivered"]] for one in given]
    both = ["toy_c.ko", "toy_rust.ko"]
    assert sorted(modules) == [both[:1], both[:1], both, both[1:], both[1:]]


def test_a_base_has_no_matrix_and_its_clone_gets_what_it_lacks(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    (given,) = (one for one in host.started if "delivered" in one and COLLECTED in one["to"])
    assert "/twinmod/matrix/test_toy.py" in given["delivered"]
    assert "/twinmod/tester-c/toy_tester_c/extension.so" in given["delivered"]
    assert not any(
        path.startswith(("/twinmod/package", "/usr", "/init")) for path in given["delivered"]
    )


def test_a_clone_is_the_machine_that_was_saved_and_maps_its_memory_privately(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    base, collected, clone = (find_words(host, vm) for vm in (BASE, COLLECTED, CLONES[0]))
    (ram,) = (word for word in base if word.startswith("memory-backend-file"))
    assert ram.endswith(",mem-path=/twinmod/saved/ram,share=on")
    assert ram in collected
    own = ram.replace("share=on", "share=off,readonly=on,rom=off").replace("saved", "origin")
    assert own in clone
    assert "-incoming" not in base
    boots = ("-kernel", "-initrd", "-append")
    assert [name for name in boots if name in base] == list(boots)
    for words in (collected, clone):
        assert words[words.index("-incoming") + 1] == "defer"
        assert [name for name in boots if name in words] == []
        for name in ("-M", "-accel", "-cpu", "-smp", "-m", "-device", "-serial"):
            assert base[base.index(name) + 1] == words[words.index(name) + 1]
    for kind in (snapshot.BASE, snapshot.SNAPSHOT):
        (entry,) = list_saved(kind)
        assert stat.S_IMODE((entry / snapshot.RAM).stat().st_mode) == 0o600
        assert not list(entry.rglob("initramfs"))
        assert not list(entry.rglob(machine.MONITOR))


@pytest.mark.parametrize("words", [("--record", "--rule", "R1"), ("--cold", "--rule", "R1")])
def test_a_recorded_run_and_a_cold_one_boot_their_vms(host: Host, words: tuple[str, ...]) -> None:
    assert host.call("test", *words) == ExitCode.PASSED
    assert list_saved(snapshot.BASE) == []
    assert "-incoming" not in find_words(host, CLONES[0])


def test_why_vms_cannot_be_clones(host: Host, progress: Progress, tmp_path: Path) -> None:
    setting = fakevm.make_bench(host, progress).setting
    assert snapshot.find_obstacle(setting) == ""
    kvm = replace(setting.accelerator, name=machine.AcceleratorName.KVM)
    assert snapshot.find_obstacle(replace(setting, accelerator=kvm)) == ""
    other = replace(setting, root_dir=tmp_path)
    assert snapshot.find_obstacle(other) == "its root is not the chroot"
    assert (
        snapshot.find_obstacle(recording.plan_recorded(setting)) == "record needs a VM that boots"
    )


REFUSED = (("save", "nvme cannot be saved"),)


@pytest.mark.parametrize(
    ("vm", "script", "said"),
    [
        (BASE, (BOOT, ("waiting",), *REFUSED), "QEMU refuses migrate: nvme cannot be saved"),
        (BASE, (BOOT, KILL), "the VM ended before its first cell"),
        (BASE, (BOOT, ("waiting",), KILL), "the VM ended"),
        (COLLECTED, (BOOT, ("waiting",), *REFUSED), "QEMU refuses migrate: nvme cannot be saved"),
        (COLLECTED, (BOOT, KILL), "the VM ended before its first cell"),
        (
            COLLECTED,
            (("incoming", "Invalid argument"),),
            "the clone did not go on: QEMU refuses migrate-incoming: Invalid argument",
        ),
        (
            COLLECTED,
            (BOOT, fakevm.say(protocol.Waiting(tests={})), ("save",)),
            "pytest collected no test in it",
        ),
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
    assert f"no clones, so each VM boots: {said}" in capsys.readouterr().err
    assert host.vms == ["test/vm-1"]
    assert "-incoming" not in find_words(host, CLONES[0])
    assert list_saved(snapshot.SNAPSHOT) == []
    assert host.left == []


@pytest.mark.parametrize("kind", [snapshot.BASE, snapshot.SNAPSHOT])
def test_a_disk_without_room_for_a_snapshot_ends_no_run(
    host: Host, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.open

    def open_file(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(f"/{snapshot.RAM}") and f"/{kind}/" in str(path) and arguments[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_file)
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert "no clones, so each VM boots: No space left on device" in capsys.readouterr().err
    assert host.vms == ["test/vm-1"]
    assert list_saved(kind) == []


# -- the proof --------------------------------------------------------------------------------


def test_what_was_compared_is_noted_with_the_base(host: Host) -> None:
    assert host.call(*NARROWED) == ExitCode.PASSED
    (base,) = list_saved(snapshot.BASE)
    noted = json.loads((base / proving.PROOF).read_text())
    assert noted == {"cell": "c/c", "tests": 1, "differences": []}


def test_clones_that_differ_from_vms_that_boot_are_not_used(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = (fakevm.begin("c/c"), *fakevm.run_test("R1", "failed"), fakevm.end("failed"))
    host.play("cloned/vm-1", BOOT, *failed, END)
    for _ in range(2):
        assert host.call(*NARROWED) == ExitCode.PASSED
        said = capsys.readouterr().err
        assert "they differ from VMs that boot: R1: passed in a VM that boots, failed in a" in said
    assert host.vms == [*PROOF, "test/vm-1", "test/vm-1"] or host.vms[2:] == ["test/vm-1"] * 2
    assert "-incoming" not in find_words(host, CLONES[0])


def test_nothing_is_noted_of_a_cell_that_fails_in_a_vm_that_boots(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.play("booted/vm-1", BOOT, fakevm.begin("c/c"), fakevm.begin_test("R1", "R1"), KILL)
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert (
        "a cell fails in a VM that boots, so they could not be compared" in capsys.readouterr().err
    )
    (base,) = list_saved(snapshot.BASE)
    assert not (base / proving.PROOF).exists()
    host.scripts.clear()
    host.write()
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert proving.read_proof(cache.FoundEntry(kind="", key="", path=base, record={})) is not None


def test_a_cell_that_fails_as_declared_can_be_compared(host: Host) -> None:
    (host.project_dir / "pyproject.toml").write_text(fakevm.PROJECT["pyproject.toml"] + DIFFERENCE)
    failed = (fakevm.begin("@CELL@"), *fakevm.run_test("R1", "failed"), fakevm.end("failed"))
    host.play_cell("c/c", *failed)
    host.play_cell("c/rust", *failed)
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert sorted(host.vms) == [*PROOF, *CLONES]
    (base,) = list_saved(snapshot.BASE)
    noted = json.loads((base / proving.PROOF).read_text())
    assert noted == {"cell": "c/c", "tests": 1, "differences": []}


# -- clones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [(("incoming", "", "", "load of migration failed"),), (("incoming",), KILL)],
)
def test_a_clone_that_does_not_go_on_is_followed_by_another_one(
    proved: Host, script: tuple[fakevm.Act, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    proved.play("test/vm-1", *script)
    assert proved.call(*NARROWED, "--tester", "c") == ExitCode.PASSED
    assert "; once more" in capsys.readouterr().err
    assert proved.vms == CLONES
    assert proved.read("test/report.json")["stalled_boots"] == 1
    assert proved.left == []


@pytest.mark.parametrize(
    ("script", "count"), [((("incoming",), KILL), 3), ((("incoming", "Invalid argument"),), 1)]
)
def test_clones_that_do_not_go_on_are_followed_by_vms_that_boot(
    proved: Host, script: tuple[fakevm.Act, ...], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, count + 1):
        proved.play(f"test/vm-{number}", *script)
    assert proved.call(*NARROWED, "--tester", "c") == ExitCode.PASSED
    assert "VMs boot from now on" in capsys.readouterr().err
    assert proved.vms == [f"test/vm-{number}" for number in range(1, count + 2)]
    words = [find_words(proved, vm) for vm in proved.vms]
    assert ["-incoming" in one for one in words] == [True] * count + [False]
    assert proved.left == []


def send(name: str, content: str) -> fakevm.Act:
    return fakevm.say(protocol.FileWritten(name=name, content=content))


def test_the_files_that_a_clone_sends_lie_where_a_vm_leaves_them(proved: Host) -> None:
    proved.play("test/vm-1", BOOT, ("cells",), send("c-c.pytest.log", "MiBwYXNzZWQ="), ("end",))
    assert proved.call(*NARROWED) == ExitCode.PASSED
    results = proved.project_dir / "out/test/vm-1/results"
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
    proved: Host, name: str, content: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    proved.play("test/vm-1", BOOT, send(name, content), ("cells",), ("end",))
    assert proved.call(*NARROWED) == ExitCode.VM_LOST
    assert why in capsys.readouterr().err
    assert proved.left == []


def test_a_clone_that_dies_costs_no_other_cell_anything(proved: Host) -> None:
    proved.play("test/vm-1", BOOT, fakevm.begin("c/c"), fakevm.begin_test("R1", "R1"), KILL)
    assert proved.call(*NARROWED) == ExitCode.VM_LOST
    assert sorted(proved.vms) == CLONES
    outcomes = [cell["outcome"] for cell in proved.read("test/report.json")["cells"]]
    assert outcomes == ["lost", "passed"]


def test_the_tests_that_a_dead_clone_left_run_in_another_one(proved: Host) -> None:
    whole = (fakevm.begin("c/c"), fakevm.begin_test("R1", "R1"))
    proved.play("test/vm-1", BOOT, *whole, KILL)
    rest = (fakevm.begin("c/c"), *fakevm.run_test("R2"), fakevm.end())
    proved.play("test/vm-2", BOOT, *rest, END)
    assert proved.call(*ONE_CELL) == ExitCode.VM_LOST
    (cell,) = proved.read("test/report.json")["cells"]
    assert [(test["id"], test["outcome"]) for test in cell["tests"]] == [
        ("R1", "lost"),
        ("R2", "passed"),
    ]
    plan = json.loads((proved.project_dir / "out/test/vm-2/results/plan.json").read_text())
    assert [cell["job"]["tests"] for cell in plan["cells"]] == [["R2"]]


def test_after_so_many_dead_clones_what_is_left_of_a_cell_does_not_run(
    proved: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "BROKEN_MAX", 1)
    proved.play("test/vm-1", BOOT, fakevm.begin("c/c"), fakevm.begin_test("R1", "R1"), KILL)
    assert proved.call(*ONE_CELL) == ExitCode.VM_LOST
    (cell,) = proved.read("test/report.json")["cells"]
    assert [test["id"] for test in cell["tests"]] == ["R1"]
    assert cell["problems"][-1] == "1 VMs did not survive it, so 1 tests did not run: R2"


def test_what_failed_last_time_runs_first_and_is_told_at_once(
    proved: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = (fakevm.begin("c/c"), *fakevm.run_test("R1"), *fakevm.run_test("R2", "failed", "no"))
    proved.play("test/vm-1", BOOT, *failed, fakevm.end("failed"), END)
    assert proved.call(*ONE_CELL) == ExitCode.TESTS_FAILED
    assert "first failure, c/c failed: R2 R2: no\n" in capsys.readouterr().err
    proved.play("test/vm-1", BOOT, fakevm.begin("c/c"), *fakevm.run_test("R2"), fakevm.end(), END)
    assert proved.call(*ONE_CELL) == ExitCode.PASSED
    folder = proved.project_dir / "out/test"
    plans = [json.loads((folder / f"vm-{n}/results/plan.json").read_text()) for n in (1, 2)]
    assert [plan["cells"][0]["job"]["tests"] for plan in plans] == [["R2"], ["R1"]]


@pytest.mark.parametrize("cold", [False, True])
def test_x_ends_a_run_with_the_first_failure(
    proved: Host, *, cold: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    proved.cold = cold
    failed = (fakevm.begin("c/c"), *fakevm.run_test("R1", "failed", "no"), SILENCE)
    proved.play("test/vm-1", BOOT, *failed)
    if not cold:
        proved.play(
            "test/vm-2",
            BOOT,
            fakevm.begin("c/rust"),
            fakevm.begin_test("R1", "R1"),
            ("chatter", ALIVE),
        )
    assert proved.call("test", "-x") == ExitCode.TESTS_FAILED
    report = proved.read("test/report.json")
    assert [cell["outcome"] for cell in report["cells"]] == ["failed", *["skipped"] * 3]
    assert "-x" in report["narrowed"]
    assert report["differential"] is None
    assert sorted(proved.vms) == (CLONES[:1] if cold else CLONES)
    assert proved.left == []


def test_a_changed_matrix_has_a_snapshot_of_its_own_and_two_stay(host: Host) -> None:
    path = host.project_dir / "matrix/test_toy.py"
    made = []
    for text in ("", "# one\n", "# two\n"):
        path.write_text(text)
        assert host.call(*NARROWED) == ExitCode.PASSED
        made.append(max(list_saved(snapshot.SNAPSHOT), key=lambda one: one.stat().st_mtime))
    assert len(set(made)) == 3
    assert list_saved(snapshot.SNAPSHOT) == sorted(made[1:])
    assert list_saving(host) == [BASE, *[COLLECTED] * 3]
    path.write_text(fakevm.PROJECT["matrix/test_toy.py"])


@pytest.mark.parametrize("kind", [snapshot.BASE, snapshot.SNAPSHOT])
def test_a_snapshot_that_a_clone_uses_stays(proved: Host, kind: str) -> None:
    (path,) = list_saved(kind)
    entry = cache.find_entry(kind, path.name)
    assert entry is not None
    with cache.share(entry), cache.share(entry):
        cache.remove_unused(kind, path.name)
        assert path.is_dir()
    cache.remove_unused(kind, path.name)
    assert not path.exists()


def test_nobody_removes_what_a_clone_lives_on(proved: Host, progress: Progress) -> None:
    bench = fakevm.make_bench(proved, progress)
    (path,) = list_saved(snapshot.SNAPSHOT)
    entry = cache.find_entry(snapshot.SNAPSHOT, path.name)
    assert entry is not None
    work = bench.plan_matrix(fakevm.CELLS[0])
    plan = clone.prepare_clone(bench.setting, entry, work, bench.out_dir / "other")
    with session.run_vm(plan, lambda line: None):
        cache.remove_unused(snapshot.SNAPSHOT, entry.key)
        assert path.is_dir()
    cache.remove_unused(snapshot.SNAPSHOT, entry.key)
    assert not path.exists()


def test_whatever_is_in_a_base_is_in_its_key(
    host: Host, progress: Progress, tmp_path: Path
) -> None:
    setting = fakevm.make_bench(host, progress).setting
    userland, vm = setting.userland, setting.vm
    (spec, path), *others = userland.tester_dirs
    named = ((replace(spec, name="other"), path), *others)
    package = tmp_path / "package/twinmod/guest"
    package.mkdir(parents=True)
    (package / "agent.py").write_text("# another agent\n")
    changed = (
        replace(setting, tree=replace(setting.tree, key="other")),
        replace(setting, tree=replace(setting.tree, parameters=("nokaslr",))),
        replace(setting, chroot=replace(setting.chroot, key="other")),
        *(
            replace(setting, layer=Layer(key=key, root_dir=tmp_path, beside=()))
            for key in ("fio 1", "fio 2")
        ),
        replace(setting, userland=replace(userland, site_dir=tmp_path)),
        replace(setting, userland=replace(userland, programs_dir=tmp_path)),
        replace(setting, userland=replace(userland, tester_dirs=named)),
        replace(setting, vm=replace(vm, memory_mib=vm.memory_mib + 1)),
        replace(setting, vm=replace(vm, processors=vm.processors + 1)),
    )
    keys = {snapshot.read_base_key(one) for one in (setting, *changed)}
    assert len(keys) == 1 + len(changed)
    for same in (
        replace(setting, vm=replace(vm, boot_timeout_s=999.0)),
        replace(setting, version="0.2.0"),
        replace(setting, userland=replace(userland, tester_dirs=((spec, tmp_path), *others))),
    ):
        assert snapshot.read_base_key(same) == snapshot.read_base_key(setting)


def test_whatever_came_to_a_snapshot_is_in_its_key(
    host: Host, progress: Progress, tmp_path: Path
) -> None:
    setting = fakevm.make_bench(host, progress).setting
    userland = setting.userland
    (tester, _), *others = userland.tester_dirs
    base = cache.FoundEntry(kind="", key="one", path=tmp_path, record={})
    changed = (
        replace(setting, version="0.2.0"),
        replace(setting, userland=replace(userland, programs_dir=tmp_path)),
        replace(setting, userland=replace(userland, tester_dirs=((tester, tmp_path), *others))),
    )
    keys = {snapshot.plan_snapshot_key(one, base) for one in (setting, *changed)}
    keys.add(snapshot.plan_snapshot_key(setting, replace(base, key="two")))
    assert len(keys) == 2 + len(changed)


def test_a_snapshot_whose_state_was_cut_is_made_again(proved: Host) -> None:
    (path,) = list_saved(snapshot.SNAPSHOT)
    os.truncate(path / snapshot.STATE, 1)
    assert proved.call(*NARROWED) == ExitCode.PASSED
    assert list_saving(proved) == [COLLECTED]
    assert list_saved(snapshot.SNAPSHOT) == [path]


def test_only_the_last_snapshots_of_each_kernel_are_kept(host: Host) -> None:
    folder = cache.find_cache_dir() / snapshot.BASE
    for number, name in enumerate(("toy-000000000001", "toy-000000000002", "toy-000000000003")):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (number, number))
    (folder / "toy-kasan-000000000004").mkdir()
    assert snapshot.find_kept("toy") == (
        (snapshot.BASE, "toy-000000000003"),
        (snapshot.BASE, "toy-000000000002"),
    )
    assert snapshot.find_kept("toy-kasan") == ((snapshot.BASE, "toy-kasan-000000000004"),)
    assert snapshot.find_kept("other") == ()


def call_and_be_killed(host: Host, *arguments: str) -> None:
    """Call a verb in a process of its own, which one of its VMs kills."""
    pid = os.fork()
    if pid == 0:
        try:
            host.call(*arguments)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("vm", [BASE, COLLECTED, *PROOF, *CLONES])
def test_whatever_a_run_was_killed_in_the_next_one_works(host: Host, vm: str) -> None:
    host.play(vm, BOOT, ("kill_host",), SILENCE)
    call_and_be_killed(host, *NARROWED)
    assert host.left == []
    host.scripts.clear()
    host.write()
    assert host.call(*NARROWED) == ExitCode.PASSED
    assert [cell["outcome"] for cell in host.read("test/report.json")["cells"]] == ["passed"] * 2
    assert host.left == []


# -- a person's VM ----------------------------------------------------------------------------


def test_of_two_makers_of_a_base_one_waits_and_both_have_the_same(
    host: Host, progress: Progress
) -> None:
    assert host.call("build") == ExitCode.PASSED
    workspace = Workspace(config=fakevm.read_config(), progress=progress)
    setting = workspace.environment(workspace.setup())
    both = Barrier(2)

    def make(_: int) -> Path:
        both.wait(LIMIT_S)
        entry = snapshot.prepare_base(setting)
        return snapshot.use(entry, setting.tree.name, progress).path

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(make, range(2))
    assert first == second
    assert list_saving(host) == [BASE]


def find_clones(host: Host, progress: Progress) -> tuple[boot.Setting, boot.ShellWork]:
    """Return what a shell is made of, as far as it is there."""
    workspace = Workspace(config=fakevm.read_config(), progress=progress)
    prepared = workspace.setup()
    products = workspace.build(prepared, LANGUAGES)
    setting = workspace.find_clones(workspace.environment(prepared))
    return setting, boot.ShellWork(products=products)


def test_a_shell_is_a_clone_where_there_is_one(proved: Host, progress: Progress) -> None:
    setting, work = find_clones(proved, progress)
    assert shell.run_shell(setting, work, proved.project_dir / "out/shell", progress) == 0
    (given,) = (one for one in proved.started if "delivered" in one)
    assert given["delivered"] == ["/twinmod/module/toy_c.ko", "/twinmod/module/toy_rust.ko"]
    words = find_words(proved, "out/shell")
    assert words[words.index("-serial") + 1] == "mon:stdio"
    assert "-incoming" in words


def test_a_shell_waits_for_no_snapshot(host: Host, progress: Progress) -> None:
    setting, work = find_clones(host, progress)
    assert setting.snapshot is None
    assert shell.run_shell(setting, work, host.project_dir / "out/shell", progress) == 0
    assert "-incoming" not in find_words(host, "out/shell")
    assert list_saved(snapshot.BASE) == []


def test_a_shell_boots_where_its_clone_does_not_go_on(
    proved: Host, progress: Progress, told: list[str]
) -> None:
    proved.play("out/shell", ("incoming", "Invalid argument"))
    setting, work = find_clones(proved, progress)
    assert shell.run_shell(setting, work, proved.project_dir / "out/shell", progress) == 0
    said = "no clone, so the VM boots: QEMU refuses migrate-incoming: Invalid argument"
    assert said in told
    assert ["-incoming" in one["argv"] for one in proved.started if "argv" in one] == [True, False]


def test_a_debugger_has_a_vm_that_boots(proved: Host, progress: Progress) -> None:
    setting, work = find_clones(proved, progress)
    own = replace(work, gdb=True)
    assert shell.run_shell(setting, own, proved.project_dir / "out/shell", progress) == 0
    assert "-incoming" not in find_words(proved, "out/shell")
