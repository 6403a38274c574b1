# SPDX-License-Identifier: GPL-2.0-only
import errno
import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, PAGE, SIZE, make_bytes
from memory import errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R13")


@pytest.fixture(params=("open", "fcntl"))
def open_with(
    open_device: "OpenDevice", request: pytest.FixtureRequest
) -> "Callable[[int], Device]":
    """A function that opens the device and sets flags, in one of the two ways."""

    def open_one(flags: int) -> "Device":
        if request.param == "open":
            return open_device(os.O_RDWR | flags)
        device = open_device()
        fcntl.fcntl(device.fd, fcntl.F_SETFL, flags)
        return device

    return open_one


def test_nowait_is_not_supported(device: "Device") -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    for offset in (0, PAGE - 1, SIZE):
        for length in (1, PAGE, 3 * PAGE):
            place = f"{length} bytes at {offset}"
            buffer = bytearray(length)
            code = errno_of(os.preadv, device.fd, [buffer], offset, os.RWF_NOWAIT)
            assert code == errno.EOPNOTSUPP, place
            assert buffer == bytes(length), place
            code = errno_of(os.pwritev, device.fd, [buffer], offset, os.RWF_NOWAIT)
            assert code == errno.EOPNOTSUPP, place
    assert device.pread(INNER, 0) == data


def test_nowait_is_no_error_for_zero_bytes(device: "Device") -> None:
    for offset in (0, PAGE, SIZE):
        assert os.preadv(device.fd, [bytearray()], offset, os.RWF_NOWAIT) == 0
        assert os.pwritev(device.fd, [b""], offset, os.RWF_NOWAIT) == 0


def test_direct_is_invalid(open_with: "Callable[[int], Device]") -> None:
    assert errno_of(open_with, os.O_DIRECT) == errno.EINVAL


def test_nonblock_changes_nothing(open_with: "Callable[[int], Device]") -> None:
    device = open_with(os.O_NONBLOCK)
    assert fcntl.fcntl(device.fd, fcntl.F_GETFL) & os.O_NONBLOCK
    data = make_bytes(2 * PAGE + 1)
    device.lseek(7, os.SEEK_SET)
    assert device.write(data) == len(data)
    assert device.pread(len(data), 7) == data
    assert device.pread(1, SIZE) == b""
    assert errno_of(device.pwrite, b"x", SIZE) == errno.ENOSPC


def test_append_changes_nothing_for_a_write(
    device: "Device", open_with: "Callable[[int], Device]"
) -> None:
    appending = open_with(os.O_APPEND)
    assert fcntl.fcntl(appending.fd, fcntl.F_GETFL) & os.O_APPEND
    data = make_bytes(PAGE + 1)
    appending.lseek(7, os.SEEK_SET)
    assert appending.write(data) == len(data)
    assert appending.lseek(0, os.SEEK_CUR) == 7 + len(data)
    assert appending.pwrite(data, 5 * PAGE) == len(data)
    assert os.writev(appending.fd, [b"to", b"gether"]) == 8
    model = bytearray(INNER)
    model[7 : 7 + len(data)] = data
    model[5 * PAGE : 5 * PAGE + len(data)] = data
    model[7 + len(data) : 15 + len(data)] = b"together"
    assert device.pread(INNER, 0) == model


def test_append_refuses_splice_and_sendfile(
    device: "Device", open_with: "Callable[[int], Device]"
) -> None:
    appending = open_with(os.O_APPEND)
    source, target = os.pipe()
    try:
        os.write(target, b"piped")
        assert errno_of(os.splice, source, appending.fd, 5) == errno.EINVAL
        assert errno_of(os.sendfile, appending.fd, device.fd, 0, 5) == errno.EINVAL
        assert os.read(source, 9) == b"piped"
    finally:
        os.close(source)
        os.close(target)
    assert device.pread(PAGE, 0) == bytes(PAGE)
