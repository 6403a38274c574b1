# SPDX-License-Identifier: GPL-2.0-only
"""What the modules of a release are made of: SPDX, by the kernel's own tool."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from twinmod.base import process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Enter
from twinmod.builds.product import Product
from twinmod.kernels.model import KernelTree
from twinmod.release.model import Release

TIMEOUT_S = 120.0

#: Where a kernel has it; trixie's 6.12 has none.
TOOL = PurePosixPath("scripts/sbom/sbom.py")

#: What the kernel's tool writes of a module: its sources, itself, and how one became the other.
PARTS = ("source", "output", "build")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the build of a module saw inside the chroot."""

    # Where the module's folder lay.
    inside: PurePosixPath
    binds: tuple[Bind, ...]
    hidden: tuple[PurePosixPath, ...]


def has_tool(tree: KernelTree) -> bool:
    """Tell whether a kernel can say what its modules are made of."""
    return (tree.source_dir / TOOL).is_file()


def plan_spdx(
    release: Release, product: Product, tree: KernelTree, view: View, work_dir: Path
) -> Command:
    """Return the kernel's own command that says what a module was made of.

    Args:
        release: Which it belongs to.
        product: The module.
        tree: Its kernel.
        view: Of the module's build, with a copy of its folder.
        work_dir: Gets the documents.

    Source: Documentation/tools/sbom/sbom.rst, Linux 7.3.
    """
    target = sandbox.INSIDE / "sbom"
    argv = (
        "env",
        "SRCARCH=x86",
        "python3",
        str(sandbox.LINUX / TOOL),
        "--src-tree",
        str(sandbox.LINUX),
        "--obj-tree",
        str(view.inside),
        "--roots",
        product.file_name,
        "--generate-spdx",
        "--prettify-json",
        "--output-directory",
        str(target),
        "--package-license",
        "GPL-2.0-only",
        "--package-version",
        release.version,
        "--package-copyright-text",
        "NOASSERTION",
    )
    entered = sandbox.plan_enter(
        tree.compilers,
        argv,
        Enter(
            hidden=view.hidden,
            working_dir=str(view.inside),
            binds=(*view.binds, Bind(source_path=work_dir, target_path=target, writable=True)),
        ),
    )
    return Command(
        argv=entered,
        purpose=f"what {product.module} is made of cannot be told",
        timeout_s=TIMEOUT_S,
    )


def read_spdx(
    release: Release, product: Product, tree: KernelTree, view: View
) -> Iterator[tuple[str, bytes]]:
    """Yield (part, SPDX document) of what a module was made of; see plan_spdx.

    It takes its time from the module's file, and the kernel's configuration from beside it: so it
    looks at a copy of the module's folder.
    """
    with tempfile.TemporaryDirectory(prefix="twinmod-") as name:
        copy_dir, work_dir = Path(name) / "module", Path(name) / "sbom"
        shutil.copytree(product.path.parent, copy_dir, symlinks=True)
        shutil.copyfile(tree.build_dir / ".config", copy_dir / ".config")
        os.utime(copy_dir / product.file_name, (release.epoch, release.epoch))
        work_dir.mkdir()
        own = tuple(
            Bind(source_path=copy_dir, target_path=bind.target_path, writable=True)
            if bind.target_path == view.inside
            else bind
            for bind in view.binds
        )
        process.run(plan_spdx(release, product, tree, replace(view, binds=own), work_dir))
        for part in PARTS:
            yield part, (work_dir / f"sbom-{part}.spdx.json").read_bytes()
