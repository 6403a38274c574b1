# SPDX-License-Identifier: GPL-2.0-only
"""What of a kernel's types is compared with its image's BTF, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from twinmod import errors
from twinmod.base import cache, process
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.errors import BuildError
from twinmod.kernels import elf, proof
from twinmod.kernels.btf import Kind
from twinmod.kernels.model import KernelTree
from twinmod.kernels.stock import StockKernel

RawType = tuple[int, str, int, tuple[int | str, ...], int, bool]
MakeBtf = Callable[[tuple[RawType, ...]], bytes]


class SetImage(Protocol):
    def __call__(self, tree: KernelTree, *types: RawType) -> None: ...


U64: RawType = (Kind.INT, "u64", 8, (64,), 0, False)


def add_lock(name: str, size: int, offset: int) -> RawType:
    """Return a struct with one member of 8 bytes."""
    return (Kind.STRUCT, name, size, ("owner", 1, 8 * offset), 1, False)


MUTEX, WIDER, OTHER = add_lock("mutex", 24, 0), add_lock("mutex", 32, 8), add_lock("drm", 8, 0)


@pytest.fixture
def commands(tree: KernelTree, make_btf: MakeBtf, monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """Let the tree's compilers find MUTEX and OTHER; return what is run."""
    ran: list[Command] = []

    def run(command: Command) -> str:
        ran.append(command)
        if "pahole" in command.argv:
            folder = command.argv[command.argv.index(str(proof.FOLDER)) - 1]
            (Path(folder) / "layouts.btf").write_bytes(make_btf((U64, MUTEX, OTHER)))
        return ""

    monkeypatch.setattr(process, "run", run)
    return ran


@pytest.fixture
def set_image(make_btf: MakeBtf, monkeypatch: pytest.MonkeyPatch) -> SetImage:
    """Lets the image that a VM boots have a BTF with some types; without any it has none."""

    def set_image(tree: KernelTree, *types: RawType) -> None:
        sections = {(tree.image_path, ".BTF"): make_btf(types) if types else b""}
        monkeypatch.setattr(elf, "read_section", lambda path, name: sections[path, name])

    return set_image


def plan_unproved(tree: KernelTree) -> KernelTree:
    """Return a tree as it was before its layouts were compared."""
    proved = replace(tree.proof, equal_layouts=0, unknown_layouts=(), uncompared=proof.PENDING)
    return replace(tree, proof=proved)


def test_equal_types_are_counted_and_the_others_named(
    tree: KernelTree,
    tmp_path: Path,
    set_image: SetImage,
    commands: list[Command],
) -> None:
    set_image(tree, U64, MUTEX, WIDER)
    proved = proof.prove_layouts(plan_unproved(tree), tmp_path)
    assert (proved.equal_layouts, proved.unknown_layouts) == (1, ("struct drm",))
    assert (proved.ambiguous_layouts, proved.uncompared) == (("struct mutex",), "")
    assert (proved.checked_symbols, proved.rustc) == (690, tree.proof.rustc)
    assert proof.render_layouts(proved) == (
        "1 types equal, 1 not in its BTF, 1 equal to one of several of their name"
    )
    make, pahole = (command.argv[command.argv.index("--") + 1 :] for command in commands)
    assert make[0] == "make"
    assert {*tree.make_flags, "M=/twinmod/layouts", "layouts.o"} < set(make)
    assert pahole[-2:] == (
        "--btf_encode_detached=/twinmod/layouts/layouts.btf",
        "/twinmod/layouts/layouts.o",
    )
    assert "bindings/bindings_helper.h" in (tmp_path / "layouts.c").read_text()
    assert "-fno-eliminate-unused-debug-types" in (tmp_path / "Kbuild").read_text()


@pytest.mark.usefixtures("commands")
def test_a_type_that_differs_is_refused_and_shown(
    tree: KernelTree, tmp_path: Path, set_image: SetImage
) -> None:
    set_image(tree, U64, WIDER, OTHER)
    with pytest.raises(BuildError) as caught:
        proof.prove_layouts(plan_unproved(tree), tmp_path)
    assert errors.render_error(caught.value).splitlines()[:3] == [
        (
            "error: the rebuilt Rust crates are not those of the stock kernel: 1 of 2 types are "
            "laid out differently"
        ),
        "  differs:  struct mutex: .owner: byte 0, u64, 8 bytes, not byte 8, u64, 8 bytes",
        "  compared: 2 types; 0 are not in the kernel's BTF",
    ]


@pytest.mark.usefixtures("commands")
def test_a_kernel_that_has_none_of_the_types_is_refused(
    tree: KernelTree, tmp_path: Path, set_image: SetImage
) -> None:
    set_image(tree, U64)
    with pytest.raises(BuildError, match="have no type that the BTF of the stock kernel has"):
        proof.prove_layouts(plan_unproved(tree), tmp_path)


def test_a_kernel_without_btf_has_nothing_compared_and_says_so(
    tree: KernelTree, tmp_path: Path, commands: list[Command], set_image: SetImage
) -> None:
    set_image(tree)
    proved = proof.prove_layouts(plan_unproved(tree), tmp_path)
    assert proof.render_layouts(proved) == "not compared: the kernel has no BTF"
    assert (proved.equal_layouts, commands) == (0, [])


def write_entry(folder: Path, tree: KernelTree) -> None:
    """Write an entry of the cache as twinmod 0.1 did."""
    (folder / "vm").mkdir(parents=True)
    (folder / "vm/vmlinux").write_text("image")
    record = {
        "release": tree.release,
        "version": tree.version,
        "suite": tree.suite,
        "cc": "x86_64-linux-gnu-gcc-14",
        "vm_modules": ["9p.ko"],
        "vital": {"vm/vmlinux": 5},
        "proof": {
            "reference": "the stock kernel",
            "config_identical": True,
            "missing": [],
            "rustc": tree.proof.rustc,
            "checked_symbols": 690,
        },
    }
    (folder / "record.json").write_text(json.dumps(record))


@pytest.fixture
def entry_dir(cache_dir: Path, stock_kernel: StockKernel, tree: KernelTree) -> Path:
    folder = cache_dir / "kernel" / stock_kernel.key
    write_entry(folder, tree)
    return folder


def test_a_tree_that_an_older_twinmod_made_is_compared_once(
    entry_dir: Path,
    stock_kernel: StockKernel,
    progress: Progress,
    set_image: SetImage,
    commands: list[Command],
) -> None:
    found = stock_kernel.find()
    assert found is not None
    assert found.proof.uncompared == proof.PENDING
    set_image(found, U64, MUTEX)
    made = stock_kernel.ensure(progress)
    assert (made.proof.equal_layouts, made.proof.unknown_layouts) == (1, ("struct drm",))
    assert stock_kernel.find() == made
    assert stock_kernel.ensure(progress) == made
    assert len(commands) == 2
    assert cache.find_entry("kernel", entry_dir.name) is not None


@pytest.mark.usefixtures("commands", "entry_dir")
def test_a_tree_that_is_refused_is_refused_again(
    stock_kernel: StockKernel,
    progress: Progress,
    set_image: SetImage,
) -> None:
    found = stock_kernel.find()
    assert found is not None
    set_image(found, U64, WIDER)
    for _ in range(2):
        with pytest.raises(BuildError, match="1 of 1 types are laid out differently"):
            stock_kernel.ensure(progress)
    assert stock_kernel.find() == found


@pytest.mark.usefixtures("commands", "entry_dir")
def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    stock_kernel: StockKernel,
    progress: Progress,
    set_image: SetImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = stock_kernel.find()
    assert found is not None
    set_image(found, U64, MUTEX)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "write_atomically", refuse)
    assert stock_kernel.ensure(progress).proof.equal_layouts == 1
