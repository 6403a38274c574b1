# SPDX-License-Identifier: GPL-2.0-only
"""The acts of a release: build from a commit, gather what was tested, write it at once."""

import os
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from twinmod.base import archives, documents, git, versions, zstd
from twinmod.base.documents import D
from twinmod.base.progress import Progress
from twinmod.bench import run as bench_run
from twinmod.bench.document import BenchReport, Mode
from twinmod.builds import build, signing
from twinmod.builds.product import Product
from twinmod.cells import selection as cells_selection
from twinmod.errors import NotPassedError
from twinmod.experiments import zoo, zoo_run
from twinmod.experiments.zoo import ZooReport
from twinmod.kernels import elf
from twinmod.kernels.model import KernelTree
from twinmod.matrix import run
from twinmod.matrix.report import TestReport
from twinmod.project import config as project_config
from twinmod.project.config import Config
from twinmod.project.model import LANGUAGES
from twinmod.release import differing, packages, provenance, sbom, wheels
from twinmod.release import index as release_index
from twinmod.release.index import ReleaseIndex, ReleaseKernel
from twinmod.release.model import Release
from twinmod.release.provenance import Dependency
from twinmod.workspace import Prepared, Workspace

#: The folder of a release, in the checkout.
DIST = "dist"

NO_KEYS = signing.Keys()

#: What the second of two builds has otherwise than the first: the zone, the language, the person,
#: how many jobs run at once, and what others may do with files that it makes.
OTHER_ENVIRONMENT = (
    ("TZ", "Pacific/Kiritimati"),
    ("LC_ALL", "C"),
    ("LANG", "C"),
    ("USER", "somebody"),
    ("LOGNAME", "somebody"),
    ("HOSTNAME", "elsewhere"),
    ("TWINMOD_JOBS", "1"),
)
OTHER_UMASK = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller wants of a release."""

    # Of a commit, "" for what is checked out.
    tag: str = ""
    # A tree with changes will do.
    dev: bool = False
    # Build all of it twice, and compare.
    check: bool = False
    kernels: tuple[str, ...] = ()
    keys: signing.Keys = NO_KEYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The artifacts of a release, and what they were made for."""

    files: Mapping[str, bytes]
    kernels: tuple[ReleaseKernel, ...]
    # By kernel, what was built for it, with the configuration that it was built by.
    built: tuple[tuple[Config, Prepared, tuple[Product, ...]], ...]

    @property
    def products(self) -> tuple[Product, ...]:
        """All modules."""
        return tuple(product for _, _, products in self.built for product in products)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A release that lies in its folder."""

    # None when two builds of it differ: there is none.
    document: ReleaseIndex | None
    out_dir: Path
    differences: tuple[differing.Difference, ...]


# -- source -----------------------------------------------------------------------------------


@contextmanager
def open_source(root_dir: Path, wanted: Wanted, work_dir: Path) -> Iterator[tuple[Release, str]]:
    """Give what is released, and its tag, with a copy of its source until the context is left.

    Args:
        root_dir: The checkout.
        wanted: Which commit.
        work_dir: Gets the copy.

    Raises:
        ConfigError: There is no such commit, or the tree has changes.
    """
    head = git.read_head(root_dir, wanted.tag)
    if not wanted.dev:
        git.require_clean(head)
    source_dir = work_dir / "source"
    shutil.rmtree(source_dir, ignore_errors=True)
    try:
        dirty = bool(head.changes)
        git.export(root_dir, head, source_dir, with_changes=dirty)
        base = versions.read_version(source_dir)
        tag = wanted.tag or release_index.choose_tag(head.tags, base)
        version = release_index.plan_version(base, head.commit, tag, dirty=dirty)
        yield (
            Release(version=version, commit=head.commit, epoch=head.epoch, source_dir=source_dir),
            tag,
        )
    finally:
        shutil.rmtree(source_dir, ignore_errors=True)


# -- artifacts --------------------------------------------------------------------------------


def build_modules(
    workspace: Workspace,
) -> tuple[Prepared, tuple[Product, ...], dict[str, str]]:
    """Return what was built for a kernel, and why it has no module of a label."""
    prepared = workspace.setup()
    reasons = workspace.find_absences(prepared.tree)
    absent = {label: reason for label, reason in reasons.items() if reason}
    labels = tuple(label for label in reasons if label not in absent)
    return prepared, workspace.build(prepared, labels), absent


def pack_modules(
    what: Release,
    config: Config,
    prepared: Prepared,
    products: tuple[Product, ...],
    progress: Progress,
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the artifacts of the modules of one kernel."""
    tree = prepared.tree
    licence = (what.source_dir / "LICENSE").read_bytes()
    for product in products:
        content = product.path.read_bytes()
        said = elf.parse_module(content).find_modinfo("version")
        release_index.check_version(what.version, product.module, said)
        name = release_index.plan_module_name(what, product, tree.release)
        modinfo = release_index.plan_modinfo(what, product, content, tree)
        files = release_index.plan_module_files(product, content, modinfo, tree.release, licence)
        with progress.phase(f"{name}.tar.zst"):
            tar = archives.plan_tar(files, what.epoch)
            yield f"{name}.tar.zst", zstd.compress_zstd(prepared.chroot, tar)
            yield f"{name}.modinfo.json", documents.encode(modinfo)
            if sbom.has_tool(tree):
                yield from _describe_module(what, config, tree, product, name)


def _describe_module(
    what: Release, config: Config, tree: KernelTree, product: Product, name: str
) -> Iterator[tuple[str, bytes]]:
    (module,) = (module for module in config.modules if module.name == product.module)
    _, inside = build.plan_folder(module)
    binds, hidden = build.plan_binds(module, tree, product.path.parent)
    view = sbom.View(inside=inside, binds=binds, hidden=hidden)
    for part, content in sbom.read_spdx(what, product, tree, view):
        yield f"{name}.{part}.spdx.json", content


def make_distributions(
    what: Release, prepared: Prepared, progress: Progress
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wheels and source distributions, and of what wheels need."""
    with tempfile.TemporaryDirectory(prefix="twinmod-") as folder:
        builder = wheels.Builder(
            chroot=prepared.chroot, site_dir=prepared.site_dir, crates_dir=prepared.crates_dir
        )
        made = wheels.build_wheels(what, builder, Path(folder), progress)
        for path in made:
            content = path.read_bytes()
            yield path.name, content
            if path.suffix == ".whl":
                yield f"{path.stem}.cdx.json", _describe_wheel(what, path.name, content)


def _describe_wheel(what: Release, name: str, content: bytes) -> bytes:
    """Return what a wheel needs as CycloneDX: of a crate what is linked, else what is installed."""
    # Only a release has the library installed.
    from twinmod.release import bom  # noqa: PLC0415

    project = name.partition("-")[0]
    components = tuple(
        component
        for path in what.source_dir.glob("*/Cargo.lock")
        if read_project_name(path.parent) == project
        for component in bom.plan_crate_components(path.read_text(), project.replace("_", "-"))
    )
    if project == "twinmod":
        lock = (what.source_dir / "toolchain/locks/run.txt").read_text()
        components = bom.plan_python_components(lock)
    digest = release_index.read_digest(content)
    return bom.render_bom(bom.plan_bom(what, name, digest, components)).encode()


def read_project_name(folder: Path) -> str:
    """Return the name of a Python project, as its wheels have it."""
    document = tomllib.loads((folder / "pyproject.toml").read_text())
    return str(document["project"]["name"]).replace("-", "_")


def read_maintainer(source_dir: Path) -> str:
    """Return who publishes, as packages name them: the first maintainer; "" for none."""
    document = tomllib.loads((source_dir / "pyproject.toml").read_text())
    for person in document["project"].get("maintainers", ()):
        if {"name", "email"} <= set(person):
            return f"{person['name']} <{person['email']}>"
    return ""


def make_packages(what: Release, progress: Progress) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the source packages for DKMS."""
    with tempfile.TemporaryDirectory(prefix="twinmod-") as folder:
        maintainer = read_maintainer(what.source_dir) or packages.MAINTAINER
        for path in packages.build_packages(what, Path(folder), progress, maintainer):
            yield path.name, path.read_bytes()


def make_artifacts(what: Release, wanted: Wanted, out_dir: Path, progress: Progress) -> Made:
    """Build everything that a commit alone determines.

    Args:
        what: The release.
        wanted: For which kernels.
        out_dir: Gets what is built on the way.
        progress: Told of each step.
    """
    base = project_config.read_config(what.source_dir, out_dir)
    configs = tuple(project_config.select_kernel(base, name) for name in wanted.kernels) or (base,)
    files: dict[str, bytes] = {}
    kernels, built = [], []
    for config in configs:
        prepared, products, absent = build_modules(Workspace(config=config, progress=progress))
        files.update(pack_modules(what, config, prepared, products, progress))
        kernels.append(release_index.plan_kernel(prepared.tree, absent))
        built.append((config, prepared, products))
    files.update(make_distributions(what, built[0][1], progress))
    files.update(make_packages(what, progress))
    return Made(files=files, kernels=tuple(kernels), built=tuple(built))


def find_dependencies(made: Made) -> Iterator[Dependency]:
    """Yield what went into artifacts beside the commit: kernels, compilers, and what is locked."""
    for config, prepared, _ in made.built:
        tree = prepared.tree
        yield Dependency(
            uri=f"pkg:deb/debian/linux@{tree.version}",
            annotations={
                "release": tree.release,
                "suite": tree.suite,
                "rustc": tree.proof.rustc,
                "make": " ".join(tree.make_flags),
                "chroot": config.chroot.suite,
            },
        )
    config = made.built[0][0]
    for path in (
        *sorted(config.root_dir.glob("toolchain/locks/*.txt")),
        *sorted(config.root_dir.glob("*/Cargo.lock")),
    ):
        yield Dependency(
            uri=f"file:{path.relative_to(config.root_dir)}",
            digest={"sha256": release_index.read_digest(path.read_bytes())},
        )


def plan_commands(made: Made) -> Iterator[str]:
    """Yield the commands that made modules, as they ran inside the chroot, by however many jobs."""
    for product in made.products:
        yield re.sub(r" -j\d+\b", "", product.command)


# -- twice ------------------------------------------------------------------------------------


@contextmanager
def pretend_other_person() -> Iterator[None]:
    """Be in another zone and language, and keep new files to oneself, until the context is left."""
    before = {name: os.environ.get(name) for name, _ in OTHER_ENVIRONMENT}
    umask = os.umask(OTHER_UMASK)
    os.environ.update(OTHER_ENVIRONMENT)
    time.tzset()
    try:
        yield
    finally:
        os.umask(umask)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        time.tzset()


def make_again(config: Config, wanted: Wanted, progress: Progress) -> Mapping[str, bytes]:
    """Return the artifacts of the same commit, made from nothing, elsewhere and otherwise."""
    with (
        tempfile.TemporaryDirectory(prefix="twinmod again ") as name,
        pretend_other_person(),
        open_source(config.root_dir, wanted, Path(name)) as (what, _),
    ):
        return make_artifacts(what, wanted, Path(name) / "out of it", progress).files


# -- evidence ---------------------------------------------------------------------------------


def read_report(path: Path, kind: type[D]) -> D | None:
    """Return a report that an earlier run left, None when there is none that is one."""
    try:
        return documents.parse(path.read_bytes(), kind)
    except (OSError, *documents.INVALID):
        return None


def find_tested(products: tuple[Product, ...], folders: tuple[Path, ...]) -> Path | None:
    """Return the folder with a report of the matrix that vouches for modules, None for none."""
    for folder in folders:
        # That of several kernels has a report for each instead.
        found = read_report(folder / "report.json", TestReport)
        if found is not None and not release_index.find_test_flaw(found, products):
            return folder
    return None


def ensure_tested(workspace: Workspace, made: Made) -> Iterator[tuple[str, bytes]]:
    """Yield the reports of the matrix on just these modules; run it where there is none.

    Raises:
        NotPassedError: A module does not pass; what did not pass is not released.
    """
    for config, prepared, products in made.built:
        own_dir = config.out_dir / "release/test" / config.kernel.name
        out_dir = find_tested(products, (config.out_dir / "test", own_dir))
        found = read_report(out_dir / "report.json", TestReport) if out_dir else None
        if out_dir is None or found is None:
            out_dir = own_dir
            selection = cells_selection.Selection()
            own = replace(workspace, config=config)
            wanted = run.Wanted(selection=selection, out_dir=out_dir)
            found = run.run_test(own, prepared, wanted).document
        flaw = release_index.find_test_flaw(found, products)
        if flaw:
            raise NotPassedError(
                f"what does not pass is not released: {flaw}",
                facts=(("kernel", prepared.tree.release), ("report", f"{out_dir}/report.json")),
            )
        for name in ("report.json", "junit.xml"):
            yield f"test-{prepared.tree.release}-{name}", (out_dir / name).read_bytes()


def ensure_counted(workspace: Workspace, made: Made) -> Iterator[tuple[str, bytes]]:
    """Yield the benchmark of just these modules, on the first kernel; count where there is none."""
    config, _, products = made.built[0]
    path = config.out_dir / "bench/report.json"
    found = read_report(path, BenchReport)
    if found is None or not _is_benchmark(found, products):
        own = replace(workspace, config=config)
        bench_run.run_bench(own, bench_run.Wanted(mode=Mode.EXACT, quick=True))
    yield "bench.json", path.read_bytes()


def _is_benchmark(document: BenchReport, products: tuple[Product, ...]) -> bool:
    modules = ((entry.module, entry.sha256) for entry in document.modules)
    return not release_index.compare_modules(modules, products)


def find_zoo(checkout: Config) -> Iterator[tuple[str, bytes]]:
    """Yield what the zoo came to, when all of it ran in this checkout and ended as expected.

    It is not run for a release: it takes a debug kernel, and its bugs are not these modules.
    """
    path = checkout.out_dir / "zoo/report.json"
    wanted = zoo.select_attempts(zoo_run.read_entries(checkout), "", LANGUAGES)
    found = read_report(path, ZooReport)
    if found is not None and zoo.is_whole(found, len(wanted)):
        yield "zoo.json", path.read_bytes()


# -- the whole --------------------------------------------------------------------------------


def run_release(workspace: Workspace, wanted: Wanted) -> Done:
    """Make a release from a commit, in ``dist``; what was there stays until all of it is made.

    Raises:
        ConfigError: The tree has changes; there is no such tag; a key does not open.
        NotPassedError: A module does not pass the matrix.
        TwinmodError: See the steps.
    """
    config, progress = workspace.config, workspace.progress
    signing.require_files(wanted.keys)
    with open_source(config.root_dir, wanted, config.out_dir / "release") as (what, tag):
        signing.require_keys(wanted.keys, workspace.ensure_root())
        made = make_artifacts(what, wanted, config.out_dir, progress)
        require_signable(wanted.keys, made)
        differences = check_again(config, wanted, made, progress) if wanted.check else ()
        if differences:
            return Done(document=None, out_dir=config.root_dir / DIST, differences=differences)
        evidence = dict(
            (
                *ensure_tested(workspace, made),
                *ensure_counted(workspace, made),
                *find_zoo(config),
            )
        )
        files = {**made.files, **sign_modules(what, wanted.keys, made, progress)}
        statement = provenance.plan_statement(
            what, tag, find_dependencies(made), plan_commands(made), files
        )
        files[release_index.PROVENANCE] = provenance.encode(statement)
        index = release_index.plan_index(what, tag, made.kernels, files)
        out_dir = write_release(config.root_dir / DIST, index, files, evidence, wanted.keys)
    return Done(document=index, out_dir=out_dir, differences=())


def check_again(
    config: Config, wanted: Wanted, made: Made, progress: Progress
) -> tuple[differing.Difference, ...]:
    """Return where a second build from the same commit differs from the first."""
    again = make_again(config, wanted, progress)
    return differing.find_differences(made.built[0][1].chroot, made.files, again)


def require_signable(keys: signing.Keys, made: Made) -> None:
    """Refuse to sign modules for a kernel that checks no signature, before any of them is tested.

    Raises:
        ConfigError: There is one.
    """
    if keys.module_key is not None:
        for _, prepared, _ in made.built:
            signing.read_hash(prepared.tree)


def sign_modules(
    what: Release, keys: signing.Keys, made: Made, progress: Progress
) -> dict[str, bytes]:
    """Return signed modules, each with what it wraps, by path; none without a key."""
    if keys.module_key is None:
        return {}
    files = {}
    for _, prepared, products in made.built:
        for product in products:
            with (
                progress.phase(f"signature of {product.module}"),
                tempfile.TemporaryDirectory(prefix="twinmod-") as name,
            ):
                path = signing.sign_module(keys, prepared.tree, product.path, Path(name))
                content = path.read_bytes()
            name = release_index.plan_module_name(what, product, prepared.tree.release)
            stem = f"{release_index.SIGNED}/{name}"
            files[f"{stem}.ko"] = content
            files[f"{stem}.json"] = documents.encode(release_index.plan_signed(product, content))
    return files


def write_release(
    dist_dir: Path,
    index: ReleaseIndex,
    files: Mapping[str, bytes],
    evidence: Mapping[str, bytes],
    keys: signing.Keys,
) -> Path:
    """Write a release to its folder, all of it or nothing; return the folder."""
    partial_dir = dist_dir.with_name(f"{dist_dir.name}.partial")
    shutil.rmtree(partial_dir, ignore_errors=True)
    try:
        whole = {**files, release_index.INDEX: documents.encode(index)}
        seen = {**evidence, f"../{release_index.INDEX}": whole[release_index.INDEX]}
        for path, content in (
            *whole.items(),
            (release_index.SUMS, release_index.render_sums(whole).encode()),
            *((f"{release_index.EVIDENCE}/{name}", content) for name, content in evidence.items()),
            (
                f"{release_index.EVIDENCE}/{release_index.SUMS}",
                release_index.render_sums(seen).encode(),
            ),
        ):
            target = partial_dir / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if keys.ssh_key is not None:
            signing.sign_file(keys, partial_dir / release_index.SUMS)
        shutil.rmtree(dist_dir, ignore_errors=True)
        partial_dir.rename(dist_dir)
    finally:
        shutil.rmtree(partial_dir, ignore_errors=True)
    return dist_dir
