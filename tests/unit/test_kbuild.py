# SPDX-License-Identifier: GPL-2.0-only
"""A folder with a Kbuild needs no configuration, and `init` writes what it stands for."""

import errno
import tomllib
from pathlib import Path

import pytest

from twinmod.base import cache
from twinmod.base.progress import Progress
from twinmod.errors import ConfigError, MissingToolError
from twinmod.project import config as project_config
from twinmod.project import kbuild, names, skeleton
from twinmod.project.config import Config

TWO_FILES = """\
# SPDX-License-Identifier: GPL-2.0-only
obj-m := two_files.o
two_files-y := main.o other.o
ccflags-y := -DX
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def list_modules(config: Config) -> list[tuple[str, str, str, str]]:
    """Return (driver, label, name, sources) of all modules of a project."""
    return [
        (driver.name, module.label, module.name, module.sources)
        for driver in config.drivers
        for module in driver.modules
    ]


@pytest.mark.parametrize(
    ("files", "modules"),
    [
        ({"Kbuild": TWO_FILES, "main.c": "", "other.c": ""}, [("two_files", "c", "two_files")]),
        ({"Makefile": "obj-m := hello.o\n", "hello.c": ""}, [("hello", "c", "hello")]),
        ({"Makefile": "obj-m := hello.o\n", "hello.rs": ""}, [("hello", "rust", "hello")]),
        # Of both, the module's own name.
        (
            {"Kbuild": "obj-m += mix.o\nmix-y := a.o b.o\n", "a.c": "", "b.rs": ""},
            [("mix", "mix", "mix")],
        ),
        # Each .ko is a driver of its own.
        (
            {"Kbuild": "obj-m += a.o\nobj-m += b.o\n", "a.c": "", "b.c": ""},
            [("a", "c", "a"), ("b", "c", "b")],
        ),
        # What make left, what a run left, and hidden folders are no sources.
        (
            {
                "Kbuild": "obj-m := hello.o\n",
                "src/hello.c": "",
                "hello.mod.c": "",
                "out/x.rs": "",
                ".git/x.rs": "",
            },
            [("hello", "c", "hello")],
        ),
        # The kernel writes _ for -.
        ({"Kbuild": "obj-m := my-mod.o\n", "my-mod.c": ""}, [("my-mod", "c", "my_mod")]),
        ({"Kbuild": "obj-$(CONFIG_A) += a.o\n", "a.c": ""}, [("a", "c", "a")]),
        # A Kbuild comes before a Makefile, as for make.
        (
            {"Kbuild": "obj-m := a.o\n", "Makefile": "obj-m := b.o\n", "a.c": ""},
            [("a", "c", "a")],
        ),
        (
            {"Makefile": "NAME := hello\nobj-m := $(NAME).o\n", "hello.c": ""},
            [("hello", "c", "hello")],
        ),
    ],
)
def test_a_folder_with_a_kbuild_is_a_project(
    files: dict[str, str],
    modules: list[tuple[str, str, str]],
    tmp_path: Path,
    progress: Progress,
    told: list[str],
) -> None:
    write(tmp_path, files)
    before = sorted(tmp_path.rglob("*"))
    found = skeleton.read_project(tmp_path, progress)
    assert list_modules(found) == [(*module, ".") for module in modules]
    assert (found.root_dir, found.results_dir) == (tmp_path, tmp_path / "out")
    assert found.matrix_dir == project_config.STANDARD_TESTS
    assert found.contract_path is None
    (note,) = told
    assert f"working on {', '.join(name for *_, name in modules)}" in note
    assert sorted(tmp_path.rglob("*")) == before


def test_what_init_writes_is_what_the_folder_stood_for(tmp_path: Path, progress: Progress) -> None:
    write(tmp_path, {"Kbuild": "obj-m += a.o b-c.o\n", "a.c": "", "b-c.rs": ""})
    before = skeleton.read_project(tmp_path, progress)
    kbuild.write_config(tmp_path)
    after = skeleton.read_project(tmp_path, progress)
    assert after == before
    tomllib.loads((tmp_path / "twinmod.toml").read_text())


def test_a_module_whose_name_only_make_knows_is_called_like_its_folder(
    tmp_path: Path, progress: Progress, told: list[str]
) -> None:
    folder = tmp_path / "rtl8812"
    write(folder, {"Makefile": "obj-m := $(shell echo x).o\n", "x.c": ""})
    found = skeleton.read_project(folder, progress)
    assert list_modules(found) == [("rtl8812", "c", "", ".")]
    assert "working on rtl8812" in told[0]
    kbuild.write_config(folder)
    assert skeleton.read_project(folder, progress) == found


@pytest.mark.parametrize("name", ["twinmod.toml", "pyproject.toml"])
def test_init_overwrites_nothing(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"Kbuild": "obj-m := a.o\n", name: "[tool.twinmod]\n"})
    with pytest.raises(ConfigError, match=f"this folder has a configuration: {name}"):
        kbuild.write_config(tmp_path)
    assert (tmp_path / name).read_text() == "[tool.twinmod]\n"


def test_a_folder_that_cannot_be_written_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"Kbuild": "obj-m := a.o\n"})

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache, "write_atomically", refuse)
    with pytest.raises(MissingToolError, match=r"twinmod\.toml cannot be written: Perm"):
        kbuild.write_config(tmp_path)


def test_init_leaves_alone_a_pyproject_of_something_else(
    tmp_path: Path, progress: Progress
) -> None:
    write(tmp_path, {"Kbuild": "obj-m := a.o\n", "a.c": "", "pyproject.toml": "[tool.ruff]\n"})
    kbuild.write_config(tmp_path)
    assert (tmp_path / "pyproject.toml").read_text() == "[tool.ruff]\n"
    assert list_modules(skeleton.read_project(tmp_path, progress)) == [("a", "c", "a", ".")]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "no Kbuild, and no Makefile with `obj-m`"),
        ({"Makefile": "all: hello\n"}, "no Kbuild, and no Makefile with `obj-m`"),
        ({"Kbuild": "# nothing\n"}, "no `obj-m` in it names an object"),
    ],
)
def test_init_of_a_folder_that_builds_no_module_is_refused(
    files: dict[str, str], why: str, tmp_path: Path
) -> None:
    write(tmp_path, files)
    with pytest.raises(ConfigError) as caught:
        kbuild.write_config(tmp_path)
    assert why in caught.value.message
    assert not (tmp_path / "twinmod.toml").exists()


def test_a_kbuild_that_builds_no_module_is_not_taken_for_an_empty_folder(
    tmp_path: Path, progress: Progress, told: list[str]
) -> None:
    write(tmp_path, {"Kbuild": "obj-y := a.o\n"})
    with pytest.raises(ConfigError, match="this folder's Kbuild builds no module"):
        skeleton.read_project(tmp_path, progress)
    assert not told


def test_a_makefile_of_another_program_is_somebody_elses(
    tmp_path: Path, progress: Progress
) -> None:
    write(tmp_path, {"Makefile": "hello: hello.o\n"})
    with pytest.raises(ConfigError, match="this folder holds sources"):
        skeleton.read_project(tmp_path, progress)


def test_a_folder_of_a_project_belongs_to_it_whether_it_has_a_kbuild_or_not(
    tmp_path: Path, progress: Progress, told: list[str]
) -> None:
    config = '[drivers.echo.modules]\nc = { sources = "driver", name = "echo" }\n'
    write(tmp_path, {"driver/Kbuild": "obj-m := echo.o\n", "twinmod.toml": config})
    found = skeleton.read_project(tmp_path / "driver", progress)
    assert found.root_dir == tmp_path
    assert not told


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("obj-m := a.o \\\n\tb.o # c.o\n", ("a", "b")),
        ("obj-m:=a.o\nobj-m+=a.o\n", ("a",)),
        ("  obj-m = a.o\n", ("a",)),
        ("# obj-m := a.o\n", ()),
        ("obj-m := sub/\n", ()),
        ("obj-y := a.o\n", ()),
        ("obj-m :=\nlib := a.o\n", ()),
        ("N ?= a\nexport M := ${N}-b\nobj-${CONFIG_X} := $(N).o\n", ("a",)),
    ],
)
def test_a_kbuild_says_its_modules(text: str, modules: tuple[str, ...]) -> None:
    assert names.parse_modules(text) == modules
