# SPDX-License-Identifier: GPL-2.0-only
import errno
import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from contract import INNER, PAGE, SIZE, make_bytes
from twinmod.guest.testing.memory import errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R13")

# Source: include/uapi/linux/fs.h, Linux 7.3; the last one is none of them.
RWF_NOAPPEND = 0x20
RWF_ATOMIC = 0x40
RWF_DONTCACHE = 0x80
RWF_UNKNOWN = 1 << 30

SYNCS = (os.RWF_DSYNC, os.RWF_SYNC)


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
            case = f"{length} bytes at {offset}"
            buffer = bytearray(length)
            code = errno_of(os.preadv, device.fd, [buffer], offset, os.RWF_NOWAIT)
            assert code == errno.EOPNOTSUPP, case
            assert buffer == bytes(length), case
            code = errno_of(os.pwritev, device.fd, [buffer], offset, os.RWF_NOWAIT)
            assert code == errno.EOPNOTSUPP, case
    assert device.pread(INNER, 0) == data


def test_nowait_is_no_error_for_zero_bytes(device: "Device") -> None:
    for offset in (0, PAGE, SIZE):
        assert os.preadv(device.fd, [bytearray()], offset, os.RWF_NOWAIT) == 0
        assert os.pwritev(device.fd, [b""], offset, os.RWF_NOWAIT) == 0


def test_other_flags_of_a_call_are_not_supported(device: "Device") -> None:
    for flag in (RWF_ATOMIC, RWF_DONTCACHE, RWF_UNKNOWN):
        buffer = bytearray(9)
        assert errno_of(os.preadv, device.fd, [buffer], 0, flag) == errno.EOPNOTSUPP, flag
        assert errno_of(os.pwritev, device.fd, [buffer], 0, flag) == errno.EOPNOTSUPP, flag
        assert os.preadv(device.fd, [bytearray()], 0, flag) == 0, flag
        assert os.pwritev(device.fd, [b""], 0, flag) == 0, flag


def test_flags_that_change_nothing_in_a_call(device: "Device") -> None:
    data = make_bytes(PAGE + 1)
    device.lseek(7, os.SEEK_SET)
    for number, flag in enumerate((*SYNCS, os.RWF_APPEND, RWF_NOAPPEND)):
        offset = number * 2 * PAGE + 5
        assert os.pwritev(device.fd, [data], offset, flag) == len(data), flag
        assert device.pread(len(data), offset) == data, flag
        assert os.pwritev(device.fd, [data], -1, flag) == len(data), flag
        assert device.lseek(0, os.SEEK_CUR) == 7 + len(data), flag
        assert device.pread(len(data), 7) == data, flag
        device.lseek(7, os.SEEK_SET)
        device.clear()
    assert device.pwrite(data, PAGE) == len(data)
    for flag in (os.RWF_HIPRI, *SYNCS):
        buffer = bytearray(len(data))
        assert os.preadv(device.fd, [buffer], PAGE, flag) == len(data), flag
        assert buffer == data, flag


def test_a_file_is_read_and_written_as_it_was_opened(
    device: "Device", open_device: "OpenDevice"
) -> None:
    assert device.pwrite(b"kept", 0) == 4
    source, sink = open_device(os.O_RDONLY), open_device(os.O_WRONLY)
    memory = os.memfd_create("file")
    reader, writer = os.pipe()
    try:
        os.write(memory, b"file")
        os.write(writer, b"pipe")
        for call, arguments in (
            (source.write, (b"x",)),
            (source.pwrite, (b"x", 0)),
            (os.writev, (source.fd, [b"x"])),
            (os.pwritev, (source.fd, [b"x"], 0)),
            (os.sendfile, (source.fd, memory, 0, 4)),
            (os.splice, (reader, source.fd, 4)),
            (sink.read, (1,)),
            (sink.pread, (1, 0)),
            (os.readv, (sink.fd, [bytearray(1)])),
            (os.preadv, (sink.fd, [bytearray(1)], 0)),
            (os.sendfile, (memory, sink.fd, 0, 4)),
            (os.splice, (sink.fd, writer, 4)),
        ):
            assert errno_of(call, *arguments) == errno.EBADF, call
        assert os.read(reader, 9) == b"pipe"
        assert os.pread(memory, 9, 0) == b"file"
    finally:
        for descriptor in (memory, reader, writer):
            os.close(descriptor)
    assert source.read(4) == b"kept"
    assert sink.write(b"gone") == 4
    assert device.pread(4, 0) == b"gone"


def test_flags_that_change_nothing_in_a_file(device: "Device", open_device: "OpenDevice") -> None:
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    for flag in (os.O_TRUNC, os.O_SYNC, os.O_DSYNC, os.O_ASYNC, os.O_NOATIME, os.O_CREAT):
        other = open_device(os.O_RDWR | flag)
        assert other.pread(INNER, 0) == data, flag
        assert other.pwrite(data[:9], 0) == 9, flag
        assert other.size() == SIZE, flag


def test_what_is_neither_new_nor_a_folder(open_device: "OpenDevice") -> None:
    assert errno_of(open_device, os.O_RDWR | os.O_CREAT | os.O_EXCL) == errno.EEXIST
    assert errno_of(open_device, os.O_RDONLY | os.O_DIRECTORY) == errno.ENOTDIR
    assert errno_of(open_device, os.O_RDWR | os.O_TMPFILE) == errno.ENOTDIR


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
