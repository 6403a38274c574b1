# SPDX-License-Identifier: GPL-2.0-only
"""The first thing that a VM does with its delivery: it becomes another one than its siblings."""

import base64
import fcntl
import importlib
import os
import random
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from twinmod.guest.door import GuestError
from twinmod.guest.protocol import Delivery

#: include/uapi/linux/random.h, Linux 7.3: _IOW('R', 0x03, int[2]) and _IO('R', 0x07).
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

PCI = Path("/sys/bus/pci")

#: How long the kernel may take for the devices that were plugged, and between two looks at them.
PLUGGING_LIMIT_S = 10.0
POLL_S = 0.005


def wake(delivery: Delivery) -> None:
    """Set the clock, make random numbers one's own, and take the files and devices that came.

    Raises:
        GuestError: The kernel did not take a device.
    """
    time.clock_settime(time.CLOCK_REALTIME, delivery.time_s)
    add_entropy(bytes.fromhex(delivery.entropy))
    random.seed()
    for name, content in delivery.files.items():
        write_file(Path(name), base64.b64decode(content), delivery.source_time)
    for name, target in delivery.links.items():
        Path(name).symlink_to(target)
    # The import system remembers which folders were missing.
    importlib.invalidate_caches()
    wait_for_devices(delivery.ports)


def write_file(path: Path, content: bytes, time_s: int) -> None:
    """Write a file that came: it can be executed, as all of them are in a VM's first memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    os.utime(path, (time_s, time_s))


def add_entropy(entropy: bytes) -> None:
    """Mix bytes into the kernel's random number generator, and let all that it gives follow them.

    Source: random(4); struct rand_pool_info of include/uapi/linux/random.h.
    """
    descriptor = os.open("/dev/urandom", os.O_RDWR)
    try:
        counted = struct.pack("ii", 8 * len(entropy), len(entropy)) + entropy
        fcntl.ioctl(descriptor, RNDADDENTROPY, counted)
        fcntl.ioctl(descriptor, RNDRESEEDCRNG)
    finally:
        os.close(descriptor)


def wait_for_devices(ports: Iterable[str]) -> None:
    """Wait until the kernel has a device behind each of some ports, and its driver has probed it.

    Args:
        ports: Their addresses.

    Raises:
        GuestError: It took longer than PLUGGING_LIMIT_S.
    """
    deadline = time.monotonic() + PLUGGING_LIMIT_S
    for port in ports:
        while not is_taken(port):
            if time.monotonic() > deadline:
                raise GuestError(
                    f"the kernel took no device behind port {port} within {PLUGGING_LIMIT_S:.0f} s"
                )
            time.sleep(POLL_S)


def is_taken(port: str) -> bool:
    """Tell whether the kernel is done with the device that was plugged into a port.

    Source: enable_slot() of drivers/pci/hotplug/acpiphp_glue.c, Linux 7.3: a slot is said to have
    power when drivers have probed its device.
    """
    bus = int((PCI / "devices" / port / "secondary_bus_number").read_text())
    return any(
        (slot / "power").read_text().strip() == "1"
        for slot in (PCI / "slots").iterdir()
        if (slot / "address").read_text().strip() == f"0000:{bus:02x}:00"
    )
