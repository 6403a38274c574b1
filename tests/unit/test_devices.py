# SPDX-License-Identifier: GPL-2.0-only
"""Devices of VMs: on the command line of one that boots, plugged into a clone, taken out of it.

bwrap is a program that plays a script; everything else is as it is in a run. See tests/fakevm.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

import fakevm
from fakevm import BOOT, END, REST, SILENCE, Bench, Host, MakeElf
from twinmod.base.progress import Progress
from twinmod.errors import VmLostError
from twinmod.vm import devices, machine, recording, session, snapshot, strategy
from twinmod.vm.machine import Device
from twinmod.vm.monitor import Monitor

EDU = Device(driver="edu")
RNG = Device(driver="virtio-rng-pci", properties=(("max-bytes", 64), ("disable-legacy", "on")))

PLANNED = [
    {"driver": "edu", "id": "device-0", "bus": "port-0"},
    {
        "driver": "virtio-rng-pci",
        "max-bytes": 64,
        "disable-legacy": "on",
        "id": "device-1",
        "bus": "port-1",
    },
]

PORTS = [
    "pcie-root-port,id=port-0,addr=0x10,chassis=1",
    "pcie-root-port,id=port-1,addr=0x11,chassis=2",
    "pcie-root-port,id=port-2,addr=0x12,chassis=3",
    "pcie-root-port,id=port-3,addr=0x13,chassis=4",
]


@pytest.fixture
def host(
    tmp_path_factory: pytest.TempPathFactory, make_elf: MakeElf, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    made = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    fakevm.remove_saved()
    yield made
    fakevm.remove_saved()


@pytest.fixture
def bench(host: Host, progress: Progress) -> Bench:
    """What VMs are made of that have devices."""
    made = fakevm.make_bench(host, progress)
    return replace(made, setting=replace(made.setting, devices=(EDU, RNG)))


def clone(bench: Bench, progress: Progress) -> Bench:
    """Let a bench's VMs be clones."""
    return replace(bench, setting=fakevm.save(bench.setting, progress))


def find_devices(host: Host, vm: str) -> list[str]:
    """Return QEMU's words of the devices of the last VM in a folder."""
    argv = next(one["argv"] for one in reversed(host.started) if one.get("vm", "").endswith(vm))
    return [value for word, value in pairwise(argv) if word == "-device"]


# -- plans ------------------------------------------------------------------------------------


def test_a_device_is_behind_the_port_of_its_number() -> None:
    *ports, first, second = machine.plan_devices((EDU, RNG))[1::2]
    assert ports == PORTS
    assert [json.loads(first), json.loads(second)] == PLANNED
    assert set(machine.plan_devices((EDU, RNG))[::2]) == {"-device"}


def test_a_vm_without_devices_has_no_ports_and_one_with_many_has_as_many() -> None:
    assert machine.plan_devices(()) == ()
    words = machine.plan_devices((EDU,) * 6)[1::2]
    assert words[4:6] == (
        "pcie-root-port,id=port-4,addr=0x14,chassis=5",
        "pcie-root-port,id=port-5,addr=0x15,chassis=6",
    )
    assert [json.loads(word)["bus"] for word in words[6:]] == [f"port-{n}" for n in range(6)]


def test_where_a_device_is_plugged_is_not_for_its_properties_to_say() -> None:
    device = Device(driver="edu", properties=(("bus", "pcie.0"), ("id", "x"), ("driver", "e1000")))
    assert machine.plan_device(device, 0) == PLANNED[0]


def test_the_vm_knows_a_port_by_its_slot_on_the_root_bus() -> None:
    assert [machine.plan_port_address(number) for number in (0, 3)] == [
        "0000:00:10.0",
        "0000:00:13.0",
    ]


# -- VMs that boot ----------------------------------------------------------------------------


def test_a_vm_that_boots_has_its_devices_from_the_start(
    host: Host, bench: Bench, progress: Progress
) -> None:
    bench.run_cells(progress)
    *ports, first, second = find_devices(host, "test/vm-1")[-6:]
    assert ports == PORTS
    assert [json.loads(first), json.loads(second)] == PLANNED


def test_a_recording_has_the_devices_of_its_vm(host: Host, progress: Progress) -> None:
    bench = fakevm.make_bench(host, progress, recorded=True)
    setting = replace(bench.setting, devices=(EDU,))
    plan = strategy.prepare_vm(setting, bench.plan_matrix(fakevm.CELLS[0]), bench.out_dir / "vm-1")
    noted = json.loads(plan.files[recording.RECORDING_FILE])
    assert json.loads(noted["qemu"][-1]) == PLANNED[0]


# -- clones -----------------------------------------------------------------------------------


def test_a_snapshot_has_ports_and_no_device(host: Host, bench: Bench, progress: Progress) -> None:
    clone(bench, progress).run_cells(progress, fakevm.CELLS[0])
    for vm in ("vm-0", "clone-0", "test/vm-1"):
        words = find_devices(host, vm)
        assert [word for word in words if word.startswith("pcie-root-port")] == PORTS
        assert not [word for word in words if "edu" in word or "rng" in word]
    without = replace(bench.setting, devices=())
    assert snapshot.read_base_key(bench.setting) == snapshot.read_base_key(without)


@pytest.mark.parametrize("wanted", [(), (EDU,), (EDU, RNG)])
def test_devices_are_plugged_into_a_clone_before_it_is_told_what_to_do(
    host: Host, bench: Bench, progress: Progress, wanted: tuple[Device, ...]
) -> None:
    bench = replace(bench, setting=replace(bench.setting, devices=wanted))
    results, boots = clone(bench, progress).run_cells(progress, fakevm.CELLS[0])
    assert (boots.total, {result.outcome for result in results}) == (1, {"passed"})
    *_, one = (one for one in host.started if "delivered" in one)
    assert one["plugged"] == PLANNED[: len(wanted)]
    assert one["ports"] == ["0000:00:10.0", "0000:00:11.0"][: len(wanted)]


REFUSAL = "Device 'virtio-rng-pci' does not support hotplugging"


@pytest.mark.parametrize(
    "case",
    [
        (
            ("incoming", "", REFUSAL),
            2,
            f"the clone did not go on: QEMU refuses device_add: {REFUSAL}",
        ),
        (
            ("incoming",),
            5,
            "the clone did not go on: it has ports for 4 devices, and there are 5",
        ),
        (("incoming", "bad"), 2, "the clone did not go on: QEMU refuses migrate-incoming: bad"),
    ],
)
def test_where_a_device_is_not_plugged_a_vm_boots_with_it_and_that_is_said(
    host: Host,
    bench: Bench,
    progress: Progress,
    told: list[str],
    case: tuple[fakevm.Act, int, str],
) -> None:
    script, count, why = case
    host.play("test/vm-1", script, BOOT, REST, END)
    bench = replace(bench, setting=replace(bench.setting, devices=(EDU,) * count))
    results, boots = clone(bench, progress).run_cells(progress, fakevm.CELLS[0])
    assert (boots.total, {result.outcome for result in results}) == (2, {"passed"})
    assert f"{why}; VMs boot from now on" in told
    words = find_devices(host, "test/vm-2")
    assert [json.loads(word)["id"] for word in words[-count:]] == [
        f"device-{number}" for number in range(count)
    ]
    assert host.left == []


def test_a_device_that_qemu_does_not_know_is_an_error_with_qemus_words(
    host: Host, bench: Bench, progress: Progress
) -> None:
    words = "'edo' is not a valid device model name"
    host.play("test/vm-1", ("stderr", f"{words}\n"), ("exit", 1))
    with pytest.raises(VmLostError) as failure:
        bench.run_cells(progress)
    why = f"the VM ended before its first cell; QEMU said: {words}"
    assert failure.value.message == why


# -- taken out --------------------------------------------------------------------------------


@contextmanager
def run_clone(bench: Bench, progress: Progress) -> Iterator[tuple[session.Vm, Monitor]]:
    """Run a clone, and speak with its QEMU once it has its devices."""
    setting = clone(bench, progress).setting
    plan = strategy.prepare_vm(setting, bench.plan_matrix(fakevm.CELLS[0]), bench.out_dir / "vm-1")
    with session.run_vm(plan, lambda line: None) as vm:
        assert vm.read_event()
        assert vm.monitor
        yield vm, vm.monitor


def test_a_device_is_out_when_the_vms_kernel_gave_it_back(
    host: Host, bench: Bench, progress: Progress
) -> None:
    host.play("test/vm-1", BOOT, ("unplug", "DEVICE_DELETED"), END)
    with run_clone(bench, progress) as (vm, monitor):
        devices.unplug(monitor, 1)
        devices.unplug(monitor, 0)
        vm.say(None)
    assert host.left == []


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ((), "device-1 is still plugged: the VM's kernel did not give it back within 0.2 s"),
        (("DEVICE_UNPLUG_GUEST_ERROR",), "device-1 is still plugged: the VM's kernel keeps it"),
    ],
)
def test_a_device_that_does_not_come_out_is_an_error(
    host: Host, bench: Bench, progress: Progress, events: tuple[str, ...], why: str
) -> None:
    host.play("test/vm-1", BOOT, ("unplug", *events), SILENCE)
    with pytest.raises(VmLostError) as failure, run_clone(bench, progress) as (_, monitor):
        devices.unplug(monitor, 1, 0.2)
    assert failure.value.message == why
    assert host.left == []
