# SPDX-License-Identifier: GPL-2.0-only
"""A kernel of our own options, built from the source of a distribution's kernel: a debug kernel.

It is made once and kept in the cache. What it watches is a matter of its configuration, so every
option that was asked for is looked for in what Kconfig made of it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from twinmod.base import cache, process, sandbox
from twinmod.base.cache import CacheEntry, FoundEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import BuildError, ConfigError
from twinmod.kernels import elf, kconfig, proof
from twinmod.kernels.model import CrateProof, Kernel, KernelTree, Origin
from twinmod.kernels.modules import KernelModules, read_build
from twinmod.project.model import KernelSpec

#: Changed when the same configuration must give another tree.
FORMAT = "1"

#: Bytes on disk while one is made.
DISK_BYTES = 8_000_000_000

BUILD_TIMEOUT_S = 7200.0

#: All of it by LLVM: the sanitizers want the same compiler for C as rustc has within.
MAKE_FLAGS = ("LLVM=1",)

#: What its crates are compared with.
REFERENCE = "its own build"

#: Why no layout is.
UNCOMPARED = "one make built the crates and the image"

#: Where Kconfig finds what is wanted, in the build directory.
WANTED = "wanted.config"

#: What is built: the image, Module.symvers, and what gdb reads.
TARGETS = ("vmlinux", "modules", "scripts_gdb")

#: Folders whose objects a module's build needs, or gdb; the rest is linked into the image.
KEPT_DIRS = ("scripts", "tools", "rust")


# -- plan -------------------------------------------------------------------------------------


def plan_options(spec: KernelSpec) -> tuple[str, ...]:
    """Return the lines of the configuration that a kernel must have: OPTION=value."""
    own = tuple(kconfig.plan_line(text) for text in spec.options)
    return (*kconfig.BUILT, f'CONFIG_LOCALVERSION="-{spec.name}"', *own)


def find_lost(wanted: tuple[str, ...], config: Mapping[str, str]) -> tuple[str, ...]:
    """Return the lines of a configuration that Kconfig did not keep, with what it made of them."""
    lost = []
    for name, value in kconfig.parse_options("\n".join(wanted)).items():
        got = config.get(name, "n")
        if got != value:
            lost.append(f"{name}={value}, not {got}")
    return tuple(lost)


def plan_step(
    chroot: Chroot, base: KernelTree, entry_dir: Path, argv: tuple[str, ...], log: str
) -> Command:
    """Return a command that works on a kernel that is being made."""
    command = sandbox.plan_command(
        chroot,
        argv,
        Enter(
            binds=(
                Bind(source_path=base.source_dir, target_path=sandbox.LINUX),
                Bind(source_path=entry_dir / "build", target_path=sandbox.BUILD, writable=True),
                Bind(
                    source_path=entry_dir / "vm", target_path=sandbox.INSIDE / "vm", writable=True
                ),
            )
        ),
        purpose="the kernel was not built",
        timeout_s=BUILD_TIMEOUT_S,
    )
    return replace(command, log_path=entry_dir / log)


# -- act --------------------------------------------------------------------------------------


def configure(
    spec: KernelSpec, chroot: Chroot, base: KernelTree, entry_dir: Path
) -> Mapping[str, str]:
    """Configure a kernel: what is wanted, and nothing else that can be left out.

    Raises:
        ConfigError: An option did not survive; each is named.
    """
    wanted = plan_options(spec)
    (entry_dir / "build" / WANTED).write_text("\n".join(wanted) + "\n")
    for target in (f"KCONFIG_ALLCONFIG={sandbox.BUILD / WANTED}", "allnoconfig"), ("olddefconfig",):
        argv = sandbox.plan_make(MAKE_FLAGS, *target)
        process.run(plan_step(chroot, base, entry_dir, argv, f"{target[-1]}.log"))
    config = kconfig.parse_options((entry_dir / "build/.config").read_text())
    lost = find_lost(wanted, config)
    if lost:
        raise ConfigError(
            f"kernel {spec.name} cannot have all of its options: Kconfig dropped "
            f"{len(lost)} of {len(wanted)}",
            facts=tuple(("lost", line) for line in lost),
            hint=f"add what they depend on to [tool.twinmod.kernels.{spec.name}], or drop them",
        )
    return config


def count_steps(progress: Progress) -> Callable[[str], None]:
    """Return what counts the steps that make tells of, and shows how many there were."""
    steps = 0

    def watch(line: str) -> None:
        nonlocal steps
        # make says "  CC      lib/string.o"; everything else is a compiler's word.
        if line.startswith("  "):
            steps += 1
            if steps % 20 == 0:
                progress.detail(f"{steps} steps done")

    return watch


def prove_crates(build_dir: Path, config: Mapping[str, str]) -> CrateProof:
    """Return what is known of a kernel's crates, which the make that built its image built.

    Raises:
        BuildError: Module.symvers lacks a name that they export.
    """
    exports = elf.read_exports(build_dir)
    missing = elf.compare_symbols(exports, (build_dir / "Module.symvers").read_text())
    if missing or not exports:
        raise BuildError(
            "the kernel that was built does not export what its Rust crates do",
            facts=(("checked symbols", str(len(exports))), ("missing", "\n".join(missing[:20]))),
        )
    return CrateProof(
        reference=REFERENCE,
        rustc=kconfig.find_rustc(config),
        checked_symbols=len(exports),
        uncompared=UNCOMPARED,
    )


def remove_objects(build_dir: Path) -> None:
    """Remove what was linked into the image: two of three gigabytes."""
    for path in build_dir.iterdir():
        if path.is_dir() and path.name not in KEPT_DIRS:
            for suffix in ("*.o", "*.a"):
                for found in path.rglob(suffix):
                    found.unlink()
    for name in ("vmlinux.o", "vmlinux.a", "vmlinux.unstripped", ".tmp_vmlinux1", ".tmp_vmlinux2"):
        (build_dir / name).unlink(missing_ok=True)


def make_tree(
    spec: KernelSpec, chroot: Chroot, base: KernelTree, entry_dir: Path, progress: Progress
) -> Made:
    """Build a kernel in a folder of the cache; return its record and its vital files."""
    cache.require_disk(entry_dir, DISK_BYTES, f"kernel {spec.name}")
    for name in ("build", "vm"):
        (entry_dir / name).mkdir(exist_ok=True)
    with progress.phase(f"configuration of {spec.name}"):
        config = configure(spec, chroot, base, entry_dir)
    build_dir = entry_dir / "build"
    with progress.phase(f"kernel {spec.name}, built with LLVM"):
        argv = sandbox.plan_make(MAKE_FLAGS, *TARGETS)
        command = plan_step(chroot, base, entry_dir, argv, "build.log")
        process.run(command, watch=count_steps(progress))
        strip = (
            "llvm-objcopy",
            "--strip-debug",
            f"{sandbox.BUILD}/vmlinux",
            str(sandbox.INSIDE / "vm/vmlinux"),
        )
        process.run(plan_step(chroot, base, entry_dir, strip, "strip.log"))
    proved = prove_crates(build_dir, config)
    remove_objects(build_dir)
    record = {
        "release": (build_dir / "include/config/kernel.release").read_text().strip(),
        "version": base.version,
        "suite": base.suite,
        "chroot": chroot.key,
        "options": len(plan_options(spec)),
        "proof": asdict(proved),
    }
    crates = (build_dir / "rust").glob("*.rmeta")
    vital = (
        "vm/vmlinux",
        "build/vmlinux",
        "build/Module.symvers",
        "build/.config",
        *(str(path.relative_to(entry_dir)) for path in crates),
    )
    return record, vital


def find_folders_by_name(spec: KernelSpec) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of what the cache has of a kernel, whatever it was built from."""
    name = re.compile(rf"{re.escape(spec.name)}-[0-9a-f]{{{cache.DIGITS}}}({cache.PARTIAL})?")
    kept = (cache.find_cache_dir() / "kernel").glob("*")
    return tuple(("kernel", path.name) for path in kept if name.fullmatch(path.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugKernel:
    """A kernel of our own options; see Kernel."""

    origin: ClassVar[Origin] = Origin.BUILT

    spec: KernelSpec
    chroot: Chroot
    # The kernel whose source it is built from.
    base: Kernel

    def _plan_entry(self, base: KernelTree) -> CacheEntry:
        spec, chroot = self.spec, self.chroot

        def make(entry_dir: Path, progress: Progress) -> Made:
            return make_tree(spec, chroot, base, entry_dir, progress)

        inputs = (FORMAT, base.key, base.version, chroot.key, *plan_options(spec))
        key = cache.plan_key(spec.name, inputs)
        # An interrupted build goes on where it was: make knows what is done.
        return CacheEntry(kind="kernel", key=key, make=make, keep=("build",))

    @property
    def key(self) -> str:
        """It follows from the version of its source, which nobody knows before that is there."""
        base = self.base.find()
        return self._plan_entry(base).key if base else ""

    @property
    def folders(self) -> tuple[tuple[str, str], ...]:
        """See Kernel; without its source, all that the cache has of a kernel of this name."""
        base = self.base.find()
        return self._plan_entry(base).folders if base else find_folders_by_name(self.spec)

    def find(self) -> KernelTree | None:
        """See Kernel; there is none without its source."""
        base = self.base.find()
        entry = self._plan_entry(base).find() if base else None
        return self._read_tree(base, entry) if base and entry else None

    def ensure(self, progress: Progress) -> KernelTree:
        """See Kernel; its source is made first, too."""
        base = self.base.ensure(progress)
        return self._read_tree(base, self._plan_entry(base).ensure(progress))

    def ensure_modules(self, progress: Progress) -> KernelModules:
        """See Kernel; its build left them."""
        tree = self.ensure(progress)
        return read_build(tree.build_dir, tree.release)

    def read_chosen_options(self) -> Mapping[str, str]:
        """See Kernel."""
        return kconfig.parse_options("\n".join(map(kconfig.plan_line, self.spec.options)))

    def _read_tree(self, base: KernelTree, entry: FoundEntry) -> KernelTree:
        record = entry.record
        return KernelTree(
            name=self.spec.name,
            release=record["release"],
            version=record["version"],
            origin=self.origin,
            suite=record["suite"],
            source_dir=base.source_dir,
            build_dir=entry.path / "build",
            image_path=entry.path / "vm/vmlinux",
            vm_module_paths=(),
            compilers=self.chroot,
            make_flags=MAKE_FLAGS,
            key=entry.key,
            parameters=self.spec.command_line,
            proof=proof.read_proof(record["proof"], UNCOMPARED),
        )
