# SPDX-License-Identifier: GPL-2.0-only
"""Whether C's types lie in memory as in the kernel that is booted.

Rebuilt Rust crates are refused before this unless source package, configuration and the compilers'
texts are the kernel's own: that is the main evidence. Their names prove less. A crate's id in a
mangled name comes from the crate's name and rustc's version text; neither configuration nor source
enters, and kernels that differ in both can export the same names.

Layouts are compared with the BTF of the booted image. Macros, inline functions and code are not.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from twinmod.base import process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Enter
from twinmod.errors import BuildError
from twinmod.kernels import btf, elf
from twinmod.kernels.model import CrateProof, KernelTree

#: The file whose types the crate `bindings` is generated from, below rust/.
HELPER = "bindings/bindings_helper.h"

#: Beside the tree's own flags: bindgen's view of the file (rust/Makefile, Linux 7.3), then debug
#: information of all types, used or not.
FLAGS = "-D__BINDGEN__ -fno-builtin -g -fno-eliminate-unused-debug-types"

#: Where the folder with the file to compile appears.
FOLDER = sandbox.INSIDE / "layouts"

COMPILE_TIMEOUT_S = 300.0

#: How many differences an error shows.
SHOWN = 10

#: Why no layout of a stock kernel was compared, until setup has.
PENDING = "setup has not compared them yet"


def read_proof(record: Mapping[str, Any], uncompared: str) -> CrateProof:
    """Return the proof that a record of the cache holds.

    Args:
        record: Its part of the entry's record; an older twinmod's says nothing about layouts.
        uncompared: Why none was compared where the record says nothing.
    """
    return CrateProof(
        reference=record["reference"],
        rustc=record["rustc"],
        checked_symbols=record["checked_symbols"],
        equal_layouts=record.get("equal_layouts", 0),
        unknown_layouts=tuple(record.get("unknown_layouts", ())),
        ambiguous_layouts=tuple(record.get("ambiguous_layouts", ())),
        uncompared=record.get("uncompared", uncompared),
    )


def render_layouts(proved: CrateProof) -> str:
    """Return how many types were compared with those of the booted kernel, or why none was."""
    if proved.uncompared:
        return f"not compared: {proved.uncompared}"
    text = f"{proved.equal_layouts} types equal, {len(proved.unknown_layouts)} not in its BTF"
    ambiguous = len(proved.ambiguous_layouts)
    return f"{text}, {ambiguous} equal to one of several of their name" if ambiguous else text


def plan_sources() -> tuple[tuple[str, str], ...]:
    """Return (name, content) of the files of an external module that holds the helper's types."""
    return (
        ("Kbuild", f"obj-m := layouts.o\nccflags-y := -I$(srctree)/rust {FLAGS}\n"),
        ("layouts.c", f'#include "{HELPER}"\n'),
    )


def plan_commands(tree: KernelTree, folder: Path) -> tuple[Command, ...]:
    """Return the commands that compile the helper and leave its BTF, layouts.btf, in a folder."""
    compile_it = sandbox.plan_make(tree.make_flags, f"M={FOLDER}", "layouts.o")
    encode = (
        "pahole",
        "--btf_features=default",
        f"--btf_encode_detached={FOLDER}/layouts.btf",
        f"{FOLDER}/layouts.o",
    )
    binds = (
        Bind(source_path=tree.source_dir, target_path=sandbox.LINUX),
        Bind(source_path=tree.build_dir, target_path=sandbox.BUILD),
        Bind(source_path=folder, target_path=FOLDER, writable=True),
    )
    return tuple(
        sandbox.plan_command(
            tree.compilers,
            argv,
            Enter(binds=binds),
            timeout_s=COMPILE_TIMEOUT_S,
            purpose="the layouts of the kernel's types were not found",
        )
        for argv in (compile_it, encode)
    )


def prove_layouts(tree: KernelTree, folder: Path) -> CrateProof:
    """Compare the types that a tree's crates are generated from with the BTF of its image.

    Args:
        tree: A stock kernel with Rust.
        folder: An empty one, to work in.

    Returns:
        The tree's proof, with what came of it.

    Raises:
        BuildError: A type is laid out differently, or the comparison cannot be made.
    """
    booted = elf.read_section(tree.image_path, ".BTF")
    if not booted:
        return replace(tree.proof, uncompared="the kernel has no BTF")
    for name, content in plan_sources():
        (folder / name).write_text(content)
    for command in plan_commands(tree, folder):
        process.run(command)
    found = btf.compare(btf.parse((folder / "layouts.btf").read_bytes()), btf.parse(booted))
    require_equal(found, tree.proof.reference)
    return replace(
        tree.proof,
        equal_layouts=len(found.equal),
        unknown_layouts=found.unknown,
        ambiguous_layouts=found.ambiguous,
        uncompared="",
    )


def require_equal(found: btf.Comparison, reference: str) -> None:
    """Refuse crates of a tree whose types are not laid out as in the kernel.

    Raises:
        BuildError: A type differs, or none could be compared.
    """
    compared = len(found.equal) + len(found.differing)
    if compared and not found.differing:
        return
    raise BuildError(
        f"the rebuilt Rust crates are not those of {reference}: {len(found.differing)} of "
        f"{compared} types are laid out differently"
        if compared
        else f"the rebuilt Rust crates have no type that the BTF of {reference} has",
        facts=(
            *(("differs", str(difference)) for difference in found.differing[:SHOWN]),
            ("compared", f"{compared} types; {len(found.unknown)} are not in the kernel's BTF"),
        ),
        hint="name the suite that built this kernel as its `root` in the configuration",
    )
