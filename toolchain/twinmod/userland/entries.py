# SPDX-License-Identifier: GPL-2.0-only
"""The cache's entries that the VMs of a project are made of, beside chroot and kernel."""

from pathlib import Path

from twinmod.base import versions
from twinmod.base.cache import CacheEntry
from twinmod.base.sandbox import Chroot
from twinmod.errors import ConfigError
from twinmod.guest.testing import names
from twinmod.project.config import Config
from twinmod.project.model import TesterSpec
from twinmod.userland import debs, packages, programs, testers
from twinmod.userland.testers import Tools


def prepare_site(config: Config, chroot: Chroot) -> CacheEntry:
    """Return the entry of the VM's Python packages; see packages.prepare_site."""
    return packages.prepare_site(chroot, config.lock_path)


def prepare_debs(config: Config, chroot: Chroot) -> CacheEntry | None:
    """Return the entry of the VM's Debian packages, None without any; see debs.prepare_entry."""
    names = config.vm.packages
    return debs.prepare_entry(names, chroot, config.mirror) if names else None


def prepare_crates(config: Config, chroot: Chroot) -> dict[str, CacheEntry]:
    """Return the entries of the crates of the testers in Rust, by tester.

    Raises:
        ConfigError: One has no Cargo.lock; see packages.prepare_crates.
    """
    return {
        spec.name: packages.prepare_crates(chroot, config.root_dir / spec.project)
        for spec in config.testers
        if is_rust(config, spec)
    }


def is_rust(config: Config, spec: TesterSpec) -> bool:
    """Tell whether a tester is written in Rust: cargo finds a manifest in its project."""
    return (config.root_dir / spec.project / "Cargo.toml").is_file()


def prepare_testers(config: Config, chroot: Chroot) -> tuple[tuple[TesterSpec, CacheEntry], ...]:
    """Return all testers, each with its entry; see testers.prepare_entry.

    Raises:
        ConfigError: A tester's project is missing.
    """
    beside = read_beside(config) if config.testers else ()
    return tuple(
        (spec, testers.prepare_entry(spec, tools, config.root_dir, beside))
        for spec, tools in prepare_tools(config, chroot)
    )


def prepare_tools(config: Config, chroot: Chroot) -> tuple[tuple[TesterSpec, Tools], ...]:
    """Return all testers, each with what it is built with.

    Raises:
        ConfigError: One in Rust has no Cargo.lock.
    """
    site, crates = prepare_site(config, chroot), prepare_crates(config, chroot)
    return tuple(
        (spec, Tools(chroot=chroot, site=site, crates=crates.get(spec.name)))
        for spec in config.testers
    )


def prepare_programs(config: Config, chroot: Chroot) -> CacheEntry:
    """Return the entry of the VM's programs; see programs.prepare_entry.

    Raises:
        ConfigError: The folder of the matrix is missing.
    """
    require_matrix(config)
    site = prepare_site(config, chroot)
    return programs.prepare_entry(chroot, site, config.matrix_dir, read_uapi(config))


def require_matrix(config: Config) -> None:
    """Refuse a driver without tests.

    Raises:
        ConfigError: The folder of the matrix is missing, or has no test in it.
    """
    folder, name = config.matrix_dir, config.driver.name
    found = folder.is_dir()
    if not found or not any(is_test(path) for path in folder.rglob("*")):
        raise ConfigError(
            "the matrix has no test" if found else "the matrix is missing",
            facts=(("folder", str(folder)),),
            hint=f"write its tests there, or correct `tests` of the driver {name}",
        )


def is_test(path: Path) -> bool:
    """Tell whether a file in the folder of tests is one: test_NAME.py, a program, a script."""
    if path.suffix == ".py":
        return path.name.startswith("test_") or path.stem.endswith("_test")
    return names.is_test(path)


def read_uapi(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of the headers that programs and testers include.

    Raises:
        ConfigError: One is not there.
    """
    return tuple((name, _read_header(config, name)) for name in config.driver.uapi)


def _read_header(config: Config, name: str) -> bytes:
    path = config.root_dir / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"a header cannot be read: {error.strerror}",
            facts=(("file", str(path)),),
            hint=f"write it, or correct `uapi` of the driver {config.driver.name}",
        ) from error


def read_beside(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of what testers are built of beside their projects."""
    version = versions.find_version(config.root_dir)
    stated = ((versions.FILE, f"{version}\n".encode()),) if version else ()
    return (*read_uapi(config), *stated)
