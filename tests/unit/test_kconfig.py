# SPDX-License-Identifier: GPL-2.0-only
"""What a configuration says: its compilers, and each option that keeps a VM from booting it."""

import re
from pathlib import Path

import pytest

from twinmod.kernels import kconfig

CHECKOUT = Path(__file__).resolve().parents[2]

CONFIG = """\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 7.3.4 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0"
CONFIG_RUST=y
# CONFIG_NET_9P is not set
CONFIG_OVERLAY_FS=m
CONFIG_CMDLINE="a=b \\"c d\\" \\\\e"
CONFIG_LOCALVERSION=""
CONFIG_NR_CPUS=8192
"""

#: The same as make's own file of it has it: without quotes.
AUTO_CONF = """\
CONFIG_CC_VERSION_TEXT=x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0
CONFIG_RUST=y
CONFIG_OVERLAY_FS=m
CONFIG_CMDLINE=a=b "c d" \\e
CONFIG_LOCALVERSION=
CONFIG_NR_CPUS=8192
"""

BOOTABLE = dict.fromkeys(kconfig.VM_BUILTINS, "y") | {o: "m" for _, o in kconfig.VM_MODULES}


def test_options_are_what_is_set_without_quotes() -> None:
    assert kconfig.parse_options(CONFIG) == {
        "CONFIG_CC_VERSION_TEXT": "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0",
        "CONFIG_RUST": "y",
        "CONFIG_OVERLAY_FS": "m",
        "CONFIG_CMDLINE": 'a=b "c d" \\e',
        "CONFIG_LOCALVERSION": "",
        "CONFIG_NR_CPUS": "8192",
    }


def test_a_configuration_and_what_was_built_of_it_are_equal() -> None:
    config, built = map(kconfig.parse_options, (CONFIG, AUTO_CONF))
    assert kconfig.compare_options(config, built) == ()


def test_what_was_changed_added_or_removed_since_is_named() -> None:
    config = kconfig.parse_options(CONFIG.replace("OVERLAY_FS=m", "OVERLAY_FS=y") + "CONFIG_A=y\n")
    built = kconfig.parse_options(AUTO_CONF + "CONFIG_B=m\n")
    assert kconfig.compare_options(config, built) == ("CONFIG_A", "CONFIG_B", "CONFIG_OVERLAY_FS")


# -- the VM -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["m", "y"])
def test_a_kernel_with_all_that_a_vm_needs_lacks_nothing(value: str) -> None:
    found = BOOTABLE | {o: value for _, o in kconfig.VM_MODULES}
    assert kconfig.find_lacking(found) == ()


@pytest.mark.parametrize("option", sorted(BOOTABLE))
@pytest.mark.parametrize("value", ["n", None])
def test_one_option_that_is_off_is_lacking(option: str, value: str | None) -> None:
    found = {k: v for k, v in BOOTABLE.items() if k != option}
    assert kconfig.find_lacking(found | ({option: value} if value else {})) == (option,)


@pytest.mark.parametrize("option", kconfig.VM_BUILTINS)
def test_what_must_be_built_in_is_not_enough_as_a_module(option: str) -> None:
    assert kconfig.find_lacking(BOOTABLE | {option: "m"}) == (option,)


@pytest.mark.parametrize("option", kconfig.VM_OBSTACLES)
def test_what_is_in_the_way_is_named_as_what_must_be_off(option: str) -> None:
    assert kconfig.find_lacking(BOOTABLE | {option: "y"}) == (f"{option}=n",)


def test_an_empty_configuration_lacks_every_option_once() -> None:
    lacking = kconfig.find_lacking({})
    assert len(lacking) == len(set(lacking)) == len(BOOTABLE)


def test_only_what_is_a_module_is_loaded() -> None:
    found = BOOTABLE | {"CONFIG_9P_FS": "y"}
    assert kconfig.find_vm_modules(found) == ("9pnet", "9pnet_virtio", "overlay")


def test_the_fragment_in_the_docs_is_what_a_vm_needs_and_rust() -> None:
    text = (CHECKOUT / "docs/vm.config").read_text()
    found = re.findall(r"^(CONFIG_\w+)=y$", text, re.MULTILINE)
    assert sorted(found) == sorted((*BOOTABLE, "CONFIG_RUST", "CONFIG_IA32_EMULATION"))
    assert not set(kconfig.VM_OBSTACLES) & set(found)


# -- compilers --------------------------------------------------------------------------------

GCC = {"CONFIG_CC_VERSION_TEXT": "gcc-14 (Debian 14.2.0-19) 14.2.0", "CONFIG_CC_IS_GCC": "y"}

CLANG = {
    "CONFIG_CC_VERSION_TEXT": "Debian clang version 19.1.7 (3+b1)",
    "CONFIG_CC_IS_CLANG": "y",
    "CONFIG_CLANG_VERSION": "190107",
}

LLD = {"CONFIG_LD_IS_LLD": "y"}

GNU_AS = {"CONFIG_AS_IS_GNU": "y"}


@pytest.mark.parametrize(
    ("config", "plans"),
    [
        (GCC, (("gcc-14", ("CC=gcc-14",)),)),
        (GCC | GNU_AS | LLD, (("gcc-14", ("CC=gcc-14", "LD=ld.lld")),)),
        (CLANG | LLD, (("clang", ("LLVM=1",)), ("clang-19", ("LLVM=-19",)))),
        (
            CLANG | LLD | GNU_AS,
            (("clang", ("LLVM=1", "LLVM_IAS=0")), ("clang-19", ("LLVM=-19", "LLVM_IAS=0"))),
        ),
        (CLANG, (("clang", ("CC=clang",)), ("clang-19", ("CC=clang-19",)))),
        ({}, ()),
    ],
)
def test_make_is_told_of_the_compilers_that_the_configuration_names(
    config: dict[str, str], plans: tuple[tuple[str, tuple[str, ...]], ...]
) -> None:
    assert kconfig.plan_compilers(config) == plans


def test_a_kernel_without_rust_wants_no_rustc() -> None:
    named = {"CONFIG_RUSTC_VERSION_TEXT": "rustc 1.85.1 (4eb161250 2025-03-15)"}
    assert kconfig.find_rustc(named) == ""
    assert kconfig.find_rustc(named | {"CONFIG_RUST": "y"}) == named["CONFIG_RUSTC_VERSION_TEXT"]


#: Of our own pair as it was built for the two kernels, with what kbuild's own C in each calls.
WATCHED = {
    ("kasan", "c"): ("__asan_register_globals", "__asan_report_load8_noabort", "__asan_memcpy"),
    ("kasan", "rust"): ("__asan_register_globals", "__asan_report_store4_noabort"),
    ("kcsan", "c"): ("__tsan_init", "__tsan_read8", "__tsan_volatile_write8"),
    ("kcsan", "rust"): ("__tsan_init",),
}


@pytest.mark.parametrize(
    ("kernel", "language", "watchers", "blind"),
    [
        ("kasan", "c", ("KASAN", "lockdep"), ("UBSAN",)),
        ("kasan", "rust", ("KASAN", "lockdep"), ("UBSAN",)),
        ("kcsan", "c", ("KCSAN",), ()),
        ("kcsan", "rust", (), ("KCSAN",)),
    ],
)
def test_a_module_is_watched_by_what_its_own_code_calls(
    kernel: str, language: str, watchers: tuple[str, ...], blind: tuple[str, ...]
) -> None:
    config = {
        "kasan": {"CONFIG_KASAN": "y", "CONFIG_UBSAN": "y", "CONFIG_PROVE_LOCKING": "y"},
        "kcsan": {"CONFIG_KCSAN": "y"},
    }[kernel]
    found = kconfig.find_watchers(config, ("_printk", *WATCHED[kernel, language]))
    assert found == (watchers, blind)
