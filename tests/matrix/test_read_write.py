# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import pytest

from contract import BEYOND, INNER, LENGTHS, OFFSETS, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.memory import BAD_ADDRESSES, NULL, PROT_NONE, Memory, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

# Distances from the end: less than a page, whole pages, and one byte to either side.
TAILS = (1, 7, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE)


@pytest.fixture
def contents(device: "Device") -> bytes:
    """What the device holds: no two pages are equal."""
    data = make_bytes(SIZE)
    assert device.pwrite(data, 0) == SIZE
    return data


@pytest.mark.rule("R4")
def test_read_returns_what_was_asked_for(device: "Device", contents: bytes) -> None:
    for offset in OFFSETS:
        for length in LENGTHS:
            expected = contents[offset : offset + length]
            assert device.pread(length, offset) == expected, f"{length} bytes at {offset}"


@pytest.mark.rule("R4")
def test_read_returns_what_is_left(device: "Device", contents: bytes) -> None:
    for tail in TAILS:
        for more in (0, 1, PAGE, SIZE):
            came = device.pread(tail + more, SIZE - tail)
            assert came == contents[-tail:], f"{tail} bytes before the end, {more} more"


@pytest.mark.rule("R4")
def test_read_does_not_touch_the_rest_of_the_buffer(device: "Device", contents: bytes) -> None:
    memory = Memory(3, fill=0x5A)
    for tail in (1, 7, PAGE - 1, PAGE):
        memory.map[:] = b"\x5a" * len(memory.map)
        assert device.pread_to(memory.address + 3, 2 * PAGE, SIZE - tail) == tail
        assert memory.map[:3] == b"\x5a" * 3
        assert memory.map[3 : 3 + tail] == contents[-tail:]
        assert memory.map[3 + tail :] == b"\x5a" * (3 * PAGE - 3 - tail), f"{tail} bytes left"


@pytest.mark.rule("R4")
def test_read_gives_nothing_at_the_end_and_beyond(device: "Device") -> None:
    for offset in BEYOND:
        for length in (1, PAGE, SIZE):
            assert device.pread(length, offset) == b"", f"{length} bytes at {offset}"


@pytest.mark.rule("R4")
def test_read_at_the_end_does_not_look_at_the_address(device: "Device") -> None:
    for offset in BEYOND:
        assert device.pread_to(NULL, PAGE, offset) == 0, f"at {offset}"


@pytest.mark.rule("R4")
def test_reads_in_a_row_give_the_whole_device(device: "Device", contents: bytes) -> None:
    length = 3 * PAGE + 5
    pieces = [device.read(length) for _ in range(SIZE // length + 1)]
    assert b"".join(pieces) == contents
    assert device.read(1) == b""


@pytest.mark.rule("R5")
def test_write_takes_what_was_given(device: "Device") -> None:
    model = bytearray(SIZE)
    for seed, offset in enumerate(OFFSETS):
        for length in LENGTHS:
            data = make_bytes(length, seed)
            assert device.pwrite(data, offset) == length, f"{length} bytes at {offset}"
            model[offset : offset + length] = data
        assert device.pread(SIZE, 0) == model, f"after the writes at {offset}"


@pytest.mark.rule("R5")
def test_write_changes_no_byte_beside_it(device: "Device", contents: bytes) -> None:
    model = bytearray(contents)
    for offset in OFFSETS[1:]:
        for length in LENGTHS:
            start, end = max(0, offset - PAGE), offset + length + PAGE
            assert device.pwrite(bytes(length), offset) == length
            model[offset : offset + length] = bytes(length)
            came = device.pread(end - start, start)
            assert came == model[start:end], f"{length} bytes at {offset}"


@pytest.mark.rule("R5")
def test_write_takes_what_fits(device: "Device") -> None:
    model = bytearray(SIZE)
    for tail in TAILS:
        for more in (0, 1, PAGE):
            data = make_bytes(tail + more, seed=tail + more)
            taken = device.pwrite(data, SIZE - tail)
            assert taken == tail, f"{tail} bytes before the end, {more} more"
            model[SIZE - tail :] = data[:tail]
    assert device.pread(SIZE, 0) == model


@pytest.mark.rule("R5")
def test_write_of_more_than_the_device_fills_it(device: "Device") -> None:
    data = make_bytes(SIZE + PAGE)
    assert device.pwrite(data, 0) == SIZE
    assert device.pread(SIZE, 0) == data[:SIZE]


@pytest.mark.rule("R5")
def test_write_has_no_space_at_the_end_and_beyond(device: "Device", contents: bytes) -> None:
    for offset in BEYOND:
        for length in (1, PAGE, SIZE):
            code = errno_of(device.pwrite, bytes(length), offset)
            assert code == errno.ENOSPC, f"{length} bytes at {offset}"
    assert device.pread(SIZE, 0) == contents


@pytest.mark.rule("R5")
def test_write_at_the_end_does_not_look_at_the_address(device: "Device") -> None:
    for offset in BEYOND:
        assert errno_of(device.pwrite_from, NULL, 1, offset) == errno.ENOSPC, f"at {offset}"


@pytest.mark.rule("R4", "R5")
def test_many_calls_agree_with_a_model(device: "Device", contents: bytes) -> None:
    random = Random(69)  # noqa: S311 - not a secret
    model = bytearray(contents)
    for step in range(60):
        offset = random.randrange(SIZE)
        length = random.choice((8, PAGE, 5 * PAGE, random.randrange(20 * PAGE)))
        if step % 2:
            data = random.randbytes(length)
            fits = min(length, SIZE - offset)
            assert device.pwrite(data, offset) == fits, f"step {step}"
            model[offset : offset + fits] = data[:fits]
        else:
            came = device.pread(length, offset)
            assert came == model[offset : offset + length], f"step {step}"
    assert device.pread(SIZE, 0) == model


@pytest.mark.rule("R4", "R5")
def test_a_count_of_gibibytes_moves_what_there_is(device: "Device", contents: bytes) -> None:
    memory = Memory(SIZE // PAGE + 1, fill=0x5A)
    address = memory.address
    assert device.pread_to(address, 1 << 31, 0) == SIZE
    assert memory.map[:SIZE] == contents
    assert memory.map[SIZE:] == b"\x5a" * PAGE
    assert device.pwrite_from(address + PAGE, 1 << 32, PAGE) == SIZE - PAGE
    assert device.pread(SIZE, 0) == contents


@pytest.mark.rule("R6")
def test_zero_bytes_are_zero_at_any_offset(device: "Device") -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    for offset in (0, 1, PAGE, SIZE - 1, *BEYOND):
        assert device.pread(0, offset) == b"", f"at {offset}"
        assert device.pwrite(b"", offset) == 0, f"at {offset}"
    assert device.pread(INNER, 0) == data


@pytest.mark.rule("R6")
def test_zero_bytes_leave_the_position(device: "Device") -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    for offset in (0, 1, PAGE, SIZE - 1, SIZE):
        device.lseek(offset, os.SEEK_SET)
        assert device.read(0) == b"", f"at {offset}"
        assert device.write(b"") == 0, f"at {offset}"
        assert device.lseek(0, os.SEEK_CUR) == offset
    assert device.pread(INNER, 0) == data


@pytest.mark.rule("R6")
def test_zero_bytes_touch_no_address(device: "Device") -> None:
    memory = Memory(1)
    memory.protect(0, PROT_NONE)
    user_half = [address for address in BAD_ADDRESSES if address < 1 << 46]
    for address in (*user_half, memory.address, memory.address + PAGE - 1):
        for offset in (0, PAGE - 1, SIZE, SIZE + 1):
            case = f"address {address:#x}, offset {offset}"
            assert device.pread_to(address, 0, offset) == 0, case
            assert device.pwrite_from(address, 0, offset) == 0, case
        assert device.read_to(address, 0) == 0
        assert device.write_from(address, 0) == 0
    assert device.lseek(0, os.SEEK_CUR) == 0


@pytest.mark.rule("R4", "R5")
def test_the_end_is_where_the_size_puts_it(unloaded: Module, open_device: "OpenDevice") -> None:
    for size in (PAGE, 3 * PAGE, 32 * SIZE):
        unloaded.load(f"size={size}")
        with open_device() as device:
            assert device.pwrite(b"last", size - 4) == 4, size
            assert device.pread(PAGE, size - PAGE) == bytes(PAGE - 4) + b"last", size
            assert device.pread(1, size) == b"", size
            assert errno_of(device.pwrite, b"x", size) == errno.ENOSPC, size
        unloaded.unload()
