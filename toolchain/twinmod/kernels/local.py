# SPDX-License-Identifier: GPL-2.0-only
"""A person's own Linux tree as a kernel: looked at, compared with itself, and never written to.

What was found is remembered in the cache, with the size and time of every file that it rests on:
nothing is read again until one of them changes.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from twinmod.base import cache, files, process, sandbox
from twinmod.base.cache import CacheEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.errors import ConfigError, MissingToolError
from twinmod.kernels import elf, kconfig, proof
from twinmod.kernels.model import CrateProof, KernelTree, Origin
from twinmod.kernels.modules import KernelModules, read_build
from twinmod.project.model import KernelSpec

#: Changed when the same tree must be looked at again.
FORMAT = "2"

#: What the crates of a tree are compared with: there is no other kernel to compare them with.
REFERENCE = "the tree's own last build"

#: Why no layout is.
UNCOMPARED = "the tree's own make built the crates and the image"

PROBE_TIMEOUT_S = 60.0

#: How a person builds with all of their processors; a shell's own words.
JOBS = "-j$(nproc)"

#: What a Linux tree has at its top.
SOURCES = ("Makefile", "Kconfig", "scripts/Makefile.build")

#: What a build of it leaves and modules need.
OUTPUTS = (
    "vmlinux",
    "Module.symvers",
    "include/config/auto.conf",
    "include/config/kernel.release",
    "include/generated/autoconf.h",
    "include/generated/utsrelease.h",
    "scripts/mod/modpost",
)
RUST_OUTPUTS = ("rust/libcore.rmeta", "rust/libbindings.rmeta", "rust/libkernel.rmeta")

#: Where the modules lie that a VM loads, and what those need.
VM_MODULE_DIRS = ("fs", "net/9p")

#: A person's PATH leads to their compilers, and rustup's programs look for the real ones at home.
HOST_SETTINGS = ("PATH", "HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_HOME")

#: What stands in for a compiler must do no more than start it: a cache is read-only in a sandbox,
#: and other machines are out of reach. Source: ccache(1), distcc(1), icecc(7).
HOST_FIXED = (
    ("CCACHE_DISABLE", "1"),
    ("DISTCC_HOSTS", "localhost"),
    ("DISTCC_DIR", "/tmp"),
    ("ICECC", "disable"),
)

#: Not of the host's top: what every sandbox has of its own.
SANDBOX_DIRS = ("dev", "proc", "tmp", "run", sandbox.INSIDE.name)

#: Folders of these that a person's compilers may lie in.
HIDDEN_DIRS = (Path("/dev/shm"), Path("/run"), Path("/tmp"))

#: How many links the kernel follows in one path; path_resolution(7).
MAX_LINKS = 40

#: Prints, for each program, its name and the first line of its version.
VERSIONS = (
    'for name; do echo "version of $name: $("$name" --version 2>/dev/null | head -n 1)"; done'
)

#: The toolchain that `rustup show active-toolchain` names, unless it is the default one.
_TOOLCHAIN = re.compile(r"(?m)^(?!(?:info|warning|error): )(.+?) \((?!default\b)")

_BANNER = re.compile(rb"Linux version (\S+) \([^\n\0]*\) \(([^\n\0]*)\) (#\d[^\n\0]*)\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilers:
    """The compilers that configured a tree, found."""

    root: Chroot
    flags: tuple[str, ...]
    # (program, the first line of its version)
    versions: tuple[tuple[str, str], ...]


# -- the tree ---------------------------------------------------------------------------------


def find_dirs(spec: KernelSpec) -> tuple[Path, Path]:
    """Return where a tree's sources and its outputs are."""
    assert spec.tree_dir is not None
    assert spec.build_dir is not None
    return spec.tree_dir, spec.build_dir


def render_make(spec: KernelSpec, flags: tuple[str, ...], *targets: str) -> str:
    """Return the make command that a person would run in their tree."""
    source_dir, build_dir = find_dirs(spec)
    outputs = () if build_dir == source_dir else (f"O={build_dir}",)
    return " ".join((shlex.join(("make", "-C", str(source_dir), *outputs, *flags)), *targets))


def render_enable(spec: KernelSpec, lacking: tuple[str, ...], flags: tuple[str, ...]) -> str:
    """Return the commands that give a tree the options that it lacks."""
    source_dir, build_dir = find_dirs(spec)
    changes = (
        part
        for name in lacking
        for part in (("-d", name.removesuffix("=n")) if name.endswith("=n") else ("-e", name))
    )
    script = (str(source_dir / "scripts/config"), "--file", str(build_dir / ".config"), *changes)
    return " && ".join(
        (
            shlex.join(script),
            render_make(spec, flags, "olddefconfig"),
            render_make(spec, flags, JOBS),
        )
    )


def read_config(spec: KernelSpec) -> Mapping[str, str]:
    """Return the options that a tree was configured with.

    Raises:
        ConfigError: There is no Linux tree.
        MissingToolError: It was not configured.
    """
    source_dir, build_dir = find_dirs(spec)
    lacking = tuple(name for name in SOURCES if not (source_dir / name).is_file())
    if lacking:
        raise ConfigError(
            f"the tree of kernel {spec.name} is no Linux tree: it has no {', '.join(lacking)}",
            facts=(("folder", str(source_dir)),),
            hint=f"correct [tool.twinmod.kernels.{spec.name}]",
        )
    found = {}
    config_path = build_dir / ".config"
    if config_path.is_file():
        found = kconfig.parse_options(config_path.read_text(errors="replace"))
    if not kconfig.plan_compilers(found):
        raise MissingToolError(
            f"the tree of kernel {spec.name} is not configured: "
            f"{'its .config names no compiler' if config_path.is_file() else 'it has no .config'}",
            facts=(("file", str(config_path)),),
            hint=render_make(spec, (), "olddefconfig"),
        )
    return found


def require_options(spec: KernelSpec, config: Mapping[str, str]) -> None:
    """Refuse a tree that a VM could not boot.

    Raises:
        ConfigError: It lacks what a VM needs; each option is named.
    """
    lacking = kconfig.find_lacking(config)
    if lacking:
        _, build_dir = find_dirs(spec)
        _, flags = kconfig.plan_compilers(config)[0]
        raise ConfigError(
            f"a VM cannot boot the tree of kernel {spec.name}: it lacks {', '.join(lacking)}",
            facts=(("configuration", str(build_dir / ".config")),),
            hint=render_enable(spec, lacking, flags),
        )


def require_outputs(
    spec: KernelSpec, config: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Return what a tree's modules and its VM depend on, all of it there and of one build.

    Returns:
        The names of all files, relative to the build folder, then the paths of the modules that
        a VM loads, in load order.

    Raises:
        MissingToolError: The tree was not built, not to the end, or configured again since.
    """
    _, build_dir = find_dirs(spec)
    _, flags = kconfig.plan_compilers(config)[0]
    rust = RUST_OUTPUTS if kconfig.find_rustc(config) else ()
    paths = {
        path.name.removesuffix(".ko").replace("-", "_"): path
        for folder in VM_MODULE_DIRS
        for path in (build_dir / folder).rglob("*.ko")
    }
    wanted = kconfig.find_vm_modules(config)
    missing = [name for name in (*OUTPUTS, *rust) if not (build_dir / name).is_file()]
    missing += [f"{name}.ko" for name in wanted if name not in paths]
    if missing:
        raise MissingToolError(
            f"the tree of kernel {spec.name} is not built: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there",
            facts=(("folder", str(build_dir)),),
            hint=render_make(spec, flags, JOBS),
        )
    _require_same_options(spec, config)
    modules = tuple(path for path, _ in elf.read_load_order(paths, wanted))
    crates = (
        sorted(
            path for suffix in ("rmeta", "so") for path in (build_dir / "rust").glob(f"*.{suffix}")
        )
        if rust
        else []
    )
    names = (str(path.relative_to(build_dir)) for path in (*modules, *crates))
    return (".config", *OUTPUTS, *names), modules


def _require_same_options(spec: KernelSpec, config: Mapping[str, str]) -> None:
    """Refuse a tree that was configured again after its last build."""
    _, build_dir = find_dirs(spec)
    _, flags = kconfig.plan_compilers(config)[0]
    text = (build_dir / "include/config/auto.conf").read_text(errors="replace")
    built = kconfig.parse_options(text)
    changed = tuple(
        f"{name}: {built.get(name, 'n')} was built, now {config.get(name, 'n')}"
        for name in kconfig.compare_options(config, built)[:20]
    )
    if changed:
        raise MissingToolError(
            f"the tree of kernel {spec.name} was configured again after its last build",
            facts=(
                ("configuration", str(build_dir / ".config")),
                ("changed", "\n".join(changed)),
            ),
            hint=render_make(spec, flags, JOBS),
        )


# -- its compilers ----------------------------------------------------------------------------


def read_host(toolchain: str = "") -> Chroot:
    """Return this host as a root: read-only, with its user's own way to compilers.

    Args:
        toolchain: What rustup's programs shall be of, "" for what they choose themselves.
    """
    entries = sorted(path for path in Path("/").iterdir() if path.name not in SANDBOX_DIRS)
    own = {name: os.environ[name] for name in HOST_SETTINGS if name in os.environ}
    chosen = {"RUSTUP_TOOLCHAIN": toolchain} if toolchain else {}
    return Chroot(
        name=f"this host, {toolchain}" if toolchain else "this host",
        suite="",
        root_dir=Path("/"),
        key="host",
        mirror="",
        top=tuple(
            (path.name, str(path.readlink()) if path.is_symlink() else "")
            for path in entries
            if path.is_symlink() or path.is_dir()
        ),
        kept=find_kept(own),
        environment=(*{**own, **chosen}.items(), *HOST_FIXED),
    )


def find_kept(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return what lies in HIDDEN_DIRS and leads to the caller's compilers, by whatever links.

    Args:
        environment: With PATH, HOME and rustup's settings.
    """
    home = Path(environment.get("HOME", "/"))
    rustup = Path(environment.get("RUSTUP_HOME", home / ".rustup"))
    folders = (
        *map(Path, environment.get("PATH", "").split(os.pathsep)),
        rustup,
        rustup / "toolchains",
        Path(environment.get("CARGO_HOME", home / ".cargo")),
    )
    named = [folder for folder in folders if folder.is_absolute() and os.access(folder, os.X_OK)]
    links = [path for folder in named for path in _list_links(folder)]
    passed = {path for start in (*named, *links) for path in trace_path(start)}
    return tuple(
        sorted(path for path in passed if path.parent in HIDDEN_DIRS and os.access(path, os.F_OK))
    )


def _list_links(folder: Path) -> tuple[Path, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(Path(entry.path) for entry in entries if entry.is_symlink())
    except OSError:
        return ()


def trace_path(path: Path) -> Iterator[Path]:
    """Yield what the kernel passes on its way along a path: each folder, and where links lead."""
    here, links = Path("/"), 0
    pending = [*reversed(path.parts[1:])]
    while pending and links < MAX_LINKS:
        part = pending.pop()
        if part == "..":
            here = here.parent
            continue
        passed = here / part
        yield passed
        try:
            target = passed.readlink()
        except OSError:
            here = passed
            continue
        links += 1
        if target.is_absolute():
            here = Path("/")
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def read_toolchain(folder: Path) -> str:
    """Return the toolchain that rustup takes in a folder, "" for its default one or without rustup.

    ``rustup override set`` and ``rust-toolchain.toml`` choose one for a folder; in a sandbox the
    tree lies elsewhere.
    """
    if process.find_program("rustup") is None:
        return ""
    own = ((name, os.environ[name]) for name in HOST_SETTINGS if name in os.environ)
    command = Command(
        argv=("rustup", "show", "active-toolchain"),
        purpose="rustup did not say which toolchain it takes",
        environment=(*own, ("RUSTUP_AUTO_INSTALL", "0")),
        working_dir=folder,
        timeout_s=PROBE_TIMEOUT_S,
    )
    status, output = process.run_unchecked(command, error=MissingToolError)
    return parse_toolchain(output) if status == 0 else ""


def parse_toolchain(output: str) -> str:
    """Return the toolchain that rustup has active for a reason, "" for the default one."""
    match = _TOOLCHAIN.search(output)
    return match.group(1) if match else ""


def list_roots(spec: KernelSpec, config: Mapping[str, str], chroot: Chroot) -> Iterator[Chroot]:
    """Yield where a tree's compilers may be, the likeliest first.

    On this host, rustc is the one of the folder where the tree was built, then that of its sources,
    then the caller's default.
    """
    yield chroot
    source_dir, build_dir = find_dirs(spec)
    folders = (build_dir, source_dir) if kconfig.find_rustc(config) else ()
    found = (read_toolchain(folder) for folder in dict.fromkeys(folders))
    chosen = dict.fromkeys(toolchain for toolchain in found if toolchain)
    yield from map(read_host, (*chosen, ""))


def read_versions(root: Chroot, programs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first line of each program's version, "" for one that a root has not."""
    purpose = f"the compilers of {root.name} did not run"
    command = sandbox.plan_command(
        root, ("sh", "-c", VERSIONS, "sh", *programs), purpose=purpose, timeout_s=PROBE_TIMEOUT_S
    )
    return parse_versions(process.run(command, error=MissingToolError), programs)


def parse_versions(output: str, programs: tuple[str, ...]) -> tuple[str, ...]:
    """Return what VERSIONS printed of each program; a shell may have warned in between."""
    pairs = (
        line.removeprefix("version of ").partition(": ")
        for line in output.splitlines()
        if line.startswith("version of ")
    )
    found = {name: text for name, _, text in pairs}
    return tuple(found.get(name, "").strip() for name in programs)


def find_compilers(
    spec: KernelSpec, config: Mapping[str, str], roots: Iterable[Chroot]
) -> Compilers:
    """Return the compilers that configured a tree: those of the first root that has them.

    Args:
        spec: The configured kernel.
        config: The tree's options.
        roots: Where to look.

    Raises:
        MissingToolError: None has. A crate of another rustc, even of the same number, would be
            refused by rustc itself (E0514).
    """
    candidates = kconfig.plan_compilers(config)
    cc, rustc = config["CONFIG_CC_VERSION_TEXT"], kconfig.find_rustc(config)
    programs = (*(program for program, _ in candidates), *(("rustc",) if rustc else ()))
    facts = [("C compiler wanted", cc), *([("rustc wanted", rustc)] if rustc else [])]
    for root in roots:
        found = dict(zip(programs, read_versions(root, programs), strict=True))
        for program, flags in candidates:
            if found[program] == cc and found.get("rustc", "") == rustc:
                wanted = (program, *(("rustc",) if rustc else ()))
                versions = tuple((name, found[name]) for name in wanted)
                return Compilers(root=root, flags=flags, versions=versions)
        facts += [(root.name, f"{name}: {text or 'none'}") for name, text in found.items()]
    raise MissingToolError(
        f"the compilers that configured the tree of kernel {spec.name} are neither in its chroot "
        "nor on this host",
        facts=tuple(facts),
        hint=f"put them first in PATH, {_render_override(spec) if rustc else ''}or configure and "
        "build the tree again with those that are there",
    )


def _render_override(spec: KernelSpec) -> str:
    _, build_dir = find_dirs(spec)
    command = shlex.join(("rustup", "override", "set", "--path", str(build_dir)))
    return f"or name rustc's toolchain with {command} TOOLCHAIN, "


# -- what is compared -------------------------------------------------------------------------


def parse_banner(image: bytes) -> tuple[str, str, str]:
    """Return (release, compilers, version) that a kernel's image says of itself, "" without.

    Source: init/version-timestamp.c and scripts/mkcompile_h, Linux 7.3.
    """
    match = _BANNER.search(image)
    if match is None:
        return "", "", ""
    release, compilers, version = (part.decode(errors="replace") for part in match.groups())
    return release, compilers, version


def require_image(spec: KernelSpec, config: Mapping[str, str], release: str) -> str:
    """Return the version that a tree's image says of itself, as ``uname -v`` would.

    Raises:
        MissingToolError: It is of another release or compiler than the tree is now.
    """
    _, build_dir = find_dirs(spec)
    _, flags = kconfig.plan_compilers(config)[0]
    cc = config["CONFIG_CC_VERSION_TEXT"]
    seen, compilers, version = parse_banner((build_dir / "vmlinux").read_bytes())
    if seen != release or not compilers.startswith(f"{cc}, "):
        raise MissingToolError(
            f"the image of kernel {spec.name} is not of the tree's last build",
            facts=(("tree", f"{release}, {cc}"), ("vmlinux", f"{seen}, {compilers}")),
            hint=render_make(spec, flags, JOBS),
        )
    return version


def prove_crates(spec: KernelSpec, config: Mapping[str, str]) -> CrateProof:
    """Return what is known of a tree's crates: its own make built them, as it did its image.

    Raises:
        MissingToolError: Module.symvers lacks a name that they export: they are of another build.
    """
    _, build_dir = find_dirs(spec)
    _, flags = kconfig.plan_compilers(config)[0]
    rustc = kconfig.find_rustc(config)
    exports = elf.read_exports(build_dir) if rustc else ()
    missing = elf.compare_symbols(exports, (build_dir / "Module.symvers").read_text())
    if missing or (rustc and not exports):
        raise MissingToolError(
            f"the Rust crates in the tree of kernel {spec.name} are not those of its last build",
            facts=(("checked symbols", str(len(exports))), ("missing", "\n".join(missing[:20]))),
            hint=render_make(spec, flags, JOBS),
        )
    return CrateProof(
        reference=REFERENCE,
        rustc=rustc,
        checked_symbols=len(exports),
        uncompared=UNCOMPARED,
    )


# -- what is remembered -----------------------------------------------------------------------


def read_stamps(build_dir: Path, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Return the size and the time of files, by name; one that is gone has neither."""
    stamps = {}
    for name in names:
        try:
            status = (build_dir / name).stat()
            stamps[name] = [status.st_size, status.st_mtime_ns]
        except OSError:
            stamps[name] = []
    return stamps


def read_digests(
    build_dir: Path, stamps: Mapping[str, list[int]], known: Mapping[str, Any]
) -> dict[str, str]:
    """Return the SHA-256 of files by name; one whose stamp is the known one is not read."""
    old_stamps, old_digests = known.get("stamps", {}), known.get("digests", {})
    digests = {}
    for name, stamp in stamps.items():
        if name in old_digests and old_stamps.get(name) == stamp:
            digests[name] = old_digests[name]
            continue
        digests[name] = files.read_digest(build_dir / name)
    return digests


def read_record(spec: KernelSpec, chroot: Chroot, known: Mapping[str, Any]) -> dict[str, Any]:
    """Look at a tree; return what is to be remembered of it.

    Raises:
        TwinmodError: It cannot be used; see the steps.
    """
    _, build_dir = find_dirs(spec)
    config = read_config(spec)
    require_options(spec, config)
    names, modules = require_outputs(spec, config)
    stamps = read_stamps(build_dir, names)
    compilers = find_compilers(spec, config, list_roots(spec, config, chroot))
    release = (build_dir / "include/config/kernel.release").read_text().strip()
    version = require_image(spec, config, release)
    return {
        "release": release,
        "version": version,
        "on_host": bool(compilers.root.top),
        "toolchain": dict(compilers.root.environment).get("RUSTUP_TOOLCHAIN", ""),
        "make_flags": compilers.flags,
        "versions": [list(pair) for pair in compilers.versions],
        "proof": asdict(prove_crates(spec, config)),
        "stamps": stamps,
        "vm_modules": [str(path.relative_to(build_dir)) for path in modules],
        "digests": read_digests(build_dir, stamps, known),
    }


def is_current(spec: KernelSpec, record: Mapping[str, Any]) -> bool:
    """Tell whether a tree, and the host's compilers when it needs them, are as remembered."""
    _, build_dir = find_dirs(spec)
    if not record or read_stamps(build_dir, tuple(record["stamps"])) != record["stamps"]:
        return False
    programs, wanted = zip(*record["versions"], strict=True)
    return not record["on_host"] or read_versions(_read_root(record), programs) == wanted


def _read_root(record: Mapping[str, Any]) -> Chroot:
    """Return this host as it was when a tree was looked at."""
    return read_host(record["toolchain"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalKernel:
    """A person's own tree; see Kernel. The cache has what is remembered of it."""

    origin: ClassVar[Origin] = Origin.TREE

    spec: KernelSpec
    # The first candidate for its compilers.
    chroot: Chroot

    @property
    def _entry(self) -> CacheEntry:
        spec, chroot = self.spec, self.chroot

        def make(_: Path, progress: Progress) -> Made:
            with progress.phase(f"Linux tree of {spec.name}"):
                return read_record(spec, chroot, self._find_record()), ()

        inputs = (FORMAT, *map(str, find_dirs(spec)), chroot.key)
        return CacheEntry(kind="kernel", key=cache.plan_key(spec.name, inputs), make=make)

    @property
    def key(self) -> str:
        """It follows from where the tree is; the key of a KernelTree says what is in it."""
        return self._entry.key

    @property
    def folders(self) -> tuple[tuple[str, str], ...]:
        """See Kernel."""
        return self._entry.folders

    def find(self) -> KernelTree:
        """See Kernel; it is looked at again when it changed.

        Raises:
            TwinmodError: It cannot be used; see read_record.
        """
        known = self._find_record()
        if not is_current(self.spec, known):
            known = read_record(self.spec, self.chroot, known)
        return self._read_tree(known)

    def ensure(self, progress: Progress) -> KernelTree:
        """See Kernel; what was found is remembered.

        Raises:
            TwinmodError: It cannot be used; see read_record.
        """
        record = self._find_record()
        if not is_current(self.spec, record):
            record = self._entry.renew(progress).record
        return self._read_tree(record)

    def ensure_modules(self, progress: Progress) -> KernelModules:
        """See Kernel; its build left them."""
        tree = self.ensure(progress)
        return read_build(tree.build_dir, tree.release)

    def read_chosen_options(self) -> Mapping[str, str]:
        """See Kernel; {} for one that was not configured."""
        _, build_dir = find_dirs(self.spec)
        path = build_dir / ".config"
        return kconfig.parse_options(path.read_text()) if path.is_file() else {}

    def _find_record(self) -> Mapping[str, Any]:
        """Return what is remembered of the tree, current or not; {} of one never seen."""
        entry = self._entry.find()
        return entry.record if entry else {}

    def _read_tree(self, record: Mapping[str, Any]) -> KernelTree:
        source_dir, build_dir = find_dirs(self.spec)
        content = (record["release"], *(f"{n} {d}" for n, d in sorted(record["digests"].items())))
        return KernelTree(
            name=self.spec.name,
            release=record["release"],
            version=record["version"],
            origin=self.origin,
            suite="",
            source_dir=source_dir,
            build_dir=build_dir,
            image_path=build_dir / "vmlinux",
            vm_module_paths=tuple(build_dir / name for name in record["vm_modules"]),
            compilers=_read_root(record) if record["on_host"] else self.chroot,
            make_flags=tuple(record["make_flags"]),
            parameters=self.spec.command_line,
            key=cache.plan_key(self.spec.name, content),
            proof=proof.read_proof(record["proof"], UNCOMPARED),
        )
