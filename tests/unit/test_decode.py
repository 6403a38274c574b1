# SPDX-License-Identifier: GPL-2.0-only
"""A stack's entry becomes a function, a file and a line."""

from twinmod.cells import decode
from twinmod.cells.decode import SourceLine
from twinmod.guest.faults import Frame
from twinmod.kernels.elf import Symbol

SYMBOLS = {"mdriver_read": Symbol(section=".text", value=0x200)}
OUTPUT = """\
0x0000000000000210
memcpy
/twinmod/linux/include/linux/string.h:77
mdriver_read
/twinmod/module/mdriver_c/mdriver_c.c:41 (discriminator 2)
0x0000000000000300
??
??:0
"""


def plan_frame(function: str, offset: int, *, exact: bool = False) -> Frame:
    return Frame(function=function, offset=offset, size=0x90, module="mdriver_c", exact=exact)


def test_a_callers_entry_is_about_the_call_and_not_what_follows_it() -> None:
    assert decode.find_address(plan_frame("mdriver_read", 0x10), SYMBOLS) == (".text", 0x20F)
    exact = plan_frame("mdriver_read", 0x10, exact=True)
    assert decode.find_address(exact, SYMBOLS) == (".text", 0x210)


def test_a_section_is_its_own_begin_and_an_unknown_function_is_nowhere() -> None:
    assert decode.find_address(plan_frame(".text", 0x31), SYMBOLS) == (".text", 0x30)
    assert decode.find_address(plan_frame("unloaded", 0), SYMBOLS) is None


def test_each_address_has_its_functions_the_innermost_first() -> None:
    first, second = decode.parse_source_lines(OUTPUT)
    assert first == (
        SourceLine(function="memcpy", path="/twinmod/linux/include/linux/string.h", line="77"),
        SourceLine(
            function="mdriver_read", path="/twinmod/module/mdriver_c/mdriver_c.c", line="41"
        ),
    )
    assert second == (SourceLine(function="??", path="??", line="0"),)


def test_the_place_that_is_shown_is_in_the_modules_own_sources() -> None:
    sources = frozenset({"mdriver_c.c", "mdriver_c.ko"})
    first, second = (
        decode.choose_source_line(p, sources) for p in decode.parse_source_lines(OUTPUT)
    )
    assert first is not None
    assert (first.function, first.line) == ("mdriver_read", "41")
    assert second is None
    shown = decode.plan_frame(plan_frame("mdriver_read", 0x10), first)
    assert (shown.shown, shown.place) == ("mdriver_read", "mdriver_c.c:41")


def test_output_that_is_cut_tells_of_what_is_whole() -> None:
    assert decode.parse_source_lines(OUTPUT[:24]) == ((),)
    assert decode.parse_source_lines("") == ()


def test_a_name_has_no_hash_of_its_crate_and_keeps_its_types() -> None:
    said = "<mdriver_rust[a81a3639c81fbf1b]::Mdriver>::read_page\ncore::slice::<[u8]>::len\n"
    assert decode.parse_names(said) == (
        "<mdriver_rust::Mdriver>::read_page",
        "core::slice::<[u8]>::len",
    )
