# SPDX-License-Identifier: GPL-2.0-only
"""What a clone does first, but for the two calls that would change this machine."""

import base64
import fcntl
import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from twinmod.guest import protocol, waking
from twinmod.guest.protocol import Delivery, Job, Plan

PLAN = Plan(
    mode=Job.MATRIX,
    port="",
    cells=(),
    modules={},
    testers={},
    matrix="/matrix",
    version="0.1",
    limit_s=1.0,
    magic="",
    loop="",
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the kernel was asked for."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(time, "clock_settime", lambda *values: asked.append(values))
    monkeypatch.setattr(fcntl, "ioctl", lambda _, *values: asked.append(values))
    return asked


def test_a_clone_gets_the_time_and_random_numbers_of_its_own(calls: list[Any]) -> None:
    before = random.getstate()
    delivery = Delivery(time_s=1.5, entropy="00ff80", files={}, links={}, source_time=1, plan=PLAN)
    waking.wake(delivery)
    assert calls == [
        (time.CLOCK_REALTIME, 1.5),
        # The bits, the bytes, and then the bytes themselves; without the second call the kernel
        # would use them a minute later.
        (0x40085203, struct.pack("ii", 24, 3) + b"\0\xff\x80"),
        (0x5207,),
    ]
    assert random.getstate() != before


def test_a_clone_gets_its_files(calls: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "module/mdriver_c.ko"
    content = bytes(range(256))
    files = {str(path): base64.b64encode(content).decode()}
    link = tmp_path / "library.so"
    delivery = Delivery(
        time_s=1.5,
        entropy="",
        files=files,
        links={str(link): "library.so.1"},
        source_time=7,
        plan=PLAN,
    )
    waking.wake(protocol.parse_delivery(protocol.render_delivery(delivery)))
    assert path.read_bytes() == content
    # What Python compiled names the time of its source; programs are called.
    assert (path.stat().st_mtime, path.stat().st_mode & 0o777) == (7.0, 0o755)
    assert link.readlink() == Path("library.so.1")
    assert calls
