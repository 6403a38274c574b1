# SPDX-License-Identifier: GPL-2.0-only
"""Every allocation and user copy of every path fails once, where a kernel can do that."""

import errno
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calls import standing_still
from contract import PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module, failures
from twinmod.guest.testing.memory import Memory

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]
    Walk = Callable[[Device], object]
    Keep = Callable[[failures.Failure], None]

pytestmark = [pytest.mark.rule("R9"), pytest.mark.fail_nth]

CLEAN = {0, errno.ENOMEM, errno.EFAULT}


@pytest.fixture
def own_code(module: Module) -> Iterator[None]:
    """Fail what the module's code asks for, and what the kernel asks for on its behalf."""
    failures.prepare(failures.find_code(module))
    yield
    failures.prepare(failures.EVERYWHERE)


def require_usable(device: "Device", number: int) -> None:
    """See that a device does its work after a call on it has failed."""
    data = make_bytes(3 * PAGE, number % 7)
    assert device.pwrite(data, PAGE - 5) == len(data)
    assert device.pread(len(data), PAGE - 5) == data


def read_absent(device: "Device") -> int:
    memory = Memory(4)
    return device.pread_to(memory.address, 3 * PAGE, 7)


def write_absent(device: "Device") -> int:
    memory = Memory(4)
    return device.pwrite_from(memory.address, 3 * PAGE, 7)


def read_vector(device: "Device") -> int:
    return os.preadv(device.fd, [bytearray(PAGE + 1), bytearray(3)], 11)


def write_vector(device: "Device") -> int:
    return os.pwritev(device.fd, [bytes(PAGE + 1), bytes(3)], 11)


def send(device: "Device") -> int:
    with open("/dev/null", "wb") as sink:  # noqa: PTH123 - a descriptor is wanted, and no buffer
        return os.sendfile(sink.fileno(), device.fd, 0, 3 * PAGE)


def map_page(device: "Device") -> int:
    with mmap.mmap(device.fd, PAGE) as memory:
        memory[5] = 6
        return memory[5]


WALKS: dict[str, "Walk"] = {
    "read": lambda device: device.pread(3 * PAGE, 7),
    "read to absent memory": read_absent,
    "readv": read_vector,
    "write": lambda device: device.pwrite(make_bytes(3 * PAGE), 7),
    "write from absent memory": write_absent,
    "writev": write_vector,
    "sendfile": send,
    "mmap": map_page,
    "ioctl SIZE": lambda device: device.size(),
    "ioctl CLEAR": lambda device: device.clear(),
    "ioctl ADD": lambda device: device.add(8, 1),
}


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize("walk", WALKS)
def test_each_failure_of_a_call_is_clean(
    device: "Device", walk: str, keep_failure: "Keep", mark_step: Callable[[], object]
) -> None:
    call = WALKS[walk]
    for failure, value in failures.iterate_rounds(walk, lambda: call(device), mark_step):
        keep_failure(failure)
        assert failure.errno in CLEAN, failure
        assert failure.errno or value is not None or walk == "ioctl CLEAR", failure
        require_usable(device, failure.nth)


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize("walk", ["read to absent memory", "write"])
def test_each_failure_of_a_call_is_clean_while_another_has_the_spare_page(
    device: "Device", walk: str, keep_failure: "Keep", mark_step: Callable[[], object]
) -> None:
    # A call that finds none asks for one, and leaves it behind for the next call.
    for failure, _ in failures.iterate_rounds(
        f"{walk}, beside another one",
        lambda: WALKS[walk](device),
        mark_step,
        around=lambda: standing_still(device, "write"),
    ):
        keep_failure(failure)
        assert failure.errno in CLEAN, failure
        require_usable(device, failure.nth)


@pytest.mark.usefixtures("own_code")
def test_each_failure_of_open_is_clean(
    module: Module,
    tester: Any,
    device: "Device",
    keep_failure: "Keep",
    mark_step: Callable[[], object],
) -> None:
    def call() -> None:
        os.close(os.open(module.device_path, os.O_RDWR))

    for failure, _ in failures.iterate_rounds("open", call, mark_step):
        keep_failure(failure)
        assert failure.errno in CLEAN, failure
        require_usable(device, failure.nth)


def test_each_failure_of_a_load_leaves_nothing(
    unloaded: Module,
    open_device: "OpenDevice",
    keep_failure: "Keep",
    mark_step: Callable[[], object],
    tmp_path: Path,
) -> None:
    failures.prepare(failures.EVERYWHERE)
    # In memory: a read that fails in the file system below it is not ours to mend.
    copy = replace(unloaded, ko_path=Path(shutil.copy(unloaded.ko_path, tmp_path)))

    def call() -> None:
        copy.load(f"size={4 * PAGE}")

    @contextmanager
    def unload_before() -> Iterator[None]:
        # A walk ends with a load that succeeds, and another walk follows.
        if copy.is_loaded():
            copy.unload()
        yield

    for failure, _ in failures.iterate_thoroughly(
        "load", call, mark_step, copy.name, unload_before
    ):
        keep_failure(failure)
        assert failure.errno in CLEAN, failure
        if failure.errno:
            assert not unloaded.device_path.exists()
            assert not unloaded.is_loaded()
            if not any(f"[{copy.name}]" in frame for frame in failure.stack):
                # Most points are the kernel's own. What such a failure leaves behind, the load of
                # the next point meets, and the last one succeeds.
                continue
            unloaded.load()
        with open_device() as device:
            assert device.pread(SIZE, 0) == bytes(device.size())
        unloaded.unload()
    unloaded.unload()
