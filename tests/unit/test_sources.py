# SPDX-License-Identifier: GPL-2.0-only
"""What a module is made of: a folder with a Kbuild of its own, one without, one of the kernel's."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from twinmod.builds import build, sources
from twinmod.errors import BuildError, ConfigError
from twinmod.kernels.model import KernelTree, Origin
from twinmod.project.model import Language, ModuleSpec

#: As people write it who build a module beside its sources.
WRAPPED = b"""\
ifneq ($(KERNELRELEASE),)
obj-m := lime.o   # the one module
lime-objs := tcp.o \\
\tdisk.o
else
default:
\t$(MAKE) -C /lib/modules/$(shell uname -r)/build M=$(PWD) modules
endif
"""


def make_module(**values: Any) -> ModuleSpec:
    return replace(ModuleSpec(label="", name=""), **values)


def write(folder: Path, *names: str, **contents: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.get(path.name.partition(".")[0], ""))


# -- a folder of the project ------------------------------------------------------------------


def test_a_folder_with_its_own_kbuild_is_taken_whole(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    kept = ("Kbuild", "README", "core/a.S", "core/b.c", "gen.sh", "lib.a_shipped", "table.txt")
    left = (".git/config", ".venv/x.c", "a.o", "core/.b.o.cmd", "core/m.ko", "m.mod.c", "x.c~")
    write(folder, *kept, *left, Kbuild="obj-m := m.o\nm-y := core/a.o core/b.o\n")
    found = build.read_sources(make_module(sources="m"), tmp_path)
    assert tuple(name for name, _ in found) == kept


def test_what_a_link_leads_to_is_taken_and_no_folder_twice_on_one_way(tmp_path: Path) -> None:
    write(tmp_path, "m/Kbuild", "shared/uapi.h", Kbuild="obj-m := m.o\n")
    (tmp_path / "m/include").symlink_to("../shared")
    (tmp_path / "m/again").symlink_to(".")
    found = build.read_sources(make_module(sources="m"), tmp_path)
    assert [name for name, _ in found] == ["Kbuild", "include/uapi.h"]


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "m/Kbuild", Kbuild="obj-m := m.o\n")
    Path(os.fsdecode(os.fsencode(tmp_path / "m") + b"/\xff.h")).write_bytes(b"")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        build.read_sources(make_module(sources="m"), tmp_path)
    assert ("name", r"b'\xff.h'") in caught.value.facts


def test_a_project_that_is_one_module_does_not_build_its_own_results(tmp_path: Path) -> None:
    write(tmp_path, "Kbuild", "m.c", "out/build/7.3/m/m.c", Kbuild="obj-m := m.o\n")
    found = build.read_sources(make_module(sources="."), tmp_path)
    assert [name for name, _ in found] == ["Kbuild", "m.c"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ((("Kbuild", b""),), "Kbuild"),
        ((("Kbuild", b"obj-m := a.o\n"), ("Makefile", b"obj-m := b.o\n")), "Kbuild"),
        ((("Makefile", WRAPPED),), "Makefile"),
        ((("Makefile", b"obj-$(CONFIG_A) += a.o\n"),), "Makefile"),
        # It only calls make, which wants a Kbuild.
        ((("Makefile", b"all:\n\t$(MAKE) -C $(KDIR) M=$(PWD)\n"),), ""),
        ((("Makefile", b"# obj-m := a.o\n"),), ""),
        ((("Makefile", b"include $(src)/own.mk\n"), ("own.mk", b"obj-m := a.o\n")), "Makefile"),
        ((("Makefile", b"all:\n"), ("sub/Makefile", b"obj-m := a.o\n")), ""),
        ((("a.c", b"obj-m := a.o\n"),), ""),
    ],
)
def test_a_kbuild_is_what_names_objects(files: sources.Files, found: str) -> None:
    assert sources.find_kbuild(files) == found


@pytest.mark.parametrize(
    ("kbuild", "name"),
    [
        (WRAPPED, "lime"),
        (b"obj-m := \\\n\ta.o\n", "a"),
        (b"obj-m += a.o sub/\n", "a"),
        (b"obj-$(CONFIG_A) += a.o\n", "a"),
        # Only make knows.
        (b"obj-m += a.o b-c.o\nobj-m += d.o\n", ""),
        (b"obj-m += $(NAME).o\n", ""),
        (b"obj-y += a.o\n", ""),
    ],
)
def test_a_module_is_named_by_a_kbuild_that_says_which_it_builds(kbuild: bytes, name: str) -> None:
    files = (("Kbuild", kbuild),)
    assert sources.name_sources(make_module(), files).name == name
    assert sources.name_sources(make_module(name="b-c"), files).name == "b_c"


@pytest.mark.parametrize(
    ("name", "names", "main"),
    [
        ("", ("a.c", "a.h"), "a"),
        ("", ("sub/x.c", "a.rs"), "a"),
        ("b", ("a.c", "b.c"), "b"),
        ("b_c", ("a.c", "b-c.c"), "b-c"),
        # It has another name than its one source.
        ("b", ("a.c",), "a"),
        ("", ("a.c", "b.c"), ""),
        ("d", ("a.c", "b.c"), ""),
        ("d", ("a.h",), ""),
    ],
)
def test_without_a_kbuild_the_source_is_named_or_the_only_one(
    name: str, names: tuple[str, ...], main: str
) -> None:
    assert sources.find_main(make_module(name=name), tuple((n, b"") for n in names)) == main


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(ConfigError, match="the source of module one is missing") as caught:
        build.read_sources(make_module(sources="m", label="one"), tmp_path)
    assert ("missing", "a Kbuild, or a source") in caught.value.facts


def test_a_folder_with_several_sources_and_no_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "m/a.c", "m/b.c")
    with pytest.raises(ConfigError, match="module one has several sources") as caught:
        build.read_sources(make_module(sources="m", label="one"), tmp_path)
    assert ("found", "a.c, b.c") in caught.value.facts


# -- the plan ---------------------------------------------------------------------------------


def plan(module: ModuleSpec, files: sources.Files, tree: KernelTree) -> build.BuildPlan:
    return build.plan_build(module, tree, files, Path("/out"), "0.1.0")


def test_a_kbuild_and_a_makefile_of_ones_own_stay_as_they_are(tree: KernelTree) -> None:
    own = (("Makefile", WRAPPED), ("tcp.c", b""))
    planned = plan(make_module(label="c", sources="lime"), own, tree)
    assert planned.files == own
    assert planned.stage_dir == Path("/out/build/7.3.4+deb13-amd64/lime")
    assert planned.language is None
    wrapper = (("Makefile", b"all:\n"), ("a.c", b""))
    files = dict(plan(make_module(), wrapper, tree).files)
    assert files["Makefile"] == b"all:\n"
    assert b"obj-m := a.o\n" in files["Kbuild"]


def test_a_module_with_another_name_than_its_source_is_linked_of_it(tree: KernelTree) -> None:
    kbuild = dict(plan(make_module(name="b"), (("a.rs", b""),), tree).files)["Kbuild"]
    lines = kbuild.decode().splitlines()
    assert {"obj-m := b.o", "b-y := a.o", "$(obj)/a.o: $(src)/Kbuild"} <= set(lines)


def test_a_module_has_the_kernels_name_and_its_file_its_own(tree: KernelTree) -> None:
    for files in ((("a-b.c", b""),), (("Kbuild", b"obj-m := a-b.o\n"),)):
        planned = plan(make_module(), files, tree)
        assert planned.module.name == "a_b"
        assert b"obj-m := a-b.o" in dict(planned.files)["Kbuild"]


def test_a_module_whose_name_only_make_knows_is_built_by_its_label(tree: KernelTree) -> None:
    planned = plan(make_module(label="old"), (("Kbuild", b"obj-m := $(N).o\n"),), tree)
    assert planned.module.name == ""
    assert planned.folder == "/twinmod/module/old"


@pytest.mark.parametrize(
    ("names", "rust"),
    [(("a.rs",), True), (("a.c",), False), (("a.rs", "b.c"), False)],
)
def test_a_kernel_without_rust_is_refused_where_all_is_rust(
    names: tuple[str, ...], rust: bool, tree: KernelTree
) -> None:
    bare = replace(tree, proof=replace(tree.proof, rustc="", checked_symbols=0))
    files = (("Kbuild", b"obj-m := a.o\n"), *((name, b"") for name in names))
    if rust:
        with pytest.raises(BuildError, match="CONFIG_RUST is not set"):
            plan(make_module(), files, bare)
    else:
        plan(make_module(), files, bare)


@pytest.mark.parametrize(
    ("name", "names", "rust"),
    [
        ("ax_rust", ("ax-rust.rs", "qt.c"), True),
        ("qt", ("ax-rust.rs", "qt.c"), False),
        ("rnull_mod", ("rnull.rs", "configfs.rs"), True),
    ],
)
def test_a_module_of_the_kernels_source_is_in_rust_where_its_source_is(
    name: str, names: tuple[str, ...], rust: bool
) -> None:
    files = (("Makefile", b"obj-m := qt.o\n"), *((one, b"") for one in names))
    assert sources.needs_rust(make_module(tree="drivers/x", name=name), files) == rust


def test_a_configuration_is_given_to_make_and_changes_the_digest(tree: KernelTree) -> None:
    files = (("Kbuild", b"obj-$(CONFIG_A) += a.o\n"),)
    one = plan(make_module(name="a", config=("A=m", "B=")), files, tree)
    argv = one.command.argv
    assert argv[argv.index("CONFIG_A=m") :] == ("CONFIG_A=m", "CONFIG_B=", "modules")
    assert one.digest != plan(make_module(name="a", config=("A=m",)), files, tree).digest


# -- the kernel's own source ------------------------------------------------------------------


@pytest.fixture
def linux(tree: KernelTree, tmp_path: Path) -> KernelTree:
    """A kernel's tree with one folder of a driver."""
    folder = tmp_path / "linux/drivers/block/rnull"
    write(folder, "rnull.rs", "Makefile", "Kconfig", "old.o", "target/part.rs")
    makefile = "obj-$(CONFIG_RNULL) += rnull-mod.o other.o\nrnull-mod-y := rnull.o\n"
    (folder / "Makefile").write_text(makefile)
    (folder / "Kconfig").write_text("config RNULL\n\ttristate\n")
    write(tmp_path / "linux/drivers/block/empty", "a.c")
    (tmp_path / ".config").write_text("CONFIG_A=y\n# CONFIG_B is not set\n")
    return replace(tree, source_dir=tmp_path / "linux", build_dir=tmp_path)


RNULL = make_module(name="rnull_mod", tree="drivers/block/rnull", config=("RNULL=m",))


def test_a_folder_of_the_kernels_source_is_built_in_its_place_and_one_module_of_it(
    linux: KernelTree, tmp_path: Path
) -> None:
    planned = build.prepare_build(RNULL, linux, tmp_path / "project", Path("/out"))
    assert [n for n, _ in planned.files] == ["Kconfig", "Makefile", "rnull.rs", "target/part.rs"]
    argv = planned.command.argv
    assert argv[-3:] == ("M=drivers/block/rnull", "CONFIG_RNULL=m", "rnull-mod.ko")
    inside = argv.index("/twinmod/linux/drivers/block/rnull")
    assert argv[inside - 2 : inside] == ("--bind", str(planned.stage_dir))
    # What is beside the folder can be included.
    assert "/twinmod/linux/drivers/block" not in argv
    # It was there before 5.3, too; nobody laid it there.
    assert planned.subdirs_line == ""


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"tree": "drivers/block/rnul"}, "no folder drivers/block/rnul", "drivers/block/rnull"),
        ({"tree": "driver/block"}, "no folder driver/block", "drivers"),
        ({"tree": "../linux/drivers/block/rnull"}, "has no folder ..", ""),
        ({"tree": "drivers/block/empty"}, "has no Makefile that names an object", ""),
        ({"name": "rnul_mod"}, "rnull builds no module rnul_mod", "rnull-mod"),
        ({"name": ""}, "needs the name of the module", ""),
        ({"config": ("RNUL=m",)}, "sets CONFIG_RNUL, which", "RNULL"),
    ],
)
def test_what_the_kernels_source_does_not_have_is_refused_with_the_nearest(
    values: dict[str, Any],
    message: str,
    hint: str,
    linux: KernelTree,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build.prepare_build(replace(RNULL, **values), linux, tmp_path, Path("/out"))
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


@pytest.mark.parametrize("known", ["A=m", "B=m", "RNULL=", "OWN=m"])
def test_an_option_is_known_by_the_kernel_by_a_kconfig_or_by_ones_own_makefile(
    known: str, linux: KernelTree, tmp_path: Path
) -> None:
    write(tmp_path, "m/Kbuild", Kbuild="obj-$(CONFIG_OWN) += m.o\n")
    module = make_module(name="m", sources="m", config=(known,))
    planned = build.prepare_build(module, linux, tmp_path, Path("/out"))
    assert f"CONFIG_{known}" in planned.command.argv


# -- which of its products --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "built", "chosen"),
    [
        ("", ("a.ko",), "a.ko"),
        ("b", ("a.ko", "sub/b.ko"), "sub/b.ko"),
        ("b_c", ("a.ko", "b-c.ko"), "b-c.ko"),
    ],
)
def test_the_module_is_the_one_that_is_named_or_the_only_one(
    name: str, built: tuple[str, ...], chosen: str, tree: KernelTree, tmp_path: Path
) -> None:
    kbuild = (("Kbuild", b"obj-m := $(N).o\n"),)
    planned = build.plan_build(make_module(name=name, label="x"), tree, kbuild, tmp_path)
    write(planned.stage_dir, *built)
    # It is signed where a kernel wants that.
    write(planned.stage_dir, "signed/a.ko")
    assert build.choose_product(planned, 0.0) == planned.stage_dir / chosen


@pytest.mark.parametrize(
    ("name", "built", "message"),
    [
        ("", ("a.ko", "b-c.ko"), "make built several modules"),
        ("d", ("a.ko", "b-c.ko"), "make built no module d"),
        ("", (), "left no new product"),
    ],
)
def test_a_make_whose_module_nobody_can_tell_did_not_build(
    name: str, built: tuple[str, ...], message: str, tree: KernelTree, tmp_path: Path
) -> None:
    kbuild = (("Kbuild", b"obj-m := $(N).o\n"),)
    planned = build.plan_build(make_module(name=name, label="x"), tree, kbuild, tmp_path)
    write(planned.stage_dir, *built)
    with pytest.raises(BuildError, match=message) as caught:
        build.choose_product(planned, 0.0)
    assert (("modules", "a, b_c") in caught.value.facts) == bool(built)


# -- the distribution's -----------------------------------------------------------------------


@pytest.mark.parametrize("origin", list(Origin))
def test_a_distributions_module_is_absent_on_other_kernels(
    origin: Origin, tree: KernelTree
) -> None:
    reason = build.find_stock_absence(make_module(stock="null_blk"), replace(tree, origin=origin))
    assert bool(reason) == (origin != Origin.STOCK)
    assert build.find_stock_absence(make_module(sources="m"), replace(tree, origin=origin)) == ""


def test_languages_are_what_the_files_say() -> None:
    kbuild = ("Kbuild", b"obj-m := a.o\n")
    found = [
        sources.find_language(make_module(), (kbuild, *((name, b"") for name in names)))
        for names in (("a.rs",), ("a.c", "b.S"), ("a.c", "b.rs"), ())
    ]
    assert found == [Language.RUST, Language.C, None, None]
