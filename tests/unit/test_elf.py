# SPDX-License-Identifier: GPL-2.0-only
"""What a module's file says of itself, read from small files with just these sections."""

import lzma
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.errors import BuildError
from twinmod.kernels import elf

MakeElf = Callable[[dict[str, str], tuple[str, ...], tuple[str, ...]], bytes]


def test_modinfo_comments_and_symbols_are_read_in_their_order(make_elf: MakeElf) -> None:
    modinfo = {"license": "GPL", "name": "mdriver_c", "vermagic": "7.3.4 SMP preempt mod_unload "}
    comments = ("GCC: (Debian 14.2.0-19) 14.2.0", "rustc version 1.85.1 (4eb161250 2025-03-15)")
    found = elf.parse_module(make_elf(modinfo, comments, ("init_module", "_RNvCs1_3foo3bar")))
    assert found.modinfo == tuple(modinfo.items())
    assert found.comments == comments
    assert found.symbols == ("init_module", "_RNvCs1_3foo3bar")


def test_a_value_of_modinfo_may_hold_the_sign_that_separates(make_elf: MakeElf) -> None:
    found = elf.parse_module(make_elf({"parm": "size:a=b"}, (), ()))
    assert found.find_modinfo("parm") == "size:a=b"


def test_a_key_that_is_not_there_is_empty(make_elf: MakeElf) -> None:
    assert elf.parse_module(make_elf({}, (), ())).find_modinfo("vermagic") == ""


def test_the_first_of_a_repeated_key_is_found() -> None:
    found = elf.ModuleFile(modinfo=(("parm", "a"), ("parm", "b")), comments=(), symbols=())
    assert found.find_modinfo("parm") == "a"


@pytest.mark.parametrize("data", [b"", b"\xfd7zXZ\0", b"\x7fELF", b"!<arch>\n" * 9], ids=str)
def test_what_is_no_elf_file_is_a_build_error(data: bytes) -> None:
    with pytest.raises(BuildError, match="not an ELF file"):
        elf.parse_module(data)


def test_a_section_is_read_whole_and_one_that_is_not_there_is_empty(
    make_elf: MakeElf, tmp_path: Path
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(make_elf({"a": "b"}, (), ()))
    assert elf.read_section(path, ".modinfo") == b"a=b\0"
    assert elf.read_section(path, ".BTF") == b""
    path.write_bytes(b"")
    with pytest.raises(BuildError, match="vmlinux is not an ELF file"):
        elf.read_section(path, ".BTF")


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)))
def test_strings_come_back_from_a_section_whatever_pads_it(texts: list[str]) -> None:
    data = b"\0\0".join(text.encode() for text in texts)
    assert elf.parse_strings(b"\0" + data + b"\0\0\0") == tuple(texts)


# -- symbols ----------------------------------------------------------------------------------

EXPORTS = """\
EXPORT_SYMBOL_RUST_GPL(_RNvCs3S5sVLmWzbK_6kernel13current_raw);
EXPORT_SYMBOL_RUST_GPL(_RNvMNtCs3S5sVLmWzbK_6kernel5errorNtB2_5Error8to_errno);
/* EXPORT_SYMBOL_RUST_GPL(_RNot_one); */
"""

SYMVERS = """\
0x00000000\t_RNvCs3S5sVLmWzbK_6kernel13current_raw\tvmlinux\tEXPORT_SYMBOL_GPL\t
0x12345678\tmisc_register\tvmlinux\tEXPORT_SYMBOL\t
0x9abcdef0\t_RNvMNtCs3S5sVLmWzbK_6kernel5errorNtB2_5Error8to_errno\tvmlinux\tEXPORT_SYMBOL_GPL\t
"""


def test_the_exports_of_a_crate_are_read_from_its_header() -> None:
    assert elf.parse_exports(EXPORTS) == (
        "_RNvCs3S5sVLmWzbK_6kernel13current_raw",
        "_RNvMNtCs3S5sVLmWzbK_6kernel5errorNtB2_5Error8to_errno",
    )


def test_names_that_all_stand_in_the_stock_kernel_lack_none() -> None:
    assert elf.compare_symbols(elf.parse_exports(EXPORTS), SYMVERS) == ()


def test_one_name_of_another_rustc_is_missing() -> None:
    other = "_RNvCsAnotherRustc_6kernel13current_raw"
    assert elf.compare_symbols((other, "misc_register"), SYMVERS) == (other,)


def test_a_symbol_is_a_whole_name() -> None:
    assert elf.compare_symbols(("misc_reg", "vmlinux"), SYMVERS) == ("misc_reg", "vmlinux")


# -- what a module needs ----------------------------------------------------------------------


def test_a_diamond_is_loaded_from_its_bottom_each_module_once() -> None:
    depends = {"top": ("left", "right"), "left": ("base",), "right": ("base",), "base": ()}
    assert elf.plan_load_order(depends, ("top",)) == ("base", "left", "right", "top")


def test_what_is_built_in_is_not_loaded() -> None:
    assert elf.plan_load_order({"9p": ("netfs", "9pnet"), "9pnet": ()}, ("9p", "overlay")) == (
        "9pnet",
        "9p",
    )


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=10),
    st.lists(st.integers(0, 9), max_size=4),
)
def test_every_module_comes_once_and_after_all_that_it_needs(
    needs: list[list[int]], wanted: list[int]
) -> None:
    # A module depends on smaller numbers only: the kernel's own graph has no cycle either.
    depends: Mapping[str, tuple[str, ...]] = {
        f"m{number}": tuple(f"m{other}" for other in others if other < number)
        for number, others in enumerate(needs)
    }
    order = elf.plan_load_order(depends, tuple(f"m{number}" for number in wanted))
    assert len(order) == len(set(order))
    assert {f"m{number}" for number in wanted} & set(depends) <= set(order)
    for index, name in enumerate(order):
        assert set(depends[name]) <= set(order[:index])


def test_a_compressed_module_is_unpacked_and_another_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "9p.ko.xz").write_bytes(lzma.compress(b"\x7fELF..."))
    (tmp_path / "9p.ko").write_bytes(b"\x7fELF---")
    assert elf.decompress(tmp_path / "9p.ko.xz") == b"\x7fELF..."
    assert elf.decompress(tmp_path / "9p.ko") == b"\x7fELF---"


def test_modules_are_read_with_all_that_they_need_in_load_order(
    tmp_path: Path, make_elf: MakeElf
) -> None:
    needs = {"9p": "9pnet,netfs", "9pnet": "", "netfs": "builtin", "other": ""}
    for name, depends in needs.items():
        content = lzma.compress(make_elf({"depends": depends}, (), ()))
        (tmp_path / f"{name}.ko.xz").write_bytes(content)
    found = elf.read_load_order({name: tmp_path / f"{name}.ko.xz" for name in needs}, ("9p",))
    assert [path.name for path, _ in found] == ["9pnet.ko.xz", "netfs.ko.xz", "9p.ko.xz"]
    assert all(content.startswith(b"\x7fELF") for _, content in found)
