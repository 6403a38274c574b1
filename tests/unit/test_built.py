# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of our own options: what is asked for is there, or it is said what is not."""

from dataclasses import replace
from pathlib import Path

import pytest

from twinmod import built, options
from twinmod.config import read_config
from twinmod.specs import Chroot, KernelSpec, KernelTree, Progress

SPEC = KernelSpec(
    name="kasan",
    chroot="llvm",
    suite="",
    flavour="",
    source="stock",
    options=("KASAN", "KASAN_INLINE", "KCSAN_SELFTEST=n"),
)


def test_an_option_is_a_line_of_the_configuration() -> None:
    assert options.plan_line("KASAN") == "CONFIG_KASAN=y"
    assert options.plan_line("KASAN=n") == "CONFIG_KASAN=n"
    assert options.plan_line('LOCALVERSION="-x"') == 'CONFIG_LOCALVERSION="-x"'


def test_a_kernel_has_what_a_vm_needs_its_own_options_and_its_own_name() -> None:
    lines = built.plan_options(SPEC)
    found = options.parse_options("\n".join(lines))
    assert options.find_lacking(found) == ()
    assert found["CONFIG_KASAN"] == found["CONFIG_RUST"] == "y"
    assert found["CONFIG_LOCALVERSION"] == "-kasan"
    assert "CONFIG_KCSAN_SELFTEST=n" in lines


def test_every_option_that_kconfig_dropped_or_changed_is_named() -> None:
    wanted = ("CONFIG_A=y", "CONFIG_B=y", "CONFIG_C=n", "CONFIG_D=n", 'CONFIG_E="x"', "CONFIG_F=20")
    config = {"CONFIG_A": "y", "CONFIG_D": "y", "CONFIG_E": "y", "CONFIG_F": "20"}
    assert built.find_lost(wanted, config) == (
        "CONFIG_B=y, not n",
        "CONFIG_D=n, not y",
        "CONFIG_E=x, not y",
    )


def test_another_source_option_or_compiler_is_another_kernel(
    tree: KernelTree, root: Chroot
) -> None:
    key = built.plan_key(SPEC, root, tree)
    assert key == built.plan_key(SPEC, root, tree)
    assert key.startswith("kasan-")
    others = (
        built.plan_key(replace(SPEC, options=("KASAN",)), root, tree),
        built.plan_key(SPEC, replace(root, key="other"), tree),
        built.plan_key(SPEC, root, replace(tree, version="7.3.5-1")),
        built.plan_key(SPEC, root, replace(tree, key="other")),
    )
    assert len({key, *others}) == 5


def test_a_boot_parameter_needs_no_other_kernel(tree: KernelTree, root: Chroot) -> None:
    other = replace(SPEC, parameters=("panic_on_warn=0",))
    assert built.plan_key(other, root, tree) == built.plan_key(SPEC, root, tree)


def test_a_build_says_how_many_steps_it_made(progress: Progress, told: list[str]) -> None:
    watch = built.count_steps(progress)
    for line in ("  CC      a.o", "warning: x", *["  LD      b"] * 19):
        watch(line)
    assert told == ["20 steps done"]


def test_what_was_linked_into_the_image_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = ("lib/a.o", "lib/x/b.a", "vmlinux.o")
    kept = ("scripts/c.o", "tools/d.o", "rust/core.o", "vmlinux", "lib/e.h", "Module.symvers")
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    built.remove_objects(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(kept)


@pytest.mark.parametrize("name", ["kasan", "kcsan"])
def test_the_projects_debug_kernels_are_built_from_a_kernel_of_a_suite(name: str) -> None:
    config = read_config(Path(__file__).parents[2])
    spec = next(kernel for kernel in config.kernels if kernel.name == name)
    base = next(kernel for kernel in config.kernels if kernel.name == spec.source)
    assert base.suite
    assert name.upper() in spec.options
