# SPDX-License-Identifier: GPL-2.0-only
"""A caller that is killed ends."""

import os
import signal
import time

import pytest

from twinmod.guest import child
from zoo_device import Device

LIMIT_S = 5.0


@pytest.mark.rule("R20")
def test_a_killed_reader_ends(device: Device) -> None:
    pid = child.fork(lambda: len(device.pread(1, 0)))
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + LIMIT_S
    ended = 0
    while not ended and time.monotonic() < deadline:
        ended, _ = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    if not ended:
        # The reader is let go, so that the module can be unloaded.
        device.pwrite(b"1", 0)
        os.waitpid(pid, 0)
    assert ended, f"it went on for {LIMIT_S:.0f} s after it was killed"
