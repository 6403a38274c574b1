# SPDX-License-Identifier: GPL-2.0-only
"""The DKMS packages of a release, in the life of a machine: installed, upgraded, removed.

The machine is a throwaway root of Debian's stable suite, with a kernel of its backports: headers
and source, none that runs. dkms compiles there; a VM may boot the root afterwards.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from twinmod.base import versions
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.builds.product import Product
from twinmod.errors import NotPassedError
from twinmod.kernels import elf
from twinmod.project.config import Config
from twinmod.project.names import plan_package
from twinmod.release import index, packages
from twinmod.release import root as release_root
from twinmod.release.model import Release
from twinmod.release.root import ModuleState
from twinmod.workspace import Prepared

#: The VM's programs: they are there on whatever machine has Debian's Python.
ROOT_PACKAGES = ("kmod", "python3", "util-linux")

#: The headers of the suite's own kernel, which has no Rust in Debian 13.
SECOND_HEADERS = "linux-headers-amd64"

INSTALLED = "installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A throwaway root, and what is to be installed in it."""

    root: Chroot
    # The kernel that modules are for.
    kernel_release: str
    # The packages of the release.
    debs: tuple[Path, ...]
    # The modules that they bring, by dkms' name of each.
    modules: tuple[str, ...]
    work_dir: Path

    @property
    def log_path(self) -> Path:
        """Where apt's output goes."""
        return self.work_dir / "apt.log"


def write_debs(files: Mapping[str, bytes], folder: Path) -> tuple[Path, ...]:
    """Write the debs of a release to a folder; return their paths."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = []
    for name, content in files.items():
        if name.endswith(".deb"):
            path = folder / name
            path.write_bytes(content)
            paths.append(path)
    return tuple(sorted(paths))


def make_machine(
    config: Config, prepared: Prepared, files: Mapping[str, bytes], work_dir: Path
) -> Machine:
    """Return a fresh root with the headers and the source of a kernel of its backports.

    Raises:
        MissingToolError: It cannot be made.
        BuildError: The suite has no such kernel any more.
    """
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    tree, inside = prepared.tree, prepared.chroot
    suite = tree.suite.removesuffix("-backports")
    root = release_root.make_root(
        suite,
        config.mirror or inside.mirror,
        inside.apt_options,
        work_dir / "root",
        ROOT_PACKAGES,
    )
    series = ".".join(tree.release.split(".")[:2])
    # By their own names, not by --target-release: that would take libraries of the backports too,
    # and the stable suite's -dev packages do not go with those.
    argv = release_root.plan_apt(
        "install", f"linux-headers-{tree.release}", f"linux-source-{series}"
    )
    release_root.run_apt(
        root,
        argv,
        "the kernel's headers and source were not installed",
        log_path=work_dir / "apt.log",
    )
    return Machine(
        root=root,
        kernel_release=tree.release,
        debs=write_debs(files, work_dir / "debs"),
        modules=tuple(plan_package(module.name) for module in config.modules),
        work_dir=work_dir,
    )


def find_states(states: Iterable[ModuleState], kernel_release: str) -> dict[str, ModuleState]:
    """Return what dkms says of each module for a kernel, by the module's name."""
    return {state.name: state for state in states if state.release == kernel_release}


def find_wrong_states(
    found: Mapping[str, ModuleState], modules: tuple[str, ...], version: str
) -> tuple[str, ...]:
    """Return, of modules that should be installed in a version, what each is instead."""
    wrong = []
    for name in modules:
        if name not in found:
            wrong.append(f"{name} is missing")
        elif found[name].state != INSTALLED or found[name].version != version:
            wrong.append(f"{name} is {found[name].version} {found[name].state}")
    return tuple(wrong)


def require_installed(machine: Machine, version: str) -> str:
    """Return what dkms has for the kernel, all of it of one version.

    Raises:
        NotPassedError: A module is missing, or dkms has another version of it.
        ConfigError: A module says another version.
    """
    found = find_states(release_root.read_status(machine.root), machine.kernel_release)
    wrong = find_wrong_states(found, machine.modules, version)
    if wrong:
        records = "; ".join(
            f"{r.release} {r.state} {r.reason}" for r in release_root.read_records(machine.root)
        )
        raise NotPassedError("; ".join(wrong), facts=(("records", records),))
    for name in machine.modules:
        module = elf.parse_module(
            elf.decompress(find_module(machine, f"{name.replace('-', '_')}.ko"))
        )
        index.check_version(version, name, module.find_modinfo("version"))
    return f"{', '.join(machine.modules)} {version} installed for {machine.kernel_release}"


def install(machine: Machine, what: Release) -> str:
    """Install the packages as a person does, with apt.

    Raises:
        NotPassedError: dkms does not have both modules afterwards.
    """
    release_root.install_debs(machine.root, machine.debs, machine.log_path)
    return require_installed(machine, packages.plan_version(what))


def find_module(machine: Machine, file_name: str) -> Path:
    """Return the file that dkms has put into the root for a module, compressed or not.

    Raises:
        NotPassedError: There is none.
    """
    folder = machine.root.root_dir / "usr/lib/modules" / machine.kernel_release / "updates/dkms"
    paths = sorted(folder.glob(f"{file_name}*"))
    if not paths:
        raise NotPassedError(f"there is no {file_name} in {folder}")
    return paths[0]


def find_products(machine: Machine, products: tuple[Product, ...]) -> tuple[Product, ...]:
    """Return the modules that dkms has put into the root, decompressed.

    Args:
        machine: Where they are.
        products: The prebuilt ones, of which there is one of each.

    Raises:
        NotPassedError: There is none.
    """
    found = []
    for product in products:
        content = elf.decompress(find_module(machine, product.file_name))
        target = machine.work_dir / "modules" / product.file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        module = elf.parse_module(content)
        found.append(
            Product(
                module=product.module,
                label=product.label,
                language=product.language,
                path=target,
                size_bytes=len(content),
                sha256=index.read_digest(content),
                vermagic=module.find_modinfo("vermagic"),
                seconds=0.0,
                command="dkms",
                up_to_date=True,
            )
        )
    return tuple(found)


def upgrade(machine: Machine, config: Config, what: Release, progress: Progress) -> str:
    """Install packages of the next version over those that are there.

    Raises:
        NotPassedError: dkms has not both modules of just that version afterwards.
    """
    later = Release(
        version=versions.plan_next(what.version),
        commit=what.commit,
        epoch=what.epoch + 1,
        source_dir=config.root_dir,
    )
    folder = machine.work_dir / "next"
    made = packages.build_packages(later, folder, progress)
    release_root.install_debs(
        machine.root, tuple(path for path in made if path.suffix == ".deb"), machine.log_path
    )
    seen = require_installed(machine, later.version)
    old = {s.version for s in release_root.read_status(machine.root)} - {later.version}
    if old:
        raise NotPassedError(f"{seen}, but {', '.join(sorted(old))} is still there")
    return seen


def upgrade_kernel(machine: Machine) -> str:
    """Install the headers of the suite's own kernel: apt must succeed, whatever can be built.

    Returns:
        What dkms has for it, and why it has not the rest.

    Raises:
        BuildError: apt fails.
        NotPassedError: A module is neither installed nor skipped with a reason.
    """
    before = {state.release for state in release_root.read_status(machine.root)}
    argv = release_root.plan_apt("install", SECOND_HEADERS)
    release_root.run_apt(
        machine.root,
        argv,
        "the second kernel's headers were not installed",
        log_path=machine.log_path,
    )
    records = {record.release: record for record in release_root.read_records(machine.root)}
    kernels = sorted(
        ({s.release for s in release_root.read_status(machine.root)} | {*records}) - before - {""}
    )
    if not kernels:
        raise NotPassedError("dkms and the package's own record know of no second kernel")
    seen = []
    for kernel in kernels:
        states = find_states(release_root.read_status(machine.root), kernel)
        for name in machine.modules:
            if name in states and states[name].state == INSTALLED:
                seen.append(f"{name} installed for {kernel}")
            elif kernel in records and records[kernel].state == "skipped":
                seen.append(f"{name} skipped for {kernel}: {records[kernel].reason}")
            else:
                raise NotPassedError(f"{name} is not there for {kernel}, and nothing says why")
    return "; ".join(seen)


def remove(machine: Machine) -> str:
    """Purge the packages: nothing of them may be left.

    Raises:
        NotPassedError: Something is; it is named.
    """
    names = tuple(path.name.partition("_")[0] for path in machine.debs)
    argv = release_root.plan_apt("purge", *names)
    release_root.run_apt(
        machine.root, argv, "the packages were not removed", log_path=machine.log_path
    )
    left = sorted(path for path in release_root.read_files(machine.root) if "mdriver" in path)
    for path in (machine.root.root_dir / "usr/lib/modules").glob("*/modules.dep"):
        if "mdriver" in path.read_text(errors="replace"):
            left.append(f"a line in {path.relative_to(machine.root.root_dir)}")
    if release_root.read_status(machine.root):
        left.append("a line in dkms status")
    if left:
        raise NotPassedError(f"left behind: {', '.join(left)}")
    return f"{', '.join(names)} purged; no path, no dkms state and no dependency is left of them"
