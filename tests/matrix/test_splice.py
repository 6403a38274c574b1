# SPDX-License-Identifier: GPL-2.0-only
import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from contract import INNER, LENGTHS, OFFSETS, PAGE, SIZE, make_bytes
from twinmod.guest.testing.memory import errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

pytestmark = pytest.mark.rule("R15")

# What a pipe holds without being asked for more.
PIPE_SIZE = 16 * PAGE


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """An empty pipe that never waits: its end to read from, its end to write to."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def file() -> Iterator[int]:
    """An empty file in memory."""
    descriptor = os.memfd_create("matrix")
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def contents(device: "Device") -> bytes:
    """What the device holds: no two pages are equal."""
    data = make_bytes(SIZE)
    assert device.pwrite(data, 0) == SIZE
    return data


def drain(pipe: tuple[int, int]) -> bytes:
    """Return what is in a pipe, and empty it."""
    try:
        return os.read(pipe[0], 2 * PIPE_SIZE)
    except BlockingIOError:
        return b""


def position(device: "Device") -> int:
    """Return the file position, which this does not move."""
    return device.lseek(0, os.SEEK_CUR)


def test_splice_from_the_device(device: "Device", contents: bytes, pipe: tuple[int, int]) -> None:
    device.lseek(7, os.SEEK_SET)
    for offset in OFFSETS:
        for length in LENGTHS:
            case = f"{length} bytes at {offset}"
            assert os.splice(device.fd, pipe[1], length, offset_src=offset) == length, case
            assert drain(pipe) == contents[offset : offset + length], case
    assert position(device) == 7


def test_splice_to_the_device(device: "Device", contents: bytes, pipe: tuple[int, int]) -> None:
    model = bytearray(contents)
    device.lseek(7, os.SEEK_SET)
    for seed, offset in enumerate(OFFSETS, 1):
        for length in LENGTHS:
            data = make_bytes(length, seed)
            os.write(pipe[1], data)
            case = f"{length} bytes at {offset}"
            assert os.splice(pipe[0], device.fd, length, offset_dst=offset) == length, case
            model[offset : offset + length] = data
        assert device.pread(SIZE, 0) == model, f"after those at {offset}"
    assert position(device) == 7


def test_what_is_in_the_pipe_is_a_copy(
    device: "Device", contents: bytes, pipe: tuple[int, int]
) -> None:
    assert os.splice(device.fd, pipe[1], 2 * PAGE, offset_src=0) == 2 * PAGE
    device.clear()
    device.pwrite(b"\x5a" * (2 * PAGE), 0)
    assert drain(pipe) == contents[: 2 * PAGE]


def test_splice_moves_the_position(
    device: "Device", contents: bytes, pipe: tuple[int, int]
) -> None:
    device.lseek(PAGE - 1, os.SEEK_SET)
    assert os.splice(device.fd, pipe[1], PAGE + 5) == PAGE + 5
    assert position(device) == 2 * PAGE + 4
    assert os.splice(pipe[0], device.fd, PAGE + 5) == PAGE + 5
    assert position(device) == 3 * PAGE + 9
    assert device.pread(PAGE + 5, 2 * PAGE + 4) == contents[PAGE - 1 : 2 * PAGE + 4]


def test_splice_from_the_end(device: "Device", contents: bytes, pipe: tuple[int, int]) -> None:
    for tail in (1, PAGE - 1, PAGE, PAGE + 1):
        moved = os.splice(device.fd, pipe[1], 4 * PAGE, offset_src=SIZE - tail)
        assert moved == tail, f"{tail} bytes before the end"
        assert drain(pipe) == contents[-tail:], f"{tail} bytes before the end"
    for offset in (SIZE, SIZE + 1, SIZE + PAGE, 1 << 32):
        assert os.splice(device.fd, pipe[1], PAGE, offset_src=offset) == 0, f"at {offset}"
    assert drain(pipe) == b""


def test_splice_to_the_end(device: "Device", contents: bytes, pipe: tuple[int, int]) -> None:
    data = make_bytes(PAGE + 9, seed=1)
    os.write(pipe[1], data)
    assert os.splice(pipe[0], device.fd, len(data), offset_dst=SIZE - PAGE) == PAGE
    for offset in (SIZE, SIZE + 1, 1 << 32):
        code = errno_of(lambda at: os.splice(pipe[0], device.fd, 9, offset_dst=at), offset)
        assert code == errno.ENOSPC, f"at {offset}"
    assert drain(pipe) == data[PAGE:], "what did not fit is still in the pipe"
    assert device.pread(SIZE, 0) == contents[:INNER] + data[:PAGE]


def test_sendfile_from_the_device(device: "Device", contents: bytes, file: int) -> None:
    device.lseek(7, os.SEEK_SET)
    for offset, length in ((0, SIZE), (PAGE - 1, 20 * PAGE + 1), (INNER + 1, SIZE)):
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        left = min(length, SIZE - offset)
        assert os.sendfile(file, device.fd, offset, length) == left, f"{length} at {offset}"
        came = os.pread(file, 2 * SIZE, 0)
        assert came == contents[offset : offset + left], f"{length} at {offset}"
    assert os.sendfile(file, device.fd, SIZE, PAGE) == 0
    assert position(device) == 7


def test_sendfile_to_the_device(device: "Device", contents: bytes, file: int) -> None:
    data = make_bytes(20 * PAGE + 5, seed=1)
    os.write(file, data)
    device.lseek(PAGE - 3, os.SEEK_SET)
    assert os.sendfile(device.fd, file, 2, len(data)) == len(data) - 2
    end = PAGE - 3 + len(data) - 2
    assert position(device) == end
    assert device.pread(SIZE, 0) == contents[: PAGE - 3] + data[2:] + contents[end:]


def test_sendfile_from_the_device_to_itself(device: "Device", contents: bytes) -> None:
    device.lseek(100 * PAGE, os.SEEK_SET)
    assert os.sendfile(device.fd, device.fd, 5, 3 * PAGE) == 3 * PAGE
    assert device.pread(3 * PAGE, 100 * PAGE) == contents[5 : 3 * PAGE + 5]
    assert device.pread(100 * PAGE, 0) == contents[: 100 * PAGE]


def test_sendfile_stops_at_the_end(device: "Device", contents: bytes, file: int) -> None:
    data = make_bytes(3 * PAGE, seed=1)
    os.write(file, data)
    device.lseek(INNER - 1, os.SEEK_SET)
    assert os.sendfile(device.fd, file, 0, len(data)) == PAGE + 1
    assert position(device) == SIZE
    assert device.pread(SIZE, 0) == contents[: INNER - 1] + data[: PAGE + 1]
    assert errno_of(os.sendfile, device.fd, file, 0, 1) == errno.ENOSPC
