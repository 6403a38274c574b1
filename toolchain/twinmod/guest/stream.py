# SPDX-License-Identifier: GPL-2.0-only
"""The way out of a VM: one JSON object a line."""

import os
import time
import tty
from pathlib import Path

from twinmod.guest import protocol
from twinmod.guest.door import GuestError

PORT_NAME = "twinmod"


class Stream:
    """The way out: one JSON object a line, written whole before the next thing happens."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        # When the VM began, by its clock: a clone began when it was woken.
        self.began_s = 0.0

    def begin(self) -> None:
        """Count the seconds of events from now on."""
        self.began_s = time.clock_gettime(time.CLOCK_BOOTTIME)

    def emit(self, event: protocol.Event) -> None:
        """Write one event. The port accepts it only when the host has taken it over."""
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        line = protocol.render_event(event, now_s - self.began_s)
        data = line.encode()
        while data:
            data = data[os.write(self.descriptor, data) :]


def read_line(descriptor: int) -> bytes:
    """Return the next line that the host sends, which sends nothing after it until it is asked."""
    parts = []
    while True:
        part = os.read(descriptor, 1 << 16)
        parts.append(part)
        if part.endswith(b"\n"):
            return b"".join(parts)


def find_port(name: str) -> Path:
    """Return the device of a virtio serial port.

    Source: drivers/char/virtio_console.c, Linux 7.3: the attribute ``name`` of a port.
    """
    for path in Path("/sys/class/virtio-ports").iterdir():
        if (path / "name").read_text().strip() == name:
            return Path("/dev") / path.name
    raise GuestError(f"the VM has no port {name!r}")


def open_port(serial_path: str) -> int:
    """Return a descriptor of the way out: a serial line, or the virtio port for "".

    A line must change no byte of what it is given.
    """
    if not serial_path:
        return os.open(find_port(PORT_NAME), os.O_RDWR)
    descriptor = os.open(serial_path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    return descriptor
