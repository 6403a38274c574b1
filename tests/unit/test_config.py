# SPDX-License-Identifier: GPL-2.0-only
"""``[tool.twinmod]`` is read strictly: what is not understood is refused, by name."""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.cells import model
from twinmod.errors import ConfigError, ExitCode
from twinmod.project import config, names, rules
from twinmod.project.config import Config
from twinmod.project.model import DriverSpec, KernelSpec

PROJECT = Path("/project")

CHECKOUT = Path(__file__).resolve().parents[2]

GOOD: dict[str, Any] = {
    "kernel": "stock",
    "roots": {"trixie": {"suite": "trixie", "packages": ["make", "rustc"]}},
    "kernels": {
        "stock": {"root": "trixie", "suite": "trixie-backports", "flavour": "amd64"},
        "other": {"root": "trixie", "suite": "sid", "flavour": "amd64"},
    },
    "drivers": {
        "mdriver": {
            "contract": "DEVICE.md",
            "tests": "tests/matrix",
            "modules": {
                "c": {"name": "mdriver_c", "sources": "c_module"},
                "rust": {
                    "name": "mdriver_rust",
                    "sources": "rust_module",
                    "in-tree": "samples/rust/mdriver_rust",
                },
            },
            "testers": {
                "c": {"project": "c_tester", "package": "mdriver_tester_c"},
                "rust": {"project": "rust_tester", "package": "mdriver_tester_rust"},
            },
            "helpers": [{"stock": "null_blk"}],
            "vm": {"packages": ["fio"]},
        }
    },
    "vm": {"memory-mib": 1024, "processors": 2},
}

DRIVER = ("drivers", "mdriver")

TABLES = (
    (),
    ("roots", "trixie"),
    ("kernels", "stock"),
    DRIVER,
    (*DRIVER, "modules", "c"),
    (*DRIVER, "testers", "c"),
    (*DRIVER, "vm"),
    ("vm",),
)

REQUIRED = (
    ("drivers",),
    (*DRIVER, "modules"),
    ("roots", "trixie", "suite"),
    ("kernels", "stock", "root"),
    ("kernels", "stock", "suite"),
    ("kernels", "stock", "flavour"),
    (*DRIVER, "testers", "c", "project"),
    (*DRIVER, "testers", "c", "package"),
)


READ_BUILTIN = config.read_builtin


@pytest.fixture(autouse=True)
def _no_builtin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a project have its own kernels and roots alone."""
    monkeypatch.setattr(config, "read_builtin", dict)


@pytest.fixture
def _builtin(_no_builtin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it have the built-in ones again."""
    monkeypatch.setattr(config, "read_builtin", READ_BUILTIN)


def find_table(document: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        document = document[name]
    return document


def change(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return a good document with one value set to something else."""
    document = copy.deepcopy(GOOD)
    find_table(document, path[:-1])[path[-1]] = value
    return document


def remove(path: tuple[str, ...]) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    del find_table(document, path[:-1])[path[-1]]
    return document


def catch(document: dict[str, Any]) -> ConfigError:
    """Return what a document is refused with."""
    with pytest.raises(ConfigError) as caught:
        config.make_config(document, PROJECT)
    assert ("file", "/project/pyproject.toml") in caught.value.facts
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value


def refuse(document: dict[str, Any]) -> str:
    """Return why a document is refused."""
    return catch(document).message


def test_a_good_table_becomes_nouns_with_every_reference_resolved() -> None:
    found = config.make_config(GOOD, PROJECT)
    assert found.kernel.name == "stock"
    assert found.kernel.suite == "trixie-backports"
    assert found.chroot.name == "trixie"
    assert found.chroot.packages == ("make", "rustc")
    assert found.contract_path == PROJECT / "DEVICE.md"
    assert found.matrix_dir == PROJECT / "tests/matrix"
    assert found.lock_path == CHECKOUT / "toolchain/locks/guest.txt"
    assert found.out_dir == PROJECT / "out"
    assert found.mirror == ""
    assert found.bench_path is None
    assert found.vm.memory_mib == 1024
    assert found.vm.silence_timeout_s > found.vm.test_timeout_s
    assert found.find_module("rust").in_tree == "samples/rust/mdriver_rust"
    assert found.find_module("c").in_tree == ""
    assert found.labels == ("c", "rust")
    assert [helper.stock for helper in found.driver.helpers] == ["null_blk"]


def test_the_cells_are_every_module_with_every_tester_in_order() -> None:
    cells = model.plan_cells(config.make_config(GOOD, PROJECT))
    assert [cell.name for cell in cells] == ["c/c", "c/rust", "rust/c", "rust/rust"]
    assert [cell.module for cell in cells] == [
        "mdriver_c",
        "mdriver_c",
        "mdriver_rust",
        "mdriver_rust",
    ]


@pytest.mark.usefixtures("_builtin")
def test_this_project_is_configured() -> None:
    found = config.read_config(CHECKOUT)
    assert found.contract_path is not None
    assert found.contract_path.is_file()
    for module in found.modules:
        assert (CHECKOUT / module.sources).is_dir()
    for tester in found.testers:
        assert (CHECKOUT / tester.project / "pyproject.toml").is_file()
    assert found.matrix_dir.is_dir()
    assert found.lock_path.is_file()
    assert found.bench_path is not None
    assert found.bench_path.is_file()


@pytest.mark.parametrize("path", TABLES, ids=".".join)
def test_an_unknown_key_is_refused_at_every_level(path: tuple[str, ...]) -> None:
    assert "`colour`" in refuse(change((*path, "colour"), "green"))


@given(st.text().filter(lambda name: name not in {*GOOD, "mirror", "packages", "lock"}))
def test_no_other_key_is_known(name: str) -> None:
    refuse(change((name,), "x"))


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_missing_key_is_refused_by_name(path: tuple[str, ...]) -> None:
    words = refuse(remove(path))
    assert f" lacks `{path[-1]}`" in words
    assert words.startswith(".".join(path[:-1]))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kernel",), 7),
        (("mirror",), ["http://x"]),
        (("roots",), []),
        (("kernels",), 3),
        (("packages",), "make"),
        (("roots", "trixie", "packages"), "make"),
        (("roots", "trixie", "packages"), ["a", 1]),
        (("kernels", "stock", "suite"), None),
        (("drivers",), ["mdriver"]),
        (DRIVER, "c_module"),
        ((*DRIVER, "modules"), "c_module"),
        ((*DRIVER, "modules", "c"), 3),
        ((*DRIVER, "uapi"), "mdriver.h"),
        ((*DRIVER, "helpers"), "null_blk"),
        (("vm", "memory-mib"), "1024"),
        (("vm", "processors"), True),
        (("vm", "processors"), 1.5),
        (("vm", "boot-timeout-s"), "20"),
        (("vm",), 3),
    ],
    ids=str,
)
def test_a_wrong_type_is_refused(path: tuple[str, ...], value: object) -> None:
    # The one of a list is named by its number.
    assert refuse(change(path, value)).startswith(".".join(path))
    assert "is not valid" in refuse(change(path, value))


def test_keys_are_written_with_hyphens_only() -> None:
    assert "`memory_mib`" in refuse(change(("vm", "memory_mib"), 1024))


def test_a_kernel_that_is_not_configured_is_refused_with_those_that_are() -> None:
    message = refuse(change(("kernel",), "sid"))
    assert "'sid'" in message
    assert "stock, other" in message


@pytest.mark.parametrize("name", ["stock", "other"])
def test_a_root_that_is_not_configured_is_refused_also_where_it_is_not_used(name: str) -> None:
    message = refuse(change(("kernels", name, "root"), "sid"))
    assert f"kernels.{name}.root = 'sid' names no root" in message
    assert "trixie" in message


# -- names that a person mistypes -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "nearest"),
    [
        (("driver",), {}, "drivers"),
        (("kernels", "stock", "flavor"), "amd64", "flavour"),
        ((*DRIVER, "module"), {}, "modules"),
        ((*DRIVER, "modules", "c", "intree"), "x", "in-tree"),
        ((*DRIVER, "vm", "memory_mib"), 512, "memory-mib"),
        ((*DRIVER, "testers", "c", "Package"), "x", "package"),
        (("kernel",), "stoke", "stock"),
        (("kernels", "stock", "root"), "trixy", "trixie"),
        (("kernels", "mine"), {"root": "trixie", "source": "stick"}, "stock"),
    ],
)
def test_an_error_has_the_nearest_name_that_there_is(
    path: tuple[str, ...], value: object, nearest: str
) -> None:
    assert ("nearest", nearest) in catch(change(path, value)).facts


def test_an_error_of_a_key_that_is_like_none_has_all_keys() -> None:
    error = catch(change(("vm", "zzz"), 1))
    assert ("keys", "memory-mib, processors, boot-timeout-s") in [
        (name, words[:38]) for name, words in error.facts
    ]


@pytest.mark.parametrize(
    ("select", "name", "nearest"),
    [
        (config.select_kernel, "othr", "other"),
        (config.select_driver, "mdrivr", "mdriver"),
    ],
)
def test_a_choice_has_the_nearest_name_that_there_is(
    select: Callable[[Config, str], Config], name: str, nearest: str
) -> None:
    with pytest.raises(ConfigError, match=f"{name} names no ") as caught:
        select(config.make_config(GOOD, PROJECT), name)
    assert caught.value.facts == (("nearest", nearest),)


# -- the first edition ------------------------------------------------------------------------


FIRST_EDITION: dict[str, Any] = {
    "kernel": "stock",
    "contract": "DEVICE.md",
    "matrix": "tests/matrix",
    "lock": "toolchain/locks/guest.txt",
    "chroots": {"trixie": {"suite": "trixie", "packages": ["make", "rustc"]}},
    "kernels": {
        "stock": {
            "chroot": "trixie",
            "suite": "sid",
            "flavour": "amd64",
            "parameters": ["nokaslr"],
        }
    },
    "modules": {
        "mdriver_c": {"language": "c", "sources": "c_module"},
        "mdriver_rust": {"language": "rust", "sources": "r", "subdirs": "samples/rust/x"},
    },
    "testers": {"c": {"project": "c_tester", "package": "mdriver_tester_c"}},
}


def test_a_configuration_of_the_first_edition_is_refused_with_the_new_keys() -> None:
    error = catch(FIRST_EDITION)
    assert "is of the first edition of twinmod" in error.message
    assert dict(error.facts).keys() >= {
        "contract",
        "matrix",
        "chroots",
        "modules",
        "testers",
        "kernels.stock.chroot",
        "kernels.stock.parameters",
    }
    facts = dict(error.facts)
    assert facts["matrix"] == "now drivers.NAME.tests"
    assert "`subdirs` is `in-tree`" in facts["modules"]
    assert facts["kernels.stock.chroot"] == "now root"
    assert facts["kernels.stock.parameters"] == "now command-line"


# -- drivers ----------------------------------------------------------------------------------


def read_driver(**table: object) -> DriverSpec:
    """Return a driver whose table has one module in C, and more."""
    driver = {"modules": {"c": {"name": "echo", "sources": "c"}}, **table}
    return config.make_config({**GOOD, "drivers": {"echo": driver}}, PROJECT).driver


def refuse_driver(name: str = "echo", /, **table: object) -> str:
    """Return why a driver with one module in C, and more, is refused."""
    driver = {"modules": {"c": {"name": "echo", "sources": "c"}}, **table}
    return refuse({**GOOD, "drivers": {name: driver}})


def test_one_module_alone_is_a_driver() -> None:
    found = config.make_config(
        {**GOOD, "drivers": {"echo": {"modules": {"old": {"name": "echo", "sources": "c"}}}}},
        PROJECT,
    )
    assert found.driver.testers == ()
    assert found.contract_path is None
    assert found.matrix_dir == config.STANDARD_TESTS
    assert rules.read_rules(found) == ()
    # Without a tester a cell has the name of its module's label.
    assert [cell.name for cell in model.plan_cells(found)] == ["old"]


def test_a_driver_has_as_many_modules_and_testers_as_it_likes() -> None:
    modules = {label: {"name": f"echo_{label}", "sources": label} for label in ("a", "b", "z")}
    found = config.make_config({**GOOD, "drivers": {"e": {"modules": modules}}}, PROJECT)
    assert [cell.name for cell in model.plan_cells(found)] == ["a", "b", "z"]
    tester = {"project": "t", "package": "t"}
    testers = {"libc": tester, "uring": tester}
    found = config.make_config(
        {**GOOD, "drivers": {"e": {"modules": modules, "testers": testers}}}, PROJECT
    )
    names = [cell.name for cell in model.plan_cells(found)]
    assert names == ["a/libc", "a/uring", "b/libc", "b/uring", "z/libc", "z/uring"]


def test_a_module_comes_from_a_folder_the_kernels_tree_or_the_distribution() -> None:
    modules = {
        "own": {"name": "echo", "sources": "c", "parameters": ["size=4"], "config": ["X="]},
        "tree": {"tree": "drivers/block/rnull", "module": "rnull_mod", "config": ["Y=m"]},
        "stock": {"stock": "null_blk"},
    }
    own, tree, stock = read_driver(modules=modules).modules
    assert (own.label, own.name, own.sources) == ("own", "echo", "c")
    assert (own.parameters, own.config) == (("size=4",), ("X=",))
    assert (tree.name, tree.tree, tree.config) == ("rnull_mod", "drivers/block/rnull", ("Y=m",))
    assert (stock.name, stock.stock) == ("null_blk", "null_blk")


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ({}, "has no source"),
        ({"name": "x"}, "has no source"),
        ({"sources": "a", "tree": "b"}, "has `sources` and `tree`"),
        ({"sources": "a", "stock": "b"}, "has `sources` and `stock`"),
        ({"tree": "a", "stock": "b"}, "has `tree` and `stock`"),
        ({"tree": "drivers/net/phy"}, "lacks `module`"),
        ({"tree": "a", "name": "b"}, "has `name`, which goes with `sources`"),
        ({"sources": "a", "module": "b"}, "has `module`, which goes with `tree`"),
        ({"stock": "a", "in-tree": "b"}, "has `in-tree`, which goes with `sources`"),
        ({"stock": "a", "config": ["X=m"]}, "has `config`"),
        ({"stock": "a.ko"}, "no module of the name 'a.ko'"),
        ({"stock": "a/b"}, "no module of the name 'a/b'"),
        ({"sources": "a", "name": "_echo"}, "Debian refuses packages named after '_echo'"),
        ("no-such-folder", "the folder no-such-folder is missing"),
        ("", "has no source"),
    ],
    ids=str,
)
def test_a_module_that_cannot_be_is_refused(module: object, why: str) -> None:
    assert why in (words := refuse_driver(modules={"c": module}))
    assert "drivers.echo.modules.c" in words


def test_a_driver_without_a_module_is_refused() -> None:
    assert refuse_driver(modules={}) == "drivers.echo has no module: drivers.echo.modules is empty"


def test_a_project_without_a_driver_is_refused() -> None:
    assert "has no driver" in refuse({**GOOD, "drivers": {}})


@pytest.mark.parametrize("other", ["echo", "echo-"])
def test_two_labels_for_one_ko_are_refused(other: str) -> None:
    # The kernel calls both echo_.
    module = other.replace("-", "_")
    modules = {
        "old": {"sources": "a", "name": module},
        "new": {"sources": "b", "name": other},
    }
    words = refuse_driver(modules=modules)
    assert words == f"drivers.echo.modules has two labels for {module}.ko: old and new"


@pytest.mark.parametrize("kind", ["modules", "testers"])
@pytest.mark.parametrize("label", ["", "a/b", "-x", "a b", ".."])
def test_a_label_that_no_cell_can_have_is_refused(kind: str, label: str) -> None:
    table = {
        "modules": {"sources": "a", "name": "echo"},
        "testers": {"project": "t", "package": "t"},
    }
    assert f"drivers.echo.{kind} has {label!r}" in refuse_driver(**{kind: {label: table[kind]}})


@pytest.mark.parametrize("name", ["_echo", "", "a/b", "e!"])
def test_a_name_that_debian_refuses_is_refused(name: str) -> None:
    assert f"Debian refuses packages named after {name!r}" in refuse_driver(name)


def test_debian_calls_a_name_with_capitals_by_small_letters() -> None:
    table = {"modules": {"c": {"sources": "a", "name": "Echo_C"}}}
    found = config.make_config({**GOOD, "drivers": {"Echo": table}}, PROJECT)
    assert (found.driver.name, found.modules[0].name) == ("Echo", "Echo_C")
    assert names.plan_package("Echo_C") == "echo-c"


@pytest.mark.parametrize("package", ["", "a-b", "a.", "3"])
def test_a_tester_without_a_package_that_tests_can_import_is_refused(package: str) -> None:
    testers = {"c": {"project": "t", "package": package}}
    assert "is not the name of a Python package" in refuse_driver(testers=testers)


@pytest.mark.parametrize(
    "helper", [{"stock": "echo"}, {"name": "other", "sources": "./c"}, {"stock": "echo-"}], ids=str
)
def test_a_helper_that_is_under_test_as_well_is_refused(helper: dict[str, str]) -> None:
    modules = {
        "c": {"sources": "c", "name": "echo"},
        "d": {"sources": "d", "name": "echo_"},
    }
    words = refuse_driver(modules=modules, helpers=[helper])
    assert "is under test as well" in words


@pytest.mark.parametrize("vm", [{"memory-mib": 255}, {"memory-mib": -1}, {"processors": -1}])
def test_a_drivers_vm_that_cannot_work_is_refused(vm: dict[str, int]) -> None:
    assert "drivers.echo.vm needs" in refuse_driver(vm=vm)


@pytest.mark.parametrize(
    ("package", "why"),
    [
        ("fio:arm64", "without its architecture 'arm64'"),
        ("fio:amd64", "without its architecture 'amd64'"),
        ("Fio", "a to z"),
        ("f", "a to z"),
        ("", "a to z"),
        ("--simulate", "a to z"),
        ("fio=3.39-1", "a to z"),
        ("fio/sid", "a to z"),
        ("fio-", ""),
        ("g++", ""),
    ],
)
def test_what_is_no_debian_package_is_refused_wherever_packages_are_named(
    package: str, why: str
) -> None:
    module = {"sources": "c", "name": "echo"}
    driver = {"modules": {"c": module}, "vm": {"packages": [package]}}
    documents = {
        "drivers.echo.vm.packages": {**GOOD, "drivers": {"echo": driver}},
        "vm.packages": {**GOOD, "vm": {"packages": [package]}},
        "packages": {**GOOD, "packages": [package]},
        "roots.own.packages": {
            **GOOD,
            "roots": {**GOOD["roots"], "own": {"suite": "sid", "packages": [package]}},
        },
    }
    for key, document in documents.items():
        if not why:
            config.make_config(document, Path())
            continue
        with pytest.raises(ConfigError, match=f"{key} has '{re.escape(package)}'.*{why}"):
            config.make_config(document, Path())


# -- what sources say -------------------------------------------------------------------------


def read_sources_name(folder: Path) -> str:
    """Return the name of the module that the folder `src` of a project makes."""
    document = {**GOOD, "drivers": {"echo": {"modules": {"c": "src"}}}}
    return config.make_config(document, folder).modules[0].name


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"echo.c": "", "echo.h": ""}, "echo"),
        ({"echo.rs": "", "echo.mod.c": ""}, "echo"),
        ({"Kbuild": "obj-m := echo.o\necho-y := a.o b.o\n", "a.c": "", "b.c": ""}, "echo"),
        ({"Makefile": "obj-m += \\\n\techo.o # one\n", "a.c": ""}, "echo"),
        # make reads Kbuild where both are there.
        ({"Kbuild": "obj-$(CONFIG_E) += echo.o\n", "Makefile": "obj-m := no.o\n"}, "echo"),
    ],
    ids=str,
)
def test_sources_of_one_module_say_its_name(
    files: dict[str, str], name: str, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    for path, text in files.items():
        (tmp_path / "src" / path).write_text(text)
    assert read_sources_name(tmp_path) == name


@pytest.mark.parametrize("text", ["obj-m := $(NAME).o\n", "all:\n"])
def test_only_make_knows_what_some_makefiles_build(text: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/Makefile").write_text(text)
    assert read_sources_name(tmp_path) == ""


@pytest.mark.parametrize(
    ("files", "modules"),
    [
        ({"a.c": "", "b.c": ""}, "a, b"),
        ({"Kbuild": "obj-m := a.o b.o\n"}, "a, b"),
        ({"notes.txt": ""}, "none"),
    ],
    ids=str,
)
def test_sources_of_several_modules_need_a_name(
    files: dict[str, str], modules: str, tmp_path: Path
) -> None:
    (tmp_path / "src").mkdir()
    for path, text in files.items():
        (tmp_path / "src" / path).write_text(text)
    with pytest.raises(ConfigError, match="lacks `name`") as caught:
        read_sources_name(tmp_path)
    assert ("modules", modules) in caught.value.facts


# -- several drivers --------------------------------------------------------------------------


SEVERAL: dict[str, Any] = {
    **GOOD,
    "drivers": {
        "one": {
            "modules": {"c": {"name": "one", "sources": "one"}},
            "contract": "ONE.md",
            "vm": {"memory-mib": 300, "modules": ["loop"], "command-line": ["quiet"]},
        },
        "two": {"modules": {"c": {"name": "two", "sources": "two"}}, "tests": "tests/two"},
    },
    "vm": {"processors": 1, "modules": ["nbd"], "command-line": ["debug"]},
}


def test_each_of_several_drivers_has_its_own_folder_of_results() -> None:
    first = config.make_config(SEVERAL, PROJECT)
    assert (first.driver.name, first.out_dir) == ("one", PROJECT / "out/one")
    second = config.select_driver(first, "two")
    assert (second.driver.name, second.out_dir) == ("two", PROJECT / "out/two")
    assert second.shown_out == "out/two"
    assert (second.contract_path, second.matrix_dir) == (None, PROJECT / "tests/two")
    assert config.select_driver(second, "one") == first


def test_what_a_driver_wants_of_its_vms_is_for_that_driver() -> None:
    first = config.make_config(SEVERAL, PROJECT)
    assert (first.vm.memory_mib, first.vm.processors) == (300, 1)
    assert first.vm.modules == ("nbd", "loop")
    assert first.vm.command_line == ("debug", "quiet")
    second = config.select_driver(first, "two")
    assert (second.vm.memory_mib, second.vm.modules) == (1024, ("nbd",))
    assert second.vm.command_line == ("debug",)


# -- what is built in -------------------------------------------------------------------------


@pytest.mark.usefixtures("_builtin")
def test_a_project_needs_to_say_its_driver_and_nothing_else() -> None:
    found = config.make_config({"drivers": GOOD["drivers"]}, PROJECT)
    assert found.kernel.name == "trixie-backports"
    assert [kernel.name for kernel in found.kernels] == [
        "trixie-backports",
        "trixie-backports-72",
        "trixie",
        "sid",
        "kasan",
        "kcsan",
        "enforcing",
    ]
    assert [chroot.name for chroot in found.chroots] == ["trixie", "sid", "trixie-llvm"]
    assert {"make", "rustc", "qemu-system-x86", "python3"} <= set(found.chroot.packages)


@pytest.mark.usefixtures("_builtin")
def test_a_table_of_the_same_name_takes_the_place_of_a_built_in_one() -> None:
    kernel = {"root": "mine", "suite": "experimental", "flavour": "amd64"}
    found = config.make_config(
        {
            "drivers": GOOD["drivers"],
            "packages": ["sparse"],
            "roots": {"mine": {"suite": "sid", "packages": ["gdb"]}},
            "kernels": {"sid": kernel, "mine": {**kernel, "root": "trixie"}},
        },
        PROJECT,
    )
    sid = config.select_kernel(found, "sid")
    assert (sid.kernel.suite, sid.chroot.name) == ("experimental", "mine")
    assert sid.chroot.packages[-2:] == ("sparse", "gdb")
    assert [kernel.name for kernel in found.kernels].count("sid") == 1
    assert config.select_kernel(found, "mine").chroot.suite == "trixie"
    assert found.kernel.name == "trixie-backports"


@pytest.mark.parametrize(
    "limits",
    [
        {"memory-mib": 255},
        {"processors": 0},
        {"boot-timeout-s": 0},
        {"test-timeout-s": 0},
        {"test-timeout-s": -1},
        {"boot-timeout-s": math.nan},
        {"silence-timeout-s": math.nan},
        # A silent VM must be the VM's fault, not that of a slow test.
        {"test-timeout-s": 25, "silence-timeout-s": 25},
        {"test-timeout-s": 30, "silence-timeout-s": 25},
    ],
    ids=str,
)
def test_a_limit_that_cannot_work_is_refused(limits: dict[str, float]) -> None:
    assert "[tool.twinmod.vm] needs" in refuse(change(("vm",), limits))


@given(
    memory=st.integers(0, 600),
    processors=st.integers(-1, 3),
    test=st.floats(-1, 30),
    silence=st.floats(-1, 30),
)
def test_limits_are_accepted_exactly_when_they_can_work(
    memory: int, processors: int, test: float, silence: float
) -> None:
    document = change(
        ("vm",),
        {
            "memory-mib": memory,
            "processors": processors,
            "test-timeout-s": test,
            "silence-timeout-s": silence,
        },
    )
    if memory >= 256 and processors >= 1 and 0 < test < silence:
        assert config.make_config(document, PROJECT).vm.memory_mib == memory
    else:
        refuse(document)


# -- files ------------------------------------------------------------------------------------


def test_the_project_is_the_nearest_folder_above_that_configures_twinmod(tmp_path: Path) -> None:
    inner = tmp_path / "c_tester/src"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.twinmod]\n")
    # A tester has a pyproject.toml of its own, which is not the project's.
    (tmp_path / "c_tester/pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert config.find_project_dir(inner) == tmp_path


def test_a_folder_without_a_project_above_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.find_project_dir(tmp_path)
    assert ("folder", str(tmp_path)) in caught.value.facts


@pytest.mark.parametrize(
    "content",
    [b"[tool.twinmod\n", b"\xff\xfe", b"", b"[tool]\ntwinmod = 3\n", b"x = " + b"[" * 5000],
    ids=["half a table", "no text", "nothing", "no table", "too deep"],
)
def test_a_file_that_cannot_be_read_is_a_config_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(ConfigError):
        config.read_config(tmp_path)


@pytest.mark.parametrize("path", ["mirror", "kernel"])
def test_a_null_character_is_in_no_name(path: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.twinmod]\n{path} = ["a\\u0000b"]\n')
    with pytest.raises(ConfigError, match="null character"):
        config.read_config(tmp_path)


def test_twinmod_toml_has_the_same_keys(tmp_path: Path) -> None:
    (tmp_path / "twinmod.toml").write_text(
        'kernel = "stock"\nvm.processors = 3\n[drivers.echo.modules]\n'
        'c = { name = "echo", sources = "c" }\n'
        '[kernels.stock]\nroot = "r"\nsuite = "s"\nflavour = "f"\n[roots.r]\nsuite = "s"\n'
    )
    found = config.read_config(tmp_path)
    assert (found.driver.name, found.vm.processors) == ("echo", 3)
    assert config.find_project_dir(tmp_path) == tmp_path


def test_a_folder_with_both_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twinmod.toml").write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.twinmod.drivers.echo]\n")
    with pytest.raises(ConfigError, match=r"both twinmod\.toml and pyproject\.toml") as caught:
        config.read_config(tmp_path)
    assert len(caught.value.facts) == 2


def test_a_pyproject_of_another_program_lies_beside_twinmod_toml(tmp_path: Path) -> None:
    (tmp_path / "twinmod.toml").write_text('[drivers.echo.modules.c]\nstock = "loop"\n')
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert config.list_files(tmp_path) == (tmp_path / "twinmod.toml",)


def test_a_table_below_is_a_configuration_too(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.twinmod.drivers.echo.modules]\n")
    assert config.find_project_dir(tmp_path) == tmp_path


def test_a_project_without_its_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read_config(tmp_path)


@pytest.mark.parametrize("text", ["tool = 3  # [tool.twinmod]\n", "# [tool.twinmod]\n"])
def test_a_file_without_the_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match="no table"):
        config.read_config(tmp_path)


def test_a_root_has_the_common_packages_and_its_own() -> None:
    (chroot,) = config.make_config(change(("packages",), ["gcc"]), Path("/p")).chroots
    assert chroot.packages == ("gcc", "make", "rustc")


def test_another_kernel_brings_its_own_chroot() -> None:
    document = copy.deepcopy(GOOD)
    document["roots"]["sid"] = {"suite": "sid"}
    document["kernels"]["new"] = {"root": "sid", "suite": "sid", "flavour": "amd64"}
    read = config.make_config(document, Path("/p"))
    selected = config.select_kernel(read, "new")
    assert (selected.kernel.name, selected.chroot.name) == ("new", "sid")
    with pytest.raises(ConfigError, match=r"there are: .*new"):
        config.select_kernel(read, "old")


def test_another_size_of_the_vm_changes_nothing_else() -> None:
    read = config.make_config(copy.deepcopy(GOOD), Path("/p"))
    selected = config.select_memory(read, 300)
    assert selected.vm == replace(read.vm, memory_mib=300)
    assert config.select_memory(selected, read.vm.memory_mib) == read


# -- a person's own tree ----------------------------------------------------------------------


def configure(**table: str) -> dict[str, Any]:
    """Return a good document with one more kernel."""
    return change(("kernels", "mine"), {"root": "trixie", **table})


def read_mine(project: Path, **table: str) -> KernelSpec:
    read = config.make_config(configure(**table), project)
    return config.select_kernel(read, "mine").kernel


def test_a_tree_is_relative_to_the_project_absolute_or_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    project = tmp_path / "project"
    relative, absolute, home = (
        read_mine(project, tree=tree) for tree in ("../linux", f"{tmp_path}/linux", "~/linux")
    )
    assert relative.tree_dir == absolute.tree_dir == tmp_path / "linux"
    assert home.tree_dir == tmp_path / "me/linux"
    assert (relative.suite, relative.flavour) == ("", "")


def test_a_tree_is_built_in_itself_or_where_it_is_said(tmp_path: Path) -> None:
    assert read_mine(tmp_path, tree="linux").build_dir == tmp_path / "linux"
    assert read_mine(tmp_path, tree="linux", build="out/k").build_dir == tmp_path / "out/k"


def test_the_same_folder_said_in_two_ways_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "linux").mkdir()
    (tmp_path / "link").symlink_to("linux")
    spec = read_mine(tmp_path, tree="linux", build="link/../link")
    assert spec.build_dir == spec.tree_dir


@pytest.mark.parametrize(
    "table",
    [
        {"tree": "x", "suite": "sid"},
        {"tree": "x", "flavour": "amd64"},
        {"tree": "x", "series": "7.2"},
        {"build": "x", "suite": "sid", "flavour": "amd64"},
    ],
    ids=str,
)
def test_a_kernel_is_a_tree_or_of_a_suite_and_not_both(table: dict[str, str]) -> None:
    assert "kernels.mine has `tree` or `build` beside `" in refuse(configure(**table))


def test_a_kernel_that_is_neither_is_refused() -> None:
    assert "kernels.mine lacks `suite`" in refuse(configure())
    assert "kernels.mine lacks `suite`" in refuse(configure(tree=""))
    assert "kernels.mine has `build` and lacks `tree`" in refuse(configure(build="x"))


@pytest.mark.parametrize("tree", ["~no-such-user-here/linux", "a\0b"])
def test_a_folder_that_cannot_be_is_refused(tree: str) -> None:
    assert "cannot be" in refuse(configure(tree=tree))


# -- a kernel of our own options --------------------------------------------------------------


def configure_debug(**table: object) -> dict[str, Any]:
    """Return a configuration with a kernel `mine` beside its own."""
    document = configure()
    document["kernels"]["mine"] = {"root": "trixie", **table}
    return document


def test_a_kernel_may_be_built_from_the_source_of_another_one(tmp_path: Path) -> None:
    document = configure_debug(
        source="stock", options=["KASAN", "X=n"], **{"command-line": ["nokaslr"]}
    )
    spec = config.select_kernel(config.make_config(document, tmp_path), "mine").kernel
    assert (spec.source, spec.suite) == ("stock", "")
    assert spec.options == ("KASAN", "X=n")
    assert spec.command_line == ("nokaslr",)


@pytest.mark.parametrize("source", ["nobody", "mine"])
def test_a_source_is_a_kernel_of_a_suite(source: str) -> None:
    assert f"kernels.mine.source = '{source}' names no kernel of a suite" in refuse(
        configure_debug(source=source)
    )


@pytest.mark.parametrize("option", ["CONFIG_KASAN", "kasan", "", "KASAN=", "KASAN=y z", "-e KASAN"])
def test_an_option_that_is_none_is_refused(option: str) -> None:
    words = refuse(configure_debug(source="stock", options=[option]))
    assert f"kernels.mine.options has {option!r}" in words


def test_options_are_for_a_kernel_that_is_built() -> None:
    assert "kernels.mine has `options` and lacks `source`" in refuse(
        configure_debug(options=["KASAN"])
    )
    assert "beside `suite`" in refuse(configure_debug(source="stock", suite="sid", flavour="amd64"))
    assert "beside `source`" in refuse(configure_debug(source="stock", tree="linux"))


def test_a_slow_kernel_has_more_time_however_often_it_is_selected(tmp_path: Path) -> None:
    document = configure_debug(source="stock", options=["KASAN"], patience=4)
    read = config.make_config(document, tmp_path)
    once = config.select_kernel(read, "mine")
    for selected in (once, config.select_kernel(once, "mine")):
        assert selected.vm.boot_timeout_s == 4 * read.vm.boot_timeout_s
        assert selected.vm.test_timeout_s == 4 * read.vm.test_timeout_s
        assert selected.vm.silence_timeout_s == 4 * read.vm.silence_timeout_s
    assert config.select_kernel(once, read.kernel.name).vm == read.vm


def test_no_kernel_is_hurried() -> None:
    words = refuse(configure_debug(source="stock", options=["KASAN"], patience=0.5))
    assert "kernels.mine.patience is 0.5: at least 1" in words
