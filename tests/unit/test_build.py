# SPDX-License-Identifier: GPL-2.0-only
"""A module's build: one plan, one digest, and a product that is what it claims to be."""

import hashlib
import json
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from twinmod.base import documents
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.builds import build, lint
from twinmod.builds.product import Product
from twinmod.errors import BuildError, ConfigError
from twinmod.kernels import elf
from twinmod.kernels.model import KernelTree
from twinmod.project.model import Language, ModuleSpec

MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]

C_SOURCES = (("mdriver.h", b"#define X 1\n"), ("mdriver_c.c", b"int x;\n"))

RUST_SOURCES = (("chardev.rs", b"// unsafe\n"), ("mdriver_rust.rs", b"// safe\n"))

VERMAGIC = "7.3.4+deb13-amd64 SMP preempt mod_unload modversions "

GCC = "GCC: (Debian 14.2.0-19) 14.2.0"

RUSTC = "rustc version 1.85.1 (4eb161250 2025-03-15) (built from a source tarball)"

MANGLED = "_RNvXs_CsbDqzXfLQacH_12mdriver_rustNtB4_7MDriver"


@pytest.fixture
def c_plan(tmp_path: Path, c_module: ModuleSpec, tree: KernelTree) -> build.BuildPlan:
    return build.plan_build(c_module, tree, C_SOURCES, tmp_path / "out")


@pytest.fixture
def rust_plan(tmp_path: Path, rust_module: ModuleSpec, tree: KernelTree) -> build.BuildPlan:
    return build.plan_build(rust_module, tree, RUST_SOURCES, tmp_path / "out")


def find_inside(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a vector runs inside the chroot."""
    return argv[argv.index("--") + 1 :]


def find_mount(argv: tuple[str, ...], inside: str) -> tuple[str, str]:
    """Return how a vector mounts a folder, and what it mounts there."""
    at = argv.index(inside)
    return argv[at - 2], argv[at - 1]


# -- plan -------------------------------------------------------------------------------------


def test_kbuild_gives_a_module_its_version_and_a_module_without_one_none(
    c_module: ModuleSpec, tree: KernelTree, tmp_path: Path
) -> None:
    bare, first, later = (
        build.plan_build(c_module, tree, C_SOURCES, tmp_path, version)
        for version in ("", "0.1.0", "0.1.1")
    )
    assert len({bare.digest, first.digest, later.digest}) == 3
    assert "VERSION" not in dict(bare.files)["Kbuild"].decode()
    lines = dict(first.files)["Kbuild"].decode().splitlines()
    assert 'ccflags-y := -DPROJECT_VERSION=\\"0.1.0\\"' in lines
    # make does not compare the environment of rustc.
    assert "export PROJECT_VERSION := 0.1.0" in lines
    assert "$(obj)/mdriver_c.o: $(src)/Kbuild" in lines


def test_a_c_module_is_built_out_of_tree(c_plan: build.BuildPlan, tmp_path: Path) -> None:
    stage = tmp_path / "out/build/7.3.4+deb13-amd64/mdriver_c"
    assert c_plan.stage_dir == stage
    assert c_plan.product_path == stage / "mdriver_c.ko"
    assert c_plan.command.log_path == stage / "build.log"
    assert find_inside(c_plan.command.argv) == (
        "make",
        "-C",
        "/twinmod/linux",
        "O=/twinmod/build",
        "ARCH=x86",
        "CC=x86_64-linux-gnu-gcc-14",
        f"-j{os.cpu_count()}",
        "M=/twinmod/module/mdriver_c",
        "modules",
    )
    argv = c_plan.command.argv
    assert find_mount(argv, "/twinmod/linux") == ("--ro-bind", "/cache/kernel/stock-1/linux")
    assert find_mount(argv, "/twinmod/build") == ("--ro-bind", "/cache/kernel/stock-1/build")
    assert find_mount(argv, "/twinmod/module/mdriver_c") == ("--bind", str(stage))
    assert c_plan.subdirs_line == ""


def test_a_rust_module_is_built_in_its_folder_of_the_tree(
    rust_plan: build.BuildPlan, tmp_path: Path
) -> None:
    stage = tmp_path / "out/build/7.3.4+deb13-amd64/mdriver_rust"
    argv = rust_plan.command.argv
    assert find_inside(argv)[-2:] == ("M=samples/rust/mdriver_rust", "modules")
    inside = "/twinmod/linux/samples/rust/mdriver_rust"
    assert find_mount(argv, inside) == ("--bind", str(stage))
    # The tree is read-only: the mount point is made in an empty folder over its own.
    covered = argv.index("/twinmod/linux/samples/rust")
    assert argv[covered - 1] == "--tmpfs"
    assert argv.index("/twinmod/linux") < covered < argv.index(inside)
    assert rust_plan.subdirs_line == "make SUBDIRS=samples/rust/mdriver_rust modules"


def test_a_tree_that_was_built_in_itself_has_no_folder_of_outputs(
    c_module: ModuleSpec, tree: KernelTree, tmp_path: Path
) -> None:
    in_place = replace(tree, build_dir=tree.source_dir, make_flags=("LLVM=1",))
    argv = find_inside(build.plan_build(c_module, in_place, C_SOURCES, tmp_path).command.argv)
    assert not [word for word in argv if word.startswith("O=")]
    assert "LLVM=1" in argv


def test_a_module_is_built_with_the_compilers_of_its_kernel(
    c_module: ModuleSpec, tree: KernelTree, root: Chroot, tmp_path: Path
) -> None:
    host = replace(root, root_dir=Path("/"), top=(("usr", ""),), key="host")
    other = replace(tree, compilers=host)
    argv = build.plan_build(c_module, other, C_SOURCES, tmp_path).command.argv
    assert "/usr" in argv
    assert str(root.root_dir) not in argv


def test_a_build_has_no_network(c_plan: build.BuildPlan) -> None:
    assert "--share-net" not in c_plan.command.argv


def test_a_stage_is_the_sources_and_what_make_reads(c_plan: build.BuildPlan) -> None:
    files = dict(c_plan.files)
    assert set(files) == {"mdriver.h", "mdriver_c.c", "Kbuild", "Makefile"}
    assert files["mdriver_c.c"] == b"int x;\n"
    assert b"\nobj-m := mdriver_c.o\n" in files["Kbuild"]
    command = shlex.join(c_plan.command.argv).encode().replace(b"$", b"$$")
    assert b"\n\t" + command + b"\n" in files["Makefile"]


def test_a_kernel_without_rust_cannot_have_a_rust_module(
    rust_module: ModuleSpec, tree: KernelTree, tmp_path: Path
) -> None:
    bare = replace(tree, proof=replace(tree.proof, rustc="", checked_symbols=0))
    with pytest.raises(BuildError, match="CONFIG_RUST is not set"):
        build.plan_build(rust_module, bare, RUST_SOURCES, tmp_path)


def test_the_same_build_planned_elsewhere_has_the_same_digest(
    c_module: ModuleSpec, tree: KernelTree
) -> None:
    one, other = (build.plan_build(c_module, tree, C_SOURCES, Path(f"/{name}")) for name in "ab")
    assert one.digest == other.digest
    # The Makefile names the stage, and is there for a person: it is no input of the product.
    assert dict(one.files)["Makefile"] != dict(other.files)["Makefile"]


@pytest.mark.parametrize(
    "what", ["content", "name", "header", "compiler", "tree", "chroot", "folder"]
)
def test_whatever_a_product_depends_on_changes_the_digest(
    what: str,
    rust_module: ModuleSpec,
    tree: KernelTree,
    root: Chroot,
    rust_plan: build.BuildPlan,
) -> None:
    module = rust_module
    sources: tuple[tuple[str, bytes], ...] = RUST_SOURCES
    match what:
        case "content":
            sources = (RUST_SOURCES[0], ("mdriver_rust.rs", b"// Safe\n"))
        case "name":
            sources = (("chardeV.rs", RUST_SOURCES[0][1]), RUST_SOURCES[1])
        case "header":
            sources = (*RUST_SOURCES, ("new.h", b""))
        case "compiler":
            tree = replace(tree, make_flags=("CC=gcc-15",))
        case "tree":
            tree = replace(tree, key="stock-2")
        case "chroot":
            tree = replace(tree, compilers=replace(root, key="trixie-2"))
        case "folder":
            module = replace(rust_module, in_tree="drivers/char/x")
    other = build.plan_build(module, tree, sources, rust_plan.stage_dir)
    assert other.digest != rust_plan.digest


def test_text_that_moves_from_one_part_to_the_next_changes_the_digest(tree: KernelTree) -> None:
    compilers = replace(tree.compilers, key="1 a 1 x")
    digests = {
        build.plan_digest((("a", b"xy"), ("b", b"z")), (), tree),
        build.plan_digest((("a", b"x"), ("b", b"yz")), (), tree),
        build.plan_digest((("axybz", b""),), (), tree),
        build.plan_digest((), ("axybz",), tree),
        build.plan_digest((), ("a", "xybz"), tree),
        build.plan_digest((), ("a xybz",), tree),
        build.plan_digest((), ("a",), replace(tree, key=f"xybz {tree.key}")),
        build.plan_digest((), (), replace(tree, compilers=compilers)),
        build.plan_digest((("a", b"x"),), (), replace(tree, compilers=replace(compilers, key=""))),
    }
    assert len(digests) == 9


def test_what_is_shown_runs_as_it_stands(rust_plan: build.BuildPlan) -> None:
    *notes, command = build.render_show(rust_plan).splitlines()
    assert all(line.startswith("# ") for line in notes)
    assert "# before Linux 5.3: make SUBDIRS=samples/rust/mdriver_rust modules" in notes
    assert any("M=samples/rust/mdriver_rust modules" in line for line in notes)
    assert tuple(shlex.split(command)) == rust_plan.command.argv


def test_an_out_of_tree_module_never_had_subdirs(c_plan: build.BuildPlan) -> None:
    assert "SUBDIRS" not in build.render_show(c_plan)


# -- sources ----------------------------------------------------------------------------------


def test_sources_are_what_a_person_writes_sorted(c_module: ModuleSpec, tmp_path: Path) -> None:
    folder = tmp_path / "c_module"
    folder.mkdir()
    left = ("mdriver_c.mod.c", "mdriver_c.o", "mdriver_c.ko", "Module.symvers", ".mdriver_c.o.cmd")
    for name in ("mdriver_c.c", "mdriver.h", "entry.S", "notes.txt", "Makefile", *left):
        (folder / name).write_text(name)
    (folder / "parts").mkdir()
    (folder / "parts/table.h").write_text("parts/table.h")
    # The lock of an editor is a link to nowhere; a folder is not a file either.
    (folder / ".#mdriver_c.c").symlink_to("me@here.1234")
    (folder / "gone.h").symlink_to("nowhere")
    (folder / "folder.c").mkdir()
    found = build.read_sources(c_module, tmp_path)
    assert found == (
        ("entry.S", b"entry.S"),
        ("mdriver.h", b"mdriver.h"),
        ("mdriver_c.c", b"mdriver_c.c"),
        ("parts/table.h", b"parts/table.h"),
    )


def test_a_missing_source_is_named(c_module: ModuleSpec, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the sources of module mdriver_c are missing") as caught:
        build.read_sources(c_module, tmp_path)
    assert ("folder", str(tmp_path / "c_module")) in caught.value.facts
    (tmp_path / "c_module").mkdir()
    for name in ("other.c", "third.rs"):
        (tmp_path / "c_module" / name).write_text("")
    with pytest.raises(ConfigError, match="the source of module mdriver_c is missing") as caught:
        build.read_sources(c_module, tmp_path)
    assert ("missing", "a Kbuild, or mdriver_c.c or mdriver_c.rs") in caught.value.facts
    assert ("found", "other.c, third.rs") in caught.value.facts


# -- stage ------------------------------------------------------------------------------------


def test_what_did_not_change_does_not_look_new_to_make(c_plan: build.BuildPlan) -> None:
    build.write_stage(c_plan)
    old = 1_000_000_000
    for path in c_plan.stage_dir.iterdir():
        os.utime(path, (old, old))
    changed = replace(c_plan, files=(("mdriver_c.c", b"int y;\n"), *c_plan.files[2:]))
    build.write_stage(replace(changed, files=(c_plan.files[0], *changed.files)))
    new = {path.name for path in c_plan.stage_dir.iterdir() if path.stat().st_mtime != old}
    assert new == {"mdriver_c.c", build.STAGED}
    assert (c_plan.stage_dir / "mdriver_c.c").read_bytes() == b"int y;\n"


def test_a_source_that_is_gone_leaves_the_stage_and_outputs_stay(
    c_plan: build.BuildPlan,
) -> None:
    gone = tuple((name, b"") for name in ("gone.c", "gone.h", "gone.txt", "parts/gone.S"))
    build.write_stage(replace(c_plan, files=(*c_plan.files, *gone)))
    # What a makefile generates has any name.
    kept = {"mdriver_c.o", "mdriver_c.mod.c", "build.log", "generated.h", "parts/gone.o"}
    for name in kept:
        (c_plan.stage_dir / name).write_text("")
    build.write_stage(c_plan)
    found = {path for path in c_plan.stage_dir.rglob("*") if path.is_file()}
    assert {str(path.relative_to(c_plan.stage_dir)) for path in found} == {
        *dict(c_plan.files),
        *kept,
        build.STAGED,
    }


def test_a_program_that_a_makefile_calls_can_be_executed(c_plan: build.BuildPlan) -> None:
    files = (*c_plan.files, ("tools/gen.sh", b"#!/bin/sh\n"), ("tools/gen.txt", b"text\n"))
    build.write_stage(replace(c_plan, files=files))
    found = [os.access(c_plan.stage_dir / f"tools/gen.{end}", os.X_OK) for end in ("sh", "txt")]
    assert found == [True, False]


def test_a_file_takes_the_place_of_a_folder_that_is_gone(c_plan: build.BuildPlan) -> None:
    build.write_stage(replace(c_plan, files=(*c_plan.files, ("part/a.h", b""))))
    build.write_stage(replace(c_plan, files=(*c_plan.files, ("part", b"now a file"))))
    assert (c_plan.stage_dir / "part").read_bytes() == b"now a file"


# -- the product ------------------------------------------------------------------------------


def keep_product(plan: build.BuildPlan, content: bytes, product: Product) -> Product:
    """Put a product and its record where a build leaves them."""
    build.write_stage(plan)
    plan.product_path.write_bytes(content)
    built = replace(
        product,
        path=plan.product_path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    record = {"digest": plan.digest, "product": {**asdict(built), "path": str(built.path)}}
    (plan.stage_dir / build.MANIFEST).write_text(json.dumps(record))
    return built


def test_a_product_that_is_up_to_date_is_not_built_again(
    c_plan: build.BuildPlan, product: Product, told: list[str], progress: Progress
) -> None:
    built = keep_product(c_plan, b"\x7fELF", product)
    # The plan's chroot does not exist: a build would fail.
    again = build.build(c_plan, progress)
    assert again == replace(built, up_to_date=True)
    assert type(again.language) is Language
    assert told == []


@pytest.mark.parametrize(
    "harm", ["byte", "size", "gone", "digest", "no record", "broken record", "wrong value", "deep"]
)
def test_a_product_that_is_not_exactly_that_is_no_product(
    harm: str, c_plan: build.BuildPlan, product: Product
) -> None:
    keep_product(c_plan, b"\x7fELF", product)
    manifest = c_plan.stage_dir / build.MANIFEST
    plan = c_plan
    match harm:
        case "byte":
            c_plan.product_path.write_bytes(b"\x7fELf")
        case "size":
            c_plan.product_path.write_bytes(b"\x7fELF\0")
        case "gone":
            c_plan.product_path.unlink()
        case "digest":
            plan = replace(c_plan, digest="0" * 64)
        case "no record":
            manifest.unlink()
        case "broken record":
            manifest.write_text(manifest.read_text()[:-9])
        case "wrong value":
            record = json.loads(manifest.read_text())
            record["product"]["seconds"] = None
            manifest.write_text(json.dumps(record))
        case "deep":
            manifest.write_text("[" * 100_000)
    assert build.find_product(plan) is None


@pytest.mark.parametrize(
    ("comments", "symbols", "language"),
    [
        ((GCC,), ("init_module",), "c"),
        # modpost's own part of a Rust module is C.
        ((GCC, RUSTC), ("init_module", MANGLED), "rust"),
        ((RUSTC,), (MANGLED,), "rust"),
        # Signed by one and named by the other is neither.
        ((GCC, RUSTC), ("init_module",), None),
        ((GCC,), (MANGLED,), None),
        ((), ("init_module",), None),
        ((), (), None),
    ],
)
def test_the_language_is_what_compiler_and_symbols_agree_on(
    comments: tuple[str, ...], symbols: tuple[str, ...], language: str | None, make_elf: MakeElf
) -> None:
    assert build.find_language(elf.parse_module(make_elf({}, comments, symbols))) == language


def test_a_module_that_is_what_was_planned_is_accepted(
    c_plan: build.BuildPlan, rust_plan: build.BuildPlan, make_elf: MakeElf
) -> None:
    c = make_elf({"vermagic": VERMAGIC, "name": "mdriver_c"}, (GCC,), ("init_module",))
    rust = make_elf({"vermagic": VERMAGIC, "name": "mdriver_rust"}, (GCC, RUSTC), (MANGLED,))
    assert build.check_module(c_plan, elf.parse_module(c)) == VERMAGIC
    assert build.check_module(rust_plan, elf.parse_module(rust)) == VERMAGIC


@pytest.mark.parametrize(
    ("modinfo", "comments", "what"),
    [
        ({"vermagic": VERMAGIC, "name": "other"}, (GCC,), "name"),
        ({"vermagic": VERMAGIC}, (GCC,), "name"),
        ({"vermagic": "7.3.4+deb13-cloud-amd64 SMP", "name": "mdriver_c"}, (GCC,), "kernel"),
        # One that only begins like it is another kernel.
        ({"vermagic": "7.3.4+deb13-amd64-x SMP", "name": "mdriver_c"}, (GCC,), "kernel"),
        ({"name": "mdriver_c"}, (GCC,), "kernel"),
        ({"vermagic": VERMAGIC, "name": "mdriver_c"}, (RUSTC,), "language"),
    ],
)
def test_a_module_that_is_something_else_is_refused_and_said_how(
    modinfo: dict[str, str],
    comments: tuple[str, ...],
    what: str,
    c_plan: build.BuildPlan,
    make_elf: MakeElf,
) -> None:
    with pytest.raises(BuildError, match="is not what it should be") as caught:
        build.check_module(c_plan, elf.parse_module(make_elf(modinfo, comments, ())))
    facts = dict(caught.value.facts)
    assert set(facts) == {what, "product"}
    assert ", not " in facts[what]


def test_a_make_that_left_nothing_did_not_build(c_plan: build.BuildPlan) -> None:
    with pytest.raises(BuildError, match="left no new product"):
        build.read_product(c_plan, 1.0, 0.0)


def test_a_make_that_left_an_old_product_did_not_build(
    c_plan: build.BuildPlan, make_elf: MakeElf, tmp_path: Path
) -> None:
    (tmp_path / ".config").write_text("CONFIG_KASAN=y\nCONFIG_KCSAN=y\n")
    c_plan = replace(c_plan, tree=replace(c_plan.tree, build_dir=tmp_path))
    build.write_stage(c_plan)
    c_plan.product_path.write_bytes(
        make_elf({"vermagic": VERMAGIC, "name": "mdriver_c"}, (GCC,), ("__asan_load8_noabort",))
    )
    os.utime(c_plan.product_path, (1_000_000_000, 1_000_000_000))
    with pytest.raises(BuildError, match="left no new product"):
        build.read_product(c_plan, 1.0, 1_000_000_100.0)
    built = build.read_product(c_plan, 1.234, 1_000_000_000.5)
    assert (built.seconds, built.up_to_date, built.vermagic) == (1.23, False, VERMAGIC)
    assert (built.watchers, built.blind) == (("KASAN",), ("KCSAN",))
    assert built.sha256 == hashlib.sha256(c_plan.product_path.read_bytes()).hexdigest()


def test_the_build_report_is_json_with_a_schema(product: Product, tree: KernelTree) -> None:
    document = documents.to_json(build.plan_report((product,), tree))
    assert document["schema"] == "twinmod.build/2"
    assert set(document) == {"schema", "kernel", "crates", "products"}
    assert set(document["kernel"]) == {
        "release",
        "version",
        "origin",
        "suite",
        "compilers",
        "make_flags",
        "rustc",
    }
    assert document["crates"] == {
        "reference": "the stock kernel",
        "checked_symbols": 690,
        "equal_layouts": 3102,
        "unknown_layouts": ["struct drm_device", "typedef gpu_t"],
        "ambiguous_layouts": [],
        "uncompared": "",
    }
    (entry,) = document["products"]
    assert (entry["module"], entry["path"]) == ("mdriver_c", str(product.path))
    assert (entry["sha256"], entry["size_bytes"]) == (product.sha256, product.size_bytes)


# -- lint -------------------------------------------------------------------------------------


def test_the_kernels_own_checks_are_run_on_what_a_person_wrote(
    c_plan: build.BuildPlan, rust_plan: build.BuildPlan, tmp_path: Path
) -> None:
    for name in ("mdriver_c.c", "mdriver.h", "mdriver_c.mod.c", "Kbuild"):
        (tmp_path / name).write_text("")
    checks = dict(lint.list_checks(c_plan, tmp_path))
    assert list(checks) == ["checkpatch", "warnings"]
    inside = find_inside(checks["checkpatch"].argv)
    assert inside[-3:] == (
        "-f",
        "/twinmod/module/mdriver_c/mdriver.h",
        "/twinmod/module/mdriver_c/mdriver_c.c",
    )
    assert {"W=1", "KCFLAGS=-Werror"} <= set(checks["warnings"].argv)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/mdriver_rust.rs").write_text("")
    checks = dict(lint.list_checks(rust_plan, tmp_path / "parts"))
    assert list(checks) == ["rustfmt", "clippy"]
    # A module may be of both.
    both = lint.list_checks(rust_plan, tmp_path)
    assert [name for name, _ in both] == ["rustfmt", "clippy", "checkpatch", "warnings"]
    assert find_inside(both[0][1].argv)[-1].endswith("mdriver_rust/parts/mdriver_rust.rs")
    assert {"CLIPPY=1", "KRUSTFLAGS=-Dwarnings"} <= set(checks["clippy"].argv)
