# SPDX-License-Identifier: GPL-2.0-only
"""What a module needs before the kernel takes it, and modules that nobody builds.

modpost notes in a module's file which others it takes symbols from. Those come from the same make,
or from the kernel's own modules.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import files, nearest
from twinmod.base.progress import Progress
from twinmod.builds import build
from twinmod.builds.product import NeededModule, Product
from twinmod.builds.sources import name_of
from twinmod.errors import BuildError, ConfigError
from twinmod.kernels import elf
from twinmod.kernels.model import KernelTree
from twinmod.kernels.modules import KernelModules
from twinmod.project.model import Language, ModuleSpec
from twinmod.project.names import normalize

#: Where those are kept that VMs load, decompressed, beside the stages of a kernel.
NEEDED = ".needed"

#: What a product's command says that nobody built.
UNBUILT = "(of the distribution's package)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Makes the modules of a project for one kernel, each with what it needs."""

    tree: KernelTree
    # Gives the kernel's own modules, and may fetch them: called only when one is wanted.
    find_modules: Callable[[], KernelModules]
    project_dir: Path
    # The checkout's folder for results.
    out_dir: Path
    # What the modules say as theirs.
    version: str
    progress: Progress

    def make(self, module: ModuleSpec) -> Product:
        """Build a module, or take the distribution's; return it with what is loaded first.

        Raises:
            ConfigError: The module asks for what is not there.
            BuildError: It does not build, or what it depends on is nowhere.
        """
        if module.stock:
            return self.complete(take_stock(module, self.tree, self.find_modules, self.out_dir))
        plan = build.prepare_build(module, self.tree, self.project_dir, self.out_dir, self.version)
        product = build.build(plan, self.progress)
        return self.complete(product, build.list_modules(plan.stage_dir))

    def complete(self, product: Product, built: tuple[Path, ...] = ()) -> Product:
        """Return a product with what is loaded first.

        Args:
            product: It.
            built: All modules that the same make left.

        Raises:
            BuildError: What it depends on is nowhere.
        """
        siblings = {normalize(p.stem): p for p in built if p != product.path}
        found = find_needed(product.module, product.depends, siblings, self.find_modules)
        needed = tuple(
            NeededModule(name=name, path=siblings.get(name) or self._keep(name, content))
            for name, content in found
        )
        return replace(product, needed=needed)

    def take(self, names: tuple[str, ...]) -> tuple[NeededModule, ...]:
        """Return modules of the kernel's own and what they need, in load order.

        Args:
            names: What a person wants to be loaded; what is built in needs no load.

        Raises:
            ConfigError: The kernel has no such module.
            BuildError: What one depends on is nowhere.
        """
        wanted = tuple(map(normalize, names))
        own = self.find_modules() if wanted else None
        for name in wanted:
            if own is not None and name not in own.files and name not in own.builtin:
                raise _refuse_stock(name, own)
        found = find_needed("", wanted, {}, self.find_modules)
        return tuple(NeededModule(name=n, path=self._keep(n, content)) for n, content in found)

    def take_first(
        self, names: tuple[str, ...], helpers: tuple[ModuleSpec, ...]
    ) -> tuple[NeededModule, ...]:
        """Return what is loaded before anything else of a driver, in load order.

        Args:
            names: See take.
            helpers: Modules of the project or of the kernel that are not under test.

        Raises:
            ConfigError: The kernel has no such module, or a helper asks for what is not there.
            BuildError: A helper does not build, or what one depends on is nowhere.
        """
        found = list(self.take(names))
        for helper in map(self.make, helpers):
            own = NeededModule(name=helper.module, path=helper.path, parameters=helper.parameters)
            found += (*helper.needed, own)
        return plan_order(found)

    def _keep(self, name: str, content: bytes) -> Path:
        folder = self.out_dir / "build" / self.tree.release / NEEDED
        return keep(folder / f"{name}.ko", content)


def plan_order(modules: Iterable[NeededModule]) -> tuple[NeededModule, ...]:
    """Return modules in their order, each once: the first of a name stays."""
    first: dict[str, NeededModule] = {}
    for module in modules:
        first.setdefault(module.name, module)
    return tuple(first.values())


def add_first(product: Product, first: tuple[NeededModule, ...]) -> Product:
    """Return a product before which other modules are loaded, and then what it needs."""
    return replace(product, needed=plan_order((*first, *product.needed)))


def require_apart(products: tuple[Product, ...]) -> None:
    """Refuse modules of one VM that cannot each be loaded and unloaded alone.

    Raises:
        ConfigError: Two have one name, or one depends on another.
    """
    names = [product.module for product in products]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise ConfigError(f"two modules are called {twice}: the kernel takes one of a name")
    for product in products:
        for module in product.needed:
            if module.name in names:
                raise ConfigError(
                    f"module {product.module} depends on {module.name}, which is under test too",
                    hint=f"test {module.name} alone: {product.module} has it loaded first",
                )


def keep(path: Path, content: bytes) -> Path:
    """Write a file unless it is there as it should be; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)
    return path


def find_needed(
    module: str,
    needed: tuple[str, ...],
    siblings: Mapping[str, Path],
    find_modules: Callable[[], KernelModules],
) -> tuple[tuple[str, bytes], ...]:
    """Return (name, content) of all that a module depends on, each after what it needs itself.

    Args:
        module: Its name.
        needed: What it depends on itself.
        siblings: What the same make built, by name.
        find_modules: See Builder.

    Raises:
        BuildError: Some of it is nowhere; all names are told.
    """
    contents: dict[str, bytes] = {}
    depends: dict[str, tuple[str, ...]] = {}
    missing: dict[str, str] = {}

    def look_into(name: str, needed: tuple[str, ...]) -> None:
        depends[name] = needed
        for other in needed:
            if other in depends or other in missing:
                continue
            if other in siblings:
                contents[other] = siblings[other].read_bytes()
            elif other in (own := find_modules()).files:
                contents[other] = own.read(other)
            elif other not in own.builtin:
                missing[other] = name
            if other in contents:
                look_into(other, elf.parse_module(contents[other]).find_depends())

    look_into(module, needed)
    if missing:
        raise BuildError(
            f"module {module} cannot be loaded: neither its make nor the kernel has "
            f"{', '.join(missing)}",
            facts=tuple((f"needed by {by}", name) for name, by in missing.items()),
        )
    order = elf.plan_load_order(depends, (module,))
    for at, name in enumerate(order):
        early = [other for other in depends[name] if other in order[at:]]
        if early:
            raise BuildError(
                f"module {module} cannot be loaded: {early[0]} and {name} depend on each other"
            )
    return tuple((name, contents[name]) for name in order[:-1])


def take_stock(
    module: ModuleSpec, tree: KernelTree, find_modules: Callable[[], KernelModules], out_dir: Path
) -> Product:
    """Return a module of the distribution's as a product, in a folder like those of builds.

    Raises:
        ConfigError: The distribution has no such module, or not as a file.
        BuildError: The kernel is not a distribution's.
    """
    if reason := build.find_stock_absence(module, tree):
        raise BuildError(f"module {name_of(module)} is absent: {reason}")
    own = find_modules()
    name = normalize(module.stock)
    if name not in own.files:
        raise _refuse_stock(name, own)
    content = own.read(name)
    path = out_dir / "build" / tree.release / name / f"{name}.ko"
    # It is no longer what a build left.
    with contextlib.suppress(OSError):
        (path.parent / build.MANIFEST).unlink()
    keep(path, content)
    found = elf.parse_module(content)
    watchers, blind = build.find_watchers(tree, found)
    return Product(
        module=name,
        label=module.label,
        language=build.find_language(found) or Language.C,
        path=path,
        size_bytes=len(content),
        sha256=files.read_digest(path),
        vermagic=found.find_modinfo("vermagic"),
        seconds=0.0,
        command=UNBUILT,
        up_to_date=True,
        watchers=watchers,
        blind=blind,
        depends=found.find_depends(),
        parameters=module.parameters,
    )


def _refuse_stock(name: str, own: KernelModules) -> ConfigError:
    if name in own.builtin:
        return ConfigError(
            f"{name} is part of kernel {own.release} itself, and cannot be loaded or unloaded"
        )
    return ConfigError(
        f"kernel {own.release} has no module {name}",
        facts=(("modules", str(len(own.files))),),
        hint=nearest.plan_hint(name, sorted(own.files)),
    )
