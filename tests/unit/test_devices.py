# SPDX-License-Identifier: GPL-2.0-only
"""Devices of VMs: on the command line of one that boots, plugged into a clone, taken out of it.

bwrap is a program that plays a script; everything else is as it is in a run. See tests/fakevm.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import msgspec
import pytest

import fakevm
from fakevm import BOOT, END, REST, SILENCE, Bench, Host, MakeElf
from twinmod.base.progress import Progress
from twinmod.cells.model import CellResult
from twinmod.errors import ConfigError, VmLostError
from twinmod.guest.protocol import PlannedDevice
from twinmod.project.model import Backing, Bus, Device
from twinmod.vm import boot, devices, machine, recording, session, snapshot, strategy
from twinmod.vm.monitor import Monitor
from twinmod.workspace import Workspace

EDU = Device(driver="edu")
RNG = Device(driver="virtio-rng-pci", properties=(("max-bytes", 64), ("disable-legacy", "on")))

KEYBOARD = Device(driver="usb-kbd", bus=Bus.USB)
DISK = Device(driver="nvme", backing=Backing.DISK, backing_mib=16, properties=(("serial", "s"),))
SHARED = Device(driver="ivshmem-plain", backing=Backing.MEMORY, backing_mib=1)
BOARD = Device(driver="pvpanic", bus=Bus.ISA, hotplug=False)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """VMs that have devices."""

    host: Host
    bench: Bench
    progress: Progress

    def run(self, *, cloned: bool) -> tuple[tuple[CellResult, ...], int]:
        """Run a cell; return what came of it, and how many VMs it took."""
        used = clone(self.bench, self.progress) if cloned else self.bench
        results, boots = used.run_cells(self.progress, fakevm.CELLS[0])
        return results, boots.total


@pytest.fixture
def machines(host: Host, bench: Bench, progress: Progress) -> Machines:
    return Machines(host=host, bench=bench, progress=progress)


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
    assert machine.plan_device(device, 0, "port-0") == PLANNED[0]


def test_the_vm_knows_a_port_by_its_slot_on_the_root_bus() -> None:
    assert [machine.plan_port_address(number) for number in (0, 3)] == [
        "0000:00:10.0",
        "0000:00:13.0",
    ]


def plan_arguments(*wanted: Device) -> list[dict[str, object]]:
    return [dict(order.arguments) for order in machine.plan_orders(wanted)]


def test_devices_on_usb_are_behind_one_controller_that_is_added() -> None:
    first, added, *keyboards = plan_arguments(KEYBOARD, EDU, KEYBOARD)
    assert (first["driver"], first["id"], first["bus"]) == ("edu", "device-1", "port-0")
    assert (added["driver"], added["id"], added["bus"]) == ("qemu-xhci", "usb", "port-1")
    assert [(one["id"], one["bus"]) for one in keyboards] == [
        ("device-0", "usb.0"),
        ("device-2", "usb.0"),
    ]
    assert machine.plan_addresses((KEYBOARD, EDU)) == ("0000:00:10.0", "0000:00:11.0")
    assert machine.plan_ports_of((KEYBOARD, EDU)) == ("", "0000:00:10.0")


def test_devices_on_usb_are_behind_the_controller_of_the_configuration() -> None:
    own = Device(driver="qemu-xhci", properties=(("p2", 2),))
    controller, keyboard = plan_arguments(KEYBOARD, own)
    assert controller == {"driver": "qemu-xhci", "id": "device-1", "bus": "port-0", "p2": 2}
    assert keyboard["bus"] == "device-1.0"
    assert machine.plan_addresses((KEYBOARD, own)) == ("0000:00:10.0",)


def test_a_device_of_the_board_has_no_port() -> None:
    sensor = Device(driver="i2c-ddc", bus=Bus.I2C, hotplug=False)
    assert [one["bus"] for one in plan_arguments(BOARD, sensor)] == ["isa.0", "i2c"]
    assert machine.plan_addresses((BOARD, sensor)) == ()


def test_what_stands_behind_a_device_is_there_before_it() -> None:
    words = machine.plan_devices((EDU, DISK, SHARED))[8:]
    assert words[::2] == ("-blockdev", "-object", "-device", "-device", "-device")
    disk, memory, _, nvme, shared = map(json.loads, words[1::2])
    assert disk["file"] == {"driver": "file", "filename": "/twinmod/disks/backing-1"}
    assert (disk["node-name"], nvme["drive"]) == ("backing-1", "backing-1")
    assert (memory["id"], memory["size"], shared["memdev"]) == ("backing-2", 1 << 20, "backing-2")
    assert memory["qom-type"] == "memory-backend-ram"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ((EDU, RNG, KEYBOARD), ""),
        ((EDU, BOARD, BOARD), "QEMU plugs no pvpanic into a VM that runs"),
        ((EDU,) * 5, "a clone has ports for 4 devices, and there are 5"),
        # The fifth is the controller.
        ((*(EDU,) * 4, KEYBOARD), "a clone has ports for 4 devices, and there are 5"),
    ],
)
def test_vms_boot_with_devices_that_no_clone_can_have(
    bench: Bench, wanted: tuple[Device, ...], why: str
) -> None:
    setting = replace(bench.setting, devices=wanted)
    assert snapshot.find_obstacle(setting) == devices.find_obstacle(wanted) == why


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


def test_a_vm_is_told_of_its_devices(bench: Bench) -> None:
    work = bench.plan_matrix(fakevm.CELLS[0])
    setting = replace(bench.setting, devices=(KEYBOARD, EDU))
    plan = boot.plan_agent(setting, work)
    assert plan.devices == (
        PlannedDevice(model="usb-kbd", port=""),
        PlannedDevice(model="edu", port="0000:00:10.0"),
    )
    assert plan.hotplug
    assert not boot.plan_agent(boot.plan_exact(setting), work).hotplug
    assert not boot.plan_agent(recording.plan_recorded(setting), work).hotplug
    assert snapshot.plan_base_agent(setting).devices == ()


def test_the_vms_of_a_run_have_the_devices_of_the_configuration(
    host: Host, progress: Progress
) -> None:
    read = fakevm.read_config()
    config = msgspec.structs.replace(read, vm=replace(read.vm, devices=(EDU, DISK)))
    workspace = Workspace(config=config, progress=progress)
    assert workspace.environment(workspace.setup()).devices == (EDU, DISK)
    assert host.left == []


def test_a_disk_is_full_of_zeros_and_goes_with_its_vm(bench: Bench) -> None:
    setting = replace(bench.setting, devices=(EDU, DISK))
    plan = strategy.prepare_vm(setting, bench.plan_matrix(fakevm.CELLS[0]), bench.out_dir / "vm-1")
    folder = bench.out_dir / "vm-1/disks"
    seen = " ".join(plan.command.argv)
    assert f"--bind {folder} /twinmod/disks" in seen
    with boot.write_vm_dir(plan):
        (disk,) = folder.iterdir()
        assert (disk.name, disk.stat().st_size) == ("backing-1", 16 << 20)
        assert disk.stat().st_blocks == 0
    assert not folder.exists()


def test_a_vm_with_a_disk_is_not_recorded(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="a VM with a disk cannot be recorded") as failure:
        recording.plan_recorded(replace(bench.setting, devices=(EDU, DISK)))
    assert failure.value.exit_code == 2


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
            "the clone did not go on: a clone has ports for 4 devices, and there are 5",
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


@pytest.mark.parametrize("going", [(("incoming",), BOOT), (BOOT,)], ids=["clone", "boot"])
@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (("plug", 1, False, "DEVICE_DELETED"), ""),
        (("plug", 0, True), ""),
        (
            ("plug", 1, False, "DEVICE_UNPLUG_GUEST_ERROR"),
            "device-1 is still plugged: the VM's kernel keeps it",
        ),
        (("plug", 2, False), "the VM has no device number 2"),
        (("plug", -1, True), "the VM has no device number -1"),
    ],
)
def test_a_test_asks_for_a_device_and_is_told_what_came_of_it(
    machines: Machines, act: fakevm.Act, problem: str, going: tuple[fakevm.Act, ...]
) -> None:
    machines.host.play("test/vm-1", *going, act, REST, END)
    results, boots = machines.run(cloned=len(going) > 1)
    assert (boots, {result.outcome for result in results}) == (1, {"passed"})
    replies = [one["replied"] for one in machines.host.started if "replied" in one]
    assert replies == [{"problem": problem}]
