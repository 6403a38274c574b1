# SPDX-License-Identifier: GPL-2.0-only
"""The devices that a VM can have, with the properties that a configuration may set. Pure.

No property of the list names a file, a character device, a network or an object of the host: what
a device needs of that kind, twinmod makes itself.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from twinmod.base import nearest
from twinmod.project.checks import Origin
from twinmod.project.model import Backing, Bus, Device, Property
from twinmod.project.tables import DeviceTable

#: Where a person finds the list.
PAGE = "docs/configuration.md"

#: How large a disk or a shared memory is that nobody gave a size, and the largest, in MiB.
DEFAULT_MIB = 16
MOST_MIB = 16384


#: How many root ports the machine has room for: one for each device on PCI.
MOST_PORTS = 15


class Allowed(StrEnum):
    """What a property can be, as an error says it."""

    BOOL = "true or false"
    SWITCH = '"on", "off" or "auto"'
    MAC = 'the MAC address of one station, as in "52:54:00:12:34:56"'
    TEXT = "up to 20 letters, digits, - and _"
    U8 = f"a number from 0 to {2**8 - 1}"
    U16 = f"a number from 0 to {2**16 - 1}"
    U32 = f"a number from 0 to {2**32 - 1}"
    U64 = f"a number from 0 to {2**64 - 1}"
    BLOCK = "a power of two from 512 to 4096"


BITS = {Allowed.U8: 8, Allowed.U16: 16, Allowed.U32: 32, Allowed.U64: 64}

FORMS = {
    Allowed.SWITCH: re.compile(r"on|off|auto"),
    # The second digit of a station's own address is even.
    Allowed.MAC: re.compile(r"[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}"),
    Allowed.TEXT: re.compile(r"[A-Za-z0-9_-]{1,20}"),
}

BLOCKS = (512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A device of the list."""

    what: str
    properties: Mapping[str, Allowed]
    bus: Bus = Bus.PCI
    backing: Backing = Backing.NONE
    # Whether QEMU plugs it into a VM that runs.
    hotplug: bool = True
    # What QEMU wants to be told and has no default of.
    needed: tuple[tuple[str, Property], ...] = ()


MAC = {"mac": Allowed.MAC}
SERIAL = {"serial": Allowed.TEXT}
BLOCK_SIZES = {"logical_block_size": Allowed.BLOCK, "physical_block_size": Allowed.BLOCK}
MSI = {"msi": Allowed.SWITCH}
USB_HID = {**SERIAL, "usb_version": Allowed.U32}
VIRTIO = {
    "disable-legacy": Allowed.SWITCH,
    "disable-modern": Allowed.BOOL,
    "event_idx": Allowed.BOOL,
    "indirect_desc": Allowed.BOOL,
    "iommu_platform": Allowed.BOOL,
    "packed": Allowed.BOOL,
    "vectors": Allowed.U32,
}

#: By QEMU's name.
MODELS: Mapping[str, Model] = {
    "bochs-display": Model(
        what="a display with a framebuffer",
        properties={"edid": Allowed.BOOL, "xres": Allowed.U32, "yres": Allowed.U32},
    ),
    "e1000": Model(what="Intel 82540EM Ethernet, without a peer", properties=MAC),
    "e1000e": Model(
        what="Intel 82574L Ethernet, without a peer",
        properties={**MAC, "subsys": Allowed.U16, "subsys_ven": Allowed.U16},
    ),
    "edu": Model(what="the educational PCI device", properties={"dma_mask": Allowed.U64}),
    "i2c-ddc": Model(
        what="an EDID ROM on the SMBus",
        properties={"address": Allowed.U8},
        bus=Bus.I2C,
        hotplug=False,
        # The memory of every VM has an EEPROM of its own at 0x50 to 0x57.
        needed=(("address", 0x30),),
    ),
    "i6300esb": Model(what="the watchdog of the Intel 6300ESB", properties={}),
    "ich9-ahci": Model(what="an AHCI controller without a disk", properties={}),
    "igb": Model(what="Intel 82576 Ethernet, without a peer", properties=MAC),
    "intel-hda": Model(what="an HD Audio controller without a codec", properties=MSI),
    "ivshmem-plain": Model(
        what="shared memory, with nobody at its other end",
        properties={"master": Allowed.SWITCH},
        backing=Backing.MEMORY,
    ),
    "lsi53c895a": Model(what="a SCSI controller without a disk", properties={}),
    "megasas": Model(
        what="a MegaRAID SAS controller without a disk",
        properties={
            **MSI,
            "msix": Allowed.SWITCH,
            "max_cmds": Allowed.U32,
            "max_sge": Allowed.U32,
            "use_jbod": Allowed.BOOL,
        },
    ),
    "mptsas1068": Model(what="an LSI SAS controller without a disk", properties=MSI),
    "nvme": Model(
        what="an NVMe controller with a disk",
        properties={
            **SERIAL,
            **BLOCK_SIZES,
            "cmb_size_mb": Allowed.U32,
            "max_ioqpairs": Allowed.U32,
            "mdts": Allowed.U8,
            "mqes": Allowed.U16,
            "msix_qsize": Allowed.U16,
            "use-intel-id": Allowed.BOOL,
            "write-cache": Allowed.SWITCH,
        },
        backing=Backing.DISK,
        needed=(("serial", "twinmod"),),
    ),
    "pci-serial": Model(
        what="a 16550A UART without a peer",
        properties={"baudbase": Allowed.U32, "prog_if": Allowed.U8},
    ),
    "pci-testdev": Model(what="QEMU's PCI test device", properties={"membar": Allowed.U64}),
    "pcnet": Model(what="AMD PCnet Ethernet, without a peer", properties=MAC),
    "pvpanic": Model(
        what="the panic device at an I/O port",
        properties={"ioport": Allowed.U16, "events": Allowed.U8},
        bus=Bus.ISA,
        hotplug=False,
    ),
    "pvpanic-pci": Model(what="the panic device on PCI", properties={"events": Allowed.U8}),
    "qemu-xhci": Model(
        what="a USB 3 host controller",
        properties={
            **MSI,
            "msix": Allowed.SWITCH,
            "p2": Allowed.U32,
            "p3": Allowed.U32,
            "streams": Allowed.BOOL,
        },
    ),
    "rtl8139": Model(what="Realtek RTL8139 Ethernet, without a peer", properties=MAC),
    "sdhci-pci": Model(
        what="an SD host controller without a card",
        properties={
            "capareg": Allowed.U64,
            "maxcurr": Allowed.U64,
            "sd-spec-version": Allowed.U8,
            "uhs": Allowed.U8,
            "vendor": Allowed.U8,
        },
    ),
    "tulip": Model(what="DEC 21143 Ethernet, without a peer", properties=MAC),
    "usb-ccid": Model(what="a smartcard reader without a card", properties=SERIAL, bus=Bus.USB),
    "usb-hub": Model(what="a USB hub", properties={**SERIAL, "ports": Allowed.U32}, bus=Bus.USB),
    "usb-kbd": Model(what="a USB keyboard", properties=USB_HID, bus=Bus.USB),
    "usb-mouse": Model(what="a USB mouse", properties=USB_HID, bus=Bus.USB),
    "usb-net": Model(
        what="USB Ethernet (CDC and RNDIS), without a peer",
        properties={**MAC, **SERIAL},
        bus=Bus.USB,
    ),
    "usb-storage": Model(
        what="a USB disk",
        properties={**SERIAL, **BLOCK_SIZES, "removable": Allowed.BOOL},
        bus=Bus.USB,
        backing=Backing.DISK,
    ),
    "usb-tablet": Model(what="a USB pointing device", properties=USB_HID, bus=Bus.USB),
    "usb-wacom-tablet": Model(what="a Wacom PenPartner tablet", properties=SERIAL, bus=Bus.USB),
    "virtio-balloon-pci": Model(
        what="a virtio balloon",
        properties={
            **VIRTIO,
            "deflate-on-oom": Allowed.BOOL,
            "free-page-reporting": Allowed.BOOL,
            "page-poison": Allowed.BOOL,
        },
    ),
    "virtio-blk-pci": Model(
        what="a virtio disk",
        properties={
            **VIRTIO,
            **SERIAL,
            **BLOCK_SIZES,
            "config-wce": Allowed.BOOL,
            "discard": Allowed.BOOL,
            "num-queues": Allowed.U16,
            "queue-size": Allowed.U16,
            "write-cache": Allowed.SWITCH,
            "write-zeroes": Allowed.BOOL,
        },
        backing=Backing.DISK,
    ),
    "virtio-gpu-pci": Model(
        what="a virtio GPU",
        properties={**VIRTIO, "edid": Allowed.BOOL, "xres": Allowed.U32, "yres": Allowed.U32},
        hotplug=False,
    ),
    "virtio-keyboard-pci": Model(what="a virtio keyboard", properties={**VIRTIO, **SERIAL}),
    "virtio-mouse-pci": Model(what="a virtio mouse", properties={**VIRTIO, **SERIAL}),
    "virtio-net-pci": Model(
        what="virtio Ethernet, without a peer",
        properties={
            **VIRTIO,
            **MAC,
            "csum": Allowed.BOOL,
            "ctrl_vq": Allowed.BOOL,
            "guest_csum": Allowed.BOOL,
            "host_mtu": Allowed.U16,
            "mrg_rxbuf": Allowed.BOOL,
            "rx_queue_size": Allowed.U16,
            "tx_queue_size": Allowed.U16,
        },
    ),
    "virtio-rng-pci": Model(
        what="a virtio source of random numbers",
        properties={**VIRTIO, "max-bytes": Allowed.U64, "period": Allowed.U32},
    ),
    "virtio-scsi-pci": Model(
        what="a virtio SCSI controller without a disk",
        properties={
            **VIRTIO,
            "cmd_per_lun": Allowed.U32,
            "max_sectors": Allowed.U32,
            "num_queues": Allowed.U32,
            "virtqueue_size": Allowed.U32,
        },
    ),
    "virtio-tablet-pci": Model(what="a virtio pointing device", properties={**VIRTIO, **SERIAL}),
    "vmxnet3": Model(what="VMware Ethernet, without a peer", properties=MAC),
}

#: The controller that devices on USB are behind.
XHCI = "qemu-xhci"

#: QEMU's short names, as in virtio-blk, by the name that the list has.
SHORT = {
    name.removesuffix("-pci"): name
    for name in MODELS
    if name.startswith("virtio-") and name.endswith("-pci")
}


def make_devices(
    where: str, tables: Iterable[str | DeviceTable], origin: Origin
) -> tuple[Device, ...]:
    """Return the devices that a configuration describes.

    Args:
        where: What an error calls all of them.
        tables: Each is the name of a model, or a table.
        origin: The file.

    Raises:
        ConfigError: A device or a property is not on the list, or a value cannot be.
    """
    return tuple(
        make_device(f"{where}, number {number}", table, origin)
        for number, table in enumerate(tables, 1)
    )


def count_ports(devices: Iterable[Device]) -> int:
    """Return how many root ports devices take: those on USB have one controller together."""
    found = tuple(devices)
    on_pci = sum(device.bus == Bus.PCI for device in found)
    return on_pci + (any(device.bus == Bus.USB for device in found) and not has_xhci(found))


def has_xhci(devices: Iterable[Device]) -> bool:
    """Tell whether a USB host controller is among devices."""
    return any(device.driver == XHCI for device in devices)


def require_room(driver: str, devices: Iterable[Device], origin: Origin) -> None:
    """Refuse more devices than the machine of a driver's VM has room for.

    Raises:
        ConfigError: There are more.
    """
    count = count_ports(devices)
    if count > MOST_PORTS:
        raise origin.refuse(
            f"the VM of drivers.{driver} has {count} devices on PCI: it has room for {MOST_PORTS}"
        )


def make_device(where: str, table: str | DeviceTable, origin: Origin) -> Device:
    """Return the device that a table describes; see make_devices."""
    if isinstance(table, str):
        table = DeviceTable(model=table)
    name = SHORT.get(table.model, table.model)
    model = MODELS.get(name)
    if model is None:
        raise origin.refuse(
            f"{where}: {table.model!r} is not a device that a VM can have",
            nearest.plan_fact(table.model, (*MODELS, *SHORT), "devices"),
            ("the list", f"{PAGE}, Devices"),
        )
    for key, value in table.properties.items():
        _require_property(where, name, key, value, origin)
    return Device(
        driver=name,
        properties=tuple({**dict(model.needed), **table.properties}.items()),
        bus=model.bus,
        backing=model.backing,
        backing_mib=_find_size(where, name, table.size_mib, origin),
        hotplug=model.hotplug,
    )


def _find_size(where: str, name: str, size_mib: int | None, origin: Origin) -> int:
    """Return the size of what stands behind a device, in MiB; 0 where nothing does."""
    backing = MODELS[name].backing
    if backing == Backing.NONE:
        if size_mib is not None:
            raise origin.refuse(f"{where}: {name} has neither a disk nor a memory of `size-mib`")
        return 0
    found = DEFAULT_MIB if size_mib is None else size_mib
    if not 1 <= found <= MOST_MIB:
        raise origin.refuse(f"{where}: size-mib = {found}: from 1 to {MOST_MIB}")
    if backing == Backing.MEMORY and found & (found - 1):
        raise origin.refuse(f"{where}: size-mib = {found}: the memory of {name} is a power of two")
    return found


def _require_property(where: str, name: str, key: str, value: Property, origin: Origin) -> None:
    """Refuse a property that is not on the list, or a value that it cannot have.

    Raises:
        ConfigError: It is so.
    """
    known = MODELS[name].properties
    allowed = known.get(key)
    if allowed is None:
        raise origin.refuse(
            f"{where}: {name} has no property {key!r} that a project may set: it could name "
            "something of the host, or say where twinmod plugs the device",
            nearest.plan_fact(key, known, "properties"),
            ("the list", f"{PAGE}, Devices"),
        )
    if not fits(allowed, value):
        raise origin.refuse(f"{where}: {key} = {value!r} of {name}: it is {allowed}")


def fits(allowed: Allowed, value: Property) -> bool:
    """Tell whether a property can have a value."""
    if allowed == Allowed.BOOL or isinstance(value, bool):
        return allowed == Allowed.BOOL and isinstance(value, bool)
    if allowed in FORMS:
        return isinstance(value, str) and bool(FORMS[allowed].fullmatch(value))
    if not isinstance(value, int):
        return False
    return value in BLOCKS if allowed == Allowed.BLOCK else 0 <= value < 1 << BITS[allowed]
