# SPDX-License-Identifier: GPL-2.0-only
"""Devices that are plugged into a VM that runs, and taken out of it.

A snapshot has none of them: QEMU does not save some, and others come back dead.
"""

from twinmod.errors import VmLostError
from twinmod.project import devices as project_devices
from twinmod.project.model import Device
from twinmod.vm import machine
from twinmod.vm.monitor import Monitor

#: How long a VM's kernel may take to give a device back.
UNPLUG_TIMEOUT_S = 10.0

#: The events that follow device_del: the device is gone, or the kernel keeps it.
DELETED, REFUSED = "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"


def plug(monitor: Monitor, devices: tuple[Device, ...]) -> None:
    """Plug devices into a clone, each on PCI into a port of its own.

    Args:
        monitor: Of a clone that went on from its state.
        devices: What it is to have.

    Raises:
        VmLostError: There are more devices than ports, or QEMU refuses one.
    """
    if obstacle := find_obstacle(devices):
        raise VmLostError(obstacle)
    for order in (*machine.plan_backings(devices), *machine.plan_orders(devices)):
        monitor.execute(order.command, **order.arguments)


def plug_again(monitor: Monitor, devices: tuple[Device, ...], number: int) -> None:
    """Plug a device that was taken out in again; returns when QEMU has it, as unplug() does.

    Args:
        monitor: Of the VM.
        devices: What the VM had in the beginning.
        number: Of the device among them.

    Raises:
        VmLostError: QEMU refuses.
    """
    name = machine.plan_device_name(number)
    orders = (order for order in machine.plan_orders(devices) if order.arguments["id"] == name)
    for order in orders:
        monitor.execute(order.command, **order.arguments)


def find_obstacle(devices: tuple[Device, ...]) -> str:
    """Return why QEMU cannot plug devices into a clone, "" where it can."""
    board = [device.driver for device in devices if not device.hotplug]
    if board:
        return f"QEMU plugs no {' and no '.join(dict.fromkeys(board))} into a VM that runs"
    count = project_devices.count_ports(devices)
    if count > machine.PORTS:
        return f"a clone has ports for {machine.PORTS} devices, and there are {count}"
    return ""


def unplug(monitor: Monitor, number: int, limit_s: float = UNPLUG_TIMEOUT_S) -> None:
    """Take a device out; returns when the VM's kernel gave it back.

    Args:
        monitor: Of the VM.
        number: Of the device among those of its VM.
        limit_s: How long the kernel may take, in seconds.

    Raises:
        VmLostError: QEMU or the kernel refuses, or the kernel takes longer.

    Source: qapi/qdev.json, QEMU 10.0.
    """
    name = machine.plan_device_name(number)
    monitor.execute("device_del", id=name)
    try:
        event = monitor.wait_for((DELETED, REFUSED), limit_s, device=name)
    except TimeoutError as error:
        raise VmLostError(
            f"{name} is still plugged: the VM's kernel did not give it back within {limit_s:g} s"
        ) from error
    if event == REFUSED:
        raise VmLostError(f"{name} is still plugged: the VM's kernel keeps it")


def change(monitor: Monitor, devices: tuple[Device, ...], number: int, *, plugged: bool) -> str:
    """Take a device out of a VM, or plug it in again; return why that failed, "" if it did not.

    Args:
        monitor: Of the VM.
        devices: What the VM had in the beginning.
        number: Of the device among them.
        plugged: Whether it is to be there.
    """
    try:
        if plugged:
            plug_again(monitor, devices, number)
        else:
            unplug(monitor, number)
    except VmLostError as error:
        return error.message
    return ""
