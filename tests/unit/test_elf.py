# SPDX-License-Identifier: GPL-2.0-only
"""What a module's file says of itself, read from small files with just these sections."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod import elf
from twinmod.errors import BuildError

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


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)))
def test_strings_come_back_from_a_section_whatever_pads_it(texts: list[str]) -> None:
    data = b"\0\0".join(text.encode() for text in texts)
    assert elf.parse_strings(b"\0" + data + b"\0\0\0") == tuple(texts)
