# SPDX-License-Identifier: GPL-2.0-only
"""A module's source folder becomes a .ko for one kernel tree, and is looked at.

The stage is a folder of the checkout's ``out/`` with the sources and a generated Kbuild. Inside
the chroot it appears at the same path everywhere: out of tree for C, at the configured folder of
the read-only Linux tree for Rust.

Source: Documentation/kbuild/modules.rst, Linux 7.3.
"""

import shlex
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from msgspec import structs

from twinmod.base import documents, process, sandbox, templates
from twinmod.base import files as base_files
from twinmod.base.documents import Document, Part
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Enter
from twinmod.builds.product import Product
from twinmod.errors import BuildError, ConfigError
from twinmod.kernels import elf, kconfig
from twinmod.kernels.model import KernelTree
from twinmod.project.model import Language, ModuleSpec

MODULES = sandbox.INSIDE / "module"

#: What a person writes; everything else in a stage is generated.
SOURCE_SUFFIXES = (".c", ".h", ".rs", ".S")

#: Of the file that has a module's name.
MAIN_SUFFIXES = (".c", ".rs")

#: The record of the last build, beside its product.
MANIFEST = ".twinmod.json"

BUILD_TIMEOUT_S = 900.0

#: A compiler's words are shown as it wrote them, up to this many lines.
COMPILER_LINES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """All that it takes to build one module for one tree; nothing has happened yet."""

    module: ModuleSpec
    # What its sources are written in.
    language: Language
    tree: KernelTree
    stage_dir: Path
    # (file name, content) of everything that the stage holds before make runs.
    files: tuple[tuple[str, bytes], ...]
    # What make calls the folder: relative to the tree, or absolute inside the chroot.
    folder: str
    command: Command
    # What the same would have been called before Linux 5.3; "" out of tree.
    subdirs_line: str
    # The same digest means the same product.
    digest: str

    @property
    def product_path(self) -> Path:
        """Where make leaves the module."""
        return self.stage_dir / f"{self.module.name}.ko"


class BuildKernel(Part, frozen=True, kw_only=True):
    """A kernel that modules were built for."""

    release: str
    version: str
    origin: str
    suite: str
    make_flags: tuple[str, ...]
    # The root's name.
    compilers: str
    rustc: str


class CrateReport(Part, frozen=True, kw_only=True):
    """The proof of its Rust crates; CrateProof says what the keys mean."""

    reference: str
    checked_symbols: int
    equal_layouts: int
    unknown_layouts: tuple[str, ...]
    ambiguous_layouts: tuple[str, ...]
    uncompared: str


class BuiltModule(Part, frozen=True, kw_only=True):
    """A module that was built; Product says what the keys mean."""

    module: str
    label: str = ""
    language: str
    path: str
    size_bytes: int
    sha256: str
    vermagic: str
    seconds: float
    command: str
    up_to_date: bool
    variant: str
    watchers: tuple[str, ...]
    blind: tuple[str, ...]


class Manifest(Part, frozen=True, kw_only=True):
    """The record of a build."""

    # Of the plan.
    digest: str
    product: BuiltModule


class BuildReport(Document, frozen=True, kw_only=True, tag="twinmod.build/2"):
    """What `build` made."""

    kernel: BuildKernel
    crates: CrateReport
    products: tuple[BuiltModule, ...]


def read_sources(module: ModuleSpec, project_dir: Path) -> tuple[tuple[str, bytes], ...]:
    """Return (name, content) of a module's source files, sorted by name.

    Raises:
        ConfigError: The folder or the module's main file is not there.
    """
    folder = project_dir / module.sources
    wanted = tuple(folder / f"{module.name}{suffix}" for suffix in MAIN_SUFFIXES)
    if not any(path.is_file() for path in wanted):
        raise ConfigError(
            f"the source of module {module.name} is missing",
            facts=(("file", " or ".join(map(str, wanted))),),
            hint=f"correct the module {module.label} in the configuration, or write the file",
        )
    return tuple((path.name, path.read_bytes()) for path in list_sources(folder))


def find_source_language(names: Iterable[str]) -> Language:
    """Return the language of a module whose sources have some names: Rust when one is in Rust."""
    return Language.RUST if any(name.endswith(".rs") for name in names) else Language.C


def list_sources(folder: Path) -> tuple[Path, ...]:
    """Return the source files in a folder, sorted, without what a build or an editor left."""
    return tuple(
        path
        for path in sorted(folder.iterdir())
        if path.suffix in SOURCE_SUFFIXES and not base_files.is_left(path.name) and path.is_file()
    )


def plan_folder(module: ModuleSpec) -> tuple[str, PurePosixPath]:
    """Return what make calls a module's folder, and where it lies inside the chroot."""
    if module.in_tree:
        return module.in_tree, sandbox.LINUX / module.in_tree
    return str(MODULES / module.name), MODULES / module.name


def plan_make(module: ModuleSpec, tree: KernelTree, *arguments: str) -> tuple[str, ...]:
    """Return make's argument vector for one module, as it is called inside the chroot."""
    folder, _ = plan_folder(module)
    return sandbox.plan_make(tree.make_flags, f"M={folder}", *arguments, in_place=tree.in_place)


def plan_binds(
    module: ModuleSpec, tree: KernelTree, stage_dir: Path
) -> tuple[tuple[Bind, ...], tuple[PurePosixPath, ...]]:
    """Return the mounts of a build, and the folders to cover first.

    The tree is read-only, so the parent of the module's folder in it is covered by an empty
    one, where the mount point can be made.
    """
    _, inside = plan_folder(module)
    binds = (
        Bind(source_path=tree.source_dir, target_path=sandbox.LINUX),
        Bind(source_path=tree.build_dir, target_path=sandbox.BUILD),
        Bind(source_path=stage_dir, target_path=inside, writable=True),
    )
    return binds, (inside.parent,) if module.in_tree else ()


def find_language_absence(language: Language, tree: KernelTree) -> str:
    """Return why a kernel can have no module in a language, "" when it can."""
    if language == Language.RUST and not tree.proof.rustc:
        return f"kernel {tree.release} was built without Rust (CONFIG_RUST is not set)"
    return ""


def find_absence(module: ModuleSpec, tree: KernelTree, project_dir: Path) -> str:
    """Return why a kernel can have no module of some sources, "" when it can.

    Args:
        module: What would be built; its sources may be missing, which is no reason.
        tree: The kernel.
        project_dir: What the folder of its sources is relative to.
    """
    folder = project_dir / module.sources
    names = (path.name for path in list_sources(folder)) if folder.is_dir() else ()
    return find_language_absence(find_source_language(names), tree)


def plan_build(
    module: ModuleSpec,
    tree: KernelTree,
    sources: tuple[tuple[str, bytes], ...],
    out_dir: Path,
    version: str = "",
) -> BuildPlan:
    """Plan the build of one module.

    Args:
        module: What to build.
        tree: The kernel to build it for, with the compilers that built it.
        sources: (name, content) of its files.
        out_dir: The checkout's folder for results.
        version: What the module says as its version; "" for one that has none.

    Returns:
        The plan: stage, commands, and the digest of everything that the product depends on.

    Raises:
        BuildError: The kernel has no Rust and the module is written in it.
    """
    language = find_source_language(name for name, _ in sources)
    reason = find_language_absence(language, tree)
    if reason:
        raise BuildError(f"module {module.name} cannot be built: {reason}")
    folder, _ = plan_folder(module)
    stage_dir = out_dir / "build" / tree.release / module.name
    binds, hidden = plan_binds(module, tree, stage_dir)
    argv = plan_make(module, tree, "modules")
    command = sandbox.plan_command(
        tree.compilers,
        argv,
        Enter(binds=binds, hidden=hidden),
        purpose=f"module {module.name} did not build",
        timeout_s=BUILD_TIMEOUT_S,
    )
    command = replace(command, log_path=stage_dir / "build.log", tail_lines=COMPILER_LINES)
    kbuild = templates.render_template("Kbuild.j2", {"module": module.name, "version": version})
    files = (*sources, ("Kbuild", kbuild.encode()))
    subdirs_line = f"make SUBDIRS={module.in_tree} modules" if module.in_tree else ""
    return BuildPlan(
        module=module,
        language=language,
        tree=tree,
        stage_dir=stage_dir,
        folder=folder,
        command=command,
        files=(*files, ("Makefile", render_makefile(module, tree, command).encode())),
        subdirs_line=subdirs_line,
        digest=plan_digest(files, argv, tree),
    )


def plan_digest(
    files: tuple[tuple[str, bytes], ...], argv: tuple[str, ...], tree: KernelTree
) -> str:
    """Return the digest of all that a product depends on: sources, command, tree, chroot."""
    # Words as a shell quotes them end at the newline: none looks like a part of a file.
    beginning = shlex.join((*argv, tree.key, tree.compilers.key))
    return base_files.plan_digest(f"{beginning}\n", files)


def render_makefile(module: ModuleSpec, tree: KernelTree, command: Command) -> str:
    """Return the Makefile with which a person repeats a build in its stage."""
    # Without its last word, the target.
    words = shlex.join(command.argv[:-1]).replace("$", "$$")
    return templates.render_template(
        "Makefile.j2",
        {
            "module": module.name,
            "release": tree.release,
            "subdirs": module.in_tree,
            "command": words,
        },
    )


def render_show(plan: BuildPlan) -> str:
    """Return what ``build -- --show`` prints for one module."""
    lines = [f"# {plan.module.name} for {plan.tree.release}"]
    if plan.subdirs_line:
        lines.append(f"# before Linux 5.3: {plan.subdirs_line}")
    inside = shlex.join(plan_make(plan.module, plan.tree, "modules"))
    lines.append(f"# inside the sandbox: {inside}")
    return "\n".join((*lines, process.render_command(plan.command)))


def write_stage(plan: BuildPlan) -> None:
    """Write a plan's files, each only when it changed, and remove sources that are gone.

    make decides by time stamps: what did not change must not look new.
    """
    plan.stage_dir.mkdir(parents=True, exist_ok=True)
    wanted = dict(plan.files)
    for path in list_sources(plan.stage_dir):
        if path.name not in wanted:
            path.unlink()
    for name, content in plan.files:
        path = plan.stage_dir / name
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)


def build(plan: BuildPlan, progress: Progress) -> Product:
    """Build a module, unless its last product is what this plan would make.

    Raises:
        BuildError: It does not compile, or the product is not what it should be.
    """
    found = find_product(plan)
    if found is not None:
        return found
    manifest_path = plan.stage_dir / MANIFEST
    manifest_path.unlink(missing_ok=True)
    _clear_foreign_outputs(plan)
    write_stage(plan)
    plan.product_path.unlink(missing_ok=True)
    began = time.monotonic()
    began_wall = time.time()
    with progress.phase(f"module {plan.module.name}"):
        process.run(plan.command)
    product = read_product(plan, time.monotonic() - began, began_wall)
    documents.write(manifest_path, Manifest(digest=plan.digest, product=_plan_product(product)))
    (plan.stage_dir / ".twinmod.tree").write_text(plan.tree.key)
    return product


def _clear_foreign_outputs(plan: BuildPlan) -> None:
    """Start over when the stage was built for another tree: make would not notice."""
    marker = plan.stage_dir / ".twinmod.tree"
    if plan.stage_dir.exists() and (not marker.exists() or marker.read_text() != plan.tree.key):
        shutil.rmtree(plan.stage_dir)


def find_product(plan: BuildPlan) -> Product | None:
    """Return the last product when it is exactly what the plan would make, unharmed."""
    try:
        record = documents.parse_part((plan.stage_dir / MANIFEST).read_bytes(), Manifest)
        digest = base_files.read_digest(plan.product_path)
    except (OSError, *documents.INVALID):
        return None
    built = record.product
    if record.digest != plan.digest or digest != built.sha256:
        return None
    fields = {
        **structs.asdict(built),
        "label": plan.module.label,
        "language": Language(built.language),
        "path": plan.product_path,
        "up_to_date": True,
    }
    return Product(**fields)


def read_product(plan: BuildPlan, seconds: float, began_wall: float) -> Product:
    """Return what make built, after a look at it.

    Raises:
        BuildError: make left nothing, something old, or something else.
    """
    path = plan.product_path
    if not path.is_file() or path.stat().st_mtime < began_wall - 1:
        raise BuildError(
            f"module {plan.module.name} did not build: make succeeded and left no new product",
            facts=(("product", str(path)), ("log", str(plan.command.log_path))),
        )
    content = path.read_bytes()
    found = elf.parse_module(content)
    vermagic = check_module(plan, found)
    config = kconfig.parse_options((plan.tree.build_dir / ".config").read_text())
    watchers, blind = kconfig.find_watchers(config, found.symbols)
    return Product(
        module=plan.module.name,
        label=plan.module.label,
        language=plan.language,
        path=path,
        size_bytes=len(content),
        sha256=base_files.read_digest(path),
        vermagic=vermagic,
        seconds=round(seconds, 2),
        up_to_date=False,
        watchers=watchers,
        blind=blind,
        command=shlex.join(plan_make(plan.module, plan.tree, "modules")),
    )


def check_module(plan: BuildPlan, found: elf.ModuleFile) -> str:
    """Return a module's vermagic, after comparing the file with what it should be.

    Raises:
        BuildError: It has another name, kernel or language.
    """
    vermagic = found.find_modinfo("vermagic")
    claims = (
        ("name", plan.module.name, found.find_modinfo("name")),
        ("kernel", plan.tree.release, vermagic.split(" ")[0]),
        ("language", plan.language, find_language(found) or "unknown"),
    )
    wrong = tuple(
        (what, f"{seen}, not {wanted}") for what, wanted, seen in claims if wanted != seen
    )
    if wrong:
        raise BuildError(
            f"module {plan.module.name} was built, and is not what it should be",
            facts=(*wrong, ("product", str(plan.product_path))),
        )
    return vermagic


def find_language(found: elf.ModuleFile) -> Language | None:
    """Return the language that a module was compiled from, None when its file does not show it.

    Every module has C in it, from modpost; only a Rust one is signed by rustc and has Rust's
    mangled symbols.
    """
    signed = any("rustc" in comment for comment in found.comments)
    mangled = any(symbol.startswith("_R") for symbol in found.symbols)
    if signed and mangled:
        return Language.RUST
    return Language.C if found.comments and not signed and not mangled else None


def plan_report(products: tuple[Product, ...], tree: KernelTree) -> BuildReport:
    """Return the report of a build."""
    return BuildReport(
        kernel=BuildKernel(
            release=tree.release,
            version=tree.version,
            origin=tree.origin,
            suite=tree.suite,
            make_flags=tree.make_flags,
            compilers=tree.compilers.name,
            rustc=tree.proof.rustc,
        ),
        crates=CrateReport(
            reference=tree.proof.reference,
            checked_symbols=tree.proof.checked_symbols,
            equal_layouts=tree.proof.equal_layouts,
            unknown_layouts=tree.proof.unknown_layouts,
            ambiguous_layouts=tree.proof.ambiguous_layouts,
            uncompared=tree.proof.uncompared,
        ),
        products=tuple(_plan_product(product) for product in products),
    )


def _plan_product(product: Product) -> BuiltModule:
    return BuiltModule(
        module=product.module,
        label=product.label,
        language=product.language,
        path=str(product.path),
        size_bytes=product.size_bytes,
        sha256=product.sha256,
        vermagic=product.vermagic,
        seconds=product.seconds,
        command=product.command,
        up_to_date=product.up_to_date,
        variant=product.variant,
        watchers=product.watchers,
        blind=product.blind,
    )
