# SPDX-License-Identifier: GPL-2.0-only
"""The testers, built in the chroot as a VM imports them."""

from dataclasses import dataclass
from pathlib import Path

from twinmod.base import cache, process, sandbox
from twinmod.base import files as base_files
from twinmod.base.cache import CacheEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import BuildError, ConfigError
from twinmod.project.model import TesterSpec
from twinmod.userland.packages import CARGO, SITE

BUILD_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What testers are built with."""

    chroot: Chroot
    # Python packages: the backends.
    site: CacheEntry
    # None for a project without any.
    crates: CacheEntry | None

    @property
    def binds(self) -> tuple[Bind, ...]:
        """Where a build finds them; see plan_build_environment."""
        site = Bind(source_path=self.site.path / SITE, target_path=sandbox.INSIDE / "site")
        if self.crates is None:
            return (site,)
        target_path = sandbox.INSIDE / "cargo"
        crates_dir = self.crates.path / CARGO
        return (site, Bind(source_path=crates_dir, target_path=target_path, writable=True))


def read_project(project_dir: Path) -> tuple[tuple[str, bytes], ...]:
    """Return (relative path, content) of a Python project's files, sorted.

    Raises:
        ConfigError: There is no project.
    """
    if not (project_dir / "pyproject.toml").is_file():
        raise ConfigError(
            "a tester's project is missing",
            facts=(("file", str(project_dir / "pyproject.toml")),),
            hint="correct `project` in `testers` of the driver",
        )
    return base_files.read_files(project_dir)


def plan_digest(chroot: Chroot, site: str, files: tuple[tuple[str, bytes], ...]) -> str:
    """Return the digest of files, and of what they are built with, as keys have it.

    Args:
        chroot: With the compilers.
        site: The key of the Python packages.
        files: (name, content).
    """
    return base_files.plan_digest(f"{chroot.key} {site}", files)[: cache.DIGITS]


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


def plan_install(spec: TesterSpec, tools: Tools, work_dir: Path, target_dir: Path) -> Command:
    """Return the command that builds and installs a tester, without network.

    Args:
        spec: Which tester.
        tools: What it is built with.
        work_dir: Holds ``source/``, a copy of the project and of the uapi header; the result
            lands in SITE.
        target_dir: What cargo keeps from build to build.
    """
    inside = sandbox.INSIDE
    binds = (
        *tools.binds,
        Bind(source_path=work_dir, target_path=inside / "scratch", writable=True),
        Bind(source_path=target_dir, target_path=inside / "target", writable=True),
    )
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
        str(inside / "scratch" / SITE),
        str(inside / "scratch/source" / spec.project),
    )
    return sandbox.plan_command(
        tools.chroot,
        argv,
        Enter(binds=binds, environment=plan_build_environment()),
        purpose=f"tester {spec.name} did not build",
        timeout_s=BUILD_TIMEOUT_S,
    )


def prepare_entry(
    spec: TesterSpec, tools: Tools, root_dir: Path, beside: tuple[tuple[str, bytes], ...]
) -> CacheEntry:
    """Return the entry from whose SITE a VM imports a tester, built.

    To make it raises BuildError: It does not build.

    Args:
        spec: Which tester.
        tools: What it is built with.
        root_dir: What its project's path is relative to.
        beside: (path relative to root_dir, content) of what it is built of beside its project.

    Raises:
        ConfigError: Its project is not there.
    """
    files = read_project(root_dir / spec.project)

    def make(work_dir: Path, progress: Progress) -> Made:
        sources = tuple((f"{spec.project}/{path}", content) for path, content in files)
        for name, content in (*sources, *beside):
            path = work_dir / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        command = plan_install(spec, tools, work_dir, ensure_target_dir(tools.chroot))
        with progress.phase(f"tester {spec.name}"):
            process.run(command)
        cache.remove_tree(work_dir / "source")
        extension = _find_extension(spec, work_dir)
        return {"tester": spec.name}, (str(extension.relative_to(work_dir)),)

    digest = plan_digest(tools.chroot, tools.site.key, (*files, *beside))
    return CacheEntry(kind="tester", key=f"{spec.name}-{digest}", make=make)


def plan_target(chroot: Chroot) -> tuple[str, str]:
    """Return (kind, name) of the cache's folder with what cargo keeps from build to build."""
    return cache.SCRATCH, chroot.key


def ensure_target_dir(chroot: Chroot) -> Path:
    """Return the folder of plan_target, made when it is not there."""
    path = cache.ensure_cache_dir().joinpath(*plan_target(chroot))
    path.mkdir(parents=True, exist_ok=True)
    return path


def lint(spec: TesterSpec, tools: Tools, root_dir: Path, progress: Progress) -> None:
    """Hold a Rust tester to clippy, with warnings as errors.

    Args:
        spec: Which tester.
        tools: What it is built with, all of it there.
        root_dir: What its project's path is relative to.
        progress: Told of the check.

    Raises:
        BuildError: clippy has something to say.
    """
    target_dir = ensure_target_dir(tools.chroot)
    inside = sandbox.INSIDE
    command = sandbox.plan_command(
        tools.chroot,
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
        Enter(
            environment=plan_build_environment(),
            binds=(
                *tools.binds,
                Bind(source_path=root_dir / spec.project, target_path=inside / "project"),
                Bind(source_path=target_dir, target_path=inside / "target", writable=True),
            ),
        ),
        purpose=f"clippy has something to say about tester {spec.name}",
        timeout_s=BUILD_TIMEOUT_S,
    )
    with progress.phase(f"clippy of tester {spec.name}"):
        process.run(command)


def _find_extension(spec: TesterSpec, work_dir: Path) -> Path:
    found = sorted((work_dir / SITE / spec.package).glob("*.so"))
    if not found:
        raise BuildError(f"tester {spec.name} was built without an extension module")
    return found[0]
