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
from twinmod.guest.door import GuestError
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
    delivery = Delivery(
        time_s=1.5, entropy="00ff80", files={}, links={}, source_time=1, ports=(), plan=PLAN
    )
    waking.wake(delivery)
    assert calls == [
        (time.CLOCK_REALTIME, 1.5),
        # The bits, the bytes, and then the bytes themselves; without the second call the kernel
        # would use them a minute later.
        (0x40085203, struct.pack("ii", 24, 3) + b"\0\xff\x80"),
        (0x5207,),
    ]
    assert random.getstate() != before


@pytest.fixture
def pci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of two ports, and of three slots."""
    for number, port in ((1, "0000:00:10.0"), (0x1F, "0000:00:11.0")):
        write(tmp_path / "devices" / port / "secondary_bus_number", f"{number}\n")
    for name, address in (("0", "0000:01:00"), ("0-2", "0000:1f:00"), ("3", "0000:00:03")):
        write(tmp_path / "slots" / name / "address", f"{address}\n")
        write(tmp_path / "slots" / name / "power", "0\n")
    monkeypatch.setattr(waking, "PCI", tmp_path)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_clone_waits_for_its_devices(pci: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    def take_one(seconds: float) -> None:
        slept.append(seconds)
        write(pci / "slots" / ("0", "0-2")[len(slept) - 1] / "power", "1\n")

    monkeypatch.setattr(time, "sleep", take_one)
    waking.wait_for_devices(("0000:00:10.0", "0000:00:11.0"))
    assert len(slept) == 2
    waking.wait_for_devices(("0000:00:10.0", "0000:00:11.0"))
    assert len(slept) == 2


def test_a_device_that_does_not_come_is_named_by_its_port(
    pci: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "PLUGGING_LIMIT_S", 0.0)
    write(pci / "slots/0/power", "1\n")
    why = "the kernel took no device behind port 0000:00:11.0 within 0 s"
    with pytest.raises(GuestError, match=why):
        waking.wait_for_devices(("0000:00:10.0", "0000:00:11.0"))


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
        ports=(),
        plan=PLAN,
    )
    waking.wake(protocol.parse_delivery(protocol.render_delivery(delivery)))
    assert path.read_bytes() == content
    # What Python compiled names the time of its source; programs are called.
    assert (path.stat().st_mtime, path.stat().st_mode & 0o777) == (7.0, 0o755)
    assert link.readlink() == Path("library.so.1")
    assert calls
