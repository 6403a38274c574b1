# SPDX-License-Identifier: GPL-2.0-only
"""What the zoo's tests start from: the device of one module, in a VM that may die of it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinmod.guest.testing import Module
from zoo_device import Device


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
