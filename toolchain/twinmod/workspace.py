# SPDX-License-Identifier: GPL-2.0-only
"""What setup leaves, and what every verb starts from: kernel, roots, products, testers."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from twinmod.base import cache, documents, versions
from twinmod.base.cache import CacheEntry
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.builds import build, lint, signing
from twinmod.builds.product import Product
from twinmod.errors import ConfigError, MissingToolError, SelectionError, TwinmodError
from twinmod.kernels import find, roots
from twinmod.kernels.model import KernelTree
from twinmod.project import config as project_config
from twinmod.project import rules
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES, Language, TesterSpec
from twinmod.userland import native, packages, programs
from twinmod.userland import testers as userland_testers
from twinmod.userland.testers import Tools
from twinmod.vm import accelerator as vm_accelerator
from twinmod.vm import boot

Result = TypeVar("Result")

#: What programs include of the C module: the uapi header.
UAPI = "mdriver.h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What setup leaves: a chroot, a kernel tree, and the userland's parts."""

    chroot: Chroot
    tree: KernelTree
    site_dir: Path
    crates_dir: Path


def run_setup(config: Config, progress: Progress) -> Prepared:
    """Make everything that later steps need; quick when it is there.

    Raises:
        TwinmodError: See the steps.
    """
    kernel = find.choose_kernel(config, lambda one: ensure_root(one, progress))
    tree = kernel.ensure(progress)
    site = prepare_site(config, kernel.chroot).ensure(progress)
    crates = prepare_crates(config, kernel.chroot).ensure(progress)
    return Prepared(
        chroot=kernel.chroot,
        tree=tree,
        site_dir=site.path / packages.SITE,
        crates_dir=crates.path / packages.CARGO,
    )


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
    """Return all testers, each with its entry; see userland.testers.plan_entry.

    Raises:
        ConfigError: A tester's project is missing.
    """
    tools, beside = prepare_tools(config, chroot), read_beside(config)
    return tuple(
        (spec, userland_testers.prepare_entry(spec, tools[spec.name], config.root_dir, beside))
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


def ensure_root(config: Config, progress: Progress) -> Chroot:
    """Return a kernel's chroot, made first when it is not there."""
    root = roots.find_chroot(config.chroot)
    if root is None:
        cache.ensure_cache_dir()
        roots.ensure_host_packages(progress)
        root = roots.ensure_chroot(config.chroot, config.mirror, progress)
    return root


def look_for_tree(config: Config, root: Chroot | None) -> tuple[KernelTree | None, TwinmodError]:
    """Return a configuration's kernel, or None, and the error that a step without it ends with."""
    try:
        return find.look_for_tree(find.choose_kernel(config), has_root=root is not None)
    except OSError as error:
        return None, MissingToolError(
            f"kernel {config.kernel.name} cannot be read: {error.strerror or error}",
            facts=(("file", str(error.filename)),) if error.filename else (),
        )


def run_each(
    works: Mapping[str, Callable[[], Result]], tell: Callable[[str, TwinmodError], None]
) -> tuple[dict[str, Result], dict[str, TwinmodError]]:
    """Do something for each kernel; of several, one that fails ends none of the others.

    Args:
        works: What is done, by the name of the kernel.
        tell: Told at once of a kernel that failed, and why.

    Returns:
        By the name of the kernel, what was done, and what it failed with.

    Raises:
        SelectionError: The caller asks for something that no kernel has.
        TwinmodError: The only kernel failed.
    """
    if len(works) == 1:
        return {name: work() for name, work in works.items()}, {}
    done: dict[str, Result] = {}
    failed: dict[str, TwinmodError] = {}
    for name, work in works.items():
        try:
            done[name] = work()
        except SelectionError:
            raise
        except TwinmodError as error:
            failed[name] = error
            tell(name, error)
    return done, failed


def ensure_out_dir(out_dir: Path) -> None:
    """Make the folder of results.

    Raises:
        MissingToolError: It cannot be made, or not be written to.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(out_dir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise MissingToolError(
            f"results cannot be written: {error.strerror}",
            facts=(("folder", str(out_dir)),),
            hint="cd to a folder of your own",
        ) from error


@contextmanager
def hold_checkout(config: Config, progress: Progress) -> Iterator[None]:
    """Keep a second run in this checkout waiting, and saying so, until this one ends.

    Raises:
        MissingToolError: Results cannot be written there.
    """
    ensure_out_dir(config.out_dir)
    with cache.hold_lock(config.out_dir / ".lock", "this checkout", progress):
        yield


def find_languages(tree: KernelTree) -> tuple[Language, ...]:
    """Return the languages in which a kernel can have modules."""
    return tuple(language for language in LANGUAGES if not build.find_absence(language, tree))


def require_languages(
    config: Config, tree: KernelTree, wanted: tuple[Language, ...], progress: Progress
) -> tuple[Language, ...]:
    """Return the wanted languages in which a kernel can have modules.

    Args:
        config: Names the modules.
        tree: The kernel.
        wanted: What a caller asks for.
        progress: Told which module is absent, and why.

    Raises:
        ConfigError: None is left.
    """
    found = tuple(language for language in wanted if language in find_languages(tree))
    absent = {
        config.find_module(language).name: build.find_absence(language, tree)
        for language in wanted
        if language not in found
    }
    if not found:
        raise ConfigError(f"nothing is left to do: {'; '.join(dict.fromkeys(absent.values()))}")
    for name, reason in absent.items():
        progress.note(f"{name} is absent: {reason}")
    return found


def prepare_builds(
    config: Config, tree: KernelTree, languages: tuple[Language, ...]
) -> tuple[build.BuildPlan, ...]:
    """Plan the build of the modules in some languages."""
    modules = [module for module in config.modules if module.language in languages]
    version = read_module_version(config)
    return tuple(
        build.plan_build(
            module, tree, build.read_sources(module, config.root_dir), config.out_dir, version
        )
        for module in modules
    )


def show_builds(config: Config, languages: tuple[Language, ...], progress: Progress) -> str:
    """Return the commands that would build modules; run and make nothing.

    Raises:
        MissingToolError: Setup has not been run, so there are no such commands yet.
        ConfigError: The kernel can have none of the modules.
    """
    root = roots.find_chroot(config.chroot)
    tree, error = look_for_tree(config, root)
    if tree is None:
        raise error
    plans = prepare_builds(config, tree, require_languages(config, tree, languages, progress))
    return "\n\n".join(build.render_show(plan) for plan in plans)


def run_build(
    config: Config, prepared: Prepared, languages: tuple[Language, ...], progress: Progress
) -> tuple[Product, ...]:
    """Build modules, sign them for a kernel that wants that, and write the build report."""
    built = build_unsigned(config, prepared, languages, progress)
    products = tuple(signing.sign_product(prepared.tree, product) for product in built)
    document = build.plan_report(products, prepared.tree)
    documents.write(config.out_dir / "build/report.json", document)
    return products


def build_unsigned(
    config: Config, prepared: Prepared, languages: tuple[Language, ...], progress: Progress
) -> tuple[Product, ...]:
    """Build modules as make leaves them."""
    plans = prepare_builds(config, prepared.tree, languages)
    return tuple(build.build(plan, progress) for plan in plans)


def read_module_version(config: Config) -> str:
    """Return what both modules say as their version: the public part of the project's.

    Raises:
        ConfigError: The project states none.
    """
    return versions.plan_base(versions.read_version(config.root_dir))


def read_uapi(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of the uapi header, as far as it is there."""
    module = config.find_module(Language.C)
    path = config.root_dir / module.sources / UAPI
    return ((f"{module.sources}/{UAPI}", path.read_bytes()),) if path.exists() else ()


def read_beside(config: Config) -> tuple[tuple[str, bytes], ...]:
    """Return (path in the checkout, content) of what testers are built of beside their projects."""
    version = versions.read_version(config.root_dir)
    return (*read_uapi(config), (versions.FILE, f"{version}\n".encode()))


def prepare_setting(config: Config, prepared: Prepared, progress: Progress) -> boot.Setting:
    """Return what every VM of a run is made of; builds the testers when they changed."""
    planned = prepare_programs(config, prepared.chroot)
    testers = tuple(
        (spec, entry.ensure(progress).path / packages.SITE)
        for spec, entry in prepare_testers(config, prepared.chroot)
    )
    programs_dir = planned.ensure(progress).path
    with progress.phase("accelerator"):
        accelerator = vm_accelerator.find_accelerator(prepared.tree, prepared.chroot, config.vm)
    tree = signing.sign_vm_modules(
        prepared.tree, config.out_dir / "build" / prepared.tree.release / "vm"
    )
    return boot.Setting(
        tree=tree,
        chroot=prepared.chroot,
        vm=config.vm,
        accelerator=accelerator,
        userland=boot.Userland(
            site_dir=prepared.site_dir, tester_dirs=testers, programs_dir=programs_dir
        ),
        version=read_module_version(config),
    )


def require_parts(config: Config) -> None:
    """Refuse a project that lacks a part of what the matrix needs, before anything is made.

    Raises:
        ConfigError: The contract, the matrix, a module's source or a tester is missing.
    """
    rules.read_rules(config)
    require_matrix(config)
    for module in config.modules:
        build.read_sources(module, config.root_dir)
    for tester in config.testers:
        userland_testers.read_project(config.root_dir / tester.project)


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


def run_lint(config: Config, prepared: Prepared, progress: Progress) -> None:
    """Hold the modules' and the Rust tester's sources to the kernel's and clippy's checks."""
    languages = require_languages(config, prepared.tree, LANGUAGES, progress)
    for plan in prepare_builds(config, prepared.tree, languages):
        lint.lint(plan, progress)
    spec = next(spec for spec in config.testers if spec.name == "rust")
    tools = prepare_tools(config, prepared.chroot)[spec.name]
    userland_testers.lint(spec, tools, config.root_dir, progress)


def find_used_entries(config: Config) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of the cache's folders that this project's kernels use.

    It is all that setup and a run would find there, or go on with, when they are called again.

    Raises:
        ConfigError: The project lacks a part, so that nobody knows what it uses.
    """
    selected = (project_config.select_kernel(config, spec.name) for spec in config.kernels)
    return tuple(dict.fromkeys(folder for one in selected for folder in _find_folders(one)))


def _find_folders(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of the cache's folders that one kernel uses."""
    # Its chroot may be harmed or removed: what was made with it is used again with the next one.
    kernel = find.choose_kernel(config)
    chroot = kernel.chroot
    yield from kernel.folders
    yield userland_testers.plan_target(chroot)
    entries = (
        roots.plan_entry(config.chroot, config.mirror),
        native.prepare_entry(chroot),
        prepare_site(config, chroot),
        prepare_crates(config, chroot),
        *(entry for _, entry in prepare_testers(config, chroot)),
        prepare_programs(config, chroot),
    )
    for entry in entries:
        yield from entry.folders
