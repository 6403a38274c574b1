# SPDX-License-Identifier: GPL-2.0-only
"""The cache's entries that the VMs of a project are made of, beside chroot and kernel."""

from dataclasses import replace

from twinmod.base import versions
from twinmod.base.cache import CacheEntry
from twinmod.base.sandbox import Chroot
from twinmod.errors import ConfigError
from twinmod.project.config import Config
from twinmod.project.model import Language, TesterSpec
from twinmod.userland import packages, programs, testers
from twinmod.userland.testers import Tools

#: What programs include of the C module: the uapi header.
UAPI = "mdriver.h"


def prepare_site(config: Config, chroot: Chroot) -> CacheEntry:
    """Return the entry of the VM's Python packages; see packages.prepare_site."""
    return packages.prepare_site(chroot, config.lock_path)


def prepare_crates(config: Config, chroot: Chroot) -> CacheEntry:
    """Return the entry of the Rust tester's crates; see packages.prepare_crates.

    Raises:
        ConfigError: The tester has no Cargo.lock.
    """
    (spec,) = (spec for spec in config.testers if spec.name == "rust")
    return packages.prepare_crates(chroot, config.root_dir / spec.project)


def prepare_testers(config: Config, chroot: Chroot) -> tuple[tuple[TesterSpec, CacheEntry], ...]:
    """Return all testers, each with its entry; see testers.prepare_entry.

    Raises:
        ConfigError: A tester's project is missing.
    """
    tools, beside = prepare_tools(config, chroot), read_beside(config)
    return tuple(
        (spec, testers.prepare_entry(spec, tools[spec.name], config.root_dir, beside))
        for spec in config.testers
    )


def prepare_tools(config: Config, chroot: Chroot) -> dict[str, Tools]:
    """Return what testers are built with, by their names.

    Raises:
        ConfigError: The Rust tester has no Cargo.lock.
    """
    tools = Tools(chroot=chroot, site=prepare_site(config, chroot), crates=None)
    return {"c": tools, "rust": replace(tools, crates=prepare_crates(config, chroot))}


def prepare_programs(config: Config, chroot: Chroot) -> CacheEntry:
    """Return the entry of the VM's programs; see programs.prepare_entry.

    Raises:
        ConfigError: The folder of the matrix is missing.
    """
    require_matrix(config)
    site = prepare_site(config, chroot)
    return programs.prepare_entry(chroot, site, config.matrix_dir, read_uapi(config))


def require_matrix(config: Config) -> None:
    """Refuse a project without tests.

    Raises:
        ConfigError: The folder of the matrix is missing.
    """
    if not config.matrix_dir.is_dir():
        raise ConfigError(
            "the matrix is missing",
            facts=(("folder", str(config.matrix_dir)),),
            hint="write its tests there, or correct `matrix` of [tool.twinmod]",
        )


def read_uapi(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of the uapi header, as far as it is there."""
    module = config.find_module(Language.C)
    path = config.root_dir / module.sources / UAPI
    return ((f"{module.sources}/{UAPI}", path.read_bytes()),) if path.exists() else ()


def read_beside(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of what testers are built of beside their projects."""
    version = versions.read_version(config.root_dir)
    return (*read_uapi(config), (versions.FILE, f"{version}\n".encode()))
