# SPDX-License-Identifier: GPL-2.0-only
"""A module's source folder becomes a .ko for one kernel tree, and is looked at.

The stage is a folder of the checkout's ``out/`` with the sources, and with a generated Kbuild where
they have none. Inside the chroot it appears at the same path everywhere: out of tree, at the
configured folder of the read-only Linux tree, or in the place of that tree's own folder.

Source: Documentation/kbuild/modules.rst, Linux 7.3.
"""

import shlex
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import assert_never

from msgspec import structs

from twinmod.base import documents, process, sandbox, templates
from twinmod.base import files as base_files
from twinmod.base.documents import Document, Part
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Enter
from twinmod.builds import sources as builds_sources
from twinmod.builds.product import Product
from twinmod.builds.sources import Files, name_of
from twinmod.errors import BuildError, ConfigError
from twinmod.kernels import elf, kconfig
from twinmod.kernels.model import KernelTree, Origin
from twinmod.project.config import OUT
from twinmod.project.model import Language, ModuleSpec
from twinmod.project.names import normalize

MODULES = sandbox.INSIDE / "module"

#: The record of the last build, beside its product; which tree a stage was built for, and the names
#: of the files that were put there.
MANIFEST = ".twinmod.json"
TREE, STAGED = ".twinmod.tree", ".twinmod.staged"

#: The folder of signed modules, beside the unsigned ones.
SIGNED = "signed"

BUILD_TIMEOUT_S = 900.0

#: A compiler's words are shown as it wrote them, up to this many lines.
COMPILER_LINES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """All that it takes to build one module for one tree; nothing has happened yet."""

    # Its name is "" where only make knows it.
    module: ModuleSpec
    # What its sources are written in; None where only the product shows it.
    language: Language | None
    tree: KernelTree
    stage_dir: Path
    # (relative path, content) of everything that the stage holds before make runs.
    files: Files
    # What make calls the folder: relative to the tree, or absolute inside the chroot.
    folder: str
    command: Command
    # What the same would have been called before Linux 5.3; "" out of tree.
    subdirs_line: str
    # The same digest means the same product.
    digest: str

    @property
    def product_path(self) -> Path:
        """Where make leaves a module whose name is known and is that of its file."""
        return self.stage_dir / f"{name_of(self.module)}.ko"


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
    depends: tuple[str, ...] = ()
    # The names of those that are loaded first, in this order.
    needed: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


class Sibling(Part, frozen=True, kw_only=True):
    """Another module that the same make built."""

    # Relative to the stage.
    path: str
    sha256: str


class Manifest(Part, frozen=True, kw_only=True):
    """The record of a build."""

    # Of the plan.
    digest: str
    product: BuiltModule
    # Its file, relative to the stage; "" where the plan has it.
    file: str = ""
    siblings: tuple[Sibling, ...] = ()


class BuildReport(Document, frozen=True, kw_only=True, tag="twinmod.build/2"):
    """What `build` made."""

    kernel: BuildKernel
    crates: CrateReport
    products: tuple[BuiltModule, ...]


def read_sources(module: ModuleSpec, project_dir: Path) -> Files:
    """Return the files that a module has in its project, sorted by path; the kernel's have none.

    Those of a folder with its own Kbuild are all of it; else they are what is compiled there.

    Raises:
        ConfigError: There is no such folder, or nothing in it says what is built.
    """
    if not module.sources:
        return ()
    folder = project_dir / module.sources
    if not folder.is_dir():
        raise ConfigError(
            f"the sources of module {name_of(module)} are missing",
            facts=(("folder", str(folder)),),
            hint="correct `sources` of this module, or make the folder",
        )
    found = builds_sources.read_folder(folder, project_dir / OUT)
    if builds_sources.find_kbuild(found):
        return found
    builds_sources.require_main(module, folder, found)
    # What we write a Kbuild for is compiled, or included by what is.
    return tuple(pair for pair in found if pair[0].endswith(builds_sources.SOURCE_SUFFIXES))


def plan_folder(module: ModuleSpec) -> tuple[str, PurePosixPath]:
    """Return what make calls a module's folder, and where it lies inside the chroot."""
    if module.in_tree or module.tree:
        in_tree = module.tree or module.in_tree
        return in_tree, sandbox.LINUX / in_tree
    return str(MODULES / name_of(module)), MODULES / name_of(module)


def plan_make(module: ModuleSpec, tree: KernelTree, *arguments: str) -> tuple[str, ...]:
    """Return make's argument vector for one module, as it is called inside the chroot.

    Raises:
        ConfigError: The module's configuration is none.
    """
    folder, _ = plan_folder(module)
    variables = builds_sources.plan_variables(module)
    return sandbox.plan_make(
        tree.make_flags, f"M={folder}", *variables, *arguments, in_place=tree.in_place
    )


def plan_binds(
    module: ModuleSpec, tree: KernelTree, stage_dir: Path
) -> tuple[tuple[Bind, ...], tuple[PurePosixPath, ...]]:
    """Return the mounts of a build, and the folders to cover first.

    The tree is read-only, so the parent of a folder that it does not have is covered by an empty
    one, where the mount point can be made. The stage lies over a folder that it has.
    """
    _, inside = plan_folder(module)
    binds = (
        Bind(source_path=tree.source_dir, target_path=sandbox.LINUX),
        Bind(source_path=tree.build_dir, target_path=sandbox.BUILD),
        Bind(source_path=stage_dir, target_path=inside, writable=True),
    )
    return binds, (inside.parent,) if module.in_tree else ()


def find_language_absence(language: Language | None, tree: KernelTree) -> str:
    """Return why a kernel can have no module in a language, "" when it can or when nobody knows."""
    if language == Language.RUST and not tree.proof.rustc:
        return f"kernel {tree.release} was built without Rust (CONFIG_RUST is not set)"
    return ""


def find_absence(module: ModuleSpec, tree: KernelTree, project_dir: Path) -> str:
    """Return why a kernel can have no such module, "" when it can.

    Args:
        module: What would be built; its sources may be missing, which is no reason.
        tree: The kernel.
        project_dir: What the folder of its sources is relative to.
    """
    if module.stock:
        return find_stock_absence(module, tree)
    try:
        found = read_all_sources(module, tree, project_dir)
    except ConfigError:
        return ""
    rust = builds_sources.needs_rust(module, found)
    return find_language_absence(Language.RUST if rust else Language.C, tree)


def find_stock_absence(module: ModuleSpec, tree: KernelTree) -> str:
    """Return why a kernel can have no module of a distribution's, "" when it can."""
    if not module.stock:
        return ""
    match tree.origin:
        case Origin.STOCK:
            return ""
        case Origin.BUILT | Origin.TREE:
            return (
                f"kernel {tree.release} is not a distribution's, which alone has its {module.stock}"
            )
        case _:
            assert_never(tree.origin)


def read_all_sources(module: ModuleSpec, tree: KernelTree, project_dir: Path) -> Files:
    """Return the files that a module is built of, wherever they are.

    Raises:
        ConfigError: They are not there.
    """
    return (
        builds_sources.read_tree(module, tree) if module.tree else read_sources(module, project_dir)
    )


def prepare_build(
    module: ModuleSpec, tree: KernelTree, project_dir: Path, out_dir: Path, version: str = ""
) -> BuildPlan:
    """Read a module's sources, wherever they are, and plan its build; see plan_build.

    Args:
        module: One of the project's, or of the kernel's source.
        tree: The kernel to build it for.
        project_dir: What its folder is relative to.
        out_dir: The checkout's folder for results.
        version: What the module says as its version.

    Raises:
        ConfigError: Its sources are not there, or the kernel does not know an option of it.
        BuildError: See plan_build.
    """
    found = read_all_sources(module, tree, project_dir)
    builds_sources.require_options(module, tree, found)
    return plan_build(module, tree, found, out_dir, version)


def plan_build(
    module: ModuleSpec,
    tree: KernelTree,
    sources: Files,
    out_dir: Path,
    version: str = "",
) -> BuildPlan:
    """Plan the build of one module.

    Args:
        module: What to build.
        tree: The kernel to build it for, with the compilers that built it.
        sources: Its files.
        out_dir: The checkout's folder for results.
        version: What the module says as its version; "" for one that has none, or says it itself.

    Returns:
        The plan: stage, commands, and the digest of everything that the product depends on.

    Raises:
        ConfigError: The kernel's source builds no such module.
        BuildError: The kernel has no Rust and the module is written in it.
    """
    module = builds_sources.name_sources(module, sources)
    language = builds_sources.find_language(module, sources)
    rust = builds_sources.needs_rust(module, sources)
    reason = find_language_absence(Language.RUST if rust else Language.C, tree)
    if reason:
        raise BuildError(f"module {name_of(module)} cannot be built: {reason}")
    folder, _ = plan_folder(module)
    stage_dir = out_dir / "build" / tree.release / name_of(module)
    binds, hidden = plan_binds(module, tree, stage_dir)
    target = builds_sources.find_target(module, sources) if module.tree else "modules"
    argv = plan_make(module, tree, target)
    command = sandbox.plan_command(
        tree.compilers,
        argv,
        Enter(binds=binds, hidden=hidden),
        purpose=f"module {name_of(module)} did not build",
        timeout_s=BUILD_TIMEOUT_S,
    )
    command = replace(command, log_path=stage_dir / "build.log", tail_lines=COMPILER_LINES)
    files = (*sources, *plan_kbuild(module, sources, version))
    makefile = ("Makefile", render_makefile(module, tree, command).encode())
    return BuildPlan(
        module=module,
        language=None if builds_sources.find_kbuild(sources) else language,
        tree=tree,
        stage_dir=stage_dir,
        folder=folder,
        command=command,
        files=files if "Makefile" in dict(sources) else (*files, makefile),
        subdirs_line=f"make SUBDIRS={module.in_tree} modules" if module.in_tree else "",
        digest=plan_digest(files, (*argv, name_of(module)), tree),
    )


def plan_kbuild(module: ModuleSpec, sources: Files, version: str) -> Files:
    """Return the Kbuild of a folder that has none; () for one that has its own."""
    if builds_sources.find_kbuild(sources):
        return ()
    main = builds_sources.find_main(module, sources)
    named = not main or normalize(main) == normalize(module.name)
    values = {
        "module": (main or module.name) if named else module.name,
        "main": "" if named else main,
        "version": version,
    }
    return (("Kbuild", templates.render_template("Kbuild.j2", values).encode()),)


def plan_digest(files: Files, argv: tuple[str, ...], tree: KernelTree) -> str:
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
            "module": name_of(module),
            "release": tree.release,
            "subdirs": module.in_tree,
            "command": words,
        },
    )


def render_show(plan: BuildPlan) -> str:
    """Return what ``build -- --show`` prints for one module."""
    lines = [f"# {name_of(plan.module)} for {plan.tree.release}"]
    if plan.subdirs_line:
        lines.append(f"# before Linux 5.3: {plan.subdirs_line}")
    lines.append(f"# inside the sandbox: {render_make(plan)}")
    return "\n".join((*lines, process.render_command(plan.command)))


def render_make(plan: BuildPlan) -> str:
    """Return the command of a build as it is called inside the chroot."""
    return shlex.join(plan_make(plan.module, plan.tree, plan.command.argv[-1]))


def write_stage(plan: BuildPlan) -> None:
    """Write a plan's files, each only when it changed, and remove sources that are gone.

    make decides by time stamps: what did not change must not look new.
    """
    plan.stage_dir.mkdir(parents=True, exist_ok=True)
    staged = plan.stage_dir / STAGED
    wanted = dict(plan.files)
    before = staged.read_text().splitlines() if staged.is_file() else []
    # Of a run that is interrupted here, the next one knows all.
    staged.write_text("".join(f"{name}\n" for name in sorted({*before, *wanted})))
    for name in before:
        if name not in wanted:
            (plan.stage_dir / name).unlink(missing_ok=True)
    write_files(plan.files, plan.stage_dir)
    staged.write_text("".join(f"{name}\n" for name in sorted(wanted)))


def write_files(files: Files, folder: Path) -> None:
    """Write files into a folder, each only when it changed.

    One that the kernel can execute may be executed: a makefile may call it.
    """
    for name, content in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
        if content.startswith((b"#!", elf.MAGIC)):
            path.chmod(0o755)


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
    for path in list_modules(plan.stage_dir):
        path.unlink()
    began = time.monotonic()
    began_wall = time.time()
    with progress.phase(f"module {name_of(plan.module)}"):
        process.run(plan.command)
    product = read_product(plan, time.monotonic() - began, began_wall)
    record = Manifest(
        digest=plan.digest,
        product=_plan_product(product),
        file=str(product.path.relative_to(plan.stage_dir)),
        siblings=tuple(
            Sibling(path=str(path.relative_to(plan.stage_dir)), sha256=base_files.read_digest(path))
            for path in list_modules(plan.stage_dir)
            if path != product.path
        ),
    )
    documents.write(manifest_path, record)
    (plan.stage_dir / TREE).write_text(plan.tree.key)
    return product


def _clear_foreign_outputs(plan: BuildPlan) -> None:
    """Start over when the stage was built for another tree: make would not notice."""
    marker = plan.stage_dir / TREE
    known = (plan.stage_dir / STAGED).exists() and marker.exists()
    if plan.stage_dir.exists() and not (known and marker.read_text() == plan.tree.key):
        shutil.rmtree(plan.stage_dir)


def list_modules(stage_dir: Path) -> tuple[Path, ...]:
    """Return the modules that make left in a stage, sorted."""
    found = sorted(stage_dir.rglob("*.ko"))
    return tuple(path for path in found if path.parent != stage_dir / SIGNED)


def find_product(plan: BuildPlan) -> Product | None:
    """Return the last product when it is exactly what the plan would make, unharmed."""
    try:
        record = documents.parse_part((plan.stage_dir / MANIFEST).read_bytes(), Manifest)
        path = plan.stage_dir / record.file if record.file else plan.product_path
        whole = base_files.read_digest(path) == record.product.sha256 and all(
            base_files.read_digest(plan.stage_dir / one.path) == one.sha256
            for one in record.siblings
        )
    except (OSError, *documents.INVALID):
        return None
    if record.digest != plan.digest or not whole:
        return None
    fields = {
        **structs.asdict(record.product),
        "label": plan.module.label,
        "language": Language(record.product.language),
        "path": path,
        "up_to_date": True,
        "needed": (),
        "parameters": plan.module.parameters,
    }
    return Product(**fields)


def read_product(plan: BuildPlan, seconds: float, began_wall: float) -> Product:
    """Return what make built, after a look at it.

    Raises:
        BuildError: make left nothing, something old, something else, or several modules of which
            nobody said which it is.
    """
    path = choose_product(plan, began_wall)
    content = path.read_bytes()
    found = elf.parse_module(content)
    vermagic = check_module(plan, found, path)
    watchers, blind = find_watchers(plan.tree, found)
    return Product(
        module=normalize(path.stem),
        label=plan.module.label,
        language=find_language(found) or plan.language or Language.C,
        path=path,
        size_bytes=len(content),
        sha256=base_files.read_digest(path),
        vermagic=vermagic,
        seconds=round(seconds, 2),
        up_to_date=False,
        command=render_make(plan),
        watchers=watchers,
        blind=blind,
        depends=found.find_depends(),
        parameters=plan.module.parameters,
    )


def find_watchers(
    tree: KernelTree, found: elf.ModuleFile
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what watches a module on a kernel, and what is there and does not."""
    config = kconfig.parse_options((tree.build_dir / ".config").read_text())
    return kconfig.find_watchers(config, found.symbols)


def choose_product(plan: BuildPlan, began_wall: float) -> Path:
    """Return which of the modules that make left is the one to test; see read_product."""
    built = [p for p in list_modules(plan.stage_dir) if p.stat().st_mtime >= began_wall - 1]
    log = ("log", str(plan.command.log_path))
    if not built:
        product = (("product", str(plan.product_path)),) if plan.module.name else ()
        raise BuildError(
            f"module {name_of(plan.module)} did not build: make succeeded and left no new product",
            facts=(*product, log),
            hint="" if plan.language else "let `obj-m` of its Kbuild name the objects of a module",
        )
    wanted = normalize(plan.module.name)
    named = [path for path in built if normalize(path.stem) == wanted]
    if not named and len(built) == 1 and not plan.module.name:
        return built[0]
    if named:
        return named[0]
    names = ", ".join(normalize(path.stem) for path in built)
    raise BuildError(
        f"make built no module {wanted}" if wanted else "make built several modules",
        facts=(("modules", names), log),
        hint="let `name` of the module be one of them",
    )


def check_module(plan: BuildPlan, found: elf.ModuleFile, path: Path | None = None) -> str:
    """Return a module's vermagic, after comparing the file with what it should be.

    Args:
        plan: Of its build.
        found: What its file says.
        path: The file; where the plan has it unless it is given.

    Raises:
        BuildError: It has another name, kernel or language.
    """
    path = path or plan.product_path
    vermagic = found.find_modinfo("vermagic")
    claims = [
        ("name", normalize(path.stem), found.find_modinfo("name")),
        ("kernel", plan.tree.release, vermagic.split(" ")[0]),
    ]
    if plan.language:
        claims.append(("language", plan.language, find_language(found) or "unknown"))
    wrong = tuple(
        (what, f"{seen}, not {wanted}") for what, wanted, seen in claims if wanted != seen
    )
    if wrong:
        raise BuildError(
            f"module {name_of(plan.module)} was built, and is not what it should be",
            facts=(*wrong, ("product", str(path))),
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
        depends=product.depends,
        needed=tuple(module.name for module in product.needed),
        parameters=product.parameters,
    )
