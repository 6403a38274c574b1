# SPDX-License-Identifier: GPL-2.0-only
import os
import stat
from pathlib import Path

import pytest

from twinmod.guest.testing import Module

MISC_MAJOR = 10
# What a driver asks for to get a dynamic minor; never a minor itself.
MISC_DYNAMIC_MINOR = 255

pytestmark = pytest.mark.rule("R1")


def test_the_node_is_a_character_device_of_the_misc_class(module: Module) -> None:
    status = module.device_path.stat()
    assert stat.S_ISCHR(status.st_mode)
    assert os.major(status.st_rdev) == MISC_MAJOR
    assert os.minor(status.st_rdev) != MISC_DYNAMIC_MINOR
    assert (Path("/sys/class/misc") / module.name).is_dir()


def test_only_root_may_open_it(module: Module) -> None:
    status = module.device_path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_uid, status.st_gid) == (0, 0)


def test_the_kernel_lists_its_minor_under_its_name(module: Module) -> None:
    minor = os.minor(module.device_path.stat().st_rdev)
    numbers = (Path("/sys/class/misc") / module.name / "dev").read_text()
    assert numbers.strip() == f"{MISC_MAJOR}:{minor}"
    listed = [line.split() for line in Path("/proc/misc").read_text().splitlines()]
    assert [str(minor), module.name] in listed


def test_a_module_has_one_device(module: Module) -> None:
    others = [path.name for path in Path("/sys/class/misc").iterdir() if module.name in path.name]
    assert others == [module.name]
