# SPDX-License-Identifier: GPL-2.0-only
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from contract import INNER, IOC_ADD, LENGTHS, OFFSETS, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.children import endless, rounds
from twinmod.guest.testing.memory import PROT_READ, PROT_WRITE, Mapping, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]
    Map = Callable[..., Mapping]

pytestmark = pytest.mark.rule("R17")

SHARED = mmap.MAP_SHARED
PRIVATE = mmap.MAP_PRIVATE


@pytest.fixture
def map_device(device: "Device") -> "Iterator[Map]":
    """A function that maps the device, all of it unless told otherwise; unmapped after the test."""
    made = []

    def map_one(length: int = SIZE, offset: int = 0, flags: int = SHARED) -> Mapping:
        made.append(Mapping(device.fd, length, offset, flags))
        return made[-1]

    yield map_one
    for mapping in made:
        mapping.unmap()


def test_a_mapping_shows_what_calls_write(device: "Device", map_device: "Map") -> None:
    model = bytearray(make_bytes(INNER))
    untouched = map_device()
    mapping = map_device()
    assert mapping[:INNER] == bytes(INNER)
    device.pwrite(model, 0)
    assert mapping[:INNER] == model
    for seed, offset in enumerate(OFFSETS, 1):
        for length in LENGTHS:
            data = make_bytes(length, seed)
            assert device.pwrite(data, offset) == length
            model[offset : offset + length] = data
            assert mapping[offset : offset + length] == data, f"{length} at {offset}"
    device.add(PAGE, 69)
    model[PAGE : PAGE + 8] = device.pread(8, PAGE)
    assert mapping[:INNER] == model
    assert untouched[:INNER] == model
    device.clear()
    assert mapping[:] == untouched[:] == bytes(SIZE)


def test_calls_see_what_is_stored_through_a_mapping(device: "Device", map_device: "Map") -> None:
    mapping = map_device()
    other = map_device()
    model = bytearray(INNER)
    for seed, offset in enumerate(OFFSETS, 1):
        data = make_bytes(2 * PAGE, seed)
        mapping[offset : offset + len(data)] = data
        model[offset : offset + len(data)] = data
        assert device.pread(INNER, 0) == model, f"stored at {offset}"
    assert other[:INNER] == model
    mapping[PAGE : PAGE + 8] = bytes(7) + b"\1"
    assert device.add(PAGE, 0) == int.from_bytes(bytes(7) + b"\1", "little")


def test_a_mapping_begins_at_its_offset(device: "Device", map_device: "Map") -> None:
    data = make_bytes(SIZE)
    assert device.pwrite(data, 0) == SIZE
    for offset in (0, PAGE, SIZE // 2, INNER):
        for length in (1, PAGE, SIZE - offset):
            mapping = map_device(length, offset)
            assert mapping[:] == data[offset : offset + length], f"{length} at {offset}"


def test_beyond_the_end_there_is_nothing_to_map(device: "Device", map_device: "Map") -> None:
    for flags in (SHARED, PRIVATE):
        for length, offset in (
            *((SIZE + 1, 0), (2 * SIZE, 0), (SIZE, PAGE), (PAGE + 1, INNER), (1, SIZE)),
            *((PAGE, SIZE), (SIZE, SIZE), (PAGE, 1 << 32), (PAGE, 1 << 40)),
        ):
            code = errno_of(map_device, length, offset, flags)
            assert code == errno.EINVAL, f"{length} bytes at {offset}"
    assert device.pread(PAGE, 0) == bytes(PAGE)


def test_a_mapping_does_not_grow(device: "Device", map_device: "Map") -> None:
    for flags in (SHARED, PRIVATE):
        mapping = map_device(PAGE, 0, flags)
        assert errno_of(mapping.grow, 2 * PAGE) == errno.EFAULT
        device.pwrite(b"still", 0)
        assert mapping[:5] == b"still"


def test_a_private_mapping_is_copied_on_write(device: "Device", map_device: "Map") -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    shared = map_device()
    private = map_device(flags=PRIVATE)
    assert private[: 2 * PAGE] == data[: 2 * PAGE]
    for offset in (0, PAGE - 1, 5 * PAGE + 7):
        private[offset : offset + 2] = b"\0\xff"
        assert private[offset : offset + 2] == b"\0\xff"
    assert device.pread(INNER, 0) == data
    assert shared[:INNER] == data
    device.pwrite(b"\x5a" * (8 * PAGE), 0)
    assert private[:3] == b"\0\xff" + data[2:3], "a page that was stored to is its own"
    assert private[2 * PAGE : 5 * PAGE] == b"\x5a" * (3 * PAGE)


def test_the_way_of_opening_decides_the_rights(open_device: "OpenDevice") -> None:
    reader, writer = open_device(os.O_RDONLY), open_device(os.O_WRONLY)
    assert errno_of(Mapping, reader.fd, PAGE) == errno.EACCES
    for flags in (SHARED, PRIVATE):
        for protection in (PROT_READ, PROT_WRITE, PROT_READ | PROT_WRITE):
            assert errno_of(Mapping, writer.fd, PAGE, 0, flags, protection) == errno.EACCES
    mapping = Mapping(reader.fd, PAGE, protection=PROT_READ)
    writer.pwrite(b"read", 0)
    assert mapping[:4] == b"read"
    assert errno_of(mapping.protect, PROT_READ | PROT_WRITE) == errno.EACCES
    mapping.unmap()


@pytest.mark.parametrize("touched", [False, True], ids=("absent", "present"))
def test_a_mapping_can_be_the_buffer_of_a_write(
    device: "Device", map_device: "Map", touched: bool
) -> None:
    data = make_bytes(INNER)
    for target, start, length in (
        *((0, 0, PAGE), (50, 10, 100), (10, 50, 100), (0, 1, PAGE - 1), (1, 0, PAGE - 1)),
        *((PAGE, 0, PAGE), (0, PAGE, PAGE), (10 * PAGE, 1, 5 * PAGE), (3, 20 * PAGE, 5 * PAGE)),
    ):
        device.pwrite(data, 0)
        mapping = map_device()
        if touched:
            assert mapping[:INNER] == data
        assert device.pwrite_from(mapping.address + start, length, target) == length
        model = data[:target] + data[start : start + length] + data[target + length :]
        assert device.pread(INNER, 0) == model, f"{length} bytes from {start} to {target}"
        assert mapping[:INNER] == model


@pytest.mark.parametrize("touched", [False, True], ids=("absent", "present"))
def test_a_mapping_can_be_the_buffer_of_a_read(
    device: "Device", map_device: "Map", touched: bool
) -> None:
    data = make_bytes(INNER)
    for start, target, length in (
        *((0, PAGE // 2, PAGE // 2), (PAGE // 2, 0, 100), (PAGE, 0, PAGE), (0, PAGE, PAGE)),
        *((1, 10 * PAGE, 5 * PAGE), (20 * PAGE, 3, 5 * PAGE)),
    ):
        device.pwrite(data, 0)
        mapping = map_device()
        if touched:
            assert mapping[:INNER] == data
        assert device.pread_to(mapping.address + target, length, start) == length
        model = data[:target] + data[start : start + length] + data[target + length :]
        assert device.pread(INNER, 0) == model, f"{length} bytes from {start} to {target}"
    # What an overlap leaves is not promised, but that the call returns is.
    assert device.pread_to(mapping.address + 9, 9 * PAGE, 0) == 9 * PAGE


def test_a_mapping_can_be_the_argument_of_an_add(device: "Device", map_device: "Map") -> None:
    mapping = map_device()
    mapping[:24] = struct.pack("=QQQ", 24, 5, 1)
    assert device.ioctl(IOC_ADD, mapping.address) == 0
    assert device.ioctl(IOC_ADD, mapping.address) == 0
    assert device.pread(32, 0) == struct.pack("=QQQQ", 24, 5, 5, 10)


def test_calls_stay_atomic_while_it_is_mapped(device: "Device", map_device: "Map") -> None:
    patterns = [bytes([value]) * (8 * PAGE) for value in (0x11, 0x22, 0x33)]
    mapping = map_device()
    assert mapping[:] == bytes(SIZE)
    with endless(lambda number: device.pwrite(patterns[number % 3], 0)) as other:
        for _ in rounds(other.is_busy, 200):
            data = device.pread(8 * PAGE, 0)
            for start in range(0, len(data), PAGE):
                assert data[start : start + PAGE] == data[start : start + 1] * PAGE
    assert other.is_busy(), "nothing was written meanwhile"
    count = device.count_up(4, 300, method="add")
    assert count.actual == count.target
    assert int.from_bytes(mapping[:8], "little") == count.target


def test_a_mapping_is_shared_with_a_child(device: "Device", map_device: "Map") -> None:
    mapping = map_device()

    def store(_: int) -> None:
        mapping[PAGE : PAGE + 5] = b"child"

    with endless(store):
        assert device.pread(5, PAGE) == b"child"


@pytest.mark.rule("R18")
def test_a_mapping_prevents_the_unload(unloaded: Module, open_device: "OpenDevice") -> None:
    for flags in (SHARED, PRIVATE):
        for touched in (False, True):
            unloaded.load()
            with open_device() as device:
                device.pwrite(b"mapped", PAGE)
                mapping = Mapping(device.fd, 2 * PAGE, 0, flags)
            if touched:
                mapping[:1] = b"\1"
            assert errno_of(unloaded.unload) == errno.EWOULDBLOCK
            assert mapping[PAGE : PAGE + 6] == b"mapped"
            with open_device() as device:
                assert device.pread(1, 0) == bytes([touched and flags == SHARED])
            mapping.unmap()
            unloaded.unload()
