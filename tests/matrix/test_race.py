# SPDX-License-Identifier: GPL-2.0-only
import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contract import PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module, log
from twinmod.guest.testing.children import endless
from twinmod.guest.testing.memory import Mapping, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R18")

# How often the module is unloaded while others use it; each time costs a load.
UNLOADS = 8
UNLOADS_LONG = 200

# How often in a row an unload may find somebody there; far more often than it does.
PATIENCE = 50_000

# How often a user that had the device lets others run before it asks for it again: else it is
# closed too seldom for an unload, on a machine with much else to do.
RESTS = 100

# What an open may fail with, and why: there is no node; there is no device behind the node.
REFUSALS = (errno.ENOENT, errno.ENODEV)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A process that opens a device, uses it and closes it, and counts how that went."""

    tester: Any
    node_path: Path
    # Two pages of the device are its own.
    offset: int
    # Shared with its parent: opens, and those refused for each reason; the last byte written.
    counts: memoryview

    @property
    def opens(self) -> int:
        """How often it had the device."""
        return int(self.counts[0])

    def refusals(self, reason: int) -> int:
        """Return how often it did not, for a reason."""
        return int(self.counts[1 + REFUSALS.index(reason)])

    def step(self, number: int) -> None:
        """Open, use and close; anything but success and a refusal ends the process."""
        try:
            device = self.tester.Device(self.node_path)
        except OSError as error:
            self.counts[1 + REFUSALS.index(error.errno)] += 1
            return
        with device:
            self.use(device, number)
        self.counts[0] += 1
        for _ in range(RESTS):
            os.sched_yield()

    def use(self, device: "Device", number: int) -> None:
        """Make every call there is, with success, and with no other answer than one device has."""
        value = number % 255 + 1
        data = bytes([value]) * (PAGE + 9)
        assert device.size() == SIZE
        assert device.pread(1, self.offset + 8)[0] in (0, self.counts[3]), "whose byte is this?"
        assert device.pwrite(data, self.offset) == len(data)
        self.counts[3] = value
        assert device.pread(len(data), self.offset) == data
        assert device.add(self.offset, 1) == int.from_bytes(data[:8])
        mapping = Mapping(device.fd, PAGE, self.offset)
        if number % 2:
            device.close()
        assert mapping[8:] == data[8:PAGE], "a mapping did not keep the device"
        mapping.unmap()


@pytest.fixture
def own_node(module: Module, tmp_path: Path) -> Iterator[Path]:
    """A node of the device that stays when the device goes."""
    path = tmp_path / module.name
    os.mknod(path, stat.S_IFCHR | 0o600, module.device_path.stat().st_rdev)
    yield path
    path.unlink()


@pytest.fixture
def users(module: Module, own_node: Path, tester: Any) -> tuple[User, ...]:
    """One that opens the kernel's node, and one that opens a node that does not go."""
    counts = memoryview(mmap.mmap(-1, PAGE)).cast("Q")
    return tuple(
        User(
            tester=tester,
            node_path=path,
            offset=(2 + 3 * number) * PAGE,
            counts=counts[4 * number : 4 * number + 4],
        )
        for number, path in enumerate((module.device_path, own_node))
    )


def unload_again(module: Module) -> int:
    """Unload as soon as nobody is there; return how often somebody was."""
    for refused in range(PATIENCE):
        code = errno_of(module.unload)
        if code == 0:
            return refused
        assert code == errno.EWOULDBLOCK, errno.errorcode[code]
    raise AssertionError(f"in {PATIENCE} attempts the device was never closed")


def list_unseen(users: tuple[User, ...], refused: int) -> list[str]:
    """Return the outcomes that did not happen yet: a race that one side always won is none."""
    kernels, own = users
    counts = {
        "an unload that met an open device": refused,
        "an open of the kernel's node": kernels.opens,
        "an open of the kernel's node when it was gone": kernels.refusals(errno.ENOENT),
        "an open of another node": own.opens,
        "an open of another node when the device was gone": own.refusals(errno.ENODEV),
    }
    return [outcome for outcome, count in counts.items() if not count]


def test_unloads_race_with_users(
    users: tuple[User, ...],
    unloaded: Module,
    open_device: "OpenDevice",
    long_run: bool,
    mark_step: Callable[[], object],
) -> None:
    unloaded.load()
    number = unloaded.device_path.stat().st_rdev
    unloads = refused = 0
    wanted = UNLOADS_LONG if long_run else UNLOADS
    with ExitStack() as stack, log.follow() as read_log:
        for user in users:
            stack.enter_context(endless(user.step))
        while unloads < wanted or (list_unseen(users, refused) and unloads < 10 * wanted):
            refused += unload_again(unloaded)
            unloaded.load()
            assert unloaded.device_path.stat().st_rdev == number, "the other node is another's"
            unloads += 1
            mark_step()
        lines = [line for line in read_log() if unloaded.name in line]
    assert list_unseen(users, refused) == []
    assert lines == [f"{unloaded.name}: {SIZE} bytes"] * unloads
    with open_device() as device:
        data = make_bytes(SIZE)
        assert device.pwrite(data, 0) == SIZE
        assert device.pread(SIZE, 0) == data
        assert (unloaded.sysfs_path / "refcnt").read_text().strip() == "1"
