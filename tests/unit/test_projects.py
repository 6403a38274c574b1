# SPDX-License-Identifier: GPL-2.0-only
"""The tries of projects of others: what they change is there, and what they expect is looked at."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from twinmod.base.progress import Quiet
from twinmod.errors import ExitCode
from twinmod.project import config, skeleton, starter
from twinmod.ui import cli, manual

FOLDER = Path(__file__).resolve().parents[1] / "projects"
sys.path.insert(0, str(FOLDER))

import tries  # noqa: E402

TRIES = tries.plan_all()
CALLS = [(one, step) for one in TRIES for step in one.steps]

#: What each kind of new project is called in its try.
MADE = {one.name: one for one in TRIES if one.name.startswith("made-")}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, which lies outside the package."""
    spec = importlib.util.spec_from_file_location("projects_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["projects_run"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["projects_run"]


def test_the_tries_call_verbs_and_have_names_of_their_own() -> None:
    verbs = {verb.name.split()[0] for verb in manual.list_verbs(cli.cli)}
    assert {step.arguments[0] for _, step in CALLS} <= verbs
    assert len({one.name for one in TRIES}) == len(TRIES)


@pytest.mark.parametrize("name", MADE)
def test_what_a_try_changes_in_a_new_project_is_there(name: str, tmp_path: Path) -> None:
    kind = name.removeprefix("made-")
    project = starter.plan_project(name, kind, ("c", "rust"))
    skeleton.write_new(tmp_path / name, starter.make_files(project))
    for step in MADE[name].steps[1:]:
        step.change(tmp_path / step.folder)
    source = (tmp_path / name / f"c/{name.replace('-', '_')}_c.c").read_text()
    assert "kmalloc" in source
    assert tries.STORE_C not in source


@pytest.mark.parametrize("one", [one for one in TRIES if not one.package])
def test_a_configuration_of_a_try_is_valid(one: Any, script: ModuleType, tmp_path: Path) -> None:
    folder = script.write_files(one, tmp_path, tmp_path / "folder")
    if (folder / config.FILE).is_file():
        assert skeleton.read_project(folder, Quiet()).drivers


def test_lime_gets_its_parameters_where_init_wrote_its_module(tmp_path: Path) -> None:
    path = tmp_path / config.FILE
    path.write_text('c = { sources = ".", name = "lime" }\n')
    tries.add_parameters(tmp_path)
    assert '"lime", parameters = ["path=' in path.read_text()


def test_the_page_is_a_try_with_its_files_and_commands() -> None:
    page = next(one for one in TRIES if one.name == "your-driver.md")
    assert {"hello/Kbuild", "hello/main.c", "hello/greeting.c"} <= {*page.files}
    first, *_, last = page.steps
    assert (first.folder, first.arguments) == ("hello", ("build",))
    assert (last.folder, last.arguments) == ("echo", ("test",))


@pytest.mark.parametrize(
    ("code", "said", "debugged", "lack"),
    [
        (0, "2 passed", "Line 7", ""),
        (1, "2 passed", "Line 7", "exit code 1, not 0"),
        (0, "3 passed", "Line 7", "nobody said 2 p"),
        (0, "2 passed", "", "nobody said Line"),
    ],
)
def test_a_call_lacks_what_was_expected(
    code: int, said: str, debugged: str, lack: str, script: ModuleType
) -> None:
    step = tries.Step(arguments=("shell",), says="2 p", asked="info line x", answer="Line")
    call = script.Call(
        attempt=TRIES[0], step=step, code=code, said=f"{said}\n\n", debugged=debugged, seconds=1.0
    )
    assert call.lack == lack
    assert call.last_line == said
    assert call.step.code == ExitCode.PASSED
