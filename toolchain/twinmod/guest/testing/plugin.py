# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin of every folder of tests: its options, its markers, its fixtures.

The host loads it to collect, and so does the VM. A test runs as root, with the module loaded with
its own parameters, and leaves it so.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from twinmod.guest import devices as guest_devices
from twinmod.guest import plugging
from twinmod.guest.child import Heartbeat
from twinmod.guest.devices import Devices
from twinmod.guest.modules import Module
from twinmod.guest.testing import failures, hardware, log, names, programs
from twinmod.guest.testing.hardware import Hardware
from twinmod.guest.testing.programs import TestProgram

#: What the host says as --module: it collects, and runs nothing.
NONE = "none"

#: Tests with this marker are left out on a kernel that cannot make anything fail.
FAIL_NTH = "fail_nth"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says which cell of the matrix this is."""
    group = parser.getgroup("twinmod")
    group.addoption("--module", help="kernel module under test")
    group.addoption("--module-path", type=Path, help="the file that holds it")
    group.addoption("--module-version", default="", help="what the module says as its version")
    group.addoption("--tester", default="", help="name of the tester; empty: there is none")
    group.addoption("--tester-package", default="", help="the Python package that it is")
    group.addoption("--rule", action="append", default=[], help="only the tests of this rule")
    group.addoption("--long", action="store_true", help="many more rounds of what repeats itself")
    group.addoption("--marks", type=int, help="descriptor of the heartbeat of a long test")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "rule(*numbers): rules of the contract that a test is for")
    config.addinivalue_line(
        "markers", f"{FAIL_NTH}: needs a kernel that makes allocations fail on demand"
    )


def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> "programs.TestProgramFile | None":
    """Take a script, or a program in C, for a test."""
    if not names.is_test(file_path):
        return None
    return programs.TestProgramFile.from_parent(parent, path=file_path)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let -k find a test by the numbers of its rules."""
    item.extra_keyword_matches.update(find_rules(item))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this kernel cannot do, and the tests of other rules than --rule names."""
    wanted = set(config.getoption("rule"))
    # The host leaves out nothing: it does not know what the VM's kernel can do.
    possible = config.getoption("module") == NONE or failures.is_possible()
    left: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        runs = possible or item.get_closest_marker(FAIL_NTH) is None
        chosen = not wanted or wanted & find_rules(item)
        (left if runs and chosen else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = left


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give a program what it learns of the cell."""
    if isinstance(item, TestProgram):
        config = item.config
        item.given = programs.Given(
            module=find_module(config),
            devices=find_devices(config),
            tester=config.getoption("tester"),
            long=config.getoption("long"),
            mark_step=find_mark_step(config),
        )


def find_rules(item: pytest.Item) -> set[str]:
    """Return the rules that a test is for."""
    return {rule for marker in item.iter_markers("rule") for rule in marker.args}


def find_module(config: pytest.Config) -> Module:
    """Return the module under test.

    Raises:
        pytest.UsageError: Nobody said which.
    """
    name, path = config.getoption("module"), config.getoption("module_path")
    if name is None or path is None:
        raise pytest.UsageError("a test needs a module: --module NAME --module-path FILE")
    return Module(name=name, ko_path=path)


def find_devices(config: pytest.Config) -> Devices:
    """Return what appeared since the module was loaded."""
    before = config.getoption("devices_before", None)
    return Devices() if before is None else guest_devices.find_new(before)


def find_mark_step(config: pytest.Config) -> Callable[[], object]:
    """Return the function by which a long test says that it goes on."""
    descriptor = config.getoption("marks")
    return (lambda: None) if descriptor is None else Heartbeat(descriptor).beat


@pytest.fixture(scope="session")
def module(pytestconfig: pytest.Config) -> Module:
    """The kernel module under test."""
    return find_module(pytestconfig)


@pytest.fixture
def devices(pytestconfig: pytest.Config) -> Devices:
    """The device nodes and the devices of a class that appeared when the module was loaded."""
    return find_devices(pytestconfig)


@pytest.fixture
def plugged() -> Iterator[tuple[Hardware, ...]]:
    """The devices of `vm.devices`, in their order. Afterwards each is there, with its driver."""
    found = tuple(
        Hardware(number=number, model=device.model, port=device.port)
        for number, device in enumerate(plugging.list_devices())
    )
    with hardware.kept(found):
        yield found


@pytest.fixture(scope="session")
def long_run(pytestconfig: pytest.Config) -> bool:
    """Whether a test that repeats something is to do so many more times."""
    return bool(pytestconfig.getoption("long"))


@pytest.fixture(scope="session")
def mark_step(pytestconfig: pytest.Config) -> Callable[[], object]:
    """A function by which a long test says that it goes on, to who gives it up otherwise."""
    return find_mark_step(pytestconfig)


@pytest.fixture(scope="session")
def tester(pytestconfig: pytest.Config) -> Any:
    """The Python package of the tester in use; without a tester, the test is skipped."""
    package = pytestconfig.getoption("tester_package")
    if not package:
        pytest.skip("it needs a tester, and this cell has none")
    return importlib.import_module(package)


@pytest.fixture
def kernel_log() -> Iterator[Callable[[], list[str]]]:
    """A function that returns what the kernel's log got since it was called before."""
    with log.follow() as read:
        yield read


@pytest.fixture
def unloaded(module: Module) -> Iterator[Module]:
    """The module, not loaded. Afterwards it is loaded again with its own parameters."""
    module.unload()
    try:
        yield module
    finally:
        if module.is_loaded():
            module.unload()
        module.load()


@pytest.fixture
def keep_failure(pytestconfig: pytest.Config) -> Callable[[failures.Failure], None]:
    """A function that keeps for the report a point that was made to fail."""
    name, tester_name = pytestconfig.getoption("module"), pytestconfig.getoption("tester")
    return lambda failure: failures.keep(name, tester_name, failure)
