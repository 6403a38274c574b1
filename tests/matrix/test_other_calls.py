# SPDX-License-Identifier: GPL-2.0-only
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contract import INNER, PAGE, SIZE, make_bytes
from twinmod.guest.testing import Module
from twinmod.guest.testing.children import endless
from twinmod.guest.testing.memory import Mapping, errno_of

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    OpenDevice = Callable[..., Device]

pytestmark = pytest.mark.rule("R25")

# Source: include/uapi/linux/{falloc,fs,fcntl}.h and include/uapi/asm-generic/mman.h, Linux 7.3.
KEEP_SIZE = 0x01
MODES = (0, KEEP_SIZE, KEEP_SIZE | 0x02, 0x08, 0x10, 0x10 | KEEP_SIZE, 0x20, 0x40)
FICLONE = 0x40049409
FICLONERANGE = 0x4020940D
F_ADD_SEALS = 1033
F_GET_SEALS = 1034
MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4

# Where a kernel has F_NOTIFY. Source: fs/notify/dnotify/dnotify.c, Linux 7.3.
DNOTIFY = Path("/proc/sys/fs/dir-notify-enable")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_libc.readahead.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_size_t)
_libc.readahead.restype = ctypes.c_ssize_t
_libc.tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
_libc.tee.restype = ctypes.c_ssize_t
_libc.vmsplice.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_libc.vmsplice.restype = ctypes.c_ssize_t


def refusal(name: str, *arguments: object) -> int:
    """Return the errno of a call that Python has no function for, 0 when it succeeds."""
    return ctypes.get_errno() if getattr(_libc, name)(*arguments) < 0 else 0


@pytest.fixture
def kept(device: "Device") -> "Iterator[Device]":
    """The device with bytes in it; afterwards they and the position are as they were."""
    data = make_bytes(INNER)
    assert device.pwrite(data, 0) == INNER
    device.lseek(PAGE + 1, os.SEEK_SET)
    yield device
    assert device.lseek(0, os.SEEK_CUR) == PAGE + 1
    assert device.pread(INNER, 0) == data
    assert device.size() == SIZE


@pytest.fixture
def file() -> Iterator[int]:
    """A file in memory that is larger than the device."""
    descriptor = os.memfd_create("matrix", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 2 * SIZE)
    yield descriptor
    os.close(descriptor)


def test_there_is_nothing_to_sync_to(kept: "Device") -> None:
    assert errno_of(os.fsync, kept.fd) == errno.EINVAL
    assert errno_of(os.fdatasync, kept.fd) == errno.EINVAL
    for flags in (0, 1, 2, 4, 7):
        assert refusal("sync_file_range", kept.fd, 0, PAGE, flags) == errno.ESPIPE, flags


def test_a_mapping_has_nothing_to_sync_to(kept: "Device") -> None:
    for flags, code in ((mmap.MAP_SHARED, errno.EINVAL), (mmap.MAP_PRIVATE, 0)):
        mapping = Mapping(kept.fd, 2 * PAGE, 0, flags)
        try:
            assert errno_of(mapping.sync, MS_SYNC) == code
            assert errno_of(mapping.sync, MS_SYNC | MS_INVALIDATE) == code
            assert errno_of(mapping.sync, MS_ASYNC) == 0
            assert errno_of(mapping.sync, MS_INVALIDATE) == 0
        finally:
            mapping.unmap()


def test_the_size_stays(kept: "Device", module: Module, open_device: "OpenDevice") -> None:
    for size in (0, PAGE, SIZE, 2 * SIZE):
        assert errno_of(os.ftruncate, kept.fd, size) == errno.EINVAL, size
        assert errno_of(os.truncate, module.device_path, size) == errno.EINVAL, size
    assert errno_of(os.ftruncate, open_device(os.O_RDONLY).fd, 0) == errno.EINVAL


def test_nothing_is_allocated(kept: "Device", open_device: "OpenDevice") -> None:
    reader = open_device(os.O_RDONLY)
    for mode in MODES:
        for offset in (0, PAGE, 2 * SIZE):
            code = refusal("fallocate", kept.fd, mode, offset, PAGE)
            assert code == errno.ENODEV, f"mode {mode:#x} at {offset}"
        assert refusal("fallocate", reader.fd, mode, 0, PAGE) == errno.EBADF, f"mode {mode:#x}"
    assert errno_of(os.posix_fallocate, kept.fd, 0, PAGE) == errno.ENODEV


def test_no_file_range_is_copied(kept: "Device", file: int) -> None:
    for source, target in ((kept.fd, file), (file, kept.fd), (kept.fd, kept.fd)):
        assert errno_of(os.copy_file_range, source, target, PAGE) == errno.EINVAL
        assert errno_of(os.copy_file_range, source, target, PAGE, 0, 2 * PAGE) == errno.EINVAL
    assert os.pread(file, PAGE, 0) == bytes(PAGE)


def test_nothing_is_cloned(
    kept: "Device", file: int, module: Module, open_device: "OpenDevice"
) -> None:
    neighbour = os.open(module.device_path.parent, os.O_RDWR | os.O_TMPFILE)
    try:
        for other, code in (
            (file, errno.EXDEV),
            (neighbour, errno.EINVAL),
            (open_device().fd, errno.EINVAL),
        ):
            for target, source in ((kept.fd, other), (other, kept.fd)):
                assert errno_of(fcntl.ioctl, target, FICLONE, source) == code
                whole = struct.pack("qQQQ", source, 0, PAGE, 0)
                assert errno_of(fcntl.ioctl, target, FICLONERANGE, whole) == code
    finally:
        os.close(neighbour)


def test_advice_changes_nothing(kept: "Device") -> None:
    for advice in range(6):
        os.posix_fadvise(kept.fd, 0, SIZE, advice)
    assert refusal("readahead", kept.fd, 0, PAGE) == errno.EINVAL


def test_it_is_no_pipe(kept: "Device") -> None:
    ends = os.pipe()
    try:
        os.write(ends[1], b"piped")
        assert refusal("tee", kept.fd, ends[1], 5, 0) == errno.EINVAL
        assert refusal("tee", ends[0], kept.fd, 5, 0) == errno.EINVAL
        assert os.read(ends[0], 9) == b"piped"
    finally:
        for end in ends:
            os.close(end)
    buffer = ctypes.create_string_buffer(9)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 9)
    assert refusal("vmsplice", kept.fd, vector, 1, 0) == errno.EBADF
    for command in (fcntl.F_GETPIPE_SZ, fcntl.F_SETPIPE_SZ):
        assert errno_of(fcntl.fcntl, kept.fd, command, PAGE) == errno.EBADF


def test_it_is_no_folder_and_no_memory_file(kept: "Device") -> None:
    notified = errno.ENOTDIR if DNOTIFY.exists() else errno.EINVAL
    assert errno_of(fcntl.fcntl, kept.fd, fcntl.F_NOTIFY, fcntl.DN_MODIFY) == notified
    assert errno_of(fcntl.fcntl, kept.fd, F_GET_SEALS) == errno.EINVAL
    assert errno_of(fcntl.fcntl, kept.fd, F_ADD_SEALS, 1) == errno.EINVAL


def test_no_lease_is_given(kept: "Device") -> None:
    for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK):
        assert errno_of(fcntl.fcntl, kept.fd, fcntl.F_SETLEASE, kind) == errno.EINVAL, kind
    assert fcntl.fcntl(kept.fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK


def test_flock_keeps_out_flock_and_nothing_else(kept: "Device", open_device: "OpenDevice") -> None:
    other = open_device()
    fcntl.flock(kept.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for kind in (fcntl.LOCK_SH, fcntl.LOCK_EX):
        assert errno_of(fcntl.flock, other.fd, kind | fcntl.LOCK_NB) == errno.EWOULDBLOCK
    assert other.pwrite(b"x", INNER) == 1
    assert other.pread(1, INNER) == b"x"
    fcntl.flock(kept.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(other.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert errno_of(fcntl.flock, other.fd, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EWOULDBLOCK
    kept_too = os.dup(kept.fd)
    fcntl.flock(kept_too, fcntl.LOCK_UN)
    os.close(kept_too)
    fcntl.flock(other.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def pack_lock(kind: int, start: int, length: int) -> bytes:
    """Return a struct flock."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def test_a_lock_of_bytes_keeps_out_such_a_lock_and_nothing_else(
    kept: "Device", open_device: "OpenDevice"
) -> None:
    other = open_device()

    def take(device: "Device", kind: int, start: int) -> int:
        return errno_of(fcntl.fcntl, device.fd, fcntl.F_OFD_SETLK, pack_lock(kind, start, PAGE))

    assert take(kept, fcntl.F_WRLCK, INNER) == 0
    assert take(other, fcntl.F_RDLCK, INNER + PAGE - 1) == errno.EAGAIN
    assert take(other, fcntl.F_WRLCK, INNER + PAGE) == 0
    found = fcntl.fcntl(other.fd, fcntl.F_OFD_GETLK, pack_lock(fcntl.F_RDLCK, 0, SIZE))
    assert struct.unpack("hhqqi4x", found)[:4] == (fcntl.F_WRLCK, os.SEEK_SET, INNER, PAGE)
    assert other.pwrite(b"x", INNER) == 1
    assert take(kept, fcntl.F_UNLCK, INNER) == 0
    assert take(other, fcntl.F_WRLCK, INNER) == 0


def test_a_lock_of_a_process_keeps_out_another_process(kept: "Device") -> None:
    def try_to_lock(_: int) -> None:
        code = errno_of(fcntl.lockf, kept.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, PAGE)
        assert code == errno.EAGAIN

    fcntl.lockf(kept.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, PAGE)
    with endless(try_to_lock):
        assert kept.pwrite(b"x", INNER) == 1
    fcntl.lockf(kept.fd, fcntl.LOCK_UN, PAGE)


def test_stat_tells_no_size(kept: "Device", module: Module) -> None:
    assert os.fstat(kept.fd).st_size == 0
    assert module.device_path.stat().st_size == 0
