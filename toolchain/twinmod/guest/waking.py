# SPDX-License-Identifier: GPL-2.0-only
"""The first thing that a VM does with its delivery: it becomes another one than its siblings."""

import base64
import fcntl
import importlib
import os
import random
import struct
import time
from pathlib import Path

from twinmod.guest.protocol import Delivery

#: include/uapi/linux/random.h, Linux 7.3: _IOW('R', 0x03, int[2]) and _IO('R', 0x07).
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207


def wake(delivery: Delivery) -> None:
    """Set the clock, make random numbers one's own, and write the files that came."""
    time.clock_settime(time.CLOCK_REALTIME, delivery.time_s)
    add_entropy(bytes.fromhex(delivery.entropy))
    random.seed()
    for name, content in delivery.files.items():
        write_file(Path(name), base64.b64decode(content), delivery.source_time)
    for name, target in delivery.links.items():
        Path(name).symlink_to(target)
    # The import system remembers which folders were missing.
    importlib.invalidate_caches()


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
