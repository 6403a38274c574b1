# SPDX-License-Identifier: GPL-2.0-only
"""What the fixtures for devices and for faults in flight do, with edu and uio_pci_generic.

A read of its node sleeps until edu interrupts. Source: drivers/uio/uio_pci_generic.c, Linux 7.3,
and docs/specs/edu.rst, QEMU 10.0.
"""

import errno
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from twinmod.guest.door import GuestError
from twinmod.guest.testing import Module, hardware, inflight
from twinmod.guest.testing.hardware import Hardware
from twinmod.guest.testing.memory import errno_of

IDENTIFICATION, EDU_1_0 = 0x00, 0x010000ED
RAISE, ACKNOWLEDGE = 0x60, 0x64


@pytest.fixture
def edu(plugged: tuple[Hardware, ...]) -> Hardware:
    return plugged[0]


@contextmanager
def registers(device: Path) -> Iterator[memoryview]:
    """The registers of edu, as numbers of 32 bits."""
    with (
        (device / "resource0").open("r+b") as file,
        mmap.mmap(file.fileno(), mmap.PAGESIZE) as bar,
        memoryview(bar) as raw,
        raw.cast("I") as numbers,
    ):
        yield numbers


def raise_interrupt(device: Path) -> None:
    with registers(device) as numbers:
        numbers[RAISE // 4] = 1


def enable_interrupt(device: Path) -> None:
    """Let edu interrupt once: the driver's handler turns that off, for whoever reads to turn on."""
    with (device / "config").open("r+b", buffering=0) as config:
        command = int.from_bytes(os.pread(config.fileno(), 2, 4), "little")
        os.pwrite(config.fileno(), (command & ~0x400).to_bytes(2, "little"), 4)


@pytest.fixture
def served(module: Module, edu: Hardware) -> Iterator[Path]:
    """Edu's folder in sysfs, while the module's driver serves it, and edu may interrupt."""
    with hardware.new_id(edu.path, module.name):
        assert hardware.find_driver(edu.path) == module.name
        with registers(edu.path) as numbers:
            numbers[ACKNOWLEDGE // 4] = 1
        enable_interrupt(edu.path)
        yield edu.path


def wait_for_interrupt(device: Path) -> None:
    """Read the node of uio: it returns with an interrupt."""
    (folder,) = (device / "uio").iterdir()
    descriptor = os.open(f"/dev/{folder.name}", os.O_RDWR)
    os.read(descriptor, 4)


def test_the_devices_are_those_of_the_configuration(plugged: tuple[Hardware, ...]) -> None:
    assert [one.model for one in plugged] == ["edu", "virtio-rng-pci", "usb-kbd", "nvme"]
    vendors = [(one.path / "vendor").read_text().strip() for one in plugged[:2]]
    assert vendors == ["0x1234", "0x1af4"]
    with pytest.raises(LookupError, match="usb-kbd is not on PCI"):
        _ = plugged[2].path
    usb = Path("/sys/bus/usb/devices")

    def find_keyboard() -> bool:
        products = (path.read_text().strip() for path in usb.glob("*/product"))
        return "QEMU USB Keyboard" in products

    hardware.wait_until(find_keyboard, "the keyboard")


def test_a_disk_keeps_what_is_written(plugged: tuple[Hardware, ...]) -> None:
    disk = Path("/sys/block/nvme0n1")
    hardware.wait_until(disk.is_dir, "the disk")
    assert (disk / "size").read_text().strip() == str((2 << 20) // 512)
    descriptor = os.open("/dev/nvme0n1", os.O_RDWR)
    assert os.pread(descriptor, 4096, 1 << 20) == bytes(4096)
    written = bytes(range(256)) * 16
    os.pwrite(descriptor, written, 1 << 20)
    os.fsync(descriptor)
    # What is read comes from the disk again.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(descriptor, 4096, 1 << 20) == written
    os.close(descriptor)
    assert hardware.find_driver(plugged[3].path) == "nvme"
    assert hardware.count_interrupts(plugged[3].path) > 0


def test_a_stalled_disk_answers_when_it_may(plugged: tuple[Hardware, ...]) -> None:
    hardware.wait_until(Path("/dev/nvme0n1").exists, "the disk")

    def read() -> None:
        descriptor = os.open("/dev/nvme0n1", os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(descriptor, 4096, 1536 << 10)

    device = plugged[3].path
    with ExitStack() as stall:
        stall.enter_context(hardware.stalled(device))
        before = hardware.count_interrupts(device)
        with inflight.posted(read) as caller:
            assert hardware.count_interrupts(device) == before
            stall.close()
            assert caller.wait_for_end() == 0
    assert hardware.count_interrupts(device) > before


def test_a_driver_serves_an_id_that_it_is_given(module: Module, edu: Hardware) -> None:
    assert hardware.find_driver(edu.path) == ""
    with hardware.new_id(edu.path, module.name):
        assert hardware.find_driver(edu.path) == module.name
        hardware.unbind(edu.path)
        assert hardware.find_driver(edu.path) == ""
        hardware.bind(edu.path, module.name)
        assert hardware.find_driver(edu.path) == module.name
    assert hardware.find_driver(edu.path) == ""
    assert errno_of(hardware.bind, edu.path, module.name) == errno.ENODEV


def test_a_device_without_a_driver_has_none_to_be_taken_from(edu: Hardware) -> None:
    with pytest.raises(FileNotFoundError):
        hardware.unbind(edu.path)


def test_a_device_that_cannot_be_reset_says_so(plugged: tuple[Hardware, ...]) -> None:
    for one in plugged[:2]:
        if (one.path / "reset").exists():
            hardware.reset(one.path)
        else:
            with pytest.raises(FileNotFoundError):
                hardware.reset(one.path)


def test_a_device_that_is_served_is_taken_out(served: Path, edu: Hardware, module: Module) -> None:
    edu.unplug()
    assert not edu.is_plugged()
    assert not served.exists()
    edu.plug()
    assert edu.path == served
    # The driver still has the ID.
    assert hardware.find_driver(served) == module.name
    with registers(edu.path) as numbers:
        assert numbers[IDENTIFICATION] == EDU_1_0


def test_what_a_test_took_out_is_back(edu: Hardware) -> None:
    edu.unplug()
    with pytest.raises(GuestError, match="device-0"):
        edu.unplug()


def test_what_the_test_before_took_out_is_there(edu: Hardware) -> None:
    assert edu.is_plugged()
    # For the kernel alone it goes, and is found again.
    (edu.path / "remove").write_text("1")
    assert not edu.is_plugged()


def test_what_the_test_before_removed_is_there(served: Path) -> None:
    with registers(served) as numbers:
        assert numbers[IDENTIFICATION] == EDU_1_0


def test_the_caller_of_a_posted_request_is_killed(served: Path) -> None:
    with inflight.posted(lambda: wait_for_interrupt(served)) as caller:
        caller.kill()
    assert caller.status == -9


def test_a_posted_request_ends_with_its_reply(served: Path) -> None:
    with inflight.posted(lambda: wait_for_interrupt(served)) as caller:
        assert caller.read_status() is None
        raise_interrupt(served)
        assert caller.wait_for_end() == 0


def test_a_call_that_does_not_wait_posts_nothing(served: Path) -> None:
    with (
        pytest.raises(AssertionError, match="the caller did not wait; it ended with 0"),
        inflight.posted(lambda: None),
    ):
        pytest.fail("the block began")


def test_a_driver_goes_with_a_request_posted(served: Path) -> None:
    with inflight.posted(lambda: wait_for_interrupt(served)) as caller:
        inflight.finish(lambda: hardware.unbind(served), "unbind")
        # uio wakes who waits, and says that the device is gone.
        assert caller.wait_for_end() == 120


def test_a_module_stays_with_a_request_posted(served: Path, module: Module) -> None:
    with (
        inflight.posted(lambda: wait_for_interrupt(served)),
        pytest.raises(BlockingIOError, match="it is in use"),
    ):
        inflight.finish(module.unload, "unload")


def test_what_does_not_return_fails() -> None:
    with pytest.raises(AssertionError, match="a nap did not return within"):
        inflight.finish(lambda: time.sleep(0.5), "a nap", 0.05)


def test_a_stalled_device_answers_when_it_may(served: Path) -> None:
    with inflight.posted(lambda: wait_for_interrupt(served)) as caller:
        before = hardware.count_interrupts(served)
        with hardware.stalled(served):
            raise_interrupt(served)
            # The register shows it, and the interrupt does not come.
            with registers(served) as numbers:
                assert numbers[0x24 // 4] == 1
            assert hardware.count_interrupts(served) == before
            assert caller.read_status() is None
        assert caller.wait_for_end() == 0
    assert hardware.count_interrupts(served) == before + 1


def test_a_reply_comes_after_the_kill(served: Path) -> None:
    def call() -> None:
        raise_interrupt(served)
        wait_for_interrupt(served)

    assert inflight.reply_after_kill(served, call) == 1
