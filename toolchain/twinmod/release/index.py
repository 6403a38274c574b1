# SPDX-License-Identifier: GPL-2.0-only
"""What a release is made of, as data: names, documents, sums. Pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from twinmod.base import documents, versions
from twinmod.base.archives import File
from twinmod.base.documents import Document, Part
from twinmod.builds.product import Product
from twinmod.errors import ConfigError
from twinmod.guest.protocol import Outcome
from twinmod.kernels import elf
from twinmod.kernels.model import KernelTree
from twinmod.matrix.report import TestReport
from twinmod.project.model import Language
from twinmod.project.names import plan_package
from twinmod.release.model import Release

#: Artifacts that are the same for every machine, and what a run left that is not.
INDEX = "release.json"
SUMS = "SHA256SUMS"
PROVENANCE = "provenance.intoto.json"
EVIDENCE = "evidence"
SIGNED = "signed"

ARCHITECTURE = "x86_64"

#: How much of a commit stands in a version.
COMMIT_DIGITS = 12


# -- versions ---------------------------------------------------------------------------------


def plan_version(base: str, commit: str, tag: str, *, dirty: bool) -> str:
    """Return the version of a release, after PEP 440.

    Args:
        base: The one that the project states, such as "0.1.0".
        commit: 40 hexadecimal digits.
        tag: The tag that the commit has for a release, "" for none.
        dirty: Whether the tree has changes that no commit has.

    Raises:
        ConfigError: The tag is not the one of this version, or the version has a commit in it.
    """
    if base != versions.plan_base(base):
        raise ConfigError(
            f"the project states version {base}, and what follows the + is the release's to add",
            hint=f"echo {versions.plan_base(base)} > {versions.FILE}",
        )
    if tag and tag != f"v{base}":
        raise ConfigError(
            f"tag {tag} is not the tag of version {base}",
            facts=(("version", f"{base}, in {versions.FILE}"), ("its tag", f"v{base}")),
            hint=f"set the version in {versions.FILE}, commit, and tag that commit",
        )
    if tag and not dirty:
        return base
    return f"{base}+g{commit[:COMMIT_DIGITS]}" + (".dirty" if dirty else "")


def choose_tag(tags: Iterable[str], base: str) -> str:
    """Return the tag of a version among those of a commit, "" when it has none."""
    return next((tag for tag in tags if tag == f"v{base}"), "")


# -- modules ----------------------------------------------------------------------------------


def check_version(version: str, module: str, said: str) -> None:
    """Refuse a module that says another version than the release it is in, or none.

    Args:
        version: Of the release; a module says its public part.
        module: The module's name.
        said: What ``modinfo -F version`` shows, "" for nothing.

    Raises:
        ConfigError: It does.
    """
    base = versions.plan_base(version)
    if not versions.is_same(said, base):
        raise ConfigError(
            f"the release is {base}, and {module} says {f'version {said}' if said else 'none'}",
            facts=(("version", version), ("MODULE_VERSION", said or "(missing)")),
            hint="a module's version is PROJECT_VERSION, which its Kbuild sets: in C "
            "MODULE_VERSION(PROJECT_VERSION)",
        )


def plan_module_name(release: Release, product: Product, kernel_release: str) -> str:
    """Return the name of a module's archive, without what it ends with."""
    name = plan_package(product.module)
    return f"{name}-{release.version}-{kernel_release}-{ARCHITECTURE}"


class Parameter(Part, frozen=True, kw_only=True):
    """A parameter of a module."""

    name: str
    type: str
    description: str


class ModuleCompilers(Part, frozen=True, kw_only=True):
    """What made a module."""

    c: tuple[str, ...]
    # "" for a module in C.
    rustc: str


class ModinfoKernel(Part, frozen=True, kw_only=True):
    """The kernel that a module is for."""

    release: str
    version: str
    suite: str


class Modinfo(Document, frozen=True, kw_only=True, tag="twinmod.modinfo/1"):
    """What there is to know of a built module."""

    name: str
    language: str
    # Of the release, and of the module itself.
    version: str
    module_version: str
    license: str
    vermagic: str
    srcversion: str
    parameters: tuple[Parameter, ...]
    size_bytes: int
    sha256: str
    undefined_symbols: tuple[str, ...]
    compilers: ModuleCompilers
    kernel: ModinfoKernel
    commit: str


def plan_modinfo(release: Release, product: Product, content: bytes, tree: KernelTree) -> Modinfo:
    """Return what there is to know of a built module.

    Args:
        release: Which it belongs to.
        product: The module.
        content: Its file.
        tree: The kernel that it was built for.
    """
    found = elf.parse_module(content)
    parameters = dict(pair.split(":", 1) for pair in found.find_all_modinfo("parm"))
    types = dict(pair.split(":", 1) for pair in found.find_all_modinfo("parmtype"))
    return Modinfo(
        name=product.module,
        language=product.language,
        version=release.version,
        module_version=found.find_modinfo("version"),
        license=found.find_modinfo("license"),
        vermagic=product.vermagic,
        srcversion=found.find_modinfo("srcversion"),
        parameters=tuple(
            Parameter(name=name, type=types[name], description=parameters.get(name, ""))
            for name in sorted(types)
        ),
        size_bytes=product.size_bytes,
        sha256=product.sha256,
        undefined_symbols=tuple(sorted(found.undefined)),
        compilers=ModuleCompilers(
            c=tuple(sorted(set(found.comments))),
            rustc=tree.proof.rustc if product.language == Language.RUST else "",
        ),
        kernel=ModinfoKernel(release=tree.release, version=tree.version, suite=tree.suite),
        commit=release.commit,
    )


def plan_module_files(
    product: Product,
    content: bytes,
    modinfo: Modinfo,
    kernel_release: str,
    licence: bytes,
) -> tuple[File, ...]:
    """Return the files of a module's archive, as they lie below a root."""
    name = plan_package(product.module)
    doc = f"usr/share/doc/{name}-{kernel_release}"
    return (
        File(path=f"lib/modules/{kernel_release}/updates/{product.module}.ko", content=content),
        File(path=f"{doc}/modinfo.json", content=documents.encode(modinfo)),
        File(path=f"{doc}/copyright", content=licence),
    )


# -- documents --------------------------------------------------------------------------------


def render_json(document: object) -> bytes:
    """Return JSON's own types as a document of another's schema is written."""
    return (json.dumps(document, indent=2) + "\n").encode()


def read_digest(content: bytes) -> str:
    """Return the SHA-256 of some content."""
    return hashlib.sha256(content).hexdigest()


def classify(path: str) -> str:
    """Return what kind of artifact a file of a release is, by its name.

    Raises:
        ValueError: It is none.
    """
    kinds = (
        (r".+\.modinfo\.json", "modinfo"),
        (r".+-x86_64\.tar\.zst", "module"),
        (r".+\.spdx\.json", "sbom"),
        (r".+\.cdx\.json", "sbom"),
        (r".+\.(deb|rpm|pkg\.tar\.zst)", "package"),
        (r".+\.whl", "wheel"),
        (r".+\.tar\.gz", "source"),
        (r"provenance\.intoto\.json", "provenance"),
        (r"signed/.+", "signed"),
    )
    for pattern, kind in kinds:
        if re.fullmatch(pattern, path):
            return kind
    raise ValueError(f"{path} is no artifact of a release")


class Artifact(Part, frozen=True, kw_only=True):
    """A file of a release."""

    # In its folder.
    path: str
    # As classify has it.
    kind: str
    size_bytes: int
    sha256: str


class ReleaseKernel(Part, frozen=True, kw_only=True):
    """A kernel that a release has modules for."""

    release: str
    version: str
    suite: str
    rustc: str
    # How make was told of them.
    compilers: tuple[str, ...]
    # By label, why there is no module.
    absent: dict[str, str]


class ReleaseIndex(Document, frozen=True, kw_only=True, tag="twinmod.release/1"):
    """What a release has."""

    version: str
    commit: str
    # Of its commit, "" for none.
    tag: str
    # The time of its commit, in seconds.
    epoch: int
    kernels: tuple[ReleaseKernel, ...]
    artifacts: tuple[Artifact, ...]


def plan_artifact(path: str, content: bytes) -> Artifact:
    """Return the entry of an artifact in the index."""
    return Artifact(
        path=path,
        kind=classify(path),
        size_bytes=len(content),
        sha256=read_digest(content),
    )


def plan_kernel(tree: KernelTree, absent: Mapping[str, str]) -> ReleaseKernel:
    """Return what an index says of a kernel.

    Args:
        tree: It.
        absent: Why it has no module, by label.
    """
    return ReleaseKernel(
        release=tree.release,
        version=tree.version,
        suite=tree.suite,
        rustc=tree.proof.rustc,
        compilers=tree.make_flags,
        absent=dict(absent),
    )


def plan_index(
    release: Release, tag: str, kernels: Iterable[ReleaseKernel], files: Mapping[str, bytes]
) -> ReleaseIndex:
    """Return the index of a release.

    Args:
        release: Which.
        tag: Of its commit, "" for none.
        kernels: As plan_kernel has them.
        files: Content of every artifact, by path.
    """
    return ReleaseIndex(
        version=release.version,
        commit=release.commit,
        tag=tag,
        epoch=release.epoch,
        kernels=tuple(kernels),
        artifacts=tuple(plan_artifact(path, files[path]) for path in sorted(files)),
    )


class Wrapped(Part, frozen=True, kw_only=True):
    """The module that a signature was put behind."""

    sha256: str
    size_bytes: int


class SignedModule(Document, frozen=True, kw_only=True, tag="twinmod.signed/1"):
    """A signed module, and the tested one in it."""

    module: str
    sha256: str
    wraps: Wrapped


def plan_signed(product: Product, content: bytes) -> SignedModule:
    """Return what a signed module is: the tested one, with a signature behind it.

    Args:
        product: The tested one.
        content: The signed file.

    Raises:
        ValueError: It is another module.
    """
    wrapped = read_digest(content[: product.size_bytes])
    if wrapped != product.sha256:
        raise ValueError(f"the signed {product.module} is not the tested one")
    return SignedModule(
        module=product.module,
        sha256=read_digest(content),
        wraps=Wrapped(sha256=product.sha256, size_bytes=product.size_bytes),
    )


# -- sums -------------------------------------------------------------------------------------


def render_sums(files: Mapping[str, bytes]) -> str:
    """Return the sums of files as sha256sum(1) checks them."""
    return "".join(f"{read_digest(files[path])}  {path}\n" for path in sorted(files))


def parse_sums(text: str) -> dict[str, str]:
    """Return the sums that a file states, by path.

    Raises:
        ValueError: A line is no sum.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        if match is None:
            raise ValueError(f"no sum: {line!r}")
        found[match[2]] = match[1]
    return found


def compare_sums(
    stated: Mapping[str, str], files: Mapping[str, bytes]
) -> tuple[tuple[str, str], ...]:
    """Return (path, what is wrong with it) of every file that is not what its sum says.

    Args:
        stated: Sums by path.
        files: What is there, but for the sums and their signature.
    """
    wrong = [(path, "is missing") for path in stated if path not in files]
    wrong += [(path, "has no sum") for path in files if path not in stated]
    wrong += [
        (path, f"was changed: sha256 {read_digest(files[path])}, not {stated[path]}")
        for path in stated
        if path in files and read_digest(files[path]) != stated[path]
    ]
    return tuple(sorted(wrong))


# -- evidence ---------------------------------------------------------------------------------


def compare_modules(modules: Iterable[tuple[str, str]], products: Iterable[Product]) -> str:
    """Return why a report is not of just some modules, "" when it is.

    Args:
        modules: (name, SHA-256) of those that the report is of.
        products: The modules.
    """
    reported = dict(modules)
    for product in products:
        seen = reported.get(product.module, "")
        if seen != product.sha256:
            return f"it has {product.module} of sha256 {seen or 'none'}, not {product.sha256}"
    return ""


def find_test_flaw(document: TestReport, products: Iterable[Product]) -> str:
    """Return why a report of the matrix does not vouch for modules, "" when it does."""
    other = compare_modules(((m.module, m.sha256) for m in document.modules), products)
    if other:
        return other
    if document.narrowed:
        return f"it is of a part of the matrix: {document.narrowed}"
    totals = document.totals
    if totals.failed or not totals.passed:
        return f"{totals.passed} tests passed and {totals.failed} failed"
    differential = document.differential
    if differential and differential.outcome != Outcome.PASSED:
        return f"the differential: {differential.outcome}"
    failed = [f"{c.module}/{c.tester}" for c in document.cells if c.outcome != Outcome.PASSED]
    return f"cells did not pass: {' '.join(failed)}" if failed else ""


def render_list(index: ReleaseIndex) -> str:
    """Return what a release has, a line each, with sizes, and what it cannot have."""
    rows = [(entry.path, entry.size_bytes) for entry in index.artifacts]
    width = max(len(path) for path, _ in rows)
    lines = [f"{path:<{width}}  {size:>10} B" for path, size in rows]
    lines += [
        f"absent: the {language} module: {reason}"
        for kernel in index.kernels
        for language, reason in kernel.absent.items()
    ]
    return "\n".join(lines)
