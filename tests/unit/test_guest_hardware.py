# SPDX-License-Identifier: GPL-2.0-only
"""What tests do with a VM's devices, and faults in flight, as far as they go without a VM."""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from twinmod.guest import plugging, protocol, waking
from twinmod.guest.door import GuestError
from twinmod.guest.protocol import Job, Plan, PlannedDevice, Plugged
from twinmod.guest.stream import Stream
from twinmod.guest.testing import Hardware, hardware, inflight

COMMAND, STATUS, CAPABILITIES = 0x04, 0x06, 0x34
INTX_OFF, BUS_MASTER = 0x400, 0x4
MSI, MSIX = 0x05, 0x11
WHERE, ELSEWHERE = 0x40, 0x50

ADDRESS = "0000:01:00.0"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device on a bus with two drivers, none of which serves it; its kernel is a folder."""
    folder = tmp_path / "devices/pci0000:00/0000:00:10.0" / ADDRESS
    folder.mkdir(parents=True)
    (folder / "vendor").write_text("0x1234\n")
    (folder / "device").write_text("0x11e8\n")
    for name in ("echo", "other"):
        driver = tmp_path / "bus/pci/drivers" / name
        driver.mkdir(parents=True)
        for attribute in ("bind", "unbind", "new_id", "remove_id"):
            (driver / attribute).touch()
    (folder / "subsystem").symlink_to(tmp_path / "bus/pci")
    monkeypatch.setattr(hardware, "BUSES", tmp_path / "bus")
    monkeypatch.setattr(hardware, "IRQS", tmp_path / "irq")
    return folder


def serve(device: Path, name: str) -> Path:
    """Let a driver serve a device; return the driver's folder."""
    folder = hardware.BUSES / "pci/drivers" / name
    (device / "driver").symlink_to(folder)
    return folder


# -- drivers ----------------------------------------------------------------------------------


def test_a_device_is_bound_to_a_driver_of_its_bus(device: Path) -> None:
    assert hardware.find_driver(device) == ""
    hardware.bind(device, "echo")
    assert (hardware.BUSES / "pci/drivers/echo/bind").read_text() == ADDRESS
    folder = serve(device, "echo")
    assert hardware.find_driver(device) == "echo"
    hardware.unbind(device)
    assert (folder / "unbind").read_text() == ADDRESS


def test_a_driver_has_an_id_for_the_length_of_a_block(device: Path) -> None:
    folder = hardware.BUSES / "pci/drivers/echo"
    with hardware.new_id(device, "echo"):
        assert (folder / "new_id").read_text() == "1234 11e8"
        serve(device, "echo")
        assert (folder / "remove_id").read_text() == ""
    assert (folder / "unbind").read_text() == ADDRESS
    assert (folder / "remove_id").read_text() == "1234 11e8"


def test_a_driver_that_does_not_serve_the_device_keeps_what_it_serves(device: Path) -> None:
    serve(device, "other")
    with hardware.new_id(device, "echo", "8086 100e"):
        pass
    assert (hardware.BUSES / "pci/drivers/other/unbind").read_text() == ""
    assert (hardware.BUSES / "pci/drivers/echo/remove_id").read_text() == "8086 100e"


@pytest.fixture
def edu(device: Path, monkeypatch: pytest.MonkeyPatch) -> Hardware:
    monkeypatch.setattr(plugging, "PCI", device.parent.parent)
    return Hardware(number=0, model="edu", port="0000:00:10.0")


def test_a_device_has_the_driver_again_that_it_had(device: Path, edu: Hardware) -> None:
    serve(device, "echo")
    with hardware.kept((edu,)):
        (device / "driver").unlink()
        serve(device, "other")
    assert (hardware.BUSES / "pci/drivers/other/unbind").read_text() == ADDRESS
    assert (hardware.BUSES / "pci/drivers/echo/bind").read_text() == ADDRESS


def test_a_device_that_is_gone_is_looked_for_and_else_plugged_in_again(
    device: Path, edu: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def plug(number: int, *, plugged: bool) -> None:
        assert (number, (hardware.BUSES / "pci/rescan").read_text()) == (0, "1")
        away.rename(device)
        asked.append(plugged)

    monkeypatch.setattr(plugging, "ask", plug)
    monkeypatch.setattr(plugging, "is_possible", lambda: True)
    monkeypatch.setattr(waking, "wait_for_devices", lambda ports: asked.append(bool(ports)))
    with hardware.kept((edu,)):
        away = device.rename(device.parent / "away")
    assert asked == [True, True]
    assert edu.is_plugged()


def test_a_device_that_was_let_alone_is_let_alone(device: Path, edu: Hardware) -> None:
    serve(device, "echo")
    with hardware.kept((edu,)):
        pass
    assert (hardware.BUSES / "pci/drivers/echo/bind").read_text() == ""
    assert (hardware.BUSES / "pci/drivers/echo/unbind").read_text() == ""


def test_a_device_without_a_folder_says_so(edu: Hardware, device: Path) -> None:
    assert edu.is_plugged()
    assert edu.path == device
    gone = Hardware(number=1, model="edu", port="0000:00:11.0")
    assert not gone.is_plugged()
    for one in (gone, Hardware(number=2, model="usb-kbd", port="")):
        with pytest.raises(LookupError, match=f"{one.model} is not on PCI, or not plugged"):
            _ = one.path


# -- taken out --------------------------------------------------------------------------------


def plan(*, hotplug: bool) -> Plan:
    """Return the plan of a VM with one device."""
    return Plan(
        mode=Job.MATRIX,
        port="",
        cells=(),
        modules={},
        testers={},
        matrix="",
        version="",
        limit_s=1.0,
        magic="",
        loop="",
        devices=(PlannedDevice(model="edu", port="0000:00:10.0"),),
        hotplug=hotplug,
    )


@pytest.fixture
def host() -> Iterator[socket.socket]:
    """The other end of the way out of a VM that has one device."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        plugging.give(plan(hotplug=True), Stream(theirs.fileno()))
        yield ours
    plugging.give(plan(hotplug=False), Stream(-1))


def test_the_host_takes_a_device_out_and_plugs_it_in_again(
    host: socket.socket, edu: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[str, ...]] = []
    monkeypatch.setattr(waking, "wait_for_devices", waited.append)
    assert [one.model for one in plugging.list_devices()] == ["edu"]
    for act, plugged in ((edu.unplug, False), (edu.plug, True)):
        host.sendall(protocol.render_reply(Plugged(problem="")).encode() + b"\n")
        act()
        asked = protocol.parse_event(host.recv(4096).decode())
        assert isinstance(asked, protocol.PlugAsked)
        assert (asked.number, asked.plugged) == (0, plugged)
    assert waited == [("0000:00:10.0",)]


def test_a_device_that_does_not_come_out_fails_the_test(host: socket.socket, edu: Hardware) -> None:
    host.sendall(protocol.render_reply(Plugged(problem="the kernel keeps it")).encode() + b"\n")
    with pytest.raises(GuestError, match="the kernel keeps it"):
        edu.unplug()


def test_a_host_that_says_nothing_is_not_waited_for(
    host: socket.socket, edu: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugging, "REPLY_TIMEOUT_S", 0.05)
    with pytest.raises(GuestError, match="the host said nothing within"):
        edu.unplug()
    assert host.recv(4096)


def test_a_vm_that_hears_nothing_skips_the_test(host: socket.socket, edu: Hardware) -> None:
    plugging.give(plan(hotplug=False), Stream(host.fileno()))
    with pytest.raises(pytest.skip.Exception, match="recorded or that counts"):
        edu.unplug()
    with pytest.raises(GuestError, match="the host takes no device out of this VM"):
        plugging.ask(0, plugged=False)


# -- a device that stalls ---------------------------------------------------------------------


def write_config(device: Path, *capabilities: tuple[int, int, int]) -> None:
    """Write a configuration space with some capabilities: (where, which, control)."""
    content = bytearray(256)
    struct.pack_into("<H", content, COMMAND, BUS_MASTER)
    struct.pack_into("<H", content, STATUS, 0x10 if capabilities else 0)
    link = CAPABILITIES
    for where, which, control in capabilities:
        content[link] = where
        struct.pack_into("<BBH", content, where, which, 0, control)
        link = where + 1
    (device / "config").write_bytes(content)


def read(device: Path, offset: int, form: str = "<H") -> int:
    return int(struct.unpack_from(form, (device / "config").read_bytes(), offset)[0])


@pytest.mark.parametrize(
    ("capabilities", "offset", "held", "form"),
    [
        ((), COMMAND, BUS_MASTER | INTX_OFF, "<H"),
        # Not in use.
        (((WHERE, MSIX, 0x0007),), COMMAND, BUS_MASTER | INTX_OFF, "<H"),
        (((WHERE, MSIX, 0x8007),), WHERE + 2, 0xC007, "<H"),
        (((WHERE, 0x10, 0), (ELSEWHERE, MSIX, 0x8000)), ELSEWHERE + 2, 0xC000, "<H"),
        (((WHERE, MSI, 0x0001),), WHERE + 2, 0x0000, "<H"),
        (((WHERE, MSI, 0x0101),), WHERE + 0x0C, 0xFFFFFFFF, "<I"),
        (((WHERE, MSI, 0x0181),), WHERE + 0x10, 0xFFFFFFFF, "<I"),
    ],
)
def test_a_stalled_device_sends_no_interrupt_in_the_way_that_it_sends_them(
    device: Path, capabilities: tuple[tuple[int, int, int], ...], offset: int, held: int, form: str
) -> None:
    write_config(device, *capabilities)
    before = (device / "config").read_bytes()
    with hardware.stalled(device):
        assert read(device, offset, form) == held
    assert (device / "config").read_bytes() == before


def test_what_a_driver_changes_beside_it_stays(device: Path) -> None:
    write_config(device)
    with hardware.stalled(device), (device / "config").open("r+b", buffering=0) as config:
        os.pwrite(config.fileno(), struct.pack("<H", INTX_OFF | 0x2), COMMAND)
    assert read(device, COMMAND) == 0x2


def test_a_driver_that_wanted_no_interrupt_gets_none(device: Path) -> None:
    write_config(device)
    with (device / "config").open("r+b", buffering=0) as config:
        os.pwrite(config.fileno(), struct.pack("<H", INTX_OFF), COMMAND)
    with hardware.stalled(device):
        pass
    assert read(device, COMMAND) == INTX_OFF


def test_a_stalled_device_may_go(device: Path) -> None:
    write_config(device)
    with hardware.stalled(device):
        (device / "config").unlink()
    assert not (device / "config").exists()


def test_interrupts_of_a_device_are_those_of_its_messages_or_of_its_line(device: Path) -> None:
    for number, counts in (("11", "3,4"), ("24", "1,0"), ("25", "2,2")):
        (hardware.IRQS / number).mkdir(parents=True)
        (hardware.IRQS / number / "per_cpu_count").write_text(counts + "\n")
    (device / "irq").write_text("11\n")
    assert hardware.count_interrupts(device) == 7
    (device / "msi_irqs").mkdir()
    for number in ("24", "25", "26"):
        (device / "msi_irqs" / number).touch()
    assert hardware.count_interrupts(device) == 5


# -- faults in flight -------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[Callable[[], object], int]]:
    """A call that waits, and where it is answered."""
    reader, writer = os.pipe()
    yield lambda: os.read(reader, 1), writer
    os.close(reader)
    os.close(writer)


Pipe = tuple[Callable[[], object], int]


def test_a_caller_is_killed_in_its_call(pipe: Pipe) -> None:
    with inflight.posted(pipe[0]) as caller:
        assert caller.read_status() is None
        caller.kill()
    assert caller.status == -9


def test_a_call_that_is_answered_ends(pipe: Pipe) -> None:
    with inflight.posted(pipe[0]) as caller:
        os.write(pipe[1], b"x")
        assert caller.wait_for_end() == 0


def test_a_caller_goes_with_the_block(pipe: Pipe) -> None:
    with inflight.posted(pipe[0]) as caller:
        pass
    assert caller.status == -9


def test_a_call_that_does_not_wait_posts_nothing() -> None:
    with (
        pytest.raises(AssertionError, match="the caller did not wait; it ended with 0"),
        inflight.posted(lambda: None),
    ):
        pytest.fail("the block began")


def test_a_request_is_posted_when_the_device_says_so(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter((False, False, True))
    with inflight.posted(pipe[0], lambda: next(looks)):
        assert next(looks, None) is None
    monkeypatch.setattr(hardware, "PATIENCE_S", 0.05)
    with (
        pytest.raises(AssertionError, match="a posted request did not come within"),
        inflight.posted(pipe[0], lambda: False),
    ):
        pytest.fail("the block began")


def test_what_returns_is_waited_for_and_what_it_raises_is_raised() -> None:
    done: list[int] = []
    inflight.finish(lambda: done.append(1), "an unbind")
    assert done == [1]

    def refuse() -> None:
        raise BlockingIOError

    with pytest.raises(BlockingIOError):
        inflight.finish(refuse, "an unload")


def test_what_does_not_return_fails() -> None:
    with pytest.raises(AssertionError, match="a nap did not return within"):
        inflight.finish(lambda: time.sleep(0.3), "a nap", 0.02)


def test_a_reply_comes_after_the_kill(
    device: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(device)

    def count(path: Path) -> int:
        """Count one more when interrupts may come again."""
        return 5 if read(path, COMMAND) & INTX_OFF else 6

    monkeypatch.setattr(hardware, "count_interrupts", count)
    assert inflight.reply_after_kill(device, pipe[0]) == 1
