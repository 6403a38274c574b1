# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of our own options: what is asked for is there, or it is said what is not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.kernels import debug, kconfig
from twinmod.kernels.debug import DebugKernel
from twinmod.kernels.model import Kernel, KernelTree
from twinmod.kernels.stock import StockKernel
from twinmod.project import config as project_config
from twinmod.project.model import KernelSpec

AsKernel = Callable[[KernelTree], Kernel]

SPEC = KernelSpec(
    name="kasan",
    chroot="llvm",
    suite="",
    flavour="",
    source="stock",
    options=("KASAN", "KASAN_INLINE", "KCSAN_SELFTEST=n"),
)


def test_an_option_is_a_line_of_the_configuration() -> None:
    assert kconfig.plan_line("KASAN") == "CONFIG_KASAN=y"
    assert kconfig.plan_line("KASAN=n") == "CONFIG_KASAN=n"
    assert kconfig.plan_line('LOCALVERSION="-x"') == 'CONFIG_LOCALVERSION="-x"'


def test_a_kernel_has_what_a_vm_needs_its_own_options_and_its_own_name() -> None:
    lines = debug.plan_options(SPEC)
    found = kconfig.parse_options("\n".join(lines))
    assert kconfig.find_lacking(found) == ()
    assert found["CONFIG_KASAN"] == found["CONFIG_RUST"] == "y"
    assert found["CONFIG_LOCALVERSION"] == "-kasan"
    assert "CONFIG_KCSAN_SELFTEST=n" in lines


def test_every_option_that_kconfig_dropped_or_changed_is_named() -> None:
    wanted = ("CONFIG_A=y", "CONFIG_B=y", "CONFIG_C=n", "CONFIG_D=n", 'CONFIG_E="x"', "CONFIG_F=20")
    config = {"CONFIG_A": "y", "CONFIG_D": "y", "CONFIG_E": "y", "CONFIG_F": "20"}
    assert debug.find_lost(wanted, config) == (
        "CONFIG_B=y, not n",
        "CONFIG_D=n, not y",
        "CONFIG_E=x, not y",
    )


def test_another_source_option_or_compiler_is_another_kernel(
    tree: KernelTree, root: Chroot, as_kernel: AsKernel
) -> None:
    kernel = DebugKernel(spec=SPEC, chroot=root, base=as_kernel(tree))
    assert kernel.key == replace(kernel, base=as_kernel(tree)).key
    assert kernel.key.startswith("kasan-")
    others = (
        replace(kernel, spec=replace(SPEC, options=("KASAN",))).key,
        replace(kernel, chroot=replace(root, key="other")).key,
        replace(kernel, base=as_kernel(replace(tree, version="7.3.5-1"))).key,
        replace(kernel, base=as_kernel(replace(tree, key="other"))).key,
    )
    assert len({kernel.key, *others}) == 5


def test_a_boot_parameter_needs_no_other_kernel(
    tree: KernelTree, root: Chroot, as_kernel: AsKernel
) -> None:
    kernel = DebugKernel(spec=SPEC, chroot=root, base=as_kernel(tree))
    other = replace(kernel, spec=replace(SPEC, command_line=("panic_on_warn=0",)))
    assert other.key == kernel.key


@pytest.mark.usefixtures("cache_dir")
def test_without_its_source_a_kernel_has_no_key_and_is_not_there(
    root: Chroot, stock_kernel: StockKernel
) -> None:
    kernel = DebugKernel(spec=SPEC, chroot=root, base=stock_kernel)
    assert (kernel.key, kernel.find(), kernel.folders) == ("", None, ())


def test_a_build_says_how_many_steps_it_made(progress: Progress, told: list[str]) -> None:
    watch = debug.count_steps(progress)
    for line in ("  CC      a.o", "warning: x", *["  LD      b"] * 19):
        watch(line)
    assert told == ["20 steps done"]


def test_what_was_linked_into_the_image_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = ("lib/a.o", "lib/x/b.a", "vmlinux.o")
    kept = ("scripts/c.o", "tools/d.o", "rust/core.o", "vmlinux", "lib/e.h", "Module.symvers")
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    debug.remove_objects(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(kept)


@pytest.mark.parametrize("name", ["kasan", "kcsan"])
def test_the_projects_debug_kernels_are_built_from_a_kernel_of_a_suite(name: str) -> None:
    config = project_config.read_config(Path(__file__).parents[2])
    spec = next(kernel for kernel in config.kernels if kernel.name == name)
    base = next(kernel for kernel in config.kernels if kernel.name == spec.source)
    assert base.suite
    assert name.upper() in spec.options
