# SPDX-License-Identifier: GPL-2.0-only
"""The first thing that a VM does with its delivery: it becomes another one than its siblings."""

import base64
import fcntl
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
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))


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
