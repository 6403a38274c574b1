# SPDX-License-Identifier: GPL-2.0-only
"""Packages from registries: the Python of a VM, and the crates of the testers."""

import os
import tempfile
from pathlib import Path

from twinmod.base import cache, network, process, registries, sandbox
from twinmod.base.cache import CacheEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import ConfigError, MissingToolError

DOWNLOAD_TIMEOUT_S = 1800.0

#: Where an entry of the cache has what it is made for: Python packages, a CARGO_HOME.
SITE = "site"
CARGO = "cargo"


def prepare_site(chroot: Chroot, lock_path: Path) -> CacheEntry:
    """Return the entry with the VM's Python packages in SITE, installed from their hashed lock.

    To make it raises:
        MissingToolError: The index cannot be reached, or a package is not what was locked.
        ConfigError: The caller's settings of pip cannot be read, or name what is not there.
    """

    def make(partial_dir: Path, progress: Progress) -> Made:
        settings = registries.read_pip(os.environ)
        with (
            progress.phase("Python packages of the VM"),
            tempfile.TemporaryDirectory(prefix="twinmod-") as name,
        ):
            config_path = Path(name) / "pip.conf"
            config_path.write_text(settings.text)
            command = _prepare_pip(chroot, lock_path, partial_dir, config_path, settings.binds)
            process.run(command, error=MissingToolError)
        return {"chroot": chroot.key}, (f"{SITE}/pytest/__init__.py",)

    return CacheEntry(kind="python", key=_read_lock_key(chroot, lock_path), make=make)


def _read_lock_key(chroot: Chroot, lock_path: Path) -> str:
    return cache.plan_short_digest(chroot.key.encode() + lock_path.read_bytes())


def _prepare_pip(
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
        str(inside / "out" / SITE),
        "-r",
        str(inside / "lock.txt"),
    )
    return sandbox.plan_command(
        chroot,
        argv,
        Enter(
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
        ),
        purpose="the VM's Python packages were not installed",
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )


def prepare_crates(chroot: Chroot, project_dir: Path) -> CacheEntry:
    """Return the entry whose folder CARGO is a CARGO_HOME with every crate of a Cargo.lock.

    To make it raises:
        MissingToolError: The crate registry cannot be reached.
        ConfigError: The caller's settings of cargo cannot be read, or name what is not there.

    Raises:
        ConfigError: The project has no Cargo.lock.
    """
    lock_path = project_dir / "Cargo.lock"
    if not lock_path.is_file():
        raise ConfigError(
            "the Rust tester has no Cargo.lock",
            facts=(("file", str(lock_path)),),
            hint=f"cargo generate-lockfile --manifest-path {project_dir / 'Cargo.toml'}",
        )

    def make(partial_dir: Path, progress: Progress) -> Made:
        home_dir = partial_dir / CARGO
        home_dir.mkdir()
        settings = registries.read_cargo(project_dir.absolute(), os.environ)
        registries.write_cargo_sources(settings, lock_path.read_text(), home_dir)
        command = _prepare_cargo_fetch(chroot, project_dir, home_dir, settings)
        with progress.phase("crates of the Rust tester"):
            process.run(command, error=MissingToolError)
        registries.forget_tokens(home_dir)
        return {"chroot": chroot.key}, ()

    return CacheEntry(kind="crates", key=_read_lock_key(chroot, lock_path), make=make)


def _prepare_cargo_fetch(
    chroot: Chroot, project_dir: Path, home_dir: Path, settings: registries.CargoSettings
) -> Command:
    inside = sandbox.INSIDE
    environment, binds = registries.find_cargo_trust(settings)
    argv = ("cargo", "fetch", "--locked", "--manifest-path", str(inside / "project/Cargo.toml"))
    return sandbox.plan_command(
        chroot,
        argv,
        Enter(
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
        ),
        purpose="the Rust tester's crates were not fetched",
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )
