# SPDX-License-Identifier: GPL-2.0-only
"""The devices that a VM has by its configuration, and how a test asks its host to take one out."""

import os
import select
from dataclasses import dataclass
from pathlib import Path

from twinmod.guest import protocol
from twinmod.guest.door import GuestError
from twinmod.guest.protocol import Plan, PlannedDevice, PlugAsked
from twinmod.guest.stream import Stream

PCI = Path("/sys/bus/pci/devices")

#: How long the host may take; it gives a kernel ten seconds to give a device back.
REPLY_TIMEOUT_S = 13.0


@dataclass(slots=True)
class _Given:
    """What this VM was told of its devices."""

    devices: tuple[PlannedDevice, ...] = ()
    # Whether the host takes them out on demand, and the way to it.
    hotplug: bool = False
    stream: Stream | None = None


_given = _Given()


def give(plan: Plan, stream: Stream) -> None:
    """Take note of a VM's devices, for whomever in this process or in its children.

    Args:
        plan: Of the VM.
        stream: To the host.
    """
    _given.devices, _given.hotplug, _given.stream = plan.devices, plan.hotplug, stream


def list_devices() -> tuple[PlannedDevice, ...]:
    """Return the devices of the configuration, in its order."""
    return _given.devices


def is_possible() -> bool:
    """Tell whether the host takes devices out of this VM on demand."""
    return _given.hotplug


def find_folder(port: str) -> Path | None:
    """Return the folder in sysfs of the device behind a root port; None: there is none."""
    return next((PCI / port).glob("????:??:??.?"), None)


def ask(number: int, *, plugged: bool) -> None:
    """Let the host take a device out, or plug it in again; returns when that is done.

    Args:
        number: Of the device in the configuration.
        plugged: Whether it is to be there.

    Raises:
        GuestError: The host, or this kernel, did not do so.
    """
    stream = _given.stream
    if stream is None or not _given.hotplug:
        raise GuestError("the host takes no device out of this VM")
    stream.emit(PlugAsked(number=number, plugged=plugged))
    reply = protocol.parse_reply(_read_line(stream.descriptor))
    if reply.problem:
        raise GuestError(reply.problem)


def _read_line(descriptor: int) -> bytes:
    """Return the next line that the host says.

    Raises:
        GuestError: It says none within REPLY_TIMEOUT_S.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        if not poll.poll(REPLY_TIMEOUT_S * 1000):
            raise GuestError(f"the host said nothing within {REPLY_TIMEOUT_S:g} s")
        line += os.read(descriptor, 1 << 16)
    return line
