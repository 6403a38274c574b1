# SPDX-License-Identifier: GPL-2.0-only
import os

import pytest

from contract import MODINFO
from twinmod.guest.testing import Module
from twinmod.guest.testing.modinfo import read_modinfo

pytestmark = pytest.mark.rule("R22")

# What the kernel's build adds, with values of its own.
BUILD_FIELDS = {"name", "srcversion", "vermagic"}


@pytest.fixture(scope="module")
def fields(module: Module) -> dict[str, list[str]]:
    """The fields of the module's file."""
    return read_modinfo(module.ko_path)


@pytest.fixture(scope="module")
def own(pytestconfig: pytest.Config) -> dict[str, list[str]]:
    """What the module says of itself, which its build does not add."""
    return {**MODINFO, "version": [pytestconfig.getoption("module_version")]}


def test_the_fields_are_those_of_the_contract(
    fields: dict[str, list[str]], own: dict[str, list[str]]
) -> None:
    assert {field: fields.get(field) for field in own} == own


def test_the_build_names_the_module_and_its_kernel(
    fields: dict[str, list[str]], module: Module
) -> None:
    assert fields["name"] == [module.name]
    assert fields["vermagic"][0].split()[0] == os.uname().release
    assert len(fields["srcversion"][0]) == 23, "a hash of the sources, in 23 digits"


def test_no_field_is_one_modules_own(
    fields: dict[str, list[str]], own: dict[str, list[str]]
) -> None:
    build = {"intree", "retpoline", "import_ns", "sig_id"} | BUILD_FIELDS
    assert set(fields) - build == set(own)


def test_the_loaded_module_says_the_same(fields: dict[str, list[str]], module: Module) -> None:
    for field in ("version", "srcversion"):
        assert (module.sysfs_path / field).read_text().strip() == fields[field][0]
