# SPDX-License-Identifier: GPL-2.0-only
"""What the zoo's tests start from: the device of one module, in a VM that may die of it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinmod.guest.modules import Module
from zoo_device import Device


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says which cell this is."""
    group = parser.getgroup("zoo")
    group.addoption("--module", help="the kernel module, whose device is /dev/MODULE")
    group.addoption("--module-path", type=Path, help="the file that holds it")
    group.addoption("--module-version", default="", help="what the module says as its version")
    group.addoption("--tester", help="the attempt: c, rust, or another one of the entry")
    group.addoption("--marks", type=int, help="descriptor of the heartbeat of a long test")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "rule(*numbers): rules of DEVICE.md that a test is for")


@pytest.fixture
def module(pytestconfig: pytest.Config) -> Module:
    """The kernel module, loaded."""
    name = pytestconfig.getoption("module")
    return Module(name=name, ko_path=pytestconfig.getoption("module_path"))


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
