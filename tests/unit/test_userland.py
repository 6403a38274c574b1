# SPDX-License-Identifier: GPL-2.0-only
"""What the VM's programs are made of, and what makes them new."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod import errors
from twinmod.base import files, process, templates
from twinmod.base.cache import CacheEntry, Made
from twinmod.base.sandbox import Chroot
from twinmod.errors import BuildError, ConfigError, ExitCode
from twinmod.project import model
from twinmod.userland import packages, programs
from twinmod.userland import testers as userland_testers
from twinmod.userland.testers import Tools

CHECKOUT = Path(__file__).resolve().parents[2]

#: A conftest.py of the time when a project had to bring the options itself.
OPTIONS = """\
def pytest_addoption(parser):
    for name in ("--module", "--module-path", "--tester", "--marks"):
        parser.addoption(name)
"""


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_projects_files_are_read_without_what_builds_leave(tmp_path: Path) -> None:
    write(
        tmp_path,
        "pyproject.toml",
        "src/lib.rs",
        "python/p/__init__.py",
        "target/debug/x",
        "build/x",
        "dist/p.whl",
        "python/p/__pycache__/i.pyc",
        "python/p/_native.abi3.so",
        "p.egg-info/x",
        ".venv/x",
        ".gitignore",
    )
    assert userland_testers.read_project(tmp_path) == (
        ("pyproject.toml", b"pyproject.toml"),
        ("python/p/__init__.py", b"python/p/__init__.py"),
        ("src/lib.rs", b"src/lib.rs"),
    )


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        userland_testers.read_project(tmp_path)
    assert ("file", str(tmp_path / "pyproject.toml")) in caught.value.facts


LOCK = "abc"

FILES = (("a", b"xy"), ("b", b"z"))


def test_a_tester_is_as_old_as_its_files_its_packages_and_its_chroot(root: Chroot) -> None:
    digests = [
        userland_testers.plan_digest(root, LOCK, FILES),
        userland_testers.plan_digest(root, LOCK, (("a", b"xY"), ("b", b"z"))),
        userland_testers.plan_digest(root, LOCK, (("A", b"xy"), ("b", b"z"))),
        userland_testers.plan_digest(root, LOCK, (("a", b"x"), ("b", b"yz"))),
        userland_testers.plan_digest(root, LOCK, FILES[:1]),
        userland_testers.plan_digest(root, LOCK, (("ax", b"yb"), ("", b"z"))),
        userland_testers.plan_digest(root, LOCK, (("axybz", b""),)),
        userland_testers.plan_digest(root, "another", FILES),
        userland_testers.plan_digest(replace(root, key="trixie-2"), LOCK, FILES),
    ]
    assert len(set(digests)) == len(digests)


def test_another_lock_or_chroot_is_another_set_of_packages(root: Chroot, tmp_path: Path) -> None:
    lock = tmp_path / "guest.txt"
    lock.write_text("pytest==9.2.0 --hash=sha256:0\n")
    first = packages.prepare_site(root, lock).key
    assert packages.prepare_site(replace(root, key="trixie-2"), lock).key != first
    lock.write_text("pytest==9.2.1 --hash=sha256:0\n")
    assert packages.prepare_site(root, lock).key != first


def find_mounts(argv: tuple[str, ...]) -> tuple[str, ...]:
    return argv[argv.index("/twinmod") + 1 : argv.index("--clearenv")]


def make_entry(kind: str) -> CacheEntry:
    """Return an entry that nobody makes."""

    def make(*_: object) -> Made:
        raise AssertionError(kind)

    return CacheEntry(kind=kind, key="1", make=make)


@pytest.fixture
def tools(root: Chroot, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """What the Rust tester is built with."""
    monkeypatch.setenv("TWINMOD_CACHE_DIR", "/cache")
    return Tools(chroot=root, site=make_entry("python"), crates=make_entry("crates"))


def test_the_command_that_builds_the_rust_tester(
    testers: tuple[model.TesterSpec, ...], tools: Tools
) -> None:
    command = userland_testers.plan_install(
        testers[1], tools, Path("/cache/t.partial"), Path("/cache/target")
    )
    assert command.argv[command.argv.index("--") + 1 :] == (
        "python3",
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--no-cache-dir",
        "--root-user-action=ignore",
        "--target",
        "/twinmod/scratch/site",
        "/twinmod/scratch/source/rust_tester",
    )
    mounts = find_mounts(command.argv)
    readable = {mounts[at + 1] for at, word in enumerate(mounts) if word == "--ro-bind"}
    writable = {mounts[at + 1] for at, word in enumerate(mounts) if word == "--bind"}
    assert readable == {"/cache/python/1/site"}
    assert writable == {"/cache/t.partial", "/cache/target", "/cache/crates/1/cargo"}


def test_a_tester_without_crates_is_given_none(
    testers: tuple[model.TesterSpec, ...], tools: Tools
) -> None:
    command = userland_testers.plan_install(
        testers[0], replace(tools, crates=None), Path("/w"), Path("/t")
    )
    assert "/twinmod/cargo" not in find_mounts(command.argv)


def test_a_tester_is_built_without_any_network(
    testers: tuple[model.TesterSpec, ...], tools: Tools
) -> None:
    command = userland_testers.plan_install(testers[1], tools, Path("/w"), Path("/t"))
    assert "--share-net" not in command.argv
    settings = dict(userland_testers.plan_build_environment())
    assert settings["CARGO_NET_OFFLINE"] == "true"
    assert settings["PIP_NO_INDEX"] == "1"
    assert settings["MATURIN_NO_INSTALL_RUST"] == "1"


def test_a_c_file_of_the_matrix_becomes_a_static_program_and_no_other_file_does() -> None:
    names = (
        *("matrix/compat.m32.c", "matrix/more/call.c", "matrix/more/_shared.c", "matrix/run.sh"),
        *("matrix/compat.py", "uapi/mdriver.h", "package/twinmod/x.c"),
    )
    program_32, program, compiled = programs.plan_compile(names)
    assert program == (
        *("gcc", "-static", "-O2", "-Wall", "-pthread", "-D_GNU_SOURCE=", "-I/twinmod/uapi"),
        *("-o", "/twinmod/matrix/more/call", "/twinmod/matrix/more/call.c"),
    )
    assert program_32 == (
        "gcc",
        "-m32",
        "-static",
        "-nostdlib",
        "-ffreestanding",
        "-fno-pie",
        "-no-pie",
        "-fno-stack-protector",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I/twinmod/uapi",
        "-o",
        "/twinmod/matrix/compat.m32",
        "/twinmod/matrix/compat.m32.c",
    )
    assert compiled[:3] == ("python3", "-m", "compileall")


# -- a matrix that pytest does not collect ------------------------------------------------------


def test_a_matrix_without_a_test_is_a_project_that_lacks_one(tmp_path: Path) -> None:
    error = programs.find_collect_error(tmp_path, 5, "no tests collected in 0.01s\n")
    assert isinstance(error, ConfigError)
    assert error.message == "the matrix has no test"
    assert error.facts == (("folder", str(tmp_path)),)
    assert "test_NAME.py" in error.hint


def test_a_test_in_c_that_does_not_compile_is_named_as_its_author_knows_it(tmp_path: Path) -> None:
    write(tmp_path, "more/read.c")
    output = "/twinmod/matrix/more/read.c: In function 'main':\n"
    output += "/twinmod/matrix/more/read.c:3:9: error: 'x' undeclared\n"
    (argv, compiled) = programs.plan_compile(("matrix/more/read.c",))
    error = programs.find_compile_error(tmp_path, argv, output)
    assert error.exit_code == ExitCode.BUILD_FAILED
    assert error.message == "test more/read.c does not compile"
    text = errors.render_error(error)
    assert f"{tmp_path}/more/read.c:3:9: error: 'x' undeclared" in text
    assert "gcc" not in text
    assert error.hint == ""
    error = programs.find_compile_error(tmp_path, argv, "ld: undefined reference to `main'\n")
    assert error.hint == "a file that others include has a name that begins with _"
    error = programs.find_compile_error(tmp_path, compiled, "SyntaxError")
    assert error.message == "the agent was not compiled"


def test_tests_that_do_not_import_are_named_as_their_author_knows_them(tmp_path: Path) -> None:
    write(tmp_path, "test_x.py")
    output = 'E     File "/twinmod/matrix/test_x.py", line 1\nE   SyntaxError: invalid syntax\n'
    output += "ERROR twinmod/matrix/test_x.py\n"
    error = programs.find_collect_error(tmp_path, 2, output)
    assert isinstance(error, BuildError)
    text = errors.render_error(error)
    assert f'File "{tmp_path}/test_x.py", line 1' in text
    assert "SyntaxError: invalid syntax" in text
    assert f"ERROR {tmp_path}/test_x.py" in text
    assert "bwrap" not in text


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({}, 5, "the matrix has no test"),
        ({"helper.py": "", "_lib.sh": "", "_x.c": "", "y.m32.c": ""}, 5, "the matrix has no test"),
        ({"conftest.py": OPTIONS, "test_x.py": ""}, 1, "must not add options that twinmod adds"),
        ({"test_x.py": "def test_x(: pass"}, 2, "SyntaxError"),
        (
            {"conftest.py": "import nothing_such", "test_x.py": ""},
            4,
            "No module named 'nothing_such'",
        ),
    ],
)
def test_what_pytest_says_of_a_matrix_is_in_the_error(
    files: dict[str, str], status: int, words: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    argv = (sys.executable, *programs.plan_collect(())[1:])
    argv = tuple(part.replace("/twinmod/matrix", str(tmp_path)) for part in argv)
    command = process.Command(
        argv=argv,
        purpose="pytest",
        timeout_s=60,
        environment=(
            ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONPATH", str(templates.PACKAGE_DIR.parent)),
        ),
    )
    found, output = process.run_unchecked(command)
    assert found == status
    assert words in errors.render_error(programs.find_collect_error(tmp_path, found, output))


@pytest.mark.parametrize(
    ("narrowing", "status", "message", "hint"),
    [
        (
            ("--rule", "R26"),
            5,
            "--rule R26 matches no test",
            'no test in /p/tests/matrix is marked @pytest.mark.rule("R26")',
        ),
        (("--rule", "R4", "-k", "no"), 5, "--rule R4 -k no matches no test", "--rule takes a rule"),
        (("-k", "no"), 5, "-k no matches no test", "--rule takes a rule's number"),
        (("-k", "a b"), 4, "-k 'a b' is not an expression", "--rule takes a rule's number"),
        (("--rule", "R4"), 3, "--rule R4 cannot be collected", "--rule takes a rule's number"),
    ],
)
def test_a_selection_that_leaves_no_test_says_which_mark_is_missing(
    narrowing: tuple[str, ...], status: int, message: str, hint: str
) -> None:
    matrix_dir = Path("/p/tests/matrix")
    error = programs.find_selection_error(matrix_dir, narrowing, status, "")
    assert error.message == message
    assert error.hint.startswith(hint)


def test_the_programs_are_as_old_as_the_headers_that_they_include(tmp_path: Path) -> None:
    write(tmp_path, "compat.m32.c")
    files = programs.read_programs(tmp_path, (("c_module/mdriver.h", b"#define X"),))
    assert ("matrix/compat.m32.c", b"compat.m32.c") in files
    assert files[-1] == ("uapi/mdriver.h", b"#define X")


def test_the_programs_are_as_old_as_the_executable_bits_of_the_tests(
    root: Chroot, tmp_path: Path
) -> None:
    write(tmp_path, "helper", "more/run.sh")
    site = make_entry("python")

    def read_key() -> str:
        return programs.prepare_entry(root, site, tmp_path, ()).key

    keys = [read_key()]
    for name in ("helper", "more/run.sh"):
        (tmp_path / name).chmod(0o755)
        keys.append(read_key())
    assert len(set(keys)) == 3
    assert files.list_executables(tmp_path) == ("helper", "more/run.sh")
    (tmp_path / "more/run.sh").chmod(0o611)
    assert files.list_executables(tmp_path) == ("helper",)


def test_a_project_without_locked_crates_is_refused_with_what_to_do(
    root: Chroot, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        packages.prepare_crates(root, tmp_path)
    assert caught.value.hint.startswith("cargo generate-lockfile")
