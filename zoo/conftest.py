# SPDX-License-Identifier: GPL-2.0-only
"""What the zoo's tests start from: the device of one module, in a VM that may die of it."""

import ctypes
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kmod import Module

_libc = ctypes.CDLL(None, use_errno=True)


class Device:
    """An open device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR)

    def ioctl(self, number: int, argument: int | bytearray = 0) -> int:
        """Return what the device's ioctl with a number returned."""
        return fcntl.ioctl(self.descriptor, (ord("z") << 8) | number, argument)

    def pread(self, count: int, offset: int) -> bytes:
        """Return up to some bytes at an offset."""
        return os.pread(self.descriptor, count, offset)

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write at an offset; return how many bytes the device took."""
        return os.pwrite(self.descriptor, data, offset)

    def write_from(self, address: int, count: int) -> int:
        """Write from an address that need not be ours."""
        done = _libc.write(self.descriptor, ctypes.c_void_p(address), ctypes.c_size_t(count))
        if done < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return int(done)

    @contextmanager
    def open_again(self) -> Iterator["Device"]:
        """Open the same device once more."""
        other = Device(self.path)
        try:
            yield other
        finally:
            os.close(other.descriptor)

    def in_parallel(self, work: Callable[[], None]) -> None:
        """Do some work in two processes at once: threads of Python wait for each other."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        work()
        assert os.waitpid(pid, 0)[1] == 0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says which cell this is."""
    group = parser.getgroup("zoo")
    group.addoption("--module", help="the kernel module, whose device is /dev/MODULE")
    group.addoption("--module-path", type=Path, help="the file that holds it")
    group.addoption("--tester", help="the attempt: c, rust, or another one of the entry")
    group.addoption("--marks", type=int, help="descriptor on which a long test marks its steps")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "rule(*numbers): rules of DEVICE.md that a test is for")


@pytest.fixture
def module(pytestconfig: pytest.Config) -> Module:
    """The kernel module, loaded."""
    name = pytestconfig.getoption("module")
    return Module(
        name=name,
        ko_path=pytestconfig.getoption("module_path"),
        device_path=Path("/dev") / name,
    )


@pytest.fixture
def device(module: Module) -> Iterator[Device]:
    """Its device, open."""
    device = Device(module.device_path)
    yield device
    os.close(device.descriptor)


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The attempt's program, where it may be executed."""
    name = request.path.stem.removeprefix("test_")
    source = request.path.with_name(f"zoo_{name}_{request.config.getoption('tester')}")
    target = tmp_path / source.name
    shutil.copy(source, target)
    target.chmod(0o700)
    return target
