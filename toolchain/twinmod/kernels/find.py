# SPDX-License-Identifier: GPL-2.0-only
"""A configured kernel, whichever of the three kinds it is."""

from twinmod.base import commands
from twinmod.base.check import Check
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.errors import MissingToolError, TwinmodError
from twinmod.kernels import debug, local, proof
from twinmod.kernels import stock as kernels_stock
from twinmod.kernels.model import KernelTree, Origin
from twinmod.project.model import KernelSpec


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
        return local.ensure_tree(spec, chroot, progress)
    if spec.source:
        assert base is not None
        return debug.ensure_tree(spec, chroot, base, progress)
    return kernels_stock.ensure_tree(spec, chroot, mirror, progress)


def find_tree(
    spec: KernelSpec, chroot: Chroot, base: KernelTree | None = None
) -> KernelTree | None:
    """Return a kernel tree when it is there; see ensure_tree.

    Raises:
        TwinmodError: It is a person's own, and cannot be used.
    """
    if spec.tree_dir:
        return local.find_tree(spec, chroot)
    if spec.source:
        return debug.find_tree(spec, chroot, base) if base else None
    return kernels_stock.find_tree(spec, chroot)


def find_folders(
    spec: KernelSpec, chroot: Chroot, base: KernelTree | None = None
) -> tuple[tuple[str, str], ...]:
    """Return (kind, name) of each folder of the cache that ensure_tree would use for a kernel."""
    if spec.tree_dir:
        return local.plan_entry(spec, chroot).folders
    if not spec.source:
        return kernels_stock.plan_entry(spec, chroot, chroot.mirror).folders
    return debug.plan_entry(spec, chroot, base).folders if base else debug.find_folders(spec)


def look_for_tree(
    spec: KernelSpec, chroot: Chroot | None, base: KernelTree | None = None
) -> tuple[KernelTree | None, TwinmodError]:
    """Return a kernel tree, or None, and the error that a step which needs it would end with."""
    missing = MissingToolError("not set up", hint=commands.render("setup", "--kernel", spec.name))
    try:
        return (find_tree(spec, chroot, base) if chroot else None), missing
    except TwinmodError as error:
        return None, error


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
    stock = tree.origin == Origin.STOCK
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
