# SPDX-License-Identifier: GPL-2.0-only
"""A configured kernel, whichever of the three kinds it is."""

from collections.abc import Callable
from typing import assert_never

from twinmod.base import commands
from twinmod.base.check import Check
from twinmod.base.sandbox import Chroot
from twinmod.errors import MissingToolError, TwinmodError
from twinmod.kernels import proof, roots
from twinmod.kernels.debug import DebugKernel
from twinmod.kernels.local import LocalKernel
from twinmod.kernels.model import Kernel, KernelTree, Origin
from twinmod.kernels.stock import StockKernel
from twinmod.project import config as project_config
from twinmod.project.config import Config


def locate_root(config: Config) -> Chroot:
    """Return the chroot of the kernel that a configuration selects, there or not."""
    return roots.locate_chroot(config.chroot)


def choose_kernel(config: Config, find_root: Callable[[Config], Chroot] = locate_root) -> Kernel:
    """Return the kernel that a configuration selects, as its table describes it.

    Args:
        config: The configuration.
        find_root: Returns the chroot of a kernel: of this one, then of the one whose source it is
            built from.
    """
    spec, chroot = config.kernel, find_root(config)
    if spec.tree_dir:
        return LocalKernel(spec=spec, chroot=chroot)
    if spec.source:
        base = choose_kernel(project_config.select_kernel(config, spec.source), find_root)
        return DebugKernel(spec=spec, chroot=chroot, base=base)
    return StockKernel(spec=spec, chroot=chroot, mirror=config.mirror or chroot.mirror)


def look_for_tree(kernel: Kernel, *, has_root: bool) -> tuple[KernelTree | None, TwinmodError]:
    """Return a kernel's tree, or None, and the error that a step which needs it would end with.

    Args:
        kernel: Which.
        has_root: Its chroot is there; no tree is used without it.
    """
    hint = commands.render("setup", "--kernel", kernel.spec.name)
    missing = MissingToolError("not set up", hint=hint)
    try:
        return (kernel.find() if has_root else None), missing
    except TwinmodError as error:
        return None, error


def check_tree(kernel: Kernel, tree: KernelTree | None, error: TwinmodError) -> tuple[Check, ...]:
    """Return what the doctor says of the kernel and of its crates.

    Args:
        kernel: Which.
        tree: Its tree, when there is one.
        error: Why there is none. What setup will make is not required yet; a person's own tree
            only that person can mend.
    """
    name = f"tree of {kernel.spec.name}"
    if tree is None:
        own = not _is_made(kernel.origin)
        names = (("kernel", name), ("C", "compiler"), ("Rust", "rustc"), ("Rust", "crates"))
        found = error.message if own else "not made yet"
        return tuple(
            Check(
                group=group,
                name=name,
                found=found,
                needed="the kernel's own",
                ok=False,
                required=own,
                fix=error.hint,
            )
            for group, name in (names[:1] if own else names)
        )
    return (
        Check(
            group="kernel",
            name=name,
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


def _is_made(origin: Origin) -> bool:
    """Tell whether setup makes a kernel; a person's own tree only that person can mend."""
    match origin:
        case Origin.STOCK | Origin.BUILT:
            return True
        case Origin.TREE:
            return False
        case _:
            assert_never(origin)


def _is_rebuilt(origin: Origin) -> bool:
    """Tell whether the crates come of another build than the kernel, whose BTF shows its types."""
    match origin:
        case Origin.STOCK:
            return True
        case Origin.BUILT | Origin.TREE:
            return False
        case _:
            assert_never(origin)


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
    stock = _is_rebuilt(tree.origin)
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
