# SPDX-License-Identifier: GPL-2.0-only
"""What the VM's kernel reads of each device of the configuration's list.

Source: the device's files below hw/ of QEMU 10.0, docs/specs/pci-ids.rst and the PCI ID database.
"""

from collections.abc import Iterable, Iterator

from twinmod.project.devices import MODELS
from twinmod.project.model import Bus
from twinmod.vm import machine

#: Vendor and device of those on PCI.
PCI = {
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
USB = {
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

    None is the answer to ``look`` for a device on PCI, whose vendor and device PCI has.
    """
    port = iter(range(machine.PORTS))
    for name in group:
        if name in PCI:
            yield name, "look", {"port": machine.plan_port_address(next(port))}, None
        elif name in USB:
            asked: dict[str, object] = {"bus": "usb", "name": "product", "wanted": USB[name]}
            yield name, "read_attribute", asked, True
        else:
            step, arguments, answer = BOARD[name]
            yield name, step, arguments, answer
