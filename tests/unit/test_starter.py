# SPDX-License-Identifier: GPL-2.0-only
"""A new project made of templates: its files are what a stranger would write."""

import ast
import shutil
import sys
from itertools import product
from pathlib import Path

import pytest

from twinmod.base import process, templates
from twinmod.base.progress import Progress
from twinmod.builds import build
from twinmod.errors import ConfigError
from twinmod.experiments import mutants, mutants_run
from twinmod.project import kbuild, rules, skeleton, starter
from twinmod.project.starter import KINDS, NewProject

LANGUAGES = (("c",), ("rust",), ("c", "rust"), ("rust", "c"))

EVERY = [
    (kind, languages, bare) for kind, languages, bare in product(KINDS, LANGUAGES, (False, True))
]


def plan(
    kind: str, languages: tuple[str, ...] = ("c", "rust"), *, bare: bool = False
) -> NewProject:
    return starter.plan_project("my-echo", kind, languages, skeleton=bare)


def make(folder: Path, project: NewProject) -> Path:
    skeleton.write_new(folder, starter.make_files(project))
    return folder


@pytest.mark.parametrize(("kind", "languages", "bare"), EVERY)
def test_a_new_project_is_a_valid_project(
    kind: str, languages: tuple[str, ...], tmp_path: Path, progress: Progress, *, bare: bool
) -> None:
    folder = make(tmp_path / "my-echo", plan(kind, languages, bare=bare))
    found = skeleton.read_project(folder, progress)
    assert found.root_dir == folder
    assert found.driver.name == "my-echo"
    assert found.labels == languages
    assert [module.name for module in found.modules] == [f"my_echo_{name}" for name in languages]
    for module in found.modules:
        (source,) = (folder / module.sources).iterdir()
        assert source.stem == module.name
    assert [number for number, _ in rules.read_rules(found)] == [*starter.RULES]


@pytest.mark.parametrize(("kind", "languages", "bare"), EVERY)
def test_a_new_project_speaks_of_itself_alone(
    kind: str, languages: tuple[str, ...], *, bare: bool
) -> None:
    files = dict(starter.make_files(plan(kind, languages, bare=bare)))
    others = {"c", "rust"} - {*languages}
    for name, content in files.items():
        text = content.decode()
        assert "mdriver" not in text.lower(), name
        assert "{{" not in text, name
        assert "{%" not in text, name
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n"), name
        assert "\n\n\n\n" not in text, name
        assert not any(f"my_echo_{other}" in text for other in others), name
        if name.endswith((".c", ".rs", ".py", ".toml")):
            assert "SPDX-License-Identifier: GPL-2.0-only" in text.splitlines()[0], name
    assert files["LICENSE"] == templates.find_resource("LICENSE").read_bytes()
    assert ("tests/conftest.py" in files) == bare


@pytest.mark.parametrize("languages", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_its_mutants_fit_its_sources_and_name_each_rule(
    kind: str, languages: tuple[str, ...], tmp_path: Path, progress: Progress
) -> None:
    folder = make(tmp_path / "my-echo", plan(kind, languages))
    config = skeleton.read_project(folder, progress)
    page = mutants_run.read_page(config)
    every = mutants.plan_mutants(page, languages)
    for mutant in every:
        sources = build.read_sources(config.find_module(mutant.label), folder)
        assert mutants.plan_sources(mutant, sources) != sources
    named = {rule for mutant in every for rule in mutant.rules}
    assert named | page.unmutated.keys() == {*starter.RULES}
    assert not named & page.unmutated.keys()


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_rule_has_a_test(kind: str, *, bare: bool) -> None:
    files = dict(starter.make_files(plan(kind, bare=bare)))
    tree = ast.parse(files["tests/test_rules.py"])
    tested = {
        decorator.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        and isinstance(decorator.args[0], ast.Constant)
        and ast.unparse(decorator.func) == "pytest.mark.rule"
    }
    assert tested == {*starter.RULES}


@pytest.mark.parametrize("kind", KINDS)
def test_a_skeleton_names_places_that_are_there(kind: str) -> None:
    project = plan(kind, bare=True)
    files = dict(starter.make_files(project))
    whole = dict(starter.make_files(plan(kind)))
    for module in project.modules:
        assert {*module.functions} == {*starter.RULES}
        for text in module.functions.values():
            for word in text.replace("()", "").split():
                if word not in {"and", "the", "table"}:
                    assert word in files[module.path].decode()
        # What is left out is not merely unused.
        assert len(files[module.path]) < len(whole[module.path]) or kind == "pci"


@pytest.mark.skipif(process.find_program("ruff") is None, reason="this host has no ruff")
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_its_python_is_as_ruff_wants_it(kind: str, tmp_path: Path, *, bare: bool) -> None:
    make(tmp_path / "x", plan(kind, bare=bare))
    options = ("--isolated", "--line-length", "100")
    for argv in (("check", "--select", "B,E,F,I,RUF,UP,W"), ("format", "--check")):
        command = process.Command(
            argv=("ruff", *argv, *options, str(tmp_path)), purpose="ruff", timeout_s=30
        )
        status, output = process.run_unchecked(command)
        assert status == 0, output


@pytest.mark.parametrize("kind", KINDS)
def test_its_sessions_are_verbs(kind: str, tmp_path: Path) -> None:
    make(tmp_path / "x", plan(kind))
    command = process.Command(
        argv=(sys.executable, "-m", "nox", "--list", "-f", str(tmp_path / "x/noxfile.py")),
        purpose="nox",
        timeout_s=60,
    )
    status, output = process.run_unchecked(command)
    assert status == 0, output
    for verb in ("build", "test", "lint-kernel", "shell"):
        assert f" {verb} -> " in output


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Echo", "did you mean echo?"),
        ("my echo", "did you mean my-echo?"),
        ("1echo", "did you mean echo?"),
        ("echo_", "did you mean echo?"),
        ("a--b", "did you mean a-b?"),
        ("echo.c", "did you mean echo-c?"),
        ("é", ""),
        ("e", ""),
        ("", ""),
        ("-x", ""),
        ("x" * 51, f"did you mean {'x' * 50}?"),
    ],
)
def test_a_name_that_something_refuses_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a driver") as caught:
        starter.plan_project(name, "misc", ("c",))
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["ab", "echo", "my_echo", "my-echo2", "x" * 50])
def test_a_name_that_all_take_is_taken(name: str) -> None:
    assert starter.plan_project(name, "misc", ("c",)).name == name


@pytest.mark.parametrize("languages", [("go",), ("c", "c++"), ("",), ("C",)])
def test_a_language_that_no_module_is_written_in_is_refused(languages: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="is not a language"):
        starter.plan_project("echo", "misc", languages)


def test_a_language_twice_is_one_module() -> None:
    assert len(starter.plan_project("echo", "misc", ("c", "c")).modules) == 1


def test_without_mdriver_a_project_is_made_and_a_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: Progress
) -> None:
    checkout = templates.find_shipped_dir()
    package = tmp_path / "twinmod"
    shutil.copytree(templates.PACKAGE_DIR, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "VERSION", "templates", "toolchain/locks"):
        target, source = package / Path(name).name, checkout / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    monkeypatch.setattr(templates, "PACKAGE_DIR", package)
    monkeypatch.setattr(templates, "_CHECKOUT_DIR", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="lacks the project mdriver"):
        skeleton.read_shipped()
    found = skeleton.read_project(make(tmp_path / "my-echo", plan("misc")), progress)
    assert found.lock_path == package / "locks/guest.txt"
    (tmp_path / "own").mkdir()
    (tmp_path / "own/Kbuild").write_text("obj-m := own.o\n")
    assert skeleton.read_project(tmp_path / "own", progress).driver.name == "own"
    kbuild.write_config(tmp_path / "own")
    assert templates.read_version()


def test_nothing_but_an_empty_folder_and_a_copy_needs_mdriver() -> None:
    users = {
        str(path.relative_to(templates.PACKAGE_DIR))
        for path in templates.PACKAGE_DIR.rglob("*.py")
        if "find_shipped_dir" in path.read_text() or "templates.DATA" in path.read_text()
    }
    assert users == {"base/templates.py", "project/skeleton.py"}
