# SPDX-License-Identifier: GPL-2.0-only
"""A project with one of its kernels: what every verb starts from."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import cache, documents, versions
from twinmod.base.cache import FoundEntry
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.builds import build as builds_build
from twinmod.builds import lint as builds_lint
from twinmod.builds import signing
from twinmod.builds.needs import Builder, add_first, require_apart
from twinmod.builds.product import NeededModule, Product
from twinmod.cells import model, selection
from twinmod.errors import ConfigError, MissingToolError, TwinmodError, VmLostError
from twinmod.kernels import find, roots
from twinmod.kernels.model import KernelTree
from twinmod.project import config as project_config
from twinmod.project import rules
from twinmod.project.config import Config
from twinmod.userland import debs, entries, native, packages
from twinmod.userland import testers as userland_testers
from twinmod.userland.debs import Layer
from twinmod.vm import accelerator as vm_accelerator
from twinmod.vm import boot, proving, snapshot

#: Returns (title, seconds) of every phase that ended.
Phases = Callable[[], tuple[tuple[str, float], ...]]


def no_phases() -> tuple[tuple[str, float], ...]:
    """Return none: nobody asks."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What setup leaves: a chroot, a kernel tree, and the userland's parts."""

    chroot: Chroot
    tree: KernelTree
    site_dir: Path
    # With the crates of the first tester in Rust, as CARGO_HOME; None where none is in Rust.
    crates_dir: Path | None
    # Debian packages that lie over the chroot in a VM.
    layer: Layer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A project with one of its kernels, and where an act on it says what it is doing."""

    config: Config
    progress: Progress
    # What a report says of the time that its run took.
    phases: Phases = no_phases
    # Whether every VM boots, also where it could be a clone.
    cold: bool = False

    @property
    def out_dir(self) -> Path:
        """The folder of results."""
        return self.config.out_dir

    def select(self, kernel: str) -> "Workspace":
        """Return the same project with another of its kernels.

        Raises:
            ConfigError: It has no such kernel.
        """
        return replace(self, config=project_config.select_kernel(self.config, kernel))

    # -- folders ------------------------------------------------------------------------------

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep a second run in this checkout waiting, and saying so, until this one ends.

        Raises:
            MissingToolError: Results cannot be written there.
        """
        self.ensure_out_dir()
        with cache.hold_lock(self.out_dir / ".lock", "this checkout", self.progress):
            yield

    def ensure_out_dir(self) -> None:
        """Make the folder of results.

        Raises:
            MissingToolError: It cannot be made, or not be written to.
        """
        try:
            self.out_dir.mkdir(parents=True, exist_ok=True)
            if not os.access(self.out_dir, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise MissingToolError(
                f"results cannot be written: {error.strerror}",
                facts=(("folder", str(self.out_dir)),),
                hint="cd to a folder of your own",
            ) from error

    def require_parts(self) -> None:
        """Refuse a project that lacks a part of what the matrix needs, before anything is made.

        Raises:
            ConfigError: The contract, the matrix, a module's source or a tester is missing.
        """
        rules.read_rules(self.config)
        entries.require_matrix(self.config)
        for module in self.config.modules:
            builds_build.read_sources(module, self.config.root_dir)
        for tester in self.config.testers:
            userland_testers.read_project(self.config.root_dir / tester.project)

    def find_used_entries(self) -> tuple[tuple[str, str], ...]:
        """Return (kind, name) of the cache's folders that all kernels of the project use.

        It is all that setup and a run would find there, or go on with, when they are called again.

        Raises:
            ConfigError: The project lacks a part, so that nobody knows what it uses.
        """
        configs = (
            project_config.select_driver(self.config, driver.name) for driver in self.config.drivers
        )
        selected = (
            replace(self, config=config).select(spec.name)
            for config in configs
            for spec in config.kernels
        )
        return tuple(dict.fromkeys(folder for one in selected for folder in one.find_folders()))

    def find_folders(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of the cache's folders that this kernel uses."""
        config = self.config
        # Its chroot may be harmed or removed: what was made with it is used again with the next.
        kernel = find.choose_kernel(config)
        chroot = kernel.chroot
        yield from kernel.folders
        yield userland_testers.plan_target(chroot)
        layer = entries.prepare_debs(config, chroot)
        used = (
            roots.plan_entry(config.chroot, config.mirror),
            *((layer,) if layer else ()),
            native.prepare_entry(chroot),
            entries.prepare_site(config, chroot),
            *entries.prepare_crates(config, chroot).values(),
            *(entry for _, entry in entries.prepare_testers(config, chroot)),
            entries.prepare_programs(config, chroot),
        )
        for entry in used:
            yield from entry.folders
        yield from snapshot.find_kept(config.kernel.name)

    # -- the kernel ---------------------------------------------------------------------------

    def setup(self) -> Prepared:
        """Make everything that later steps need; quick when it is there.

        Raises:
            TwinmodError: See the steps.
        """
        config, progress = self.config, self.progress
        kernel = find.choose_kernel(config, lambda one: replace(self, config=one).ensure_root())
        tree = kernel.ensure(progress)
        site = entries.prepare_site(config, kernel.chroot).ensure(progress)
        crates = entries.prepare_crates(config, kernel.chroot).values()
        debs_entry = entries.prepare_debs(config, kernel.chroot)
        crates_dirs = tuple(entry.ensure(progress).path / packages.CARGO for entry in crates)
        return Prepared(
            chroot=kernel.chroot,
            tree=tree,
            site_dir=site.path / packages.SITE,
            crates_dir=next(iter(crates_dirs), None),
            layer=debs.read_layer(debs_entry.ensure(progress)) if debs_entry else None,
        )

    def ensure_root(self) -> Chroot:
        """Return the kernel's chroot, made first when it is not there."""
        root = roots.find_chroot(self.config.chroot)
        if root is None:
            cache.ensure_cache_dir()
            roots.ensure_host_packages(self.progress)
            root = roots.ensure_chroot(self.config.chroot, self.config.mirror, self.progress)
        return root

    def look_for_tree(self) -> tuple[KernelTree | None, TwinmodError]:
        """Return the kernel, or None, and the error that a step without it ends with."""
        has_root = roots.find_chroot(self.config.chroot) is not None
        try:
            return find.look_for_tree(find.choose_kernel(self.config), has_root=has_root)
        except OSError as error:
            return None, MissingToolError(
                f"kernel {self.config.kernel.name} cannot be read: {error.strerror or error}",
                facts=(("file", str(error.filename)),) if error.filename else (),
            )

    # -- modules ------------------------------------------------------------------------------

    def find_absences(self, tree: KernelTree) -> dict[str, str]:
        """Return why a kernel can have no module of a label, "" when it can, by all labels."""
        return {
            module.label: builds_build.find_absence(module, tree, self.config.root_dir)
            for module in self.config.modules
        }

    def find_labels(self, tree: KernelTree) -> tuple[str, ...]:
        """Return the labels of the modules that a kernel can have."""
        return tuple(label for label, reason in self.find_absences(tree).items() if not reason)

    def require_labels(self, tree: KernelTree, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the wanted labels whose modules a kernel can have; say which are absent.

        Args:
            tree: The kernel.
            wanted: Labels of the driver; () is all.

        Raises:
            ConfigError: None is left.
        """
        reasons = self.find_absences(tree)
        wanted = wanted or self.config.labels
        found = tuple(label for label in wanted if not reasons[label])
        absent = {label: reasons[label] for label in wanted if reasons[label]}
        if not found:
            raise ConfigError(f"nothing is left to do: {'; '.join(dict.fromkeys(absent.values()))}")
        for label, reason in absent.items():
            self.progress.note(f"{self.config.find_module(label).name} is absent: {reason}")
        return found

    def require_testers(self, verb: str) -> None:
        """Refuse a verb that calls the driver through testers where there are none.

        Raises:
            ConfigError: There are none.
        """
        driver = self.config.driver
        if not driver.testers:
            raise ConfigError(
                f"{verb} calls the driver through testers, and {driver.name} has none",
                hint=f"name one in drivers.{driver.name}.testers",
            )

    def read_version(self) -> str:
        """Return what the modules say as their version: the public part of the project's.

        It is "" for a project that states none.

        Raises:
            ConfigError: The project states one that a distribution cannot have.
        """
        found = versions.find_version(self.config.root_dir)
        return versions.plan_base(found) if found else ""

    def prepare_builds(
        self, tree: KernelTree, labels: tuple[str, ...]
    ) -> tuple[builds_build.BuildPlan, ...]:
        """Plan the build of the modules of some labels; the distribution's have none."""
        config, version = self.config, self.read_version()
        return tuple(
            builds_build.prepare_build(module, tree, config.root_dir, self.out_dir, version)
            for module in config.modules
            if module.label in labels and not module.stock
        )

    def show_builds(self, labels: tuple[str, ...] = ()) -> str:
        """Return the commands that would build modules, () being all; run and make nothing.

        Raises:
            MissingToolError: Setup has not been run, so there are no such commands yet.
            ConfigError: The kernel can have none of the modules.
        """
        tree, error = self.look_for_tree()
        if tree is None:
            raise error
        plans = self.prepare_builds(tree, self.require_labels(tree, labels))
        return "\n\n".join(builds_build.render_show(plan) for plan in plans)

    def build(self, prepared: Prepared, labels: tuple[str, ...]) -> tuple[Product, ...]:
        """Build modules, sign them for a kernel that wants that, and write the build report."""
        built = self.build_unsigned(prepared, labels)
        products = tuple(signing.sign_product(prepared.tree, product) for product in built)
        document = builds_build.plan_report(products, prepared.tree)
        documents.write(self.out_dir / "build/report.json", document)
        return products

    def build_unsigned(self, prepared: Prepared, labels: tuple[str, ...]) -> tuple[Product, ...]:
        """Build modules as make leaves them."""
        builder = self.prepare_builder(prepared)
        wanted = (module for module in self.config.modules if module.label in labels)
        first = self.take_first(builder)
        products = tuple(add_first(builder.make(module), first) for module in wanted)
        require_apart(products)
        return products

    def take_first(self, builder: Builder) -> tuple[NeededModule, ...]:
        """Return what is loaded before every module of the driver, in load order."""
        return builder.take_first(self.config.vm.modules, self.config.driver.helpers)

    def prepare_builder(self, prepared: Prepared) -> Builder:
        """Return what makes the project's modules for a kernel that is there."""
        kernel = find.choose_kernel(
            self.config, lambda one: replace(self, config=one).ensure_root()
        )
        return Builder(
            tree=prepared.tree,
            find_modules=lambda: kernel.ensure_modules(self.progress),
            project_dir=self.config.root_dir,
            out_dir=self.out_dir,
            version=self.read_version(),
            progress=self.progress,
        )

    def lint(self, prepared: Prepared) -> None:
        """Hold the modules' and Rust testers' sources to the kernel's and clippy's checks."""
        labels = self.require_labels(prepared.tree)
        for plan in self.prepare_builds(prepared.tree, labels):
            # The kernel's own code is as its maintainers want it.
            if plan.module.sources:
                builds_lint.lint(plan, self.progress)
        for spec, tools in entries.prepare_tools(self.config, prepared.chroot):
            if tools.crates is not None:
                userland_testers.lint(spec, tools, self.config.root_dir, self.progress)

    # -- VMs ----------------------------------------------------------------------------------

    def environment(self, prepared: Prepared) -> boot.Setting:
        """Return what every VM of a run is made of; builds the testers when they changed."""
        config, chroot = self.config, prepared.chroot
        planned = entries.prepare_programs(config, chroot)
        tester_dirs = tuple(
            (spec, entry.ensure(self.progress).path / packages.SITE)
            for spec, entry in entries.prepare_testers(config, chroot)
        )
        programs_dir = planned.ensure(self.progress).path
        with self.progress.phase("accelerator"):
            accelerator = vm_accelerator.find_accelerator(prepared.tree, chroot, config.vm)
        tree = signing.sign_vm_modules(
            prepared.tree, self.out_dir / "build" / prepared.tree.release / "vm"
        )
        parameters = (*tree.parameters, *config.vm.command_line)
        return boot.Setting(
            tree=replace(tree, parameters=parameters),
            chroot=chroot,
            vm=config.vm,
            accelerator=accelerator,
            layer=prepared.layer,
            userland=boot.Userland(
                site_dir=prepared.site_dir, tester_dirs=tester_dirs, programs_dir=programs_dir
            ),
            version=self.read_version(),
            native_dir=native.ensure_native(chroot, self.progress),
            devices=config.vm.devices,
        )

    def find_clones(self, setting: boot.Setting) -> boot.Setting:
        """Return the setting of VMs that are clones, if they can be at once; else as it was.

        A person who wants one VM does not wait for what makes the next ones quick.
        """
        base = None if self.cold or snapshot.find_obstacle(setting) else snapshot.find_base(setting)
        proof = proving.read_proof(base) if base else None
        if base is None or proof is None or proof.differences:
            return setting
        return replace(setting, snapshot=snapshot.prepare_snapshot(setting, base).find())

    def prepare_clones(self, prepared: Prepared, setting: boot.Setting) -> boot.Setting:
        """Return the setting of VMs that are clones; where they cannot be, that is said.

        The first time, a cell is run in a clone and in a VM that boots: only a base whose clones do
        the same is used.

        Args:
            prepared: The kernel and what else the VMs are made of.
            setting: As environment() has it, with whatever matrix.
        """
        if self.cold:
            return setting
        try:
            return self._prepare_clones(prepared, setting)
        except (VmLostError, OSError) as error:
            why = error.message if isinstance(error, VmLostError) else error.strerror or str(error)
        self.progress.note(f"no clones, so each VM boots: {why}")
        return setting

    def _prepare_clones(self, prepared: Prepared, setting: boot.Setting) -> boot.Setting:
        """Return the setting with a snapshot.

        Raises:
            VmLostError: There can be none, or its clones differ from VMs that boot.
            OSError: The disk has no room for it.
        """
        if obstacle := snapshot.find_obstacle(setting):
            raise VmLostError(obstacle)
        kernel = setting.tree.name
        base = snapshot.use(snapshot.prepare_base(setting), kernel, self.progress)
        proof = proving.read_proof(base) or self.prove(prepared, base)
        if proof is None:
            raise VmLostError("a cell fails in a VM that boots, so they could not be compared")
        if proof.differences:
            first, more = proof.differences[0], len(proof.differences) - 1
            others = f", and {more} more" if more else ""
            raise VmLostError(f"they differ from VMs that boot: {first}{others}")
        entry = snapshot.prepare_snapshot(setting, base)
        return replace(setting, snapshot=snapshot.use(entry, kernel, self.progress))

    def prove(self, prepared: Prepared, base: FoundEntry) -> proving.Proof | None:
        """Compare a base's clones with VMs that boot, by the first cell; see proving.prove."""
        cells, _ = selection.plan_presence(
            model.plan_cells(self.config), self.find_absences(prepared.tree)
        )
        setting = self.environment(prepared)
        entry = snapshot.prepare_snapshot(setting, base)
        products = self.build(prepared, (cells[0].label,))
        work = boot.MatrixWork(
            cells=model.name_cells(cells[:1], products),
            products=products,
            limit_s=self.config.vm.test_timeout_s,
        )
        found = snapshot.use(entry, setting.tree.name, self.progress)
        out_dir = self.out_dir / "proof"
        shutil.rmtree(out_dir, ignore_errors=True)
        proof = proving.prove(
            replace(setting, snapshot=found),
            work,
            self.config.driver.differences,
            out_dir,
            self.progress,
        )
        if proof is not None:
            proving.note_proof(base, proof)
        return proof
