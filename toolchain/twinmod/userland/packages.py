# SPDX-License-Identifier: GPL-2.0-only
"""Packages from registries: the Python of a VM, and the crates of the testers."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinmod.base import cache, network, process, registries, sandbox
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot
from twinmod.errors import ConfigError, MissingToolError

DOWNLOAD_TIMEOUT_S = 1800.0


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
            *network.find_binds(),
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
    environment, binds = registries.find_cargo_trust(settings)
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
            *network.find_binds(),
            *binds,
            Bind(source_path=project_dir, target_path=inside / "project"),
            Bind(source_path=home_dir, target_path=registries.CARGO_HOME, writable=True),
        ),
    )
