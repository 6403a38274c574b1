# SPDX-License-Identifier: GPL-2.0-only
"""A distribution's own kernel as a tree that Rust modules can be built in, or a person's own.

Debian's header packages hold no Rust crate. They are rebuilt here from the source package of the
same version, the same configuration and the same compilers, and refused where any of them, a name
that they export or a type's layout is not that of the kernel.
"""

import contextlib
import difflib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from twinmod import built, cache, commands, elf, network, owntree, process, proof, sandbox
from twinmod.errors import BuildError, ConfigError, MissingToolError, TwinmodError
from twinmod.options import VM_MODULES, find_lacking, parse_options
from twinmod.specs import Bind, Check, Chroot, Command, CrateProof, KernelSpec, KernelTree, Progress

#: Changed when the same configuration must give another tree.
FORMAT = "1"

#: Bytes on disk while a tree is made; measured for 7.3.4: 2.6 GB at the end.
DISK_BYTES = 4_000_000_000

WORK = sandbox.INSIDE / "scratch"

DOWNLOAD_TIMEOUT_S = 1800.0
BUILD_TIMEOUT_S = 1800.0

#: What a distribution's crates are compared with.
REFERENCE = "the stock kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPackages:
    """The packages of one kernel, all of one version."""

    release: str
    version: str
    names: tuple[str, ...]
    # SHA-256 of each, in the same order, from the index that the suite's signature covers.
    digests: tuple[str, ...]


# -- which packages ---------------------------------------------------------------------------


def render_sources(mirror: str, suite: str, keyring: str) -> str:
    """Return apt's sources, in the deb822 format, for one suite of a mirror."""
    return f"Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n"


def parse_stanzas(text: str) -> tuple[dict[str, str], ...]:
    """Return the stanzas of apt-cache's output; only the first line of a field is kept."""
    blocks = (block for block in text.split("\n\n") if block.strip())
    return tuple(
        {
            name: value.strip()
            for name, colon, value in (line.partition(":") for line in block.splitlines())
            if colon and not name.startswith((" ", "\t"))
        }
        for block in blocks
    )


def plan_packages(spec: KernelSpec, stanzas: tuple[dict[str, str], ...]) -> KernelPackages:
    """Choose image, modules, headers and source of the newest kernel of a flavour.

    Args:
        spec: The configured kernel.
        stanzas: Every ``linux-*`` package of the suite, the newest of a name first.

    Raises:
        ConfigError: The suite has no such flavour, or lacks a package of the same version.
    """
    found = find_releases(spec, stanzas)
    if not found:
        which = f"kernel {spec.series} of" if spec.series else "kernel of"
        raise ConfigError(
            f"suite {spec.suite} has no {which} flavour {spec.flavour!r}",
            hint="correct the kernel in [tool.twinmod]",
        )
    release, version = found[0]
    series = ".".join(release.split(".")[:2])
    digests = {s["Package"]: s["SHA256"] for s in stanzas if s.get("Version") == version}
    # Since 7.0 Debian splits the image; before, linux-image itself holds the files.
    image = (
        ("linux-binary", "linux-modules")
        if f"linux-binary-{release}" in digests
        else ("linux-image",)
    )
    wanted = (
        *(f"{part}-{release}" for part in image),
        f"linux-headers-{release}",
        f"linux-source-{series}",
    )
    lacking = tuple(name for name in wanted if name not in digests)
    if lacking:
        raise ConfigError(
            f"suite {spec.suite} serves kernel {version} without {', '.join(lacking)}",
            hint="wait until the mirror is complete, or name another suite in [tool.twinmod]",
        )
    return KernelPackages(
        release=release,
        version=version,
        names=wanted,
        digests=tuple(digests[name] for name in wanted),
    )


def find_releases(
    spec: KernelSpec, stanzas: tuple[dict[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """Return (release, version) of a suite's kernels that a specification fits, newest first."""
    pattern = re.compile(rf"linux-image-(\d+\.\d+[^-]*(?:-rc\d+)?-{re.escape(spec.flavour)})")
    found = set()
    for stanza in stanzas:
        match = pattern.fullmatch(stanza.get("Package", ""))
        if match and f"{match.group(1)}.".startswith(f"{spec.series}." if spec.series else ""):
            found.add((match.group(1), stanza["Version"]))
    return tuple(sorted(found, key=lambda pair: plan_order(pair[0]), reverse=True))


def plan_order(release: str) -> tuple[int, ...]:
    """Return what orders kernel releases; a release candidate comes before its release."""
    upstream = release.partition("+")[0]
    numbers, _, candidate = upstream.partition("-rc")
    parts = [int(part) for part in re.findall(r"\d+", numbers.partition("-")[0])]
    padded = (*parts, 0, 0, 0)[:3]
    rank = re.match(r"\d+", candidate)
    return (*padded, int(rank.group()) if rank else 1_000_000)


def plan_apt(chroot: Chroot, argv: tuple[str, ...], work_dir: Path, purpose: str) -> Command:
    """Return an apt command that reads our sources and keeps its state in our folder.

    The files are verified by apt against the signatures of the suite.
    """
    options = {
        "Dir::Etc::SourceList": f"{WORK}/apt/debian.sources",
        "Dir::Etc::SourceParts": "/nonexistent",
        "Dir::State::Lists": f"{WORK}/apt/lists",
        "Dir::Cache": f"{WORK}/apt/cache",
        # The one user in the namespace is root; there is no _apt to change to.
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "3",
        "Acquire::Languages": "none",
        **dict(chroot.apt_options),
    }
    program, *rest = argv
    settings = tuple(part for name, value in options.items() for part in ("-o", f"{name}={value}"))
    command = (
        "sh",
        "-c",
        'cd "$1" && shift && exec "$@"',
        "sh",
        f"{WORK}/deb",
        program,
        *settings,
        *rest,
    )
    return sandbox.plan_command(
        chroot,
        command,
        purpose=purpose,
        timeout_s=DOWNLOAD_TIMEOUT_S,
        network=True,
        environment=network.plan_environment(os.environ),
        binds=(*network.plan_binds(), Bind(source_path=work_dir, target_path=WORK, writable=True)),
    )


def plan_package_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return which of a suite's packages plan_packages wants to know of."""
    kinds = ("image", "binary", "modules", "headers", "source")
    wanted = tuple(f"linux-{kind}-" for kind in kinds)
    return tuple(sorted(n for n in names if n.startswith(wanted) and not n.endswith("-dbg")))


def read_packages(spec: KernelSpec, chroot: Chroot, mirror: str, work_dir: Path) -> KernelPackages:
    """Ask the mirror which kernel it serves.

    Raises:
        MissingToolError: The mirror does not answer, or its signatures are wrong.
        ConfigError: It has no such suite or kernel.
    """
    for name in ("deb", "apt/lists/partial", "apt/cache/archives/partial"):
        (work_dir / name).mkdir(parents=True, exist_ok=True)
    keyring = find_keyring(chroot)
    (work_dir / "apt/debian.sources").write_text(render_sources(mirror, spec.suite, keyring))
    purpose = f"the packages of {spec.suite} were not listed"

    def run_apt(*argv: str) -> str:
        return process.run(plan_apt(chroot, argv, work_dir, purpose), error=MissingToolError)

    try:
        run_apt("apt-get", "update", "--error-on=any")
    except MissingToolError as error:
        # The keys are the chroot's own.
        upgrade = f"{commands.render('cache', 'prune', '--all')} && {commands.render('setup')}"
        raise network.plan_suite_error(error, spec.suite, upgrade) from error
    names = plan_package_names(tuple(run_apt("apt-cache", "pkgnames", "linux-").split()))
    if not names:
        raise ConfigError(f"suite {spec.suite} serves no kernel", facts=(("mirror", mirror),))
    return plan_packages(spec, parse_stanzas(run_apt("apt-cache", "show", *names)))


def find_keyring(chroot: Chroot) -> str:
    """Return the path, inside a chroot, of the keys that sign Debian's suites.

    Newer suites have it under another name only.
    """
    folder = "usr/share/keyrings"
    names = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
    found = next((name for name in names if (chroot.root_dir / folder / name).exists()), names[0])
    return f"/{folder}/{found}"


def download_packages(packages: KernelPackages, chroot: Chroot, work_dir: Path) -> None:
    """Fetch a kernel's packages, and verify each against the signed index.

    apt verifies what it fetches, and takes a file of the right size that is there already as it
    is: what an interrupted run left is fetched again here unless it is whole.

    Raises:
        MissingToolError: They cannot be fetched, or are not what the index says.
    """
    for path in find_broken_packages(packages, work_dir / "deb"):
        path.unlink(missing_ok=True)
    argv = ("apt-get", "download", *(f"{name}={packages.version}" for name in packages.names))
    purpose = f"the packages of kernel {packages.release} were not downloaded"
    process.run(plan_apt(chroot, argv, work_dir, purpose), error=MissingToolError)
    broken = find_broken_packages(packages, work_dir / "deb")
    if broken:
        raise MissingToolError(
            f"{purpose}: the mirror's files are not those of its signed index",
            facts=tuple(("package", path.name) for path in broken),
        )


def find_broken_packages(packages: KernelPackages, folder: Path) -> tuple[Path, ...]:
    """Return what of a folder is not one of a kernel's packages, whole; a missing one too."""
    paths = sorted(folder.glob("*.deb"))
    by_name = {path.name.partition("_")[0]: path for path in paths}
    whole = {
        by_name[name]
        for name, digest in zip(packages.names, packages.digests, strict=True)
        if name in by_name and read_digest(by_name[name]) == digest
    }
    missing = tuple(folder / f"{name}_.deb" for name in packages.names if name not in by_name)
    return (*(path for path in paths if path not in whole), *missing)


def read_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- the tree ---------------------------------------------------------------------------------


def plan_inside(
    chroot: Chroot, argv: tuple[str, ...], entry_dir: Path, purpose: str, *, log: str | None = None
) -> Command:
    """Return a command that works on a tree that is being made."""
    command = sandbox.plan_command(
        chroot,
        argv,
        purpose=purpose,
        timeout_s=BUILD_TIMEOUT_S,
        binds=(
            Bind(source_path=entry_dir / "work", target_path=WORK, writable=True),
            Bind(source_path=entry_dir / "linux", target_path=sandbox.LINUX, writable=True),
            Bind(source_path=entry_dir / "build", target_path=sandbox.BUILD, writable=True),
        ),
    )
    return replace(command, log_path=entry_dir / log if log else None)


def unpack_packages(chroot: Chroot, entry_dir: Path) -> None:
    """Unpack the packages below work/pkg and the kernel's source into linux/; install nothing."""
    for name in ("linux", "build", "vm"):
        (entry_dir / name).mkdir(exist_ok=True)
    script = (
        f"set -e; rm -rf {WORK}/pkg; "
        f"for deb in {WORK}/deb/*.deb; do dpkg -x $deb {WORK}/pkg; done; "
        f"tar -x -f {WORK}/pkg/usr/src/linux-source-*.tar.xz -C {sandbox.LINUX} "
        "--strip-components=1 --no-same-owner"
    )
    purpose = "the kernel's packages were not unpacked"
    process.run(plan_inside(chroot, ("sh", "-c", script), entry_dir, purpose))


def find_in_packages(entry_dir: Path, pattern: str) -> Path:
    """Return the one file of the unpacked packages that a pattern names.

    Raises:
        BuildError: There is none.
    """
    found = sorted((entry_dir / "work/pkg").glob(pattern))
    if not found:
        raise BuildError(f"the kernel's packages hold no {pattern}")
    return found[0]


def require_options(spec: KernelSpec, options: Mapping[str, str]) -> None:
    """Refuse a kernel that a VM could not boot.

    Raises:
        ConfigError: It lacks what a VM needs.
    """
    lacking = find_lacking(options)
    if lacking:
        raise ConfigError(
            f"a VM cannot boot the {spec.flavour} kernel of {spec.suite}: it lacks "
            f"{', '.join(lacking)}",
            hint='name another flavour in [tool.twinmod], such as "amd64"',
        )


def compare_configs(stock: str, rebuilt: str) -> None:
    """Refuse a tree whose configuration is not the stock kernel's.

    Raises:
        BuildError: They differ; the difference is among the facts.
    """
    if stock == rebuilt:
        return
    lines = difflib.unified_diff(
        stock.splitlines(), rebuilt.splitlines(), "stock", "rebuilt", n=0, lineterm=""
    )
    raise BuildError(
        "the rebuilt tree has another configuration than the stock kernel: the chroot's "
        "compilers are not those that built it",
        facts=(("difference", "\n" + "\n".join(list(lines)[:40])),),
        hint="name the suite that built this kernel as its chroot in [tool.twinmod]",
    )


def plan_configure(options: Mapping[str, str], *targets: str) -> tuple[str, ...]:
    """Return make's argument vector that configures and prepares a tree as it was built.

    A kernel that was built where there was no rustc says so in its configuration; it must not
    find the chroot's.
    """
    cc = options["CONFIG_CC_VERSION_TEXT"].split()[0]
    rustc = () if options.get("CONFIG_RUSTC_VERSION", "0") != "0" else ("RUSTC=false",)
    return sandbox.plan_make((f"CC={cc}",), *rustc, *targets)


def configure_tree(chroot: Chroot, entry_dir: Path, spec: KernelSpec) -> Mapping[str, str]:
    """Configure the tree as the stock kernel was; return its options.

    Raises:
        BuildError: The configuration or the rustc is not the stock kernel's.
        ConfigError: A VM could not boot this kernel.
    """
    stock = find_in_packages(entry_dir, "usr/src/linux-headers-*/.config").read_text()
    options = parse_options(stock)
    require_options(spec, options)
    config_path = entry_dir / "build/.config"
    config_path.write_text(stock)
    purpose = "the kernel's tree was not configured"
    argv = plan_configure(options, "olddefconfig")
    process.run(plan_inside(chroot, argv, entry_dir, purpose, log="olddefconfig.log"))
    compare_configs(stock, config_path.read_text())
    return options


def build_crates(chroot: Chroot, entry_dir: Path, options: Mapping[str, str]) -> CrateProof:
    """Build the tree's scripts, headers and Rust crates; compare rustc and exported names.

    Raises:
        BuildError: They do not build, or are not those of the stock kernel.
    """
    purpose = "the kernel's Rust crates were not rebuilt"
    argv = plan_configure(options, "prepare", "modules_prepare")
    process.run(plan_inside(chroot, argv, entry_dir, purpose, log="prepare.log"))
    headers = "usr/src/linux-headers-*"
    symvers = find_in_packages(entry_dir, f"{headers}/Module.symvers")
    shutil.copy(symvers, entry_dir / "build/Module.symvers")
    for name in ("include/generated/utsrelease.h", "include/config/kernel.release"):
        shutil.copy(find_in_packages(entry_dir, f"{headers}/{name}"), entry_dir / "build" / name)
    exports = elf.read_exports(entry_dir / "build")
    return prove_crates(chroot, options, exports, symvers.read_text())


def prove_crates(
    chroot: Chroot, options: Mapping[str, str], exports: tuple[str, ...], symvers: str
) -> CrateProof:
    """Return what shows that the stock kernel's rustc built the crates, and the same ones.

    The layouts of types are not part of it yet: see ensure_layouts.

    Raises:
        BuildError: It did not; the difference is among the facts.
    """
    if options.get("CONFIG_RUST") != "y":
        return CrateProof(reference=REFERENCE, rustc="", checked_symbols=0)
    wanted = options["CONFIG_RUSTC_VERSION_TEXT"]
    command = sandbox.plan_command(
        chroot, ("rustc", "--version"), purpose="rustc does not run", timeout_s=60
    )
    rustc = process.run(command).strip()
    missing = elf.compare_symbols(exports, symvers)
    if rustc != wanted or missing or not exports:
        raise BuildError(
            "the rebuilt Rust crates are not those of the stock kernel",
            facts=(
                ("rustc wanted", wanted),
                ("rustc found", rustc),
                ("checked symbols", str(len(exports))),
                ("missing", "\n".join(missing[:20])),
            ),
            hint="name the suite that built this kernel as its chroot in [tool.twinmod]",
        )
    return CrateProof(
        reference=REFERENCE, rustc=rustc, checked_symbols=len(exports), uncompared=proof.PENDING
    )


# -- what the VM boots ------------------------------------------------------------------------


def unpack_image(chroot: Chroot, entry_dir: Path) -> tuple[str, ...]:
    """Put the kernel's image and the VM's modules, decompressed, into vm/.

    Returns:
        The modules' file names, in load order.
    """
    image = find_in_packages(entry_dir, "**/vmlinuz*")
    inside = WORK / image.relative_to(entry_dir / "work")
    script = 'exec "$1" "$2" > "$3"'
    argv = (
        "sh",
        "-c",
        script,
        "sh",
        f"{sandbox.LINUX}/scripts/extract-vmlinux",
        str(inside),
        f"{WORK}/vmlinux",
    )
    process.run(plan_inside(chroot, argv, entry_dir, "the kernel's image was not unpacked"))
    shutil.move(entry_dir / "work/vmlinux", entry_dir / "vm/vmlinux")
    root = find_in_packages(entry_dir, "**/lib/modules/*/kernel")
    files = {
        plan_module_name(path).removesuffix(".ko"): path
        for folder in ("fs", "net/9p")
        for path in (root / folder).rglob("*.ko*")
    }
    found = elf.read_load_order(files, tuple(name for name, _ in VM_MODULES))
    for path, content in found:
        (entry_dir / "vm" / plan_module_name(path)).write_bytes(content)
    return tuple(plan_module_name(path) for path, _ in found)


def plan_module_name(path: Path) -> str:
    """Return the name of a module's file, decompressed, after the kernel's name of it."""
    return f"{path.name.partition('.ko')[0].replace('-', '_')}.ko"


def make_tree(
    spec: KernelSpec, chroot: Chroot, mirror: str, entry_dir: Path, progress: Progress
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Make a kernel tree in a folder of the cache; return its record and its vital files."""
    cache.require_disk(entry_dir, DISK_BYTES, f"the kernel of {spec.suite}")
    work_dir = entry_dir / "work"
    with progress.phase(f"kernel packages of {spec.suite}"):
        packages = read_packages(spec, chroot, mirror, work_dir)
        progress.note(f"kernel {packages.release}, version {packages.version}")
        download_packages(packages, chroot, work_dir)
    with progress.phase("kernel source and image"):
        unpack_packages(chroot, entry_dir)
        modules = unpack_image(chroot, entry_dir)
    with progress.phase("kernel configuration"):
        options = configure_tree(chroot, entry_dir, spec)
    with progress.phase("kernel headers and Rust crates"):
        proved = build_crates(chroot, entry_dir, options)
    cache.remove_tree(work_dir)
    record = {
        "release": packages.release,
        "version": packages.version,
        "suite": spec.suite,
        "chroot": chroot.key,
        "cc": options["CONFIG_CC_VERSION_TEXT"].split()[0],
        "vm_modules": modules,
        "proof": asdict(proved),
    }
    vital = (
        "vm/vmlinux",
        *(f"vm/{name}" for name in modules),
        "build/Module.symvers",
        "build/.config",
        "build/scripts/mod/modpost",
    )
    rust_dir = entry_dir / "build/rust"
    crates = tuple(str(path.relative_to(entry_dir)) for path in rust_dir.glob("*.rmeta"))
    return record, (*vital, *crates)


def plan_key(spec: KernelSpec, chroot: Chroot) -> str:
    """Return what identifies a suite's kernel, or a person's own tree, in the cache."""
    if spec.tree_dir:
        return owntree.plan_key(spec, chroot)
    text = "\n".join((FORMAT, spec.suite, spec.flavour, spec.series, chroot.key))
    return f"{spec.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def ensure_tree(
    spec: KernelSpec,
    chroot: Chroot,
    mirror: str,
    progress: Progress,
    base: KernelTree | None = None,
) -> KernelTree:
    """Return a kernel tree, made first when it is not there.

    Args:
        spec: The configured kernel.
        chroot: With the compilers that built it.
        mirror: Where its packages are.
        progress: Told of every phase.
        base: The kernel whose source it is built from, for one of our own options.

    Raises:
        ConfigError: No such suite, flavour, version or tree; a VM could not boot it; or Kconfig
            drops one of its options.
        MissingToolError: No network, no disk; or a person's own tree is not built.
        BuildError: What was rebuilt is not the stock kernel's.
    """
    if spec.tree_dir:
        return owntree.ensure_tree(spec, chroot, progress)
    if spec.source:
        assert base is not None
        return built.ensure_tree(spec, chroot, base, progress)

    def make(entry_dir: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        return make_tree(spec, chroot, mirror, entry_dir, progress)

    entry = cache.ensure_entry("kernel", plan_key(spec, chroot), make, progress, keep=("work",))
    return ensure_layouts(_read_tree(spec, chroot, entry), entry, progress)


def ensure_layouts(tree: KernelTree, entry: cache.Entry, progress: Progress) -> KernelTree:
    """Return a stock kernel whose types are laid out as in its image's BTF.

    They are compared once; a tree that an older twinmod made need not be made again for it.

    Raises:
        BuildError: A type is laid out differently.
    """
    if not tree.proof.rustc or tree.proof.uncompared != proof.PENDING:
        return tree
    with (
        progress.phase("layouts of the kernel's types"),
        tempfile.TemporaryDirectory(prefix="twinmod-") as folder,
    ):
        proved = proof.prove_layouts(tree, Path(folder))
    record = {**entry.record, "proof": {**entry.record["proof"], **asdict(proved)}}
    # Where others own the cache, it is done again the next time.
    with contextlib.suppress(OSError):
        cache.write_record(entry.path, record, tuple(entry.record["vital"]))
    return replace(tree, proof=proved)


def find_tree(
    spec: KernelSpec, chroot: Chroot, base: KernelTree | None = None
) -> KernelTree | None:
    """Return a kernel tree when it is there; see ensure_tree.

    Raises:
        TwinmodError: It is a person's own, and cannot be used.
    """
    if spec.tree_dir:
        return owntree.find_tree(spec, chroot)
    if spec.source:
        return built.find_tree(spec, chroot, base) if base else None
    entry = cache.find_entry("kernel", plan_key(spec, chroot))
    return _read_tree(spec, chroot, entry) if entry else None


def look_for_tree(
    spec: KernelSpec, chroot: Chroot | None, base: KernelTree | None = None
) -> tuple[KernelTree | None, TwinmodError]:
    """Return a kernel tree, or None, and the error that a step which needs it would end with."""
    missing = MissingToolError("not set up", hint=commands.render("setup", "--kernel", spec.name))
    try:
        return (find_tree(spec, chroot, base) if chroot else None), missing
    except TwinmodError as error:
        return None, error


def _read_tree(spec: KernelSpec, chroot: Chroot, entry: cache.Entry) -> KernelTree:
    record = entry.record
    return KernelTree(
        name=spec.name,
        release=record["release"],
        version=record["version"],
        origin="stock",
        suite=record["suite"],
        source_dir=entry.path / "linux",
        build_dir=entry.path / "build",
        image_path=entry.path / "vm/vmlinux",
        vm_module_paths=tuple(entry.path / "vm" / name for name in record["vm_modules"]),
        compilers=chroot,
        make_flags=(f"CC={record['cc']}",),
        key=entry.name,
        parameters=spec.parameters,
        proof=proof.read_proof(record["proof"], proof.PENDING),
    )


def check_tree(spec: KernelSpec, tree: KernelTree | None, error: TwinmodError) -> tuple[Check, ...]:
    """Return what the doctor says of the kernel and of its crates.

    Args:
        spec: The configured kernel.
        tree: Its tree, when there is one.
        error: Why there is none. What setup will make is not required yet; a person's own tree
            only that person can mend.
    """
    if tree is None:
        names = (
            ("kernel", f"tree of {spec.name}"),
            ("C", "compiler"),
            ("Rust", "rustc"),
            ("Rust", "crates"),
        )
        found = error.message if spec.tree_dir else "not made yet"
        return tuple(
            Check(
                group=group,
                name=name,
                found=found,
                needed="the kernel's own",
                ok=False,
                required=spec.tree_dir is not None,
                fix=error.hint,
            )
            for group, name in (names[:1] if spec.tree_dir else names)
        )
    return (
        Check(
            group="kernel",
            name=f"tree of {spec.name}",
            needed="complete",
            ok=True,
            found=f"{tree.release}, version {tree.version}",
        ),
        Check(
            group="C",
            name="compiler",
            needed="the kernel's own",
            ok=True,
            found=f"{' '.join(tree.make_flags)} of {tree.compilers.name}",
        ),
        *_check_crates(tree),
    )


def _check_crates(tree: KernelTree) -> tuple[Check, ...]:
    proved = tree.proof
    if not proved.rustc:
        return (
            Check(
                group="Rust",
                name="rustc",
                found="none: the kernel was built without it",
                needed="the kernel's own",
                ok=True,
            ),
        )
    stock = tree.origin == "stock"
    return (
        Check(group="Rust", name="rustc", found=proved.rustc, needed="the kernel's own", ok=True),
        Check(
            group="Rust",
            name="crates",
            found=f"{proved.checked_symbols} names, all there",
            needed=f"names in the Module.symvers of {proved.reference}",
            ok=proved.checked_symbols > 0,
        ),
        Check(
            group="Rust",
            name="layouts",
            found=proof.render_layouts(proved),
            required=False,
            needed=f"as in the BTF of {proved.reference}" if stock else "none to compare with",
            ok=proved.equal_layouts > 0 or not stock,
            fix=commands.render("setup") if proved.uncompared == proof.PENDING else "",
        ),
    )
