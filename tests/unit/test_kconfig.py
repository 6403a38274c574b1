# SPDX-License-Identifier: GPL-2.0-only
"""What a configuration says: its compilers, and each option that keeps a VM from booting it."""

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

#: What docs/vm.config asks for beside what a VM needs.
EXTRA = {"CONFIG_RUST", "CONFIG_IA32_EMULATION"}

FRAGMENT = kconfig.parse_options((CHECKOUT / "docs/vm.config").read_text())

#: What a VM needs, as the fragment that a person merges has it: the table itself proves nothing.
NEEDED = {option: "y" for option in FRAGMENT if option not in EXTRA}

MODULES = dict.fromkeys(
    ("CONFIG_NET_9P", "CONFIG_NET_9P_VIRTIO", "CONFIG_9P_FS", "CONFIG_OVERLAY_FS"), "m"
)


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


def test_the_fragment_in_the_docs_is_what_a_vm_needs() -> None:
    assert sorted(kconfig.find_lacking({})) == sorted(NEEDED)
    assert FRAGMENT.keys() >= EXTRA
    assert kconfig.find_lacking(FRAGMENT) == ()


@pytest.mark.parametrize("option", sorted(NEEDED))
def test_one_option_that_is_off_or_not_enough_is_lacking(option: str) -> None:
    without = {k: v for k, v in NEEDED.items() if k != option}
    assert kconfig.find_lacking(without) == (option,)
    assert kconfig.find_lacking(without | {option: "n"}) == (option,)
    as_module = kconfig.find_lacking(without | {option: "m"})
    assert as_module == (() if option in MODULES else (option,))


@pytest.mark.parametrize("option", ["CONFIG_TRIM_UNUSED_KSYMS", "CONFIG_CMDLINE_OVERRIDE"])
def test_what_is_in_the_way_is_named_as_what_must_be_off(option: str) -> None:
    assert kconfig.find_lacking(NEEDED | {option: "y"}) == (f"{option}=n",)


def test_only_what_is_a_module_is_loaded() -> None:
    found = NEEDED | MODULES | {"CONFIG_9P_FS": "y"}
    assert kconfig.find_vm_modules(found) == ("9pnet", "9pnet_virtio", "overlay")


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
