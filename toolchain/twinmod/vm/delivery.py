# SPDX-License-Identifier: GPL-2.0-only
"""Clones: what each is given when it goes on from a snapshot."""

import secrets
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace

from twinmod.guest.protocol import Delivery, Plan
from twinmod.vm import initramfs

#: How much a clone's random number generator gets: what its key takes.
ENTROPY_BYTES = 32


#: What a clone that counts has as its time, in seconds since 1970: its count follows from nothing
#: that changes from run to run.
CONSTANT_TIME_S = 1_800_000_000.0


def plan_constant(given: Delivery) -> Delivery:
    """Return a delivery with a time and randomness that are the same in every run."""
    return replace(given, time_s=CONSTANT_TIME_S, entropy="00" * ENTROPY_BYTES)


def make_delivery(
    plan: Plan,
    files: Mapping[str, bytes],
    links: Mapping[str, str] | None = None,
    ports: tuple[str, ...] = (),
) -> Delivery:
    """Return what a VM that waits is given now.

    Args:
        plan: What it is to do.
        files: By path in the VM, the content of files that it gets.
        links: By path in the VM, what links lead to.
        ports: The addresses of the root ports that have a device by then.
    """
    return Delivery(
        time_s=time.time(),
        entropy=secrets.token_hex(ENTROPY_BYTES),
        files={name: b64encode(content).decode() for name, content in files.items()},
        links=links or {},
        source_time=initramfs.SOURCE_TIME,
        ports=ports,
        plan=plan,
    )
