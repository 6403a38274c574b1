# SPDX-License-Identifier: GPL-2.0-only
"""THE matrix: which module, which tester, and a device that is all zero before each test.

Run as root in a VM, with the module loaded with its default parameters; left so at the end.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import failures
from contract import SIZE
from twinmod.guest.child import Heartbeat
from twinmod.guest.modules import Module

if TYPE_CHECKING:
    from mdriver_tester_c import Device

    # Both testers have the same interface: two stubs with one text.
    OpenDevice = Callable[..., Device]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says which cell of the matrix this is."""
    group = parser.getgroup("matrix")
    group.addoption("--module", help="kernel module, such as mdriver_c; its device is /dev/MODULE")
    group.addoption("--module-path", type=Path, help="the file that holds it")
    group.addoption("--module-version", default="", help="what the module says as its version")
    group.addoption("--tester", choices=("c", "rust"), help="language of the tester")
    group.addoption("--rule", action="append", default=[], help="only the tests of this rule")
    group.addoption("--long", action="store_true", help="many more rounds of what repeats itself")
    group.addoption("--marks", type=int, help="descriptor of the heartbeat of a long test")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse a run that does not say what it is to test."""
    config.addinivalue_line("markers", "rule(*numbers): rules of DEVICE.md that a test is for")
    for option in ("module", "module_path", "tester"):
        if config.getoption(option) is None:
            name = "--" + option.replace("_", "-")
            raise pytest.UsageError(f"the matrix needs {name}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what this kernel cannot do; the host, which only collects, leaves out nothing."""
    only_collected = config.getoption("module") == "none"
    possible = only_collected or failures.is_possible()
    return True if collection_path.name == "test_failures.py" and not possible else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let -k find a test by the numbers of its rules."""
    for marker in item.iter_markers("rule"):
        item.extra_keyword_matches.update(marker.args)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave only the tests of the rules that --rule names, when it names some."""
    wanted = set(config.getoption("rule"))
    if not wanted:
        return
    left: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        rules = {rule for marker in item.iter_markers("rule") for rule in marker.args}
        (left if rules & wanted else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = left


@pytest.fixture(scope="session")
def module(pytestconfig: pytest.Config) -> Module:
    """The kernel module under test."""
    name = pytestconfig.getoption("module")
    return Module(name=name, ko_path=pytestconfig.getoption("module_path"))


@pytest.fixture(scope="session")
def long_run(pytestconfig: pytest.Config) -> bool:
    """Whether what repeats itself is to do so many more times."""
    return bool(pytestconfig.getoption("long"))


@pytest.fixture(scope="session")
def beat(pytestconfig: pytest.Config) -> Callable[[], object]:
    """A function by which a long test says that it goes on, to who gives it up otherwise."""
    descriptor = pytestconfig.getoption("marks")
    return (lambda: None) if descriptor is None else Heartbeat(descriptor).beat


@pytest.fixture(scope="session")
def tester(pytestconfig: pytest.Config) -> Any:
    """The tester in use: the package mdriver_tester_c or mdriver_tester_rust."""
    return importlib.import_module(f"mdriver_tester_{pytestconfig.getoption('tester')}")


@pytest.fixture
def open_device(module: Module, tester: Any) -> Iterator["OpenDevice"]:
    """A function that opens the device once more; all are closed after the test."""
    with ExitStack() as stack:

        def open_one(flags: int = os.O_RDWR) -> "Device":
            device: Device = stack.enter_context(tester.Device(module.device_path, flags))
            return device

        yield open_one


@pytest.fixture
def device(open_device: "OpenDevice") -> "Device":
    """The open device: all zero, at position 0."""
    device = open_device()
    # How far a write gets is a rule of its own: were it checked here, one fault near the end would
    # fail every rule there is.
    with suppress(OSError):
        device.pwrite(bytes(SIZE), 0)
    return device


@pytest.fixture
def unloaded(module: Module) -> Iterator[Module]:
    """The module, not loaded. Afterwards it is loaded again with its default parameters."""
    module.unload()
    try:
        yield module
    finally:
        if module.is_loaded():
            module.unload()
        module.load()
