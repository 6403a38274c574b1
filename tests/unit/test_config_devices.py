# SPDX-License-Identifier: GPL-2.0-only
"""The devices that a configuration gives its VMs, and what is refused of them."""

import re
from pathlib import Path

import pytest

from twinmod.errors import ConfigError
from twinmod.project import config
from twinmod.project.model import Backing, Bus, Device


def make_devices(*wanted: object, own: tuple[object, ...] = ()) -> tuple[Device, ...]:
    """Return the devices of the VM of a project that wants some, and whose driver wants others."""
    driver = {"modules": {"c": {"sources": "c", "name": "echo"}}, "vm": {"devices": list(own)}}
    document = {"drivers": {"echo": driver}, "vm": {"devices": list(wanted)}}
    return config.make_config(document, Path()).vm.devices


def test_a_driver_has_its_devices_behind_those_of_the_project() -> None:
    edu = {"model": "edu", "properties": {"dma_mask": 0xFFFFFFFFFFFFFFFF}}
    first, second, third, fourth = make_devices("pci-testdev", edu, own=("usb-kbd", "virtio-blk"))
    assert first == Device(driver="pci-testdev")
    assert second == Device(driver="edu", properties=(("dma_mask", 2**64 - 1),))
    assert third == Device(driver="usb-kbd", bus=Bus.USB)
    assert fourth == Device(driver="virtio-blk-pci", backing=Backing.DISK, backing_mib=16)


def test_what_stands_behind_a_device_has_the_size_that_it_is_given() -> None:
    disk, shared = make_devices(
        {"model": "nvme", "size-mib": 3, "properties": {"serial": "own"}},
        {"model": "ivshmem-plain", "size-mib": 4},
    )
    assert (disk.backing, disk.backing_mib, disk.properties) == (
        Backing.DISK,
        3,
        (("serial", "own"),),
    )
    assert (shared.backing, shared.backing_mib) == (Backing.MEMORY, 4)


#: What reaches the host, by the device that QEMU has it of.
REACHES = {
    "virtio-blk": ("drive", "iothread"),
    "virtio-net": ("netdev", "tx", "failover"),
    "virtio-rng": ("rng",),
    "ivshmem-plain": ("memdev",),
    "pci-serial": ("chardev",),
    "usb-storage": ("drive", "pcap"),
    "usb-kbd": ("pcap", "port", "display"),
    "e1000": ("netdev", "romfile", "addr", "bus", "id", "driver"),
    "nvme": ("drive", "pmrdev", "subsys"),
    "qemu-xhci": ("host",),
}


@pytest.mark.parametrize(
    ("model", "key"), [(model, key) for model, keys in REACHES.items() for key in keys]
)
def test_a_property_that_names_something_of_the_host_is_refused(model: str, key: str) -> None:
    wanted = {"model": model, "properties": {key: "/etc/passwd"}}
    with pytest.raises(ConfigError) as failure:
        make_devices(wanted)
    assert f"has no property '{key}' that a project may set" in failure.value.message
    assert failure.value.exit_code == 2


@pytest.mark.parametrize("model", ["vfio-pci", "vhost-vsock-pci", "usb-host", "usb-mtp", "loader"])
def test_a_device_that_reaches_the_host_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match=f"'{model}' is not a device that a VM can have"):
        make_devices(model)


def test_a_device_that_is_not_on_the_list_is_refused_with_the_nearest_or_the_list() -> None:
    with pytest.raises(ConfigError) as failure:
        make_devices("virtio-rgn")
    where = ("the list", "docs/configuration.md, Devices")
    assert failure.value.message.startswith("vm.devices, number 1: 'virtio-rgn' is not a device")
    assert failure.value.facts[1:] == (("nearest", "virtio-rng"), where)
    with pytest.raises(ConfigError) as failure:
        make_devices("edu", own=("edu", "zzz"))
    assert failure.value.message.startswith("drivers.echo.vm.devices, number 2: 'zzz' is not")
    (_, (what, names), last) = failure.value.facts
    assert (what, last) == ("devices", where)
    assert {"edu", "nvme", "i6300esb", "virtio-blk"} <= set(names.split(", "))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"model": "edu", "properties": {"dma_mask": 2**64}}, "a number from 0 to"),
        ({"model": "edu", "properties": {"dma_mask": -1}}, "a number from 0 to"),
        ({"model": "edu", "properties": {"dma_mask": "1"}}, "a number from 0 to"),
        ({"model": "edu", "properties": {"dma_mask": True}}, "a number from 0 to"),
        ({"model": "edu", "properties": {"mask": 1}}, "edu has no property 'mask'"),
        ({"model": "e1000", "properties": {"mac": "52:54:00:12:34"}}, "the MAC address"),
        ({"model": "e1000", "properties": {"mac": "01:54:00:12:34:56"}}, "of one station"),
        ({"model": "e1000", "properties": {"mac": 5}}, "the MAC address"),
        ({"model": "intel-hda", "properties": {"msi": "yes"}}, '"on", "off" or "auto"'),
        ({"model": "virtio-rng", "properties": {"packed": "on"}}, "true or false"),
        ({"model": "virtio-rng", "properties": {"packed": 1}}, "true or false"),
        ({"model": "nvme", "properties": {"serial": "a,b"}}, "up to 20 letters"),
        ({"model": "nvme", "properties": {"logical_block_size": 513}}, "a power of two from 512"),
        ({"model": "nvme", "size-mib": 0}, "size-mib = 0: from 1 to 16384"),
        ({"model": "nvme", "size-mib": 16385}, "size-mib = 16385: from 1 to 16384"),
        ({"model": "ivshmem-plain", "size-mib": 3}, "a power of two"),
        ({"model": "edu", "size-mib": 1}, "edu has neither a disk nor a memory"),
        ({"model": "edu", "properties": {"dma_mask": 1.5}}, "is not valid"),
        ({"properties": {}}, "lacks `model`"),
        ({"model": "edu", "proprties": {}}, "unknown key `proprties`"),
        (5, "is not valid"),
    ],
    ids=str,
)
def test_a_device_that_cannot_be_is_refused(wanted: object, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)) as failure:
        make_devices(wanted)
    assert failure.value.exit_code == 2


def test_more_devices_than_the_machine_has_room_for_are_refused() -> None:
    assert len(make_devices(*("edu",) * 14, own=("usb-kbd", "usb-mouse", "pvpanic"))) == 17
    why = "the VM of drivers.echo has 16 devices on PCI: it has room for 15"
    with pytest.raises(ConfigError, match=why):
        make_devices(*("edu",) * 15, own=("usb-kbd",))
