# SPDX-License-Identifier: GPL-2.0-only
"""An empty folder is worked in with the project that twinmod ships with, or becomes one."""

import shlex
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fakevm
from twinmod.base import cache, files, process, templates
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.errors import ConfigError, MissingToolError
from twinmod.project import config as project_config
from twinmod.project import skeleton

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Our wheel, as its backend builds it of this checkout."""
    out_dir = tmp_path_factory.mktemp("a wheel")
    program = "import sys; from scikit_build_core import build; build.build_wheel(sys.argv[1])"
    argv = (sys.executable, "-c", program, str(out_dir))
    process.run(Command(argv=argv, purpose="the wheel", timeout_s=60, working_dir=CHECKOUT))
    (path,) = out_dir.glob("twinmod-*-py3-none-any.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked as an install would, in a folder that is not to be written to."""
    site_dir = tmp_path_factory.mktemp("site packages")
    wheel.extractall(site_dir)
    return site_dir / "twinmod"


def test_the_wheel_carries_each_file_of_the_project(wheel: zipfile.ZipFile) -> None:
    config = project_config.read_config(CHECKOUT)
    parts = (*skeleton.plan_parts(config), "pyproject.toml")
    shipped = dict(file for part in parts for file in skeleton.read_part(CHECKOUT, part))
    carried = {
        name.removeprefix("twinmod/data/"): wheel.read(name)
        for name in wheel.namelist()
        if name.startswith("twinmod/data/")
    }
    assert carried == shipped


def test_the_wheel_carries_the_package_and_its_manual(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = {
        f"twinmod/{path.relative_to(templates.PACKAGE_DIR)}"
        for path in templates.PACKAGE_DIR.rglob("*.py")
        if templates.DATA not in path.parts
    }
    assert package <= names
    assert "twinmod/guest/native/profiler.c" in names
    assert {"twinmod/project/builtin.toml", "twinmod/locks/guest.txt"} <= names
    assert {"twinmod/LICENSE", "twinmod/VERSION"} <= names
    own = {
        f"twinmod/templates/{path.relative_to(CHECKOUT / 'templates')}"
        for path in (CHECKOUT / "templates").rglob("*.j2")
    }
    assert own == {name for name in names if name.startswith("twinmod/templates/")}
    assert [name for name in names if name.endswith(".data/data/share/man/man1/twinmod.1")]


def test_nothing_that_a_build_left_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    parts = {part for name in wheel.namelist() for part in name.split("/")}
    left = shutil.ignore_patterns(*files.LEFT, "out", "*.pyc")
    assert left("", sorted(parts)) == set()


def test_an_installed_copy_works_on_what_it_carries_and_writes_where_one_is(
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    progress: Progress,
    told: list[str],
) -> None:
    monkeypatch.setattr(templates, "PACKAGE_DIR", installed)
    found = skeleton.read_project(tmp_path, progress)
    assert found.root_dir == installed / "data"
    assert found.out_dir == tmp_path / "out"
    assert found.contract_path is not None
    assert found.contract_path.is_file()
    assert found.lock_path.is_file()
    assert found.matrix_dir.is_dir()
    assert "ships with" in told[0]
    assert not list(tmp_path.iterdir())


def test_a_checkout_is_what_its_own_twinmod_ships_with(tmp_path: Path, progress: Progress) -> None:
    found = skeleton.read_project(tmp_path, progress)
    assert (found.root_dir, found.out_dir) == (CHECKOUT, tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "makefile",
        "GNUmakefile",
        "Kconfig",
        "hello.c",
        "hello.rs",
        "hello.h",
        "entry.S",
        "src/hello.c",
        "src/Kbuild",
        "driver/hello.rs",
        "Cargo.toml",
        "dkms.conf",
        "meson.build",
        "CMakeLists.txt",
        "pyproject.toml",
        "build/Makefile",
    ],
)
def test_somebody_elses_sources_are_not_taken_for_an_empty_folder(
    name: str, tmp_path: Path, progress: Progress, told: list[str]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("obj-m := hello.o\n")
    with pytest.raises(ConfigError, match=r"and no Kbuild, no twinmod\.toml") as caught:
        skeleton.read_project(tmp_path, progress)
    assert caught.value.facts == (("folder", str(tmp_path)), ("found", name))
    assert caught.value.hint.endswith("twinmod new NAME")
    assert "twinmod.toml" in caught.value.hint
    assert not told


def test_a_few_of_many_sources_are_named(tmp_path: Path, progress: Progress) -> None:
    for number in range(5):
        (tmp_path / f"part{number}.c").touch()
    with pytest.raises(ConfigError) as caught:
        skeleton.read_project(tmp_path, progress)
    assert ("found", "part0.c, part1.c, part2.c and 2 more") in caught.value.facts


@pytest.mark.parametrize(
    "name",
    [
        "out/build/7.3.4/mdriver_c/mdriver_c.c",
        "out/report.c",
        "out/Makefile",
        ".git/config.c",
        ".venv/x.h",
        "notes.txt",
        "twinmod-0.1.0-py3-none-any.whl",
        "hello.o",
        "a/b/hello.c",
        "Makefile/README",
    ],
)
def test_what_is_nobodys_source_is_as_good_as_nothing(
    name: str, tmp_path: Path, progress: Progress
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert skeleton.read_project(tmp_path, progress).root_dir == CHECKOUT


def test_a_project_one_folder_down_is_the_one_that_is_meant(
    tmp_path: Path, progress: Progress
) -> None:
    skeleton.write_new(tmp_path / "my driver", skeleton.read_shipped())
    with pytest.raises(ConfigError, match="but in my driver") as caught:
        skeleton.read_project(tmp_path, progress)
    assert caught.value.hint == "cd 'my driver'"


def test_sources_in_a_project_of_ones_own_are_its_own(tmp_path: Path, progress: Progress) -> None:
    skeleton.write_new(tmp_path / "mine", skeleton.read_shipped())
    (tmp_path / "mine/c_module/Makefile").touch()
    found = skeleton.read_project(tmp_path / "mine/c_module", progress)
    assert found.root_dir == tmp_path / "mine"


def test_a_project_of_ones_own_comes_first_and_is_not_remarked_on(
    tmp_path: Path, progress: Progress, told: list[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        project_config.render_project((CHECKOUT / "pyproject.toml").read_text())
    )
    (tmp_path / "deep/er").mkdir(parents=True)
    found = skeleton.read_project(tmp_path / "deep/er", progress)
    assert (found.root_dir, found.out_dir) == (tmp_path, tmp_path / "out")
    assert not told


def test_a_project_that_is_not_valid_is_not_passed_over(tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.twinmod]\nkernel = 3\n")
    with pytest.raises(ConfigError, match="is not valid"):
        skeleton.read_project(tmp_path, progress)


def test_what_is_cut_out_of_a_pyproject_is_its_table_and_nothing_else() -> None:
    text = (CHECKOUT / "pyproject.toml").read_text()
    cut = tomllib.loads(project_config.render_project(text))
    assert cut == {"tool": {"twinmod": tomllib.loads(text)["tool"]["twinmod"]}}
    assert project_config.render_project(text).startswith(
        "# SPDX-License-Identifier: GPL-2.0-only\n[tool.twinmod]\n"
    )
    assert project_config.render_project(
        "[a]\nb = 1\n[tool.twinmod.vm]\nx = [\n 1,\n]\n[tool.twinmodern]\ny = 2\n"
    ) == ("[tool.twinmod.vm]\nx = [\n 1,\n]\n")


@pytest.mark.parametrize("made", [False, True])
def test_a_new_project_is_whole_and_stands_alone(
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    progress: Progress,
    *,
    made: bool,
) -> None:
    monkeypatch.setattr(templates, "PACKAGE_DIR", installed)
    target_dir = tmp_path / "my project"
    if made:
        target_dir.mkdir()
    inode = target_dir.stat().st_ino if made else None
    skeleton.write_new(target_dir, skeleton.read_shipped())
    # A person may be in it.
    assert inode in {None, target_dir.stat().st_ino}
    assert not list(target_dir.glob(".*"))
    assert [path.name for path in tmp_path.iterdir()] == ["my project"]
    found = skeleton.read_project(target_dir, progress)
    assert found.root_dir == target_dir
    for part in skeleton.plan_parts(found):
        assert skeleton.read_part(target_dir, part) == skeleton.read_part(CHECKOUT, part)


@pytest.mark.parametrize("content", ["file", "folder"])
def test_a_folder_that_holds_something_does_not_become_a_project(
    content: str, tmp_path: Path
) -> None:
    target_dir = tmp_path / "mine"
    if content == "folder":
        target_dir.mkdir()
        (target_dir / ".git").mkdir()
    else:
        target_dir.write_text("mine")
    with pytest.raises(ConfigError, match="a new or an empty folder") as caught:
        skeleton.write_new(target_dir, skeleton.read_shipped())
    assert ("folder", str(target_dir)) in caught.value.facts
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_new_project_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingToolError, match="cannot be written"):
        skeleton.write_new(tmp_path / "file/project", skeleton.read_shipped())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_copy_is_of_a_version_and_not_of_the_commit_of_its_wheel(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_dir = tmp_path / "twinmod"
    shutil.copytree(installed, package_dir)
    for name in ("VERSION", "data/VERSION"):
        (package_dir / name).write_text("0.3.0rc1+g1a2b3c4d5e6f.dirty\n")
    monkeypatch.setattr(templates, "PACKAGE_DIR", package_dir)
    assert templates.read_version() == "0.3.0rc1+g1a2b3c4d5e6f.dirty"
    skeleton.write_new(tmp_path / "new", skeleton.read_shipped())
    assert (tmp_path / "new/VERSION").read_text() == "0.3.0rc1\n"


def test_a_copy_that_is_not_whole_says_what_it_lacks(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "pyproject.toml").write_bytes((installed / "data/pyproject.toml").read_bytes())
    monkeypatch.setattr(templates, "PACKAGE_DIR", tmp_path)
    with pytest.raises(
        ConfigError, match=r"lacks DEVICE\.md, LICENSE, VERSION, c_module"
    ) as caught:
        skeleton.write_new(tmp_path / "new", skeleton.read_shipped())
    assert caught.value.hint.startswith("pip install")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def without_mdriver(installed: Path, tmp_path: Path) -> Path:
    """A folder to import twinmod from, as installed and with nothing of mdriver in it."""
    site_dir = tmp_path / "site"
    shutil.copytree(installed, site_dir / "twinmod")
    shutil.rmtree(site_dir / "twinmod/data")
    return site_dir


def test_a_wheel_without_mdriver_makes_builds_and_tests_projects_of_ones_own(
    without_mdriver: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    make_elf: fakevm.MakeElf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_builtin = project_config.read_builtin
    host = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    # What the command reads in a process of its own.
    monkeypatch.setattr(project_config, "read_builtin", read_builtin)
    fakevm.write_module(host.home_dir, "echo_c", make_elf)
    program = "import sys; sys.argv[0] = 'twinmod'; from twinmod.ui import cli; cli.main()"

    def call(folder: Path, *arguments: str) -> None:
        environment = (
            ("PYTHONPATH", str(without_mdriver)),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("TWINMOD_CACHE_DIR", str(cache.find_cache_dir())),
        )
        argv = (sys.executable, "-c", program, *arguments)
        purpose = shlex.join(arguments)
        command = Command(
            argv=argv,
            purpose=purpose,
            timeout_s=60,
            working_dir=folder,
            environment=environment,
        )
        status, output = process.run_unchecked(command)
        assert status == 0, output

    def configure(folder: Path) -> None:
        path = folder / "twinmod.toml"
        path.write_text(fakevm.KERNEL + path.read_text())
        (folder / "lock.txt").write_text("")
        fakevm.write_cache(project_config.read_config(folder))

    echo, own = tmp_path / "echo", tmp_path / "own"
    call(tmp_path, "new", "echo", "--languages", "c")
    configure(echo)
    rules = [act for rule in ("R1", "R2", "R3", "R4") for act in fakevm.run_test(rule)]
    host.play_cell("c", fakevm.begin("c"), *rules, fakevm.end())
    call(echo, "build")
    call(echo, "test", "--cold")
    assert (echo / "out/test/report.json").is_file()
    own.mkdir()
    (own / "Kbuild").write_text("obj-m := echo_c.o\n")
    (own / "echo_c.c").write_text("int x;\n")
    call(own, "init")
    configure(own)
    call(own, "build")
    call(own, "test", "--cold")
    assert (own / "out/test/report.json").is_file()
