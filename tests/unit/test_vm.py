# SPDX-License-Identifier: GPL-2.0-only
"""A VM is planned whole before anything boots: its archive, its view, its vector, its work."""

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base import cache
from twinmod.base.sandbox import Chroot
from twinmod.builds.product import NeededModule, Product
from twinmod.cells import outcomes
from twinmod.cells import transcript as cells_transcript
from twinmod.cells.model import Cell, DifferentialCell, YardsticksCell
from twinmod.cells.transcript import End
from twinmod.errors import ConfigError
from twinmod.guest import protocol
from twinmod.guest.protocol import (
    DifferentialJob,
    MatrixJob,
    MeasureJob,
    Operation,
    TurnsJob,
    WrittenByProgram,
    render_event,
)
from twinmod.kernels.model import KernelTree
from twinmod.project import model as project_model
from twinmod.project.model import VmSpec
from twinmod.userland.debs import Layer
from twinmod.vm import (
    accelerator,
    boot,
    clone,
    counting,
    initramfs,
    machine,
    recording,
    results,
    session,
    shell,
    snapshot,
)
from twinmod.vm.initramfs import Content

CELLS = (
    Cell(module="mdriver_c", label="c", tester="c"),
    Cell(module="mdriver_c", label="c", tester="rust"),
)

DIFFERENTIAL = DifferentialCell(package="differential")


# -- QEMU -------------------------------------------------------------------------------------

PARAMETERS = (
    "console=ttyS0 loglevel=5 panic=-1 oops=panic "
    "random.trust_cpu=on rcupdate.rcu_expedited=1 printk.devkmsg=on tsc=reliable"
)

HEAD = (
    "-smp",
    "2",
    "-m",
    "1024",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-nic",
    "none",
    "-kernel",
    "/twinmod/vmlinux",
    "-initrd",
    "/twinmod/run/initramfs",
    "-append",
    PARAMETERS,
    "-virtfs",
    "local,path=/view,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
    "-virtfs",
    "local,path=/twinmod/run/results,mount_tag=results,security_model=none",
)

EVENTS = (
    "-serial",
    "file:/twinmod/run/results/console.log",
    "-device",
    "virtio-serial-pci",
    "-chardev",
    "stdio,id=events,signal=off",
    "-device",
    "virtserialport,chardev=events,name=twinmod",
)


def test_a_vm_on_tcg(vm: VmSpec) -> None:
    assert machine.plan_qemu(vm, machine.AcceleratorName.TCG) == (
        "qemu-system-x86_64",
        "-M",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-plugin",
        "/twinmod/native/pause.so",
        *HEAD,
        *EVENTS,
    )


def find_value(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_a_vm_on_kvm_is_the_hosts_own_processor_with_its_own_clock(vm: VmSpec) -> None:
    argv = machine.plan_qemu(vm, machine.AcceleratorName.KVM)
    assert (find_value(argv, "-accel"), find_value(argv, "-cpu")) == ("kvm", "host")
    assert "tsc" not in find_value(argv, "-append")
    assert argv[-len(EVENTS) :] == EVENTS


def test_a_vm_that_counts_instructions(vm: VmSpec) -> None:
    argv = machine.plan_counting_qemu(vm, "")
    assert (find_value(argv, "-accel"), find_value(argv, "-icount")) == (
        "tcg",
        "shift=0,sleep=off",
    )
    assert find_value(argv, "-cpu") == "max,-erms,-fsrm,-fsrs"
    assert find_value(argv, "-append").endswith(" tsc=reliable clocksource=tsc")
    counts = "out=/twinmod/run/results/counts"
    assert find_value(argv, "-plugin") == f"/twinmod/native/profiler.so,{counts}"
    own = tuple(word.replace(",ioeventfd=off", "") for word in argv)
    assert own[-len(EVENTS) :] == EVENTS
    assert "virtio-serial-pci,ioeventfd=off" in argv
    assert "-virtfs" not in argv


@pytest.mark.parametrize("restored", [False, True])
def test_a_vm_whose_clones_count_has_nothing_from_its_host(vm: VmSpec, restored: bool) -> None:
    memory = machine.SavedMemory(path="ram", restored=restored, seed=7)
    argv = machine.plan_saved_qemu(vm, machine.AcceleratorName.ICOUNT, memory, "quiet")
    assert find_value(argv, "-seed") == "7"
    assert find_value(argv, "-rtc") == "base=2026-01-01T00:00:00,clock=vm"
    assert "virtio-serial-pci,ioeventfd=off" in argv
    assert ("-plugin" in argv) == restored, "to boot takes longer with it, and counts nothing"
    assert ("-fw_cfg" in argv) == restored
    other = machine.plan_saved_qemu(vm, machine.AcceleratorName.TCG, memory, "quiet")
    assert not {"-seed", "-rtc", "-fw_cfg"} & set(other)
    assert "virtio-serial-pci" in other


def test_an_interactive_vm_has_the_callers_terminal_and_no_other_way_out(vm: VmSpec) -> None:
    argv = machine.plan_qemu(vm, machine.AcceleratorName.TCG, interactive=True)
    assert argv[-2:] == ("-serial", "mon:stdio")
    assert argv.count("-serial") == 1
    assert "-chardev" not in argv


def test_parameters_are_added_to_the_kernels_own(vm: VmSpec) -> None:
    argv = machine.plan_qemu(
        replace(vm, processors=1, memory_mib=512), machine.AcceleratorName.TCG, parameters="nokaslr"
    )
    line = argv[argv.index("-append") + 1]
    assert line.endswith(" printk.devkmsg=on tsc=reliable nokaslr")
    assert argv[argv.index("-smp") + 1] == "1"
    assert argv[argv.index("-m") + 1] == "512"


# -- one VM -----------------------------------------------------------------------------------


@pytest.fixture
def setting(
    tmp_path: Path,
    root: Chroot,
    tree: KernelTree,
    vm: VmSpec,
    testers: tuple[project_model.TesterSpec, ...],
) -> boot.Setting:
    """A setting whose few files that a plan reads are there."""
    (tmp_path / "root/usr/bin").mkdir(parents=True)
    (tmp_path / "root/usr/bin/busybox").write_bytes(b"busybox")
    for name in ("9p.ko", "overlay.ko"):
        (tmp_path / name).write_bytes(name.encode())
    return boot.Setting(
        tree=replace(tree, vm_module_paths=(tmp_path / "9p.ko", tmp_path / "overlay.ko")),
        chroot=replace(root, root_dir=tmp_path / "root"),
        vm=vm,
        accelerator=machine.Accelerator(
            name=machine.AcceleratorName.TCG, reason="this host has no /dev/kvm"
        ),
        version="0.1.0",
        native_dir=Path("/cache/native"),
        userland=boot.Userland(
            site_dir=Path("/cache/site"),
            programs_dir=Path("/cache/programs"),
            tester_dirs=tuple((tester, Path(f"/cache/t-{tester.name}")) for tester in testers),
        ),
    )


@pytest.fixture
def work(product: Product) -> boot.MatrixWork:
    return boot.MatrixWork(cells=CELLS, products=(product,), limit_s=15.0)


def plan_measuring(work: boot.MatrixWork, measurement: protocol.Measurement) -> boot.MeasureWork:
    return boot.MeasureWork(
        cells=CELLS, products=work.products, limit_s=15.0, measurement=measurement
    )


def test_the_agent_is_told_all_it_needs_in_jsons_own_types(
    setting: boot.Setting, work: boot.MatrixWork
) -> None:
    cells = (*work.cells, DIFFERENTIAL)
    plan = boot.plan_agent(setting, replace(work, cells=cells, pytest_args=("-k", "R1")))
    matrix = {"kind": "matrix", "pytest_args": ["-k", "R1"], "rules": [], "files": [], "tests": []}
    assert json.loads(protocol.render_plan(plan)) == {
        "mode": "matrix",
        "port": "",
        "cells": [
            {
                "name": "c/c",
                "module": "mdriver_c",
                "tester": "c",
                "path": "/twinmod/module/mdriver_c.ko",
                "job": matrix,
            },
            {
                "name": "c/rust",
                "module": "mdriver_c",
                "tester": "rust",
                "path": "/twinmod/module/mdriver_c.ko",
                "job": matrix,
            },
            {
                "name": "differential",
                "module": "",
                "tester": "",
                "path": "",
                "job": {"kind": "differential", "package": "differential"},
            },
        ],
        "modules": {"mdriver_c": {"path": "/twinmod/module/mdriver_c.ko", "parameters": ""}},
        "testers": {"c": "mdriver_tester_c", "rust": "mdriver_tester_rust"},
        "matrix": "/twinmod/matrix",
        "version": "0.1.0",
        "limit_s": 15.0,
        "magic": "/twinmod/native/magic.so",
        "loop": "/twinmod/native/loop",
        "counted": False,
        "needed": {},
        "devices": [],
        "hotplug": False,
    }


def test_the_agent_is_told_parameters_and_what_is_loaded_first_and_has_its_files(
    setting: boot.Setting, work: boot.MatrixWork, product: Product, tmp_path: Path
) -> None:
    needed = tuple(
        NeededModule(name=name, path=tmp_path / f"{name}.ko", parameters=("debug=1",))
        for name in ("mc", "videodev")
    )
    module = replace(product, needed=needed, parameters=("line=80", "name=a"))
    other = replace(module, module="other", parameters=(), needed=needed[:1])
    both = replace(work, products=(module, other))
    plan = boot.plan_agent(setting, both)
    assert plan.modules["mdriver_c"].parameters == "line=80 name=a"
    assert plan.modules["other"].parameters == ""
    assert [(name, m.path, m.parameters) for name, m in plan.needed.items()] == [
        ("mc", "/twinmod/needed/mc.ko", "debug=1"),
        ("videodev", "/twinmod/needed/videodev.ko", "debug=1"),
    ]
    parts = boot.plan_parts(setting, both.products)
    for one in needed:
        assert parts[f"needed/{one.name}.ko"] == one.path
        one.path.write_bytes(one.name.encode())
    given = clone.read_modules((replace(module, path=tmp_path / "mc.ko"),))
    assert given["/twinmod/needed/videodev.ko"] == b"videodev"
    assert set(given) == {
        "/twinmod/module/mdriver_c.ko",
        "/twinmod/needed/mc.ko",
        "/twinmod/needed/videodev.ko",
    }


def test_a_module_under_test_is_not_also_loaded_first(product: Product) -> None:
    needed = NeededModule(name="core", path=Path("/core.ko"))
    core = replace(product, module="core")
    assert boot.plan_needed((replace(product, needed=(needed,)), core)) == {}


def test_the_agent_is_told_what_to_measure_by_name(
    setting: boot.Setting, work: boot.MatrixWork
) -> None:
    measurement = protocol.Measurement(
        timings=(protocol.Timing(operation=Operation.READ, size_bytes=1),),
        loads=2,
        rounds=7,
        turns=3,
        device_bytes=4096,
    )
    told = boot.plan_agent(setting, plan_measuring(work, measurement))
    heard = protocol.parse_plan(protocol.render_plan(told))
    assert [cell.job for cell in heard.cells] == [MeasureJob(measurement=measurement)] * 2


def test_a_vm_that_counts_has_one_processor_and_more_time_and_is_otherwise_the_same(
    setting: boot.Setting,
) -> None:
    exact = boot.plan_exact(setting)
    assert exact.accelerator.name == "icount"
    assert exact.vm.boot_timeout_s > setting.vm.boot_timeout_s
    assert exact.vm.silence_timeout_s > setting.vm.silence_timeout_s
    assert (
        replace(
            exact.vm,
            processors=2,
            boot_timeout_s=setting.vm.boot_timeout_s,
            silence_timeout_s=setting.vm.silence_timeout_s,
        )
        == setting.vm
    )
    assert replace(exact, accelerator=setting.accelerator, vm=setting.vm, measured=False) == setting
    assert exact.counted
    assert not setting.counted
    assert boot.plan_parts(exact, ())["native"] == setting.native_dir
    assert "native" not in boot.plan_parts(setting, ())


RECORD = (
    "-accel",
    "tcg",
    "-icount",
    "shift=1,rr=record,rrfile=/twinmod/recording/execution",
    "-cpu",
    "max",
)


def test_a_vm_that_is_recorded_has_one_processor_and_no_way_in(
    setting: boot.Setting, work: boot.MatrixWork
) -> None:
    recorded = recording.plan_recorded(setting)
    assert recording.is_recorded(recorded)
    assert not recording.is_recorded(setting)
    assert recorded.vm.boot_timeout_s > setting.vm.boot_timeout_s
    argv = machine.plan_recorded_qemu(recorded.vm, "")
    assert argv[3 : 3 + len(RECORD)] == RECORD
    assert argv[argv.index("-smp") + 1] == "1"
    # Neither 9p nor virtio: QEMU records no more than it knows.
    assert not {"-virtfs", "-device"} & set(argv)
    assert argv[-6:] == (
        "-serial",
        "file:/twinmod/run/results/console.log",
        "-chardev",
        "stdio,id=events,signal=off",
        "-serial",
        "chardev:events",
    )


def test_a_recorded_vms_folder_keeps_what_a_replay_takes(
    setting: boot.Setting,
    work: boot.MatrixWork,
    product: Product,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Content(files=(("init", b"all of it"),))
    monkeypatch.setattr(boot, "read_whole_content", lambda *_: whole)
    recorded = recording.plan_recorded(setting)
    plan = recording.prepare_recorded(recorded, work, tmp_path / "vm-1")
    with boot.write_vm_dir(plan):
        assert (plan.vm_dir / "recording").is_dir()
    assert b"all of it" in (plan.vm_dir / "initramfs").read_bytes()
    noted = json.loads((plan.vm_dir / "recording.json").read_text())
    assert noted.pop("qemu")[0] == "qemu-system-x86_64"
    assert noted == {
        "schema": "twinmod.recording/1",
        "kernel": setting.tree.name,
        "tree": setting.tree.key,
        "chroot": setting.chroot.key,
        "modules": {product.module: product.sha256},
    }
    assert plan.agent_plan.port == "/dev/ttyS1"
    seen = recording.plan_recorded_view(setting, plan.vm_dir)
    writable = {str(bind.target_path) for bind in seen if bind.writable}
    assert writable == {"/twinmod/run/results", "/twinmod/recording"}


def test_only_what_looks_for_faults_has_other_memory_than_a_stock_kernel(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    measuring = plan_measuring(work, protocol.Measurement(timings=(), loads=1, rounds=1))
    differential = boot.DifferentialWork(
        cells=(DIFFERENTIAL,), products=work.products, limit_s=15.0
    )
    works: tuple[boot.Work, ...] = (work, differential, measuring)
    for one in works:
        argv = boot.prepare_boot(setting, one, tmp_path / one.JOB).command.argv
        line = argv[argv.index("-append") + 1]
        assert ("init_on_alloc=0" in line) is (one is not measuring)
        assert ("transparent_hugepage=never" in line) is (one is not measuring)


def test_a_vm_is_told_what_each_kind_of_cell_is(setting: boot.Setting, product: Product) -> None:
    measurement = protocol.Measurement(timings=(), loads=1, rounds=1)
    products = (product,)
    measuring = boot.MeasureWork(
        cells=(CELLS[0], YardsticksCell()),
        products=products,
        limit_s=15.0,
        measurement=measurement,
    )
    works: tuple[boot.Work, ...] = (
        measuring,
        boot.TurnsWork(products=products, limit_s=15.0, measurement=measurement),
        boot.DifferentialWork(cells=(DIFFERENTIAL,), products=products, limit_s=15.0),
        boot.ShellWork(products=products),
    )
    path = "/twinmod/module/mdriver_c.ko"
    plans = [boot.plan_agent(setting, work) for work in works]
    assert [
        (plan.mode, [(c.name, c.module, c.tester, c.path, c.job) for c in plan.cells])
        for plan in plans
    ] == [
        (
            "measure",
            [
                ("c/c", "mdriver_c", "c", path, MeasureJob(measurement=measurement)),
                ("yardsticks/c", "", "c", "", MeasureJob(measurement=measurement)),
            ],
        ),
        ("turns", [("turns", "", "", "", TurnsJob(measurement=measurement))]),
        ("differential", [("differential", "", "", "", DifferentialJob(package="differential"))]),
        ("shell", []),
    ]
    assert all(plan.modules.keys() == {"mdriver_c"} for plan in plans)


def test_work_keeps_the_order_of_its_cells_when_some_are_done(work: boot.MatrixWork) -> None:
    whole = replace(work, cells=(*CELLS, DIFFERENTIAL), pytest_args=("--long",))
    kept = whole.keep((DIFFERENTIAL, CELLS[1]))
    assert kept == replace(whole, cells=(CELLS[1], DIFFERENTIAL))


def test_several_builds_of_one_module_are_files_of_their_own(
    setting: boot.Setting, work: boot.MatrixWork, product: Product, tmp_path: Path
) -> None:
    other = replace(product, path=Path("/out/short.ko"), variant="short")
    cell = replace(CELLS[0], variant="short", rules=("R4",), files=("test_add.py",))
    both = replace(work, cells=(CELLS[0], cell), products=(product, other))
    told = boot.plan_agent(setting, both).cells
    assert [(c.name, c.path, c.job) for c in told] == [
        (
            "c/c",
            "/twinmod/module/mdriver_c.ko",
            MatrixJob(pytest_args=(), rules=(), files=(), tests=()),
        ),
        (
            "c/c/short",
            "/twinmod/module/mdriver_c.short.ko",
            MatrixJob(pytest_args=(), rules=("R4",), files=("test_add.py",), tests=()),
        ),
    ]
    seen = {
        str(b.target_path): b.source_path for b in boot.plan_view(setting, both.products, tmp_path)
    }
    assert seen["/view/twinmod/module/mdriver_c.ko"] == product.path
    assert seen["/view/twinmod/module/mdriver_c.short.ko"] == other.path


def test_a_vm_boots_busybox_its_modules_and_the_init(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    plan = boot.prepare_boot(setting, work, tmp_path / "vm-1")
    content = boot.read_first_content(setting)
    assert plan.initramfs == initramfs.plan_archive(content)
    files = dict(content.files)
    assert set(files) == {"bin/busybox", "modules/9p.ko", "modules/overlay.ko", "init"}
    assert files["bin/busybox"] == b"busybox"
    init = files["init"].decode()
    assert init.index("insmod /modules/9p.ko") < init.index("insmod /modules/overlay.ko")
    for name, value in boot.plan_environment(setting.userland):
        assert f"\nexport {name}='{value}'\n" in init
    # A plan is no act.
    assert not plan.vm_dir.exists()


def test_packages_lie_over_the_root_of_a_vm_that_boots(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    def read_init(one: boot.Setting) -> str:
        return dict(boot.read_first_content(one).files)["init"].decode()

    layered = replace(setting, layer=Layer(key="1", root_dir=Path("/cache/debs"), beside=()))
    plain, plan = (
        boot.prepare_boot(one, work, tmp_path / "vm-1").command.argv for one in (setting, layered)
    )
    assert "mount_tag=layer" not in " ".join(plain)
    (shared,) = (word for word in plan if "mount_tag=layer" in word)
    assert shared.startswith("local,path=/twinmod/layer,")
    assert "readonly=on" in shared
    assert plan[plan.index("/twinmod/layer") - 2 :][:2] == ("--ro-bind", "/cache/debs")
    assert "lowerdir=/lower," in read_init(setting)
    init = read_init(layered)
    assert "lowerdir=/layer:/lower," in init
    assert init.index(" layer /layer\n") < init.index("lowerdir=")
    assert "layer" in boot.read_first_content(layered).folders


def test_every_way_to_run_a_vm_has_its_size_and_its_words(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "read_whole_content", lambda *_, **__: Content())
    own = replace(
        setting,
        vm=replace(setting.vm, memory_mib=768, processors=3),
        tree=replace(setting.tree, parameters=("echo.word=1",)),
    )
    work = replace(work, products=(), cells=())
    base = cache.FoundEntry(kind="base", key="1", path=tmp_path / "base", record={})
    exact = boot.plan_exact(own)
    shell = boot.ShellWork(products=())
    planned = {
        "boot": (boot.prepare_boot(own, work, tmp_path / "a"), 3),
        "shell": (boot.prepare_boot(own, shell, tmp_path / "b"), 3),
        "base": (snapshot.prepare_saved_boot(own, tmp_path / "c", 1), 3),
        "snapshot": (snapshot.prepare_saved_clone(own, base, tmp_path / "d"), 3),
        "clone": (clone.prepare_clone(own, base, work, tmp_path / "e"), 3),
        # Whoever counts or records instructions has one processor.
        "counted": (counting.prepare_counting(exact, work, tmp_path / "f"), 1),
        "recorded": (
            recording.prepare_recorded(recording.plan_recorded(own), work, tmp_path / "g"),
            1,
        ),
    }
    for name, (plan, processors) in planned.items():
        argv = plan.command.argv
        assert (find_value(argv, "-m"), find_value(argv, "-smp")) == ("768", str(processors)), name
        # The kernel of a VM that goes on has read its command line.
        words = find_value(argv, "-append").split() if not plan.restored else ["echo.word=1"]
        assert "echo.word=1" in words, name


def test_qemu_sees_only_its_view_and_may_write_only_results(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    vm_dir = tmp_path / "vm-1"
    binds = boot.plan_view(setting, work.products, vm_dir)
    writable = [bind for bind in binds if bind.writable]
    assert [(b.source_path, str(b.target_path)) for b in writable] == [
        (vm_dir / "results", "/twinmod/run/results")
    ]
    assert {str(bind.target_path): str(bind.source_path) for bind in binds} == {
        "/twinmod/run": str(vm_dir),
        "/twinmod/run/results": str(vm_dir / "results"),
        "/twinmod/vmlinux": str(setting.tree.image_path),
        "/twinmod/native": "/cache/native",
        "/view": str(setting.chroot.root_dir),
        "/view/twinmod/package": "/cache/programs/package",
        "/view/twinmod/site": "/cache/site",
        "/view/twinmod/matrix": "/cache/programs/matrix",
        "/view/twinmod/tester-c": "/cache/t-c",
        "/view/twinmod/tester-rust": "/cache/t-rust",
        "/view/twinmod/module/mdriver_c.ko": "/checkout/out/mdriver_c.ko",
    }
    argv = boot.prepare_boot(setting, work, vm_dir).command.argv
    assert "--share-net" not in argv
    assert "--dev-bind" not in argv


def test_every_path_that_the_agent_is_given_is_in_its_view(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    seen = {str(bind.target_path) for bind in boot.plan_view(setting, work.products, tmp_path)}
    told = boot.plan_agent(setting, work)
    python_path = dict(boot.plan_environment(setting.userland))["PYTHONPATH"].split(":")
    paths = [told.matrix, *(m.path for m in told.modules.values()), *python_path]
    assert {f"/view{path}" for path in paths} <= seen


def test_only_kvm_gets_the_device(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    kvm = replace(
        setting,
        accelerator=machine.Accelerator(name=machine.AcceleratorName.KVM, reason="a guest booted"),
    )
    argv = boot.prepare_boot(kvm, work, tmp_path / "vm-1").command.argv
    assert argv[argv.index("--dev-bind") + 1] == "/dev/kvm"


def test_a_shell_stays_in_the_callers_session(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    plan = boot.prepare_boot(setting, boot.ShellWork(products=work.products), tmp_path / "vm-1")
    assert "--new-session" not in plan.command.argv
    assert "mon:stdio" in plan.command.argv


def test_a_vms_folder_holds_what_it_boots_from_while_it_runs_and_its_plan_for_good(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    plan = boot.prepare_boot(setting, work, tmp_path / "vm-1")
    with boot.write_vm_dir(plan):
        assert (plan.vm_dir / "initramfs").read_bytes() == plan.initramfs
    assert not (plan.vm_dir / "initramfs").exists()
    assert protocol.parse_plan((plan.vm_dir / "results/plan.json").read_bytes()) == plan.agent_plan


def test_a_vms_folder_is_its_own(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    plan = boot.prepare_boot(setting, work, tmp_path / "vm-1")
    (plan.vm_dir / "results").mkdir(parents=True)
    with pytest.raises(FileExistsError), boot.write_vm_dir(plan):
        pytest.fail("two VMs write into one folder")


def test_a_vm_that_did_not_come_as_far_as_a_cell_shows_how_far_it_came(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    plan = boot.prepare_boot(setting, work, tmp_path / "vm-1")
    nothing = cells_transcript.parse_transcript((), CELLS)
    end = session.VmEnd(transcript=nothing, end=End.SILENT, console="a\nb\n", qemu_log="")
    error = session.plan_boot_error(plan, end)
    last = "the last line of its console is: b"
    assert error.message == f"the VM fell silent before its first cell; {last}"
    facts = dict(error.facts)
    assert facts["QEMU"] == "(nothing)"
    assert facts["console"].endswith("\na\nb")
    assert facts["folder"] == str(plan.vm_dir)
    assert error.exit_code == 5


def test_a_vm_that_said_nothing_is_said_to(
    setting: boot.Setting, work: boot.MatrixWork, tmp_path: Path
) -> None:
    error = session.plan_boot_error(
        boot.prepare_boot(setting, work, tmp_path), plan_end(End.EXITED)
    )
    assert error.message == "the VM ended before its first cell; it said nothing"
    assert dict(error.facts)["console"] == "(nothing)"


WARNING = "WARNING: arch/x86/kernel/x.c:7 at x86_init+0x1/0x2, CPU#0: swapper/0"
PANIC = "Kernel panic - not syncing: No working init found."
PROBE = f"[    1.000000] {accelerator.PROBE_LINE}\n"
MSR = "qemu-system-x86_64: error: failed to set MSR 0x345 to 0x2000"
ASSERTION = "qemu-system-x86_64: kvm.c:3301: kvm_buf_set_msrs: Assertion failed."


@pytest.mark.parametrize(
    ("console", "output", "status", "name", "words"),
    [
        (PROBE, "", 0, "kvm", ("a guest booted with it",)),
        # It runs a guest: what it warns of is said, and does not make it 20 times slower.
        (f"[    0.1] {WARNING}\n{PROBE}", "", 0, "kvm", ("a guest booted with it", WARNING)),
        (f"[    0.1] {WARNING}\n", "", None, "tcg", ("within 10 s", f"its kernel said: {WARNING}")),
        (f"[    0.1] {WARNING}\n[    0.2] {PANIC}\n", "", 0, "tcg", (WARNING, PANIC)),
        (f"[    0.2] {PANIC}\n", "", 0, "tcg", (f"its kernel said: {PANIC}",)),
        (
            "[    0.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x100\n",
            "",
            0,
            "tcg",
            ("Attempted to kill init!",),
        ),
        (
            "[    0.1] Booting\x1b\n[    0.2] ACPI: x\x1b\n",
            "",
            None,
            "tcg",
            ("the last line of its console is: ACPI: x\\x1b",),
        ),
        (
            "",
            f"{MSR}\n{ASSERTION}\n",
            134,
            "tcg",
            ("QEMU ended with status 134", MSR, ASSERTION, "the guest said nothing"),
        ),
        ("", "", 0, "tcg", ("triple fault", "the guest said nothing")),
        ("", "", None, "tcg", ("within 10 s", "the guest said nothing")),
        ("", "", -9, "tcg", ("QEMU ended with status -9",)),
    ],
)
def test_why_a_host_has_no_kvm_is_said_with_the_words_of_those_who_saw_it(
    console: str, output: str, status: int | None, name: str, words: tuple[str, ...]
) -> None:
    found = accelerator.plan_accelerator(console, output, status)
    assert found.name == name
    assert all(word in found.reason for word in words), found.reason
    assert ("said nothing" in found.reason) is ("the guest said nothing" in words or status == -9)


def test_no_kernel_panics_on_what_it_warns_of_before_the_agent(setting: boot.Setting) -> None:
    assert not any("panic_on_warn" in parameter for parameter in machine.KERNEL_PARAMETERS)
    init = dict(boot.read_first_content(setting).files)["init"].decode()
    assert init.index("> /proc/sys/kernel/panic_on_warn") < init.index("switch_root")
    # A kernel whose parameters say otherwise keeps what they say.
    assert "grep -q panic_on_warn= /proc/cmdline ||" in init


def test_what_a_program_wrote_to_the_log_ends_no_cell(product: Product) -> None:
    line = "[    1.000000][    T9] kernel BUG at x.c:1!"
    (fault,), _ = results.find_faults(f"{line}\n", (product,), Path("/out/vm-1"))
    assert fault.kind == "bug"
    assert results.find_faults(f"{line}\n", (product,), Path("/out/vm-1"), (line,)) == ((), 0)
    event = render_event(WrittenByProgram(line=line), 1.0)
    assert outcomes.parse_program_lines(cells_transcript.parse_events((event,))) == (line,)


def plan_end(end: End, console: str = "", *, booted: bool = False) -> session.VmEnd:
    transcript = cells_transcript.Transcript(booted=booted, release="", cells=(), running=None)
    return session.VmEnd(transcript=transcript, end=end, console=console, qemu_log="")


def test_of_many_cells_the_first_are_named() -> None:
    assert results.render_names((*CELLS, DIFFERENTIAL)) == "c/c c/rust differential"
    assert results.render_names(CELLS * 5) == "c/c c/rust c/c c/rust c/c c/rust and 4 more"


def test_only_a_vm_that_was_never_heard_of_is_booted_again() -> None:
    assert session.is_stalled(plan_end(End.SILENT))
    assert not session.is_stalled(plan_end(End.EXITED))
    assert not session.is_stalled(plan_end(End.SILENT, booted=True))
    assert not session.is_stalled(plan_end(End.SILENT, "[    1.0] kernel BUG at mm/slub.c:1!"))


def test_a_race_of_the_kernels_own_code_is_counted_and_ends_nothing(product: Product) -> None:
    own = f"BUG: KCSAN: data-race in a [{product.module}] / vfs_write"
    console = (
        f"[    1.000000][    T1] {own}\n[    2.000000][    T2] BUG: KCSAN: data-race in b / c\n"
    )
    (fault,), tolerated = results.find_faults(console, (product,), Path("/out/vm-1"))
    assert (fault.lines[0], tolerated) == (own, 1)
    assert fault.log == "/out/vm-1/results/console.log"


def test_a_shell_takes_a_terminal_and_nothing_else(tmp_path: Path) -> None:
    with ExitStack() as stack:
        other_end, terminal = os.openpty()
        pipe = os.pipe()
        file = os.open(tmp_path / "commands", os.O_CREAT | os.O_RDWR)
        nothing = os.open(os.devnull, os.O_RDONLY)
        closed = os.dup(nothing)
        os.close(closed)
        for descriptor in (other_end, terminal, *pipe, file, nothing):
            stack.callback(os.close, descriptor)
        shell.require_terminal(terminal)
        for descriptor in (pipe[0], file, nothing, closed):
            with pytest.raises(ConfigError, match="needs a terminal on its standard input"):
                shell.require_terminal(descriptor)
