# SPDX-License-Identifier: GPL-2.0-only
"""An environment is installed again exactly when what it is made of is not the same."""

from pathlib import Path

import pytest

from twinmod.base import environment


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    path = tmp_path / "venv"
    path.mkdir()
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, ...]:
    paths = (tmp_path / "run.txt", tmp_path / "pyproject.toml")
    for path in paths:
        path.write_text(f"content of {path.name}\n")
    return paths


def test_an_environment_that_was_not_installed_to_the_end_is_not_current(
    venv: Path, inputs: tuple[Path, ...]
) -> None:
    assert not environment.is_current(venv, inputs)
    assert not environment.is_current(venv / "gone", inputs)


def test_an_installed_environment_is_current(venv: Path, inputs: tuple[Path, ...]) -> None:
    environment.note_current(venv, inputs)
    assert environment.is_current(venv, inputs)


def test_a_changed_lock_makes_it_old(venv: Path, inputs: tuple[Path, ...]) -> None:
    environment.note_current(venv, inputs)
    inputs[0].write_text("another lock\n")
    assert not environment.is_current(venv, inputs)


def test_another_set_of_inputs_makes_it_old(venv: Path, inputs: tuple[Path, ...]) -> None:
    environment.note_current(venv, inputs)
    assert not environment.is_current(venv, inputs[:1])


def test_an_environment_that_was_moved_is_old(
    venv: Path, inputs: tuple[Path, ...], tmp_path: Path
) -> None:
    # Its scripts name the interpreter by the old path.
    environment.note_current(venv, inputs)
    assert not environment.is_current(venv.rename(tmp_path / "moved"), inputs)


def test_what_builds_leave_is_no_input(tmp_path: Path) -> None:
    names = (
        "src/lib.rs",
        "Cargo.toml",
        "target/x.rs",
        "build/y.c",
        "p/__pycache__/z.pyc",
        "p/n.so",
        "p.egg-info/PKG-INFO",
        "m/m.ko",
        "m/m.mod.c",
        "m/modules.order",
        "p/.x.swp",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = environment.list_files(tmp_path)
    assert found == (tmp_path / "Cargo.toml", tmp_path / "src/lib.rs")


def test_what_an_editor_links_to_nowhere_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "lib.rs").write_text("")
    (tmp_path / "lock").symlink_to("me@here.1234")
    assert environment.list_files(tmp_path) == (tmp_path / "lib.rs",)
