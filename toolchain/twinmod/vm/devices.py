# SPDX-License-Identifier: GPL-2.0-only
"""Devices that are plugged into a VM that runs, and taken out of it.

A snapshot has none of them: QEMU does not save some, and others come back dead.
"""

from twinmod.errors import VmLostError
from twinmod.vm import machine
from twinmod.vm.machine import Device
from twinmod.vm.monitor import Monitor

#: How long a VM's kernel may take to give a device back.
UNPLUG_TIMEOUT_S = 10.0

#: The events that follow device_del: the device is gone, or the kernel keeps it.
DELETED, REFUSED = "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"


def plug(monitor: Monitor, devices: tuple[Device, ...]) -> None:
    """Plug devices into a clone, each into the port of its number.

    Args:
        monitor: Of a clone that went on from its state.
        devices: What it is to have.

    Raises:
        VmLostError: There are more devices than ports, or QEMU refuses one.
    """
    if len(devices) > machine.PORTS:
        raise VmLostError(f"it has ports for {machine.PORTS} devices, and there are {len(devices)}")
    for number, device in enumerate(devices):
        monitor.execute("device_add", **machine.plan_device(device, number))


def unplug(monitor: Monitor, number: int, limit_s: float = UNPLUG_TIMEOUT_S) -> None:
    """Take the device out of a port; returns when the VM's kernel gave it back.

    Args:
        monitor: Of the VM.
        number: Of the port.
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
