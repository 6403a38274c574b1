# SPDX-License-Identifier: GPL-2.0-only
"""The programs of a VM: the agent and the matrix, compiled and collected."""

import re
import shlex
from pathlib import Path, PurePosixPath

from twinmod.base import files as base_files
from twinmod.base import process, sandbox, templates
from twinmod.base.cache import CacheEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import BuildError, ConfigError, SelectionError, TwinmodError
from twinmod.guest.collection import PLUGIN
from twinmod.guest.testing import names as testing_names
from twinmod.userland import testers
from twinmod.userland.packages import SITE
from twinmod.userland.testers import BUILD_TIMEOUT_S

#: pytest's exit status when it collected nothing; pytest.ExitCode.NO_TESTS_COLLECTED.
NO_TESTS = 5

#: How many of the last lines of pytest, or of a compiler, an error shows.
OUTPUT_LINES = 20

#: The tests of a driver that has none, in the package: they are a matrix, and no part of another.
STANDARD = "standard/"

#: What makes NAME.m32.c a static 32-bit program without a libc: the chroot's compiler makes such
#: code, and the chroot has no 32-bit library.
M32_FLAGS = (
    *("-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie"),
    *("-fno-stack-protector", "-O2", "-Wall", "-Wextra", "-Werror"),
)

#: What makes NAME.c a program: static, for a VM's root in memory has no library beside Python's;
#: and as the kernel's selftests are compiled.
FLAGS = ("-static", "-O2", "-Wall", "-pthread", "-D_GNU_SOURCE=")


def read_programs(
    matrix_dir: Path, uapi: tuple[tuple[str, bytes], ...]
) -> tuple[tuple[str, bytes], ...]:
    """Return (path, content) of the VM's own programs, of the matrix, and of headers it includes.

    Of twinmod's package only ``guest`` goes into a VM: an edit elsewhere makes nothing anew.
    """
    package_dir = templates.PACKAGE_DIR
    return (
        ("package/twinmod/__init__.py", (package_dir / "__init__.py").read_bytes()),
        *(
            (f"package/twinmod/guest/{path}", content)
            for path, content in base_files.read_files(package_dir / "guest")
            if path.endswith(".py") and not path.startswith(STANDARD)
        ),
        *((f"matrix/{path}", content) for path, content in base_files.read_files(matrix_dir)),
        *((f"uapi/{Path(path).name}", content) for path, content in uapi),
    )


def prepare_entry(
    chroot: Chroot, site: CacheEntry, matrix_dir: Path, uapi: tuple[tuple[str, bytes], ...]
) -> CacheEntry:
    """Return the entry with ``package/twinmod`` and ``matrix``, compiled.

    Compiling Python to bytecode, and pytest's rewriting of assertions, takes seconds on an
    emulated processor and a fraction of one here.

    To make it raises:
        BuildError: A test does not import, two are in conflict, a program does not compile.
        ConfigError: There is no test.

    Args:
        chroot: Where they are compiled.
        site: Python packages that hold pytest.
        matrix_dir: The tests; those in C are compiled.
        uapi: (path, content) of headers that the programs include.
    """
    files = read_programs(matrix_dir, uapi)
    executables = tuple(f"matrix/{name}" for name in base_files.list_executables(matrix_dir))

    def make(work_dir: Path, progress: Progress) -> Made:
        site_dir = site.path / SITE
        for name, content in files:
            path = work_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name in executables:
            (work_dir / name).chmod(0o755)
        for name in ("matrix", "uapi"):
            (work_dir / name).mkdir(exist_ok=True)
        with progress.phase("agent and matrix"):
            for argv in plan_compile(tuple(name for name, _ in files)):
                command = _plan_program(chroot, site_dir, work_dir, argv, writable=True)
                status, output = process.run_unchecked(command)
                if status != 0:
                    raise find_compile_error(matrix_dir, argv, output)
            _collect(chroot, site_dir, work_dir, matrix_dir)
        return {}, ("package/twinmod/guest/agent.py",)

    inputs = (*files, ("executables", "\n".join(executables).encode()))
    key = testers.plan_digest(chroot, site.key, inputs)
    return CacheEntry(kind="programs", key=key, make=make)


def plan_compile(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return what compiles the agent and the matrix where the VM will look for the result.

    ``matrix/NAME.c`` becomes ``matrix/NAME``, and ``matrix/NAME.m32.c`` ``matrix/NAME.m32``, a
    32-bit program.

    Args:
        names: Paths of all files, from read_programs.
    """
    inside = sandbox.INSIDE
    programs = tuple(
        (
            "gcc",
            *(M32_FLAGS if name.endswith(testing_names.M32) else FLAGS),
            f"-I{inside / 'uapi'}",
            "-o",
            str(inside / name.removesuffix(".c")),
            str(inside / name),
        )
        for name in names
        if name.startswith("matrix/") and testing_names.is_compiled(PurePosixPath(name))
    )
    return (
        *programs,
        ("python3", "-m", "compileall", "-q", str(inside / "package")),
    )


def find_compile_error(matrix_dir: Path, argv: tuple[str, ...], output: str) -> TwinmodError:
    """Return the error of what does not compile.

    Args:
        matrix_dir: The folder that a person knows.
        argv: One of plan_compile.
        output: What the compiler said, of the folder inside the chroot.
    """
    source = argv[-1]
    inside = str(sandbox.INSIDE / "matrix")
    said = ("output", "(its last lines)\n" + _render_own(matrix_dir, output))
    if not source.startswith(inside):
        return BuildError("the agent was not compiled", facts=(said,))
    name = source.removeprefix(f"{inside}/")
    helper = "undefined reference to `main'" in output
    return BuildError(
        f"test {name} does not compile",
        facts=(("file", str(matrix_dir / name)), said),
        hint="a file that others include has a name that begins with _" if helper else "",
    )


def _render_own(matrix_dir: Path, output: str) -> str:
    """Return the last lines of an output, with the folder of the matrix as a person knows it."""
    # pytest shortens paths to what they are below its working folder, which is the root.
    inside = rf"(?<!\w)/?{re.escape(str(sandbox.INSIDE / 'matrix').removeprefix('/'))}\b"
    own = re.sub(inside, lambda _: str(matrix_dir), output)
    return process.render_tail(own, OUTPUT_LINES)


def plan_collect(narrowing: tuple[str, ...]) -> tuple[str, ...]:
    """Return pytest's argument vector that collects the matrix and runs nothing of it.

    Args:
        narrowing: pytest's arguments that leave only some tests, () for all.
    """
    matrix = str(sandbox.INSIDE / "matrix")
    return (
        "python3",
        "-m",
        "pytest",
        matrix,
        "--rootdir",
        matrix,
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "--collect-only",
        "-q",
        "-q",
        "--strict-markers",
        *narrowing,
        "--module",
        "none",
        "--module-path",
        "none",
    )


def _collect(chroot: Chroot, site_dir: Path, work_dir: Path, matrix_dir: Path) -> None:
    """Collect the matrix, which compiles its tests; see prepare_entry for the errors."""
    command = _plan_program(chroot, site_dir, work_dir, plan_collect(()), writable=True)
    status, output = process.run_unchecked(command)
    if status != 0:
        raise find_collect_error(matrix_dir, status, output)


def find_collect_error(matrix_dir: Path, status: int, output: str) -> TwinmodError:
    """Return the error of a matrix that pytest does not collect.

    Args:
        matrix_dir: The folder that a person knows.
        status: pytest's.
        output: What it said, of the folder inside the chroot.
    """
    facts = (("folder", str(matrix_dir)),)
    if status == NO_TESTS:
        return ConfigError(
            "the matrix has no test",
            facts=facts,
            hint="write test_NAME() in a file test_NAME.py there, or a program NAME.sh or NAME.c",
        )
    taken = "in pytest_addoption" in output
    return BuildError(
        f"pytest does not collect the matrix: it exited with status {status}",
        facts=(*facts, ("output", "(its last lines)\n" + _render_own(matrix_dir, output))),
        hint="conftest.py there must not add options that twinmod adds" if taken else "",
    )


def require_tests(
    chroot: Chroot, site_dir: Path, programs_dir: Path, matrix_dir: Path, narrowing: tuple[str, ...]
) -> None:
    """Refuse a selection that leaves no test.

    Raises:
        SelectionError: It leaves none, or -k has no expression.
    """
    command = _plan_program(chroot, site_dir, programs_dir, plan_collect(narrowing), writable=False)
    status, output = process.run_unchecked(command)
    if status != 0:
        raise find_selection_error(matrix_dir, narrowing, status, output)


def find_selection_error(
    matrix_dir: Path, narrowing: tuple[str, ...], status: int, output: str
) -> SelectionError:
    """Return the error of a selection with which pytest collects nothing.

    Args:
        matrix_dir: The folder that a person knows.
        narrowing: pytest's arguments: a rule of the contract, or rules and a keyword.
        status: pytest's.
        output: What it said.
    """
    why = {4: "is not an expression", NO_TESTS: "matches no test"}.get(
        status, "cannot be collected"
    )
    said = tuple(("pytest", line) for line in output.splitlines() if line.startswith("ERROR"))
    hint = "--rule takes a rule's number, -k parts of test names: --rule R4 -k 'not short'"
    if status == NO_TESTS and "-k" not in narrowing:
        hint = f'no test in {matrix_dir} is marked @pytest.mark.rule("{narrowing[1]}")'
    return SelectionError(f"{shlex.join(narrowing)} {why}", facts=said[:1], hint=hint)


def _plan_program(
    chroot: Chroot, site_dir: Path, work_dir: Path, argv: tuple[str, ...], *, writable: bool
) -> Command:
    inside = sandbox.INSIDE
    return sandbox.plan_command(
        chroot,
        argv,
        Enter(
            environment=(
                ("PYTHONPATH", f"{inside / 'package'}:{inside / 'site'}"),
                ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
            ),
            binds=(
                Bind(source_path=site_dir, target_path=inside / "site"),
                *(
                    Bind(source_path=work_dir / name, target_path=inside / name, writable=writable)
                    for name in ("package", "matrix", "uapi")
                ),
            ),
        ),
        purpose="the agent and the matrix were not compiled",
        timeout_s=BUILD_TIMEOUT_S,
    )
