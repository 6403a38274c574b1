# SPDX-License-Identifier: GPL-2.0-only
"""What the VM's programs are made of: locked packages, the testers, the agent and the matrix.

All of it is made inside the chroot, once for each content, and needs no network later.
"""

import hashlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinmod import cache, network, process, registries, resources, sandbox
from twinmod.errors import (
    BuildError,
    ConfigError,
    MissingToolError,
    SelectionError,
    TwinmodError,
)
from twinmod.specs import Bind, Chroot, Command, Progress, TesterSpec

DOWNLOAD_TIMEOUT_S = 1800.0
BUILD_TIMEOUT_S = 900.0

#: (what is made of the sources of native/, the option that makes it that)
NATIVE = (("marks.so", "-shared"), ("profiler.so", "-shared"), ("loop", "-pie"))

#: pytest's exit status when it collected nothing; pytest.ExitCode.NO_TESTS_COLLECTED.
NO_TESTS = 5

#: What the matrix is told of the cell that it is held to.
OPTIONS = ("--module", "--module-path", "--module-version", "--tester", "--marks")

#: How many of pytest's last lines an error shows.
COLLECT_LINES = 20

#: Left by builds in a checkout; no part of a project.
IGNORED = ("target", "build", "dist", "__pycache__", "*.so", "*.egg-info", ".*")


# -- packages from registries -----------------------------------------------------------------


def plan_lock_digest(chroot: Chroot, lock_path: Path) -> str:
    """Return what identifies the packages of a lock, fetched for a chroot."""
    return hashlib.sha256(chroot.key.encode() + lock_path.read_bytes()).hexdigest()[:12]


def ensure_site(chroot: Chroot, lock_path: Path, progress: Progress) -> Path:
    """Return the folder with the VM's Python packages, installed from their hashed lock.

    Raises:
        MissingToolError: The index cannot be reached, or a package is not what was locked.
        ConfigError: The caller's settings of pip cannot be read, or name what is not there.
    """
    digest = plan_lock_digest(chroot, lock_path)

    def make(partial_dir: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        settings = registries.read_pip(os.environ)
        with (
            progress.phase("Python packages of the VM"),
            tempfile.TemporaryDirectory(prefix="twinmod-") as name,
        ):
            config_path = Path(name) / "pip.conf"
            config_path.write_text(settings.text)
            command = _plan_pip(chroot, lock_path, partial_dir, config_path, settings.binds)
            process.run(command, error=MissingToolError)
        return {"chroot": chroot.key}, ("site/pytest/__init__.py",)

    return cache.ensure_entry("python", digest, make, progress).path / "site"


def _plan_pip(
    chroot: Chroot, lock_path: Path, partial_dir: Path, config_path: Path, binds: tuple[Bind, ...]
) -> Command:
    inside = sandbox.INSIDE
    argv = (
        "python3",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-cache-dir",
        "--only-binary=:all:",
        "--require-hashes",
        "--root-user-action=ignore",
        "--target",
        str(inside / "out/site"),
        "-r",
        str(inside / "lock.txt"),
    )
    return sandbox.plan_command(
        chroot,
        argv,
        purpose="the VM's Python packages were not installed",
        timeout_s=DOWNLOAD_TIMEOUT_S,
        network=True,
        environment=(
            *network.plan_environment(os.environ),
            ("PIP_CONFIG_FILE", str(registries.PIP_CONFIG)),
            ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ),
        binds=(
            *network.plan_binds(),
            *binds,
            Bind(source_path=partial_dir, target_path=inside / "out", writable=True),
            Bind(source_path=lock_path, target_path=inside / "lock.txt"),
            Bind(source_path=config_path, target_path=registries.PIP_CONFIG),
        ),
    )


def ensure_crates(chroot: Chroot, project_dir: Path, progress: Progress) -> Path:
    """Return a CARGO_HOME that holds every crate of a project's Cargo.lock.

    Raises:
        MissingToolError: The crate registry cannot be reached.
        ConfigError: The project has no Cargo.lock; the caller's settings of cargo cannot be read,
            or name what is not there.
    """
    lock_path = project_dir / "Cargo.lock"
    if not lock_path.is_file():
        raise ConfigError(
            "the Rust tester has no Cargo.lock",
            facts=(("file", str(lock_path)),),
            hint=f"cargo generate-lockfile --manifest-path {project_dir / 'Cargo.toml'}",
        )
    digest = plan_lock_digest(chroot, lock_path)

    def make(partial_dir: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        home_dir = partial_dir / "cargo"
        home_dir.mkdir()
        settings = registries.read_cargo(project_dir.absolute(), os.environ)
        registries.write_cargo_sources(settings, lock_path.read_text(), home_dir)
        command = _plan_cargo_fetch(chroot, project_dir, home_dir, settings)
        with progress.phase("crates of the Rust tester"):
            process.run(command, error=MissingToolError)
        registries.forget_tokens(home_dir)
        return {"chroot": chroot.key}, ()

    return cache.ensure_entry("crates", digest, make, progress).path / "cargo"


def _plan_cargo_fetch(
    chroot: Chroot, project_dir: Path, home_dir: Path, settings: registries.CargoSettings
) -> Command:
    inside = sandbox.INSIDE
    environment, binds = registries.plan_cargo_trust(settings)
    argv = ("cargo", "fetch", "--locked", "--manifest-path", str(inside / "project/Cargo.toml"))
    return sandbox.plan_command(
        chroot,
        argv,
        purpose="the Rust tester's crates were not fetched",
        timeout_s=DOWNLOAD_TIMEOUT_S,
        network=True,
        environment=(
            ("CARGO_HOME", str(registries.CARGO_HOME)),
            *environment,
            *network.plan_environment(os.environ),
        ),
        binds=(
            *network.plan_binds(),
            *binds,
            Bind(source_path=project_dir, target_path=inside / "project"),
            Bind(source_path=home_dir, target_path=registries.CARGO_HOME, writable=True),
        ),
    )


# -- the testers -------------------------------------------------------------------------------


def read_project(project_dir: Path) -> tuple[tuple[str, bytes], ...]:
    """Return (relative path, content) of a Python project's files, sorted.

    Raises:
        ConfigError: There is no project.
    """
    if not (project_dir / "pyproject.toml").is_file():
        raise ConfigError(
            "a tester's project is missing",
            facts=(("file", str(project_dir / "pyproject.toml")),),
            hint="correct [tool.twinmod.testers]",
        )
    return read_files(project_dir)


def read_files(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return (relative path, content) of a folder's files, sorted, without what builds leave."""
    ignored = shutil.ignore_patterns(*IGNORED)
    found: list[tuple[str, bytes]] = []

    def read(inner: Path) -> None:
        names = sorted(path.name for path in inner.iterdir())
        skipped = ignored(str(inner), names)
        for name in names:
            path = inner / name
            if name in skipped:
                continue
            if path.is_dir():
                read(path)
            else:
                found.append((str(path.relative_to(folder)), path.read_bytes()))

    read(folder)
    return tuple(found)


def plan_digest(chroot: Chroot, site: str, files: tuple[tuple[str, bytes], ...]) -> str:
    """Return the digest of files, and of what they are built with.

    Args:
        chroot: With the compilers.
        site: What identifies the Python packages.
        files: (name, content).
    """
    total = hashlib.sha256(f"{chroot.key} {site}".encode())
    for name, content in files:
        total.update(f"{len(name)} {name} {len(content)} ".encode() + content)
    return total.hexdigest()[:12]


def plan_tester_name(
    spec: TesterSpec, chroot: Chroot, site: str, files: tuple[tuple[str, bytes], ...]
) -> str:
    """Return what a built tester is called in the cache; see plan_digest."""
    return f"{spec.name}-{plan_digest(chroot, site, files)}"


def plan_build_environment() -> tuple[tuple[str, str], ...]:
    """Return the environment of a tester's build: everything is there, nothing is fetched."""
    inside = sandbox.INSIDE
    return (
        ("PYTHONPATH", str(inside / "site")),
        ("PATH", f"{inside / 'site/bin'}:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("CARGO_HOME", str(inside / "cargo")),
        ("CARGO_NET_OFFLINE", "true"),
        ("CARGO_TARGET_DIR", str(inside / "target")),
        ("MATURIN_NO_INSTALL_RUST", "1"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_INDEX", "1"),
    )


def plan_install(
    spec: TesterSpec,
    chroot: Chroot,
    site_dir: Path,
    crates_dir: Path | None,
    work_dir: Path,
    target_dir: Path,
) -> Command:
    """Return the command that builds and installs a tester, without network.

    Args:
        spec: Which tester.
        chroot: Where it is built.
        site_dir: Python packages that hold what it is built with.
        crates_dir: CARGO_HOME with its crates, None for a project without any.
        work_dir: Holds ``source/``, a copy of the project and of the uapi header; the result
            lands in ``site/``.
        target_dir: What cargo keeps from build to build.
    """
    inside = sandbox.INSIDE
    binds = [
        Bind(source_path=site_dir, target_path=inside / "site"),
        Bind(source_path=work_dir, target_path=inside / "scratch", writable=True),
        Bind(source_path=target_dir, target_path=inside / "target", writable=True),
    ]
    if crates_dir is not None:
        binds.append(Bind(source_path=crates_dir, target_path=inside / "cargo", writable=True))
    argv = (
        "python3",
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--no-cache-dir",
        "--root-user-action=ignore",
        "--target",
        str(inside / "scratch/site"),
        str(inside / "scratch/source" / spec.project),
    )
    return sandbox.plan_command(
        chroot,
        argv,
        purpose=f"tester {spec.name} did not build",
        timeout_s=BUILD_TIMEOUT_S,
        binds=tuple(binds),
        environment=plan_build_environment(),
    )


def ensure_tester(
    spec: TesterSpec,
    chroot: Chroot,
    project_dir: Path,
    uapi: tuple[tuple[str, bytes], ...],
    site_dir: Path,
    crates_dir: Path | None,
    progress: Progress,
) -> Path:
    """Return the folder from which the VM imports a tester, built first when it is out of date.

    Args:
        spec: Which tester.
        chroot: Where it is built.
        project_dir: What its project's path is relative to.
        uapi: (path relative to project_dir, content) of headers that it includes.
        site_dir: What it is built with.
        crates_dir: Its crates, or None.
        progress: Told when it builds.

    Raises:
        BuildError: It does not build.
        ConfigError: Its project is not there.
    """
    files = read_project(project_dir / spec.project)
    name = plan_tester_name(spec, chroot, site_dir.parent.name, (*files, *uapi))

    def make(work_dir: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        sources = tuple((f"{spec.project}/{path}", content) for path, content in files)
        for name, content in (*sources, *uapi):
            path = work_dir / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        target_dir = cache.ensure_cache_dir() / cache.SCRATCH / chroot.key
        target_dir.mkdir(parents=True, exist_ok=True)
        command = plan_install(spec, chroot, site_dir, crates_dir, work_dir, target_dir)
        with progress.phase(f"tester {spec.name}"):
            process.run(command)
        cache.remove_tree(work_dir / "source")
        extension = _find_extension(spec, work_dir)
        return {"tester": spec.name}, (str(extension.relative_to(work_dir)),)

    entry = cache.ensure_entry("tester", name, make, progress)
    return entry.path / "site"


def lint(
    spec: TesterSpec,
    chroot: Chroot,
    project_dir: Path,
    site_dir: Path,
    crates_dir: Path,
    progress: Progress,
) -> None:
    """Hold a Rust tester to clippy, with warnings as errors.

    Raises:
        BuildError: clippy has something to say.
    """
    target_dir = cache.ensure_cache_dir() / cache.SCRATCH / chroot.key
    target_dir.mkdir(parents=True, exist_ok=True)
    inside = sandbox.INSIDE
    command = sandbox.plan_command(
        chroot,
        (
            "cargo",
            "clippy",
            "--locked",
            "--all-targets",
            "--manifest-path",
            str(inside / "project/Cargo.toml"),
            "--",
            "-Dwarnings",
        ),
        purpose=f"clippy has something to say about tester {spec.name}",
        timeout_s=BUILD_TIMEOUT_S,
        environment=plan_build_environment(),
        binds=(
            Bind(source_path=project_dir / spec.project, target_path=inside / "project"),
            Bind(source_path=site_dir, target_path=inside / "site"),
            Bind(source_path=target_dir, target_path=inside / "target", writable=True),
            Bind(source_path=crates_dir, target_path=inside / "cargo", writable=True),
        ),
    )
    with progress.phase(f"clippy of tester {spec.name}"):
        process.run(command)


def _find_extension(spec: TesterSpec, work_dir: Path) -> Path:
    found = sorted((work_dir / "site" / spec.package).glob("*.so"))
    if not found:
        raise BuildError(f"tester {spec.name} was built without an extension module")
    return found[0]


# -- what counts ------------------------------------------------------------------------------


def ensure_native(chroot: Chroot, progress: Progress) -> Path:
    """Return the folder with QEMU's profiler and the library that speaks to it, compiled.

    Raises:
        BuildError: They do not compile.
    """
    files = read_files(resources.PACKAGE_DIR / "native")

    def make(work_dir: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        for name, content in files:
            (work_dir / name).write_bytes(content)
        with progress.phase("profiler"):
            for name, option in NATIVE:
                process.run(_plan_native(chroot, work_dir, name, option))
        return {}, tuple(name for name, _ in NATIVE)

    return cache.ensure_entry("native", plan_native_digest(chroot), make, progress).path


def plan_native_digest(chroot: Chroot) -> str:
    """Return what identifies the profiler, compiled in a chroot."""
    return plan_digest(chroot, "", read_files(resources.PACKAGE_DIR / "native"))


def _plan_native(chroot: Chroot, work_dir: Path, name: str, option: str) -> Command:
    inside = sandbox.INSIDE / "out"
    return sandbox.plan_command(
        chroot,
        (
            "gcc",
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            option,
            "-fPIC",
            "-fvisibility=hidden",
            "-o",
            str(inside / name),
            str(inside / Path(name).with_suffix(".c")),
        ),
        purpose=f"{name} was not made",
        timeout_s=BUILD_TIMEOUT_S,
        binds=(Bind(source_path=work_dir, target_path=inside, writable=True),),
    )


# -- the agent and the matrix -----------------------------------------------------------------


def read_programs(
    matrix_dir: Path, uapi: tuple[tuple[str, bytes], ...]
) -> tuple[tuple[str, bytes], ...]:
    """Return (path, content) of the agent's package, of the matrix, and of headers it includes.

    A wheel's package holds the project too, which is no part of the agent.
    """
    package = tuple(
        (path, content)
        for path, content in read_files(resources.PACKAGE_DIR)
        if not path.startswith(f"{resources.DATA}/")
    )
    return (
        *((f"package/twinmod/{path}", content) for path, content in package),
        *((f"matrix/{path}", content) for path, content in read_files(matrix_dir)),
        *((f"uapi/{Path(path).name}", content) for path, content in uapi),
    )


def ensure_programs(
    chroot: Chroot,
    site_dir: Path,
    matrix_dir: Path,
    uapi: tuple[tuple[str, bytes], ...],
    progress: Progress,
) -> Path:
    """Return a folder with ``package/twinmod`` and ``matrix``, compiled.

    Compiling Python to bytecode, and pytest's rewriting of assertions, takes seconds on an
    emulated processor and a fraction of one here.

    Args:
        chroot: Where they are compiled.
        site_dir: Python packages that hold pytest.
        matrix_dir: The tests, and their programs in C.
        uapi: (path, content) of headers that the programs include.
        progress: Told when they are compiled.

    Raises:
        BuildError: A test does not import, two are in conflict, a program does not compile.
        ConfigError: There is no test.
    """
    files = read_programs(matrix_dir, uapi)
    digest = plan_digest(chroot, site_dir.parent.name, files)

    def make(work_dir: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        for name, content in files:
            path = work_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name in ("matrix", "uapi"):
            (work_dir / name).mkdir(exist_ok=True)
        with progress.phase("agent and matrix"):
            for argv in plan_compile(tuple(name for name, _ in files)):
                process.run(_plan_program(chroot, site_dir, work_dir, argv, writable=True))
            _collect(chroot, site_dir, work_dir, matrix_dir)
        return {}, ("package/twinmod/agent.py",)

    return cache.ensure_entry("programs", digest, make, progress).path


def plan_compile(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return what compiles the agent and the matrix where the VM will look for the result.

    ``matrix/NAME.c`` becomes ``matrix/NAME``, a static 32-bit program without a libc: the chroot's
    compiler makes such code, and the chroot has no 32-bit library.

    Args:
        names: Paths of all files, from read_programs.
    """
    inside = sandbox.INSIDE
    programs = tuple(
        (
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
            f"-I{inside / 'uapi'}",
            "-o",
            str(inside / name.removesuffix(".c")),
            str(inside / name),
        )
        for name in names
        if name.startswith("matrix/") and name.endswith(".c")
    )
    return (
        *programs,
        ("python3", "-m", "compileall", "-q", str(inside / "package")),
    )


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
        "--tester",
        "c",
    )


def _collect(chroot: Chroot, site_dir: Path, work_dir: Path, matrix_dir: Path) -> None:
    """Collect the matrix, which compiles its tests; see ensure_programs for the errors."""
    command = _plan_program(chroot, site_dir, work_dir, plan_collect(()), writable=True)
    status, output = process.run_unchecked(command)
    if status != 0:
        raise plan_collect_error(matrix_dir, status, output)


def plan_collect_error(matrix_dir: Path, status: int, output: str) -> TwinmodError:
    """Return the error of a matrix that pytest does not collect.

    Args:
        matrix_dir: The folder that a person knows.
        status: pytest's.
        output: What it said, of the folder inside the chroot.
    """
    facts = (("folder", str(matrix_dir)),)
    # Without a conftest.py pytest refuses our options before it looks for tests.
    if status == NO_TESTS or not any(map(_is_test, matrix_dir.rglob("*.py"))):
        return ConfigError(
            "the matrix has no test",
            facts=facts,
            hint="write test_NAME() in a file test_NAME.py there, or correct `matrix` of "
            "[tool.twinmod]",
        )
    # pytest shortens paths to what they are below its working folder, which is the root.
    inside = rf"(?<!\w)/?{re.escape(str(sandbox.INSIDE / 'matrix').removeprefix('/'))}\b"
    own = re.sub(inside, lambda _: str(matrix_dir), output)
    said = process.render_tail(own, COLLECT_LINES)
    lacking = "unrecognized arguments" in output
    return BuildError(
        f"pytest does not collect the matrix: it exited with status {status}",
        facts=(*facts, ("output", "(its last lines)\n" + said)),
        hint=f"conftest.py there must take the options {', '.join(OPTIONS)}" if lacking else "",
    )


def _is_test(path: Path) -> bool:
    return path.name.startswith("test_") or path.stem.endswith("_test")


def require_tests(
    chroot: Chroot, site_dir: Path, programs_dir: Path, narrowing: tuple[str, ...]
) -> None:
    """Refuse a selection that leaves no test, before a VM is booted for it.

    Raises:
        SelectionError: It leaves none, or -k has no expression.
    """
    command = _plan_program(chroot, site_dir, programs_dir, plan_collect(narrowing), writable=False)
    status, output = process.run_unchecked(command)
    if status == 0:
        return
    why = {4: "is not an expression", NO_TESTS: "matches no test"}.get(
        status, "cannot be collected"
    )
    said = tuple(("pytest", line) for line in output.splitlines() if line.startswith("ERROR"))
    raise SelectionError(
        f"{shlex.join(narrowing)} {why}",
        facts=said[:1],
        hint="--rule takes a rule's number, -k parts of test names: --rule R4 -k 'not short'",
    )


def _plan_program(
    chroot: Chroot, site_dir: Path, work_dir: Path, argv: tuple[str, ...], *, writable: bool
) -> Command:
    inside = sandbox.INSIDE
    return sandbox.plan_command(
        chroot,
        argv,
        purpose="the agent and the matrix were not compiled",
        timeout_s=BUILD_TIMEOUT_S,
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
    )
