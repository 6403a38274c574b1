# SPDX-License-Identifier: GPL-2.0-only
"""``[tool.twinmod]`` is read strictly: what is not understood is refused, by name."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.cells import model
from twinmod.errors import ConfigError
from twinmod.project import config
from twinmod.project.model import KernelSpec, Language

PROJECT = Path("/project")

CHECKOUT = Path(__file__).resolve().parents[2]

GOOD: dict[str, Any] = {
    "kernel": "stock",
    "contract": "DEVICE.md",
    "matrix": "tests/matrix",
    "lock": "toolchain/locks/guest.txt",
    "chroots": {"trixie": {"suite": "trixie", "packages": ["make", "rustc"]}},
    "kernels": {
        "stock": {"chroot": "trixie", "suite": "trixie-backports", "flavour": "amd64"},
        "other": {"chroot": "trixie", "suite": "sid", "flavour": "amd64"},
    },
    "modules": {
        "mdriver_c": {"language": "c", "sources": "c_module"},
        "mdriver_rust": {
            "language": "rust",
            "sources": "rust_module",
            "subdirs": "samples/rust/mdriver_rust",
        },
    },
    "testers": {
        "c": {"project": "c_tester", "package": "mdriver_tester_c"},
        "rust": {"project": "rust_tester", "package": "mdriver_tester_rust"},
    },
    "vm": {"memory-mib": 1024, "processors": 2},
}

TABLES = (
    (),
    ("chroots", "trixie"),
    ("kernels", "stock"),
    ("modules", "mdriver_c"),
    ("testers", "c"),
    ("vm",),
)

REQUIRED = (
    ("kernel",),
    ("contract",),
    ("matrix",),
    ("lock",),
    ("chroots",),
    ("kernels",),
    ("modules",),
    ("testers",),
    ("chroots", "trixie", "suite"),
    ("kernels", "stock", "chroot"),
    ("kernels", "stock", "suite"),
    ("kernels", "stock", "flavour"),
    ("modules", "mdriver_c", "language"),
    ("modules", "mdriver_c", "sources"),
    ("testers", "c", "project"),
    ("testers", "c", "package"),
)


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


def refuse(document: dict[str, Any]) -> str:
    """Return why a document is refused."""
    with pytest.raises(ConfigError) as caught:
        config.make_config(document, PROJECT)
    assert ("file", "/project/pyproject.toml") in caught.value.facts
    return caught.value.message


def test_a_good_table_becomes_nouns_with_every_reference_resolved() -> None:
    found = config.make_config(GOOD, PROJECT)
    assert found.kernel.name == "stock"
    assert found.kernel.suite == "trixie-backports"
    assert found.chroot.name == "trixie"
    assert found.chroot.packages == ("make", "rustc")
    assert found.contract_path == PROJECT / "DEVICE.md"
    assert found.matrix_dir == PROJECT / "tests/matrix"
    assert found.lock_path == PROJECT / "toolchain/locks/guest.txt"
    assert found.out_dir == PROJECT / "out"
    assert found.mirror == ""
    assert found.bench_path is None
    assert found.vm.memory_mib == 1024
    assert found.vm.silence_timeout_s > found.vm.test_timeout_s
    assert found.find_module(Language.RUST).subdirs == "samples/rust/mdriver_rust"
    assert found.find_module(Language.C).subdirs == ""


def test_the_cells_are_every_module_with_every_tester_in_order() -> None:
    cells = model.plan_cells(config.make_config(GOOD, PROJECT))
    assert [cell.name for cell in cells] == ["c/c", "c/rust", "rust/c", "rust/rust"]
    assert [cell.module for cell in cells] == [
        "mdriver_c",
        "mdriver_c",
        "mdriver_rust",
        "mdriver_rust",
    ]


def test_this_project_is_configured() -> None:
    found = config.read_config(CHECKOUT)
    assert (CHECKOUT / found.contract_path).is_file()
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


@given(st.text().filter(lambda name: name not in {*GOOD, "mirror"}))
def test_no_other_key_is_known(name: str) -> None:
    refuse(change((name,), "x"))


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_missing_key_is_refused_by_name(path: tuple[str, ...]) -> None:
    assert f"`{path[-1]}`" in refuse(remove(path))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kernel",), 7),
        (("mirror",), ["http://x"]),
        (("chroots",), []),
        (("chroots", "trixie", "packages"), "make"),
        (("chroots", "trixie", "packages"), ["a", 1]),
        (("kernels", "stock", "suite"), None),
        (("modules", "mdriver_c"), "c_module"),
        (("vm", "memory-mib"), "1024"),
        (("vm", "processors"), True),
        (("vm", "processors"), 1.5),
        (("vm", "boot-timeout-s"), "20"),
        (("vm",), 3),
    ],
    ids=str,
)
def test_a_wrong_type_is_refused(path: tuple[str, ...], value: object) -> None:
    assert "is not valid" in refuse(change(path, value))


def test_keys_are_written_with_hyphens_only() -> None:
    assert "`memory_mib`" in refuse(change(("vm", "memory_mib"), 1024))


def test_a_kernel_that_is_not_configured_is_refused_with_those_that_are() -> None:
    message = refuse(change(("kernel",), "sid"))
    assert "'sid'" in message
    assert "stock, other" in message


@pytest.mark.parametrize("name", ["stock", "other"])
def test_a_chroot_that_is_not_configured_is_refused_also_where_it_is_not_used(name: str) -> None:
    message = refuse(change(("kernels", name, "chroot"), "sid"))
    assert f"kernels.{name}.chroot" in message
    assert "trixie" in message


@pytest.mark.parametrize("gone", ["mdriver_c", "mdriver_rust"])
def test_one_module_alone_is_no_pair(gone: str) -> None:
    assert "one module in c and one in rust" in refuse(remove(("modules", gone)))


def test_two_modules_of_one_language_are_no_pair() -> None:
    document = change(("modules", "mdriver_rust", "language"), "c")
    assert "not c, c" in refuse(document)


def test_a_third_module_is_refused() -> None:
    document = change(("modules", "mdriver_d"), {"language": "c", "sources": "d"})
    assert "not c, c, rust" in refuse(document)


def test_an_unknown_language_is_refused() -> None:
    assert "not rust, zig" in refuse(change(("modules", "mdriver_c", "language"), "zig"))


@pytest.mark.parametrize("gone", ["c", "rust"])
def test_one_tester_alone_is_refused(gone: str) -> None:
    assert "must have c and rust" in refuse(remove(("testers", gone)))


def test_no_modules_at_all_are_refused() -> None:
    assert "not none" in refuse(change(("modules",), {}))


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


@pytest.mark.parametrize("path", ["matrix", "kernel"])
def test_a_null_character_is_in_no_name(path: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.twinmod]\n{path} = ["a\\u0000b"]\n')
    with pytest.raises(ConfigError, match="null character"):
        config.read_config(tmp_path)


def test_a_project_without_its_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read_config(tmp_path)


@pytest.mark.parametrize("text", ["tool = 3  # [tool.twinmod]\n", "# [tool.twinmod]\n"])
def test_a_file_without_the_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match="no table"):
        config.read_config(tmp_path)


def test_a_chroot_has_the_common_packages_and_its_own() -> None:
    (chroot,) = config.make_config(change(("packages",), ["gcc"]), Path("/p")).chroots
    assert chroot.packages == ("gcc", "make", "rustc")


def test_another_kernel_brings_its_own_chroot() -> None:
    document = copy.deepcopy(GOOD)
    document["chroots"]["sid"] = {"suite": "sid"}
    document["kernels"]["new"] = {"chroot": "sid", "suite": "sid", "flavour": "amd64"}
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
    return change(("kernels", "mine"), {"chroot": "trixie", **table})


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
    document["kernels"]["mine"] = {"chroot": "trixie", **table}
    return document


def test_a_kernel_may_be_built_from_the_source_of_another_one(tmp_path: Path) -> None:
    document = configure_debug(source="stock", options=["KASAN", "X=n"], parameters=["nokaslr"])
    spec = config.select_kernel(config.make_config(document, tmp_path), "mine").kernel
    assert (spec.source, spec.suite) == ("stock", "")
    assert spec.options == ("KASAN", "X=n")
    assert spec.parameters == ("nokaslr",)


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
