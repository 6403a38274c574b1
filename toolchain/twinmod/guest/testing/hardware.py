# SPDX-License-Identifier: GPL-2.0-only
"""The VM's devices: which driver serves one, reset, hot unplug, and a device that stalls.

Source: Documentation/ABI/testing/sysfs-bus-pci and Documentation/driver-api/driver-model, Linux
7.3, for the attributes of a device and of a driver.
"""

import importlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from twinmod.guest import plugging, waking
from twinmod.guest.testing.children import PATIENCE_S

BUSES = Path("/sys/bus")
IRQS = Path("/sys/kernel/irq")

POLL_S = 0.002

# Source: include/uapi/linux/pci_regs.h, Linux 7.3.
PCI_COMMAND = 0x04
PCI_COMMAND_INTX_DISABLE = 0x400
PCI_STATUS = 0x06
PCI_STATUS_CAP_LIST = 0x10
PCI_CAPABILITY_LIST = 0x34
PCI_CAP_ID_MSI = 0x05
PCI_CAP_ID_MSIX = 0x11
#: Of both capabilities: where their control is, from where they begin.
CONTROL = 2
PCI_MSI_FLAGS_ENABLE = 0x0001
PCI_MSI_FLAGS_64BIT = 0x0080
PCI_MSI_FLAGS_MASKBIT = 0x0100
PCI_MSI_MASK_32, PCI_MSI_MASK_64 = 0x0C, 0x10
PCI_MSIX_FLAGS_ENABLE = 0x8000
PCI_MSIX_FLAGS_MASKALL = 0x4000
MSI_MESSAGES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A device of `vm.devices`."""

    # Of it among them, from 0 on.
    number: int
    # QEMU's name of it, as in edu.
    model: str
    # The address of the root port that it is behind; "" of one that is not on PCI.
    port: str

    @property
    def path(self) -> Path:
        """Its folder in sysfs.

        Raises:
            LookupError: It is not on PCI, or not plugged.
        """
        found = plugging.find_folder(self.port) if self.port else None
        if found is None:
            raise LookupError(f"{self.model} is not on PCI, or not plugged")
        return found

    def is_plugged(self) -> bool:
        """Tell whether the kernel has it; for one that is not on PCI, True."""
        return not self.port or plugging.find_folder(self.port) is not None

    def unplug(self) -> None:
        """Take it out of the VM while it runs; its driver's remove() has returned then.

        The test is skipped in a VM to which the host says nothing: one that is recorded or that
        counts.

        Raises:
            GuestError: The kernel did not give it back within ten seconds, or QEMU refuses.
        """
        self._change(plugged=False)

    def plug(self) -> None:
        """Plug it in again; drivers have probed it then.

        Raises:
            GuestError: QEMU refuses, or the kernel did not take it within ten seconds.
        """
        self._change(plugged=True)
        if self.port:
            waking.wait_for_devices((self.port,))

    def _change(self, *, plugged: bool) -> None:
        if not plugging.is_possible():
            # The host imports this package, and has no pytest.
            pytest = importlib.import_module("pytest")
            pytest.skip("the host takes no device out of a VM that is recorded or that counts")
        plugging.ask(self.number, plugged=plugged)


def find_driver(device: Path) -> str:
    """Return the driver that a device is bound to, "" for none.

    Args:
        device: Its folder in sysfs, on whatever bus.
    """
    link = device / "driver"
    return link.resolve().name if link.is_symlink() else ""


def find_driver_dir(device: Path, driver: str) -> Path:
    """Return the folder in sysfs of a driver on the bus of a device."""
    return BUSES / (device / "subsystem").resolve().name / "drivers" / driver


def bind(device: Path, driver: str) -> None:
    """Bind a device to a driver; its probe() has returned then.

    Args:
        device: Its folder in sysfs, on whatever bus.
        driver: The driver's name on that bus, as in find_driver().

    Raises:
        OSError: What probe() failed with; ENODEV: the driver does not want the device.
    """
    (find_driver_dir(device, driver) / "bind").write_text(device.name)


def unbind(device: Path) -> None:
    """Take a device from its driver; remove() has returned then.

    Raises:
        FileNotFoundError: It has no driver.
    """
    (device / "driver" / "unbind").write_text(device.name)


@contextmanager
def new_id(device: Path, driver: str, words: str = "") -> Iterator[None]:
    """In the block, a driver on PCI serves devices of one more ID; those without a driver get it.

    Args:
        device: A device on the bus, which is taken from the driver when the block ends.
        driver: The driver's name.
        words: The ID as the driver's attribute takes it, as in "1234 11e8"; that of the device.

    Raises:
        OSError: The driver refuses; EEXIST: it has the ID.
    """
    own = (int((device / name).read_text(), 16) for name in ("vendor", "device"))
    text = words or " ".join(f"{number:04x}" for number in own)
    folder = find_driver_dir(device, driver)
    (folder / "new_id").write_text(text)
    try:
        yield
    finally:
        if find_driver(device) == driver:
            unbind(device)
        # Of a driver that is unloaded, the ID is gone as well.
        if folder.exists():
            (folder / "remove_id").write_text(text)


def reset(device: Path) -> None:
    """Reset a device on PCI by whatever way it has; its driver's reset handlers are called.

    Raises:
        FileNotFoundError: It has none.
        OSError: The reset failed.
    """
    (device / "reset").write_text("1")


@contextmanager
def kept(devices: Iterable[Hardware]) -> Iterator[None]:
    """After the block, each device is plugged, and has the driver that it had."""
    had = tuple((one, find_driver(one.path)) for one in devices if one.port)
    try:
        yield
    finally:
        for one, driver in had:
            # One that was removed by its attribute is still plugged, and the kernel finds it again.
            if not one.is_plugged():
                (BUSES / "pci/rescan").write_text("1")
            if not one.is_plugged():
                one.plug()
            now = find_driver(one.path)
            if now and now != driver:
                unbind(one.path)
            if driver and now != driver and find_driver_dir(one.path, driver).exists():
                bind(one.path, driver)


# -- a device that stalls ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch:
    """One bit of the configuration space, which keeps interrupts back."""

    # Of a number of 16 bits.
    offset: int
    bit: int
    # Whether the bit is set to do so, or cleared.
    on: bool = True


class _Config:
    """The configuration space of a device on PCI."""

    def __init__(self, device: Path) -> None:
        self.path = device / "config"

    def read(self, offset: int, form: str = "<H") -> int:
        """Return a number of it."""
        with self.path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), struct.calcsize(form), offset)
        return int(struct.unpack(form, content)[0])

    def write(self, offset: int, value: int) -> None:
        """Write a number of 16 bits."""
        with self.path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), struct.pack("<H", value), offset)

    def change(self, switch: _Switch, *, on: bool) -> bool:
        """Change one bit, and leave what a driver changes beside it; return whether it was set."""
        value = self.read(switch.offset)
        self.write(switch.offset, value | switch.bit if on else value & ~switch.bit)
        return bool(value & switch.bit)

    def find_capability(self, wanted: int) -> int:
        """Return where a capability begins, 0 for none."""
        if not self.read(PCI_STATUS) & PCI_STATUS_CAP_LIST:
            return 0
        offset = self.read(PCI_CAPABILITY_LIST, "B")
        while offset and self.read(offset, "B") != wanted:
            offset = self.read(offset + 1, "B")
        return offset


@contextmanager
def stalled(device: Path) -> Iterator[None]:
    """In the block, no interrupt of a device on PCI arrives: for its driver, it never answers.

    What the device sends meanwhile arrives when the block ends, but for a message of MSI without
    mask bits, as that of edu: such a message is lost. The device's registers and DMA go on.
    """
    config = _Config(device)
    held = tuple(_iterate_switches(config))
    were = [config.change(switch, on=switch.on) for switch in held]
    try:
        yield
    finally:
        # A device that is gone has nothing to send.
        if config.path.exists():
            for switch, was in zip(held, were, strict=True):
                config.change(switch, on=was)


def _iterate_switches(config: _Config) -> Iterator[_Switch]:
    """Yield what lets a device send no interrupt, in whatever way it sends them now."""
    msix, msi = (config.find_capability(name) for name in (PCI_CAP_ID_MSIX, PCI_CAP_ID_MSI))
    if msix and config.read(msix + CONTROL) & PCI_MSIX_FLAGS_ENABLE:
        yield _Switch(offset=msix + CONTROL, bit=PCI_MSIX_FLAGS_MASKALL)
        return
    yield _Switch(offset=PCI_COMMAND, bit=PCI_COMMAND_INTX_DISABLE)
    flags = config.read(msi + CONTROL) if msi else 0
    if not flags & PCI_MSI_FLAGS_ENABLE:
        return
    if flags & PCI_MSI_FLAGS_MASKBIT:
        mask = PCI_MSI_MASK_64 if flags & PCI_MSI_FLAGS_64BIT else PCI_MSI_MASK_32
        # One for each message; a driver has as many as MSI's multiple messages at most.
        for number in range(MSI_MESSAGES):
            yield _Switch(offset=msi + mask + 2 * (number // 16), bit=1 << number % 16)
    else:
        yield _Switch(offset=msi + CONTROL, bit=PCI_MSI_FLAGS_ENABLE, on=False)


def count_interrupts(device: Path) -> int:
    """Return how many interrupts of a device on PCI the kernel has taken since it booted.

    Source: Documentation/ABI/testing/sysfs-kernel-irq, Linux 7.3.
    """
    messages = device / "msi_irqs"
    numbers = (
        [path.name for path in messages.iterdir()]
        if messages.is_dir()
        else [(device / "irq").read_text().strip()]
    )
    counts = (IRQS / number / "per_cpu_count" for number in numbers)
    return sum(sum(map(int, path.read_text().split(","))) for path in counts if path.exists())


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Wait until something is so, PATIENCE_S at most.

    Args:
        done: Whether it is.
        what: For what the test says when it fails.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE_S:g} s"
        time.sleep(POLL_S)
