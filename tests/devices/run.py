# SPDX-License-Identifier: GPL-2.0-only
"""Plug devices into clones, and take one out again: ``nox -s devices``.

Each must be in a clone as it is in a VM that boots with it, and a register of one is read. Of every
device that a configuration can name, a register or an attribute is read, and what the tests in
project/ do with the fixtures for devices must pass. The VMs are asked as the differential asks
them; the steps are in probe/executor.py.
"""

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import msgspec

from twinmod.base import process
from twinmod.base.process import Command
from twinmod.base.progress import TerminalProgress
from twinmod.cells.model import DifferentialCell
from twinmod.errors import ExitCode
from twinmod.guest.protocol import Outcome, Request
from twinmod.project import config as project_config
from twinmod.project import devices as project_devices
from twinmod.project.checks import Origin
from twinmod.project.devices import MODELS
from twinmod.project.model import Bus, Device
from twinmod.ui import cli
from twinmod.vm import devices, machine, running
from twinmod.vm.boot import DifferentialWork, Setting
from twinmod.vm.options import RunOptions
from twinmod.vm.session import Vm, VmGoneError
from twinmod.workspace import Workspace

PROBE = Path(__file__).with_name("probe")

#: What is plugged, by port, with its vendor and device.
DEVICES = (
    (Device(driver="edu"), ("0x1234", "0x11e8")),
    (Device(driver="pci-testdev"), ("0x1b36", "0x0005")),
    (Device(driver="e1000", properties=(("mac", "52:54:00:12:34:56"),)), ("0x8086", "0x100e")),
    (Device(driver="virtio-rng-pci", properties=(("max-bytes", 64),)), ("0x1af4", "0x1044")),
)

PORTS = tuple(machine.plan_port_address(number) for number in range(len(DEVICES)))

#: Where edu is, where it has its identification register, and what that says.
#: Source: docs/specs/edu.rst, QEMU 10.0: 0xRRrr00ed for version RR.rr.
EDU, IDENTIFICATION, EDU_1_0 = 0, 0x00, 0x010000ED

#: How often edu is taken out and plugged in again.
ROUNDS = 5

#: What QEMU plugs into no VM that runs.
COLD = Device(driver="VGA")

#: Of the kernel, what serves the devices that are read through a driver.
MODULES = ("xhci_pci", "i2c_i801", "i2c_dev")


# What the VM's kernel reads of each device of the configuration's list. Source: the devices' files
# below hw/ of QEMU 10.0, docs/specs/pci-ids.rst there, and the PCI ID database.

#: Vendor and device of those on PCI.
PCI_IDS = {
    "bochs-display": ("0x1234", "0x1111"),
    "e1000": ("0x8086", "0x100e"),
    "e1000e": ("0x8086", "0x10d3"),
    "edu": ("0x1234", "0x11e8"),
    "i6300esb": ("0x8086", "0x25ab"),
    "ich9-ahci": ("0x8086", "0x2922"),
    "igb": ("0x8086", "0x10c9"),
    "intel-hda": ("0x8086", "0x2668"),
    "ivshmem-plain": ("0x1af4", "0x1110"),
    "lsi53c895a": ("0x1000", "0x0012"),
    "megasas": ("0x1000", "0x0060"),
    "mptsas1068": ("0x1000", "0x0054"),
    "nvme": ("0x1b36", "0x0010"),
    "pci-serial": ("0x1b36", "0x0002"),
    "pci-testdev": ("0x1b36", "0x0005"),
    "pcnet": ("0x1022", "0x2000"),
    "pvpanic-pci": ("0x1b36", "0x0011"),
    "qemu-xhci": ("0x1b36", "0x000d"),
    "rtl8139": ("0x10ec", "0x8139"),
    "sdhci-pci": ("0x1b36", "0x0007"),
    "tulip": ("0x1011", "0x0019"),
    "virtio-balloon-pci": ("0x1af4", "0x1045"),
    "virtio-blk-pci": ("0x1af4", "0x1042"),
    "virtio-gpu-pci": ("0x1af4", "0x1050"),
    "virtio-keyboard-pci": ("0x1af4", "0x1052"),
    "virtio-mouse-pci": ("0x1af4", "0x1052"),
    "virtio-net-pci": ("0x1af4", "0x1041"),
    "virtio-rng-pci": ("0x1af4", "0x1044"),
    "virtio-scsi-pci": ("0x1af4", "0x1048"),
    "virtio-tablet-pci": ("0x1af4", "0x1052"),
    "vmxnet3": ("0x15ad", "0x07b0"),
}

#: What those on USB say that they are.
USB_PRODUCTS = {
    "usb-ccid": "QEMU USB CCID",
    "usb-hub": "QEMU USB Hub",
    "usb-kbd": "QEMU USB Keyboard",
    "usb-mouse": "QEMU USB Mouse",
    "usb-net": "RNDIS/QEMU USB Network Device",
    "usb-storage": "QEMU USB HARDDRIVE",
    "usb-tablet": "QEMU USB Tablet",
    "usb-wacom-tablet": "Wacom PenPartner",
}

#: A step of the probe, its arguments and its answer, of those on the board: the events that
#: pvpanic takes, and how every EDID begins.
BOARD: dict[str, tuple[str, dict[str, object], object]] = {
    "pvpanic": ("read_port", {"address": 0x505}, 7),
    "i2c-ddc": ("read_smbus", {"address": 0x30, "count": 4}, [0x00, 0xFF, 0xFF, 0xFF]),
}


class DevicesError(Exception):
    """A device is not as it should be."""


def require(given: object, wanted: object, what: str) -> None:
    """See that something is as it should be.

    Raises:
        DevicesError: It is not.
    """
    if given != wanted:
        raise DevicesError(f"{what}: {given} instead of {wanted}")


# -- one VM -----------------------------------------------------------------------------------


def ask(vm: Vm, step: str, **arguments: Any) -> Any:
    """Return the answer to a step of probe/executor.py.

    Raises:
        DevicesError: The VM gave none.
    """
    request = Request(size=0, tester="c", steps=((step, arguments),))
    try:
        ((answer,),) = vm.ask(request).answers.values()
    except VmGoneError as error:
        raise DevicesError(f"the VM gave no answer to {step}: {vm.plan.vm_dir}") from error
    return answer


def read_identification(vm: Vm) -> None:
    """Let edu say what it is, as soon as it is there."""
    said = ask(vm, "read_register", port=PORTS[EDU], offset=IDENTIFICATION)
    require(said, EDU_1_0, "edu's identification")


def look(vm: Vm) -> list[Any]:
    """Return what is behind each port, if all of it is as it should be: address and BARs' sizes."""
    found = []
    for port, (device, wanted) in zip(PORTS, DEVICES, strict=True):
        one = ask(vm, "look", port=port)
        require(one is not None, True, f"{device.driver} is there")
        require((one["vendor"], one["device"]), wanted, device.driver)
        require(bool(one["bars"]) and all(begin for begin, _ in one["bars"]), True, f"BARs: {one}")
        found.append((one["address"], [size for _, size in one["bars"]]))
    read_identification(vm)
    return found


def replug(vm: Vm) -> tuple[float, float]:
    """Take edu out and plug it in again.

    Returns:
        The seconds until it is out, and those from device_add to the identification.
    """
    assert vm.monitor
    began = time.monotonic()
    devices.unplug(vm.monitor, EDU)
    out = time.monotonic()
    require(ask(vm, "look", port=PORTS[EDU]), None, "edu, after it was taken out")
    plugged = time.monotonic()
    devices.plug_again(vm.monitor, vm.plan.devices, EDU)
    read_identification(vm)
    return out - began, time.monotonic() - plugged


# -- all VMs ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What VMs with devices are made of."""

    # With a snapshot.
    setting: Setting
    work: DifferentialWork
    out_dir: Path
    progress: TerminalProgress

    def run(self, name: str, setting: Setting, converse: Callable[[Vm], None]) -> int:
        """Speak with a VM, and return how many it took until one was there.

        Raises:
            DevicesError: None was, or what they answered is not as it should be.
        """
        (result,), boots = running.run_cells(
            setting, self.work, self.out_dir / name, self.progress, RunOptions(converse=converse)
        )
        require(result.outcome, Outcome.PASSED, f"{name}, {' '.join(result.problems)}")
        return boots.total


def prepare_bench() -> Bench:
    """Build what the VMs need; all they have beside what the matrix's VMs have is the probe."""
    progress = TerminalProgress()
    config = project_config.read_config(project_config.find_project_dir(PROBE))
    out_dir = config.out_dir / "devices"
    shutil.rmtree(out_dir, ignore_errors=True)
    shutil.copytree(config.matrix_dir, out_dir / "matrix")
    shutil.copytree(PROBE, out_dir / "matrix" / PROBE.name)
    vm_spec = replace(config.vm, modules=(*config.vm.modules, *MODULES))
    config = msgspec.structs.replace(config, vm=vm_spec)
    changed = msgspec.structs.replace(config, matrix_dir=out_dir / "matrix")
    workspace = Workspace(config=config, progress=progress)
    with workspace.hold():
        prepared = workspace.setup()
        products = workspace.build(prepared, ("c",))
        setting = replace(workspace, config=changed).environment(prepared)
        setting = workspace.prepare_clones(prepared, setting)
    setting = replace(setting, devices=tuple(device for device, _ in DEVICES))
    cells = (DifferentialCell(package=PROBE.name),)
    work = DifferentialWork(cells=cells, products=products, limit_s=config.vm.test_timeout_s)
    return Bench(setting=setting, work=work, out_dir=out_dir, progress=progress)


def compare(bench: Bench) -> list[tuple[float, float]]:
    """Compare a clone with a VM that boots; return what replug() took in the clone.

    Raises:
        DevicesError: They differ, or the clone did not go on.
    """
    seen: dict[str, list[Any]] = {}
    took: list[tuple[float, float]] = []

    def converse(vm: Vm) -> None:
        cloned = bool(vm.plan.restored)
        seen["clone" if cloned else "boot"] = look(vm)
        if cloned:
            took.extend(replug(vm) for _ in range(ROUNDS))

    require(bench.run("clone", bench.setting, converse), 1, "VMs, of a clone with devices")
    bench.run("boot", replace(bench.setting, snapshot=None), converse)
    require(seen["clone"], seen["boot"], "what a clone has, and a VM that boots has not")
    return took


def refuse(bench: Bench) -> None:
    """See that a VM boots which QEMU would not plug a device into.

    Raises:
        DevicesError: It does not.
    """
    setting = replace(bench.setting, devices=(COLD,))
    total = bench.run("refused", setting, lambda vm: require(vm.plan.restored, "", "VGA, plugged"))
    require(total, 2, "VMs, of a clone that cannot have its device")


def plan_groups() -> tuple[tuple[str, ...], ...]:
    """Return all models of the list in groups, each for one VM."""
    by_kind: dict[tuple[bool, Bus], list[str]] = {}
    for name, model in MODELS.items():
        # What boots has one VM; a clone has ports for a few devices on PCI.
        bus = model.bus if model.hotplug else Bus.PCI
        by_kind.setdefault((model.hotplug, bus), []).append(name)
    groups: list[tuple[str, ...]] = []
    for (_, bus), names in by_kind.items():
        size = machine.PORTS if bus == Bus.PCI else len(names)
        groups += _split(names, size)
    return tuple(groups)


def _split(names: list[str], size: int) -> Iterable[tuple[str, ...]]:
    return (tuple(names[begin : begin + size]) for begin in range(0, len(names), size))


def iterate_steps(group: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, object], object]]:
    """Yield what a VM with a group of devices is asked: (model, step, arguments, answer).

    None is the answer to ``look`` for a device on PCI, whose vendor and device PCI_IDS has.
    """
    port = iter(range(machine.PORTS))
    for name in group:
        if name in PCI_IDS:
            yield name, "look", {"port": machine.plan_port_address(next(port))}, None
        elif name in USB_PRODUCTS:
            asked: dict[str, object] = {
                "bus": "usb",
                "name": "product",
                "wanted": USB_PRODUCTS[name],
            }
            yield name, "read_attribute", asked, True
        else:
            step, arguments, answer = BOARD[name]
            yield name, step, arguments, answer


def read_listed(bench: Bench) -> list[tuple[tuple[str, ...], str]]:
    """Read something of every device that a configuration can name.

    Returns:
        The groups of devices that had a VM together, each with how that came to be.

    Raises:
        DevicesError: One is not there, or does not answer.
    """
    require(sorted((*PCI_IDS, *USB_PRODUCTS, *BOARD)), sorted(MODELS), "the list")
    found = []
    for number, group in enumerate(plan_groups()):
        made = project_devices.make_devices("the list", group, Origin(PROBE))
        setting = replace(bench.setting, devices=made)
        cold = bool(devices.find_obstacle(made))
        setting = replace(setting, snapshot=None) if cold else setting

        def converse(vm: Vm, group: tuple[str, ...] = group) -> None:
            for name, step, arguments, wanted in iterate_steps(group):
                read_one(vm, name, (step, arguments), wanted)

        require(bench.run(f"listed-{number}", setting, converse), 1, f"VMs, of {group}")
        found.append((group, "boots" if cold else "clone"))
    return found


def read_one(vm: Vm, name: str, asked: tuple[str, dict[str, object]], wanted: object) -> None:
    """Read something of one device.

    Raises:
        DevicesError: It is not as it should be.
    """
    step, arguments = asked
    said = ask(vm, step, **arguments)
    if step != "look":
        require(said, wanted, name)
        return
    require(said is not None, True, f"{name} is there")
    require((said["vendor"], said["device"]), PCI_IDS[name], name)
    require(bool(said["bars"]) and all(begin for begin, _ in said["bars"]), True, f"{name}: {said}")


def run_fixtures() -> ExitCode:
    """Run the tests of project/ as a person does; return how that ended."""
    words = (sys.executable, "-c", "from twinmod.ui.cli import main; main()", "test")
    command = Command(
        argv=words, purpose="the fixtures", timeout_s=600.0, working_dir=PROBE.parent / "project"
    )
    status, output = process.run_unchecked(command)
    click.echo(output)
    return ExitCode(status)


def render_times(what: str, times: list[float]) -> str:
    """Return the smallest of some seconds, the median, and the largest."""
    low, middle, high = (f"{one:.2f}" for one in (min(times), statistics.median(times), max(times)))
    return f"{what}: {low} / {middle} / {high} s ({len(times)} times: minimum, median, maximum)"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def run() -> ExitCode:
    """Plug devices into clones, and take one out again."""
    bench = prepare_bench()
    try:
        took = compare(bench)
        refuse(bench)
        groups = read_listed(bench)
    except DevicesError as error:
        click.echo(f"failed: {error}", err=True)
        return ExitCode.TESTS_FAILED
    for group, how in groups:
        click.echo(f"{how}: {' '.join(group)}")
    click.echo(render_times("edu, from device_del until it is out", [out for out, _ in took]))
    click.echo(render_times("edu, from device_add to its identification", [add for _, add in took]))
    return run_fixtures()


if __name__ == "__main__":
    sys.exit(cli.run_guarded(lambda: run(prog_name="nox -s devices --", standalone_mode=False)))
