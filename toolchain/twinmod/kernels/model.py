# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that modules can be built for, how to come by one, and the proof of its Rust crates."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol

from twinmod.base.documents import Part
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.kernels.modules import KernelModules
from twinmod.project.model import KernelSpec


class Origin(StrEnum):
    """Where a kernel comes from."""

    # A distribution's kernel, its crates rebuilt.
    STOCK = "stock"
    # Its source with options of our own.
    BUILT = "built"
    # A person's own Linux tree.
    TREE = "tree"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrateProof:
    """What the Rust crates of a tree were compared with, and how much of them could be.

    A tree whose source package, configuration or compilers are not the kernel's own, or one of
    whose names or types differs, is refused: it has no proof.
    """

    # What configuration, rustc, names and layouts were compared with.
    reference: str
    # "" for a kernel without Rust.
    rustc: str
    # Names that the crates export, each in the reference's Module.symvers: they show the same
    # crates' names and the same rustc, and nothing of configuration, source or layout.
    checked_symbols: int
    # Types that are laid out as in the BTF of the booted image.
    equal_layouts: int = 0
    # Names of types that could not be compared: that BTF does not have them.
    unknown_layouts: tuple[str, ...] = ()
    # Names, of types that are laid out equally, which stand for other types there too.
    ambiguous_layouts: tuple[str, ...] = ()
    # Why no layout was compared, "" when some were.
    uncompared: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTree:
    """A kernel that modules can be built for and that a VM can boot."""

    name: str
    # uname -r of the kernel, which vermagic repeats.
    release: str
    # The distribution's package version, or uname -v of a person's own kernel.
    version: str
    origin: Origin
    suite: str
    source_dir: Path
    # Where the outputs are: the sources' own folder when no O= was given.
    build_dir: Path
    # An uncompressed vmlinux: the VM boots it without decompressing on an emulated processor.
    image_path: Path
    # Modules that a VM loads before its root is there, decompressed, in load order.
    vm_module_paths: tuple[Path, ...]
    # The root whose compilers built the kernel; modules are built in it.
    compilers: Chroot
    # How make is told of them: ("CC=gcc-14",) or ("LLVM=1",).
    make_flags: tuple[str, ...]
    proof: CrateProof
    # Identifies its content.
    key: str
    # Added to the command line of its VMs.
    parameters: tuple[str, ...] = ()

    @property
    def in_place(self) -> bool:
        """Whether its outputs lie among its sources."""
        return self.build_dir == self.source_dir


class Kernel(Protocol):
    """A kernel of the configuration, whether it is there or not; there is a class for each origin.

    What setup leaves of it is one entry of the cache.
    """

    origin: ClassVar[Origin]

    @property
    def spec(self) -> KernelSpec:
        """What the configuration says of it."""

    @property
    def chroot(self) -> Chroot:
        """The root with its compilers, there or not."""

    @property
    def key(self) -> str:
        """The key of its entry, "" while nobody knows it: the kernel that it needs is not there."""

    @property
    def folders(self) -> tuple[tuple[str, str], ...]:
        """(kind, name) of each folder of the cache that ``ensure`` would use, there or not."""

    def find(self) -> KernelTree | None:
        """Return it when it is there; nothing is written.

        Raises:
            TwinmodError: It is a person's own, and cannot be used.
        """

    def ensure(self, progress: Progress) -> KernelTree:
        """Return it, made first when it is not there.

        Args:
            progress: Told of every phase.

        Raises:
            ConfigError: No such suite, flavour, version or tree; a VM could not boot it; or Kconfig
                drops one of its options.
            MissingToolError: No network, no disk; or a person's own tree is not built.
            BuildError: It does not build, or what was rebuilt is not the stock kernel's.
        """

    def ensure_modules(self, progress: Progress) -> KernelModules:
        """Return the modules that it came with; it is made first when it is not there.

        Args:
            progress: Told of every phase.

        Raises:
            TwinmodError: See ensure; or its modules cannot be had.
        """

    def read_chosen_options(self) -> Mapping[str, str]:
        """Return the options that a person chose for it, there or not; {} for a distribution's."""


class KernelEntry(Part, frozen=True, kw_only=True):
    """A kernel as every report names it; KernelTree says what the keys mean."""

    release: str
    origin: str
    suite: str
    # "" for a kernel without Rust.
    rustc: str
    version: str


def plan_kernel(tree: KernelTree) -> KernelEntry:
    """Return a kernel as every report names it."""
    return KernelEntry(
        release=tree.release,
        origin=tree.origin,
        suite=tree.suite,
        rustc=tree.proof.rustc,
        version=tree.version,
    )
