# SPDX-License-Identifier: GPL-2.0-only
"""Whether two kernels lay out their types alike, by small BTF that is written here."""

import struct
from collections.abc import Callable

import pytest

from twinmod.errors import BuildError
from twinmod.kernels import btf
from twinmod.kernels.btf import Kind

RawType = tuple[int, str, int, tuple[int | str, ...], int, bool]
MakeBtf = Callable[[tuple[RawType, ...]], bytes]

# The numbers of the types that each BTF here begins with.
VOID, U8, U32, U64 = range(4)


def add_int(name: str, size: int) -> RawType:
    return (Kind.INT, name, size, (8 * size,), 0, False)


BASE = (add_int("u8", 1), add_int("u32", 4), add_int("u64", 8))


def add_record(
    name: str, size: int, *members: tuple[str, int, int], kind: int = Kind.STRUCT
) -> RawType:
    """Return a struct of (name, type, offset in bytes)."""
    words = tuple(w for member, number, at in members for w in (member, number, 8 * at))
    return (kind, name, size, words, len(members), False)


def add_bitfields(name: str, size: int, *members: tuple[str, int, int, int]) -> RawType:
    """Return a struct of (name, type, offset in bits, bits); 0 bits are a whole member."""
    words = tuple(
        word for member, number, at, bits in members for word in (member, number, bits << 24 | at)
    )
    return (Kind.STRUCT, name, size, words, len(members), True)


def add_enum(name: str, *constants: tuple[str, int]) -> RawType:
    words = tuple(word for constant in constants for word in constant)
    return (Kind.ENUM, name, 4, words, len(constants), True)


def add_enum64(name: str, *constants: tuple[str, int]) -> RawType:
    words = tuple(w for constant, value in constants for w in (constant, value, value >> 32))
    return (Kind.ENUM64, name, 8, words, len(constants), True)


def refer(kind: int, number: int, name: str = "") -> RawType:
    return (kind, name, number, (), 0, False)


def add_array(number: int, count: int) -> RawType:
    return (Kind.ARRAY, "", 0, (number, U32, count), 0, False)


Compare = Callable[[tuple[RawType, ...], tuple[RawType, ...]], btf.Comparison]


@pytest.fixture
def compare(make_btf: MakeBtf) -> Compare:
    """Return what compares the types of two kernels, each of which has BASE first."""

    def run(here: tuple[RawType, ...], there: tuple[RawType, ...]) -> btf.Comparison:
        pair = (btf.parse(make_btf((*BASE, *types))) for types in (here, there))
        return btf.compare(*pair)

    return run


PAGE = add_record("page", 16, ("flags", U64, 0), ("refs", U32, 8), ("order", U8, 12))


# -- what is equal


def test_a_type_of_the_same_members_at_the_same_offsets_is_equal(compare: Compare) -> None:
    found = compare((PAGE,), (add_record("other", 1), PAGE))
    assert found == btf.Comparison(equal=("struct page",), differing=(), unknown=(), ambiguous=())


def test_what_a_value_may_be_used_for_is_no_part_of_its_layout(compare: Compare) -> None:
    qualified = (
        refer(Kind.CONST, 5),
        refer(Kind.VOLATILE, 6),
        refer(Kind.TYPE_TAG, U64, "user"),
        add_record("page", 8, ("flags", 4, 0)),
    )
    found = compare(qualified, (add_record("page", 8, ("flags", U64, 0)),))
    assert (found.equal, found.differing) == (("struct page",), ())


def test_the_other_types_of_a_kernel_are_not_looked_at(compare: Compare) -> None:
    others = (
        refer(Kind.FWD, 0, "gone"),
        (Kind.FUNC_PROTO, "", U32, ("a", U64), 1, False),
        refer(Kind.FUNC, 5, "f"),
        (Kind.VAR, "v", U32, (0,), 0, False),
        (Kind.DATASEC, ".data", 4, (7, 0, 4), 1, False),
        refer(Kind.FLOAT, 8, "double"),
        (Kind.DECL_TAG, "tag", 7, (0,), 0, False),
    )
    found = compare((*others, PAGE), (PAGE, *others))
    assert (found.equal, found.unknown) == (("struct page",), ())


# -- what differs


DIFFERENCES: dict[str, tuple[tuple[RawType, ...], tuple[RawType, ...], str]] = {
    "size": (
        (add_record("a", 8, ("x", U32, 0)),),
        (add_record("a", 16, ("x", U32, 0)),),
        "struct a: size: 8 bytes, not 16 bytes",
    ),
    "offset": (
        (add_record("a", 16, ("x", U32, 0), ("y", U64, 8)),),
        (add_record("a", 16, ("x", U32, 4), ("y", U64, 8)),),
        "struct a: .x: byte 0, u32, 4 bytes, not byte 4, u32, 4 bytes",
    ),
    "a member more": (
        (add_record("a", 8, ("x", U32, 0)),),
        (add_record("a", 8, ("x", U32, 0), ("y", U32, 4)),),
        "struct a: .y: none, not byte 4, u32, 4 bytes",
    ),
    "a member fewer": (
        (add_record("a", 8, ("x", U32, 0), ("y", U32, 4)),),
        (add_record("a", 8, ("x", U32, 0)),),
        "struct a: .y: byte 4, u32, 4 bytes, not none",
    ),
    "another type": (
        (add_record("a", 8, ("x", U32, 0)),),
        (add_record("a", 8, ("x", U64, 0)),),
        "struct a: .x: byte 0, u32, 4 bytes, not byte 0, u64, 8 bytes",
    ),
    "the same name, another size": (
        (add_record("in", 4), add_record("a", 8, ("x", 4, 0))),
        (add_record("in", 8), add_record("a", 8, ("x", 4, 0))),
        "struct a: .x: byte 0, struct in, 4 bytes, not byte 0, struct in, 8 bytes",
    ),
    "a union": (
        (add_record("a", 8, ("x", U32, 0), ("y", U64, 0), kind=Kind.UNION),),
        (add_record("a", 8, ("x", U32, 0), ("y", U32, 0), kind=Kind.UNION),),
        "union a: .y: byte 0, u64, 8 bytes, not byte 0, u32, 4 bytes",
    ),
    "in an anonymous member": (
        (add_record("", 8, ("y", U32, 4)), add_record("a", 16, ("x", U64, 0), ("", 4, 8))),
        (add_record("", 8, ("y", U32, 0)), add_record("a", 16, ("x", U64, 0), ("", 4, 8))),
        "struct a: .y: byte 12, u32, 4 bytes, not byte 8, u32, 4 bytes",
    ),
    "in an anonymous type of a named member": (
        (add_record("", 8, ("y", U32, 4)), add_record("a", 8, ("x", 4, 0))),
        (add_record("", 8, ("y", U32, 0)), add_record("a", 8, ("x", 4, 0))),
        (
            "struct a: .x: byte 0, struct {.y byte 4, u32, 4 bytes}, 8 bytes, not "
            "byte 0, struct {.y byte 0, u32, 4 bytes}, 8 bytes"
        ),
    ),
    "an array": (
        (add_array(U32, 2), add_record("a", 8, ("x", 4, 0))),
        (add_array(U32, 1), add_record("a", 8, ("x", 4, 0))),
        "struct a: .x: byte 0, u32[2], 8 bytes, not byte 0, u32[1], 4 bytes",
    ),
    "what a pointer points to": (
        (refer(Kind.PTR, U32), add_record("a", 8, ("x", 4, 0))),
        (refer(Kind.PTR, VOID), add_record("a", 8, ("x", 4, 0))),
        "struct a: .x: byte 0, u32 *, 8 bytes, not byte 0, void *, 8 bytes",
    ),
    "a function's parameter": (
        (
            (Kind.FUNC_PROTO, "", U32, ("p", U64), 1, False),
            refer(Kind.PTR, 4),
            add_record("a", 8, ("x", 5, 0)),
        ),
        (
            (Kind.FUNC_PROTO, "", U32, ("p", U8), 1, False),
            refer(Kind.PTR, 4),
            add_record("a", 8, ("x", 5, 0)),
        ),
        "struct a: .x: byte 0, u32 (u64) *, 8 bytes, not byte 0, u32 (u8) *, 8 bytes",
    ),
    "a bitfield's place": (
        (add_bitfields("a", 4, ("x", U32, 1, 3)),),
        (add_bitfields("a", 4, ("x", U32, 2, 3)),),
        "struct a: .x: bit 1, 3 bits of u32, not bit 2, 3 bits of u32",
    ),
    "a bitfield's width": (
        (add_bitfields("a", 4, ("x", U32, 1, 3)),),
        (add_bitfields("a", 4, ("x", U32, 1, 4)),),
        "struct a: .x: bit 1, 3 bits of u32, not bit 1, 4 bits of u32",
    ),
    "no bitfield any more": (
        (add_bitfields("a", 4, ("x", U32, 0, 8)),),
        (add_bitfields("a", 4, ("x", U32, 0, 0)),),
        "struct a: .x: bit 0, 8 bits of u32, not byte 0, u32, 4 bytes",
    ),
    "a constant": (
        (add_enum("e", ("A", 0), ("B", -1)),),
        (add_enum("e", ("A", 0), ("B", 2)),),
        "enum e: B: -1, not 2",
    ),
    "a constant of 64 bits": (
        (add_enum64("e", ("A", 1 << 40)),),
        (add_enum64("e", ("A", -(1 << 40))),),
        "enum e: A: 1099511627776, not -1099511627776",
    ),
    "an enum's size": (
        (add_enum("e", ("A", 1)),),
        (add_enum64("e", ("A", 1)),),
        "enum e: size: 4 bytes, not 8 bytes",
    ),
    "a constant of an anonymous enum": (
        (add_enum("", ("A", 0), ("B", 1)),),
        (add_enum("", ("A", 0), ("NEW", 1), ("B", 2)),),
        "enum {A, ...}: B: 1, not 2",
    ),
    "before the constants of an anonymous enum": (
        (add_enum("", ("A", 0)),),
        (add_enum("", ("NEW", 0), ("A", 1)),),
        "enum {A, ...}: A: 0, not 1",
    ),
    "a typedef": (
        (refer(Kind.TYPEDEF, U32, "t"),),
        (refer(Kind.TYPEDEF, U64, "t"),),
        "typedef t: type: u32, not u64",
    ),
    "a typedef of an anonymous struct": (
        (add_record("", 4, ("x", U32, 0)), refer(Kind.TYPEDEF, 4, "t")),
        (add_record("", 4, ("y", U32, 0)), refer(Kind.TYPEDEF, 4, "t")),
        "typedef t: type: struct {.x byte 0, u32, 4 bytes}, not struct {.y byte 0, u32, 4 bytes}",
    ),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_difference_is_found_and_named(compare: Compare, case: str) -> None:
    here, there, text = DIFFERENCES[case]
    assert text in map(str, compare(here, there).differing)


@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_differs_is_equal_to_itself(compare: Compare, case: str) -> None:
    here, there, _ = DIFFERENCES[case]
    for types in (here, there):
        found = compare(types, types)
        assert found.equal
        assert (found.differing, found.unknown, found.ambiguous) == ((), (), ())


# -- what cannot be compared


@pytest.mark.parametrize(
    "there",
    [
        (),
        (add_record("pages", 16),),
        (add_record("page", 16, kind=Kind.UNION),),
        (refer(Kind.FWD, 0, "page"),),
        (refer(Kind.TYPEDEF, U64, "page"),),
    ],
)
def test_a_type_that_is_not_there_is_counted_and_named(
    compare: Compare, there: tuple[RawType, ...]
) -> None:
    found = compare((PAGE, add_enum("", ("A", 1))), there)
    assert found.unknown == ("struct page", "enum {A, ...}")
    assert (found.equal, found.differing) == ((), ())


def test_what_is_only_declared_here_is_not_compared(compare: Compare) -> None:
    found = compare((refer(Kind.FWD, 0, "page"),), (PAGE,))
    assert found == btf.Comparison(equal=(), differing=(), unknown=(), ambiguous=())


# -- names that stand for several types

OTHER = add_record("page", 4, ("mine", U32, 0))


@pytest.mark.parametrize("there", [(PAGE, OTHER), (OTHER, PAGE)])
def test_one_of_several_types_of_a_name_has_to_be_the_same(
    compare: Compare, there: tuple[RawType, ...]
) -> None:
    found = compare((PAGE,), there)
    assert (found.equal, found.ambiguous, found.differing) == (
        ("struct page",),
        ("struct page",),
        (),
    )


def test_a_type_that_is_none_of_several_differs(compare: Compare) -> None:
    third = add_record("page", 8, ("mine", U32, 4))
    found = compare((third,), (OTHER, PAGE))
    assert [str(difference) for difference in found.differing] == [
        "struct page: .mine: byte 4, u32, 4 bytes, not byte 0, u32, 4 bytes"
    ]
    assert (found.equal, found.ambiguous) == ((), ())


def test_a_type_that_is_there_twice_alike_is_not_ambiguous(compare: Compare) -> None:
    assert compare((PAGE,), (PAGE, PAGE)).ambiguous == ()


# -- what is no BTF


def test_a_header_that_grew_is_skipped(make_btf: MakeBtf) -> None:
    data = make_btf((*BASE, PAGE))
    longer = data[:4] + struct.pack("<I", 32) + data[8:24] + bytes(8) + data[24:]
    found = btf.compare(btf.parse(longer), btf.parse(data))
    assert found.equal == ("struct page",)


@pytest.mark.parametrize("size", [0, 3, 8, 23, 30, 60])
def test_what_is_cut_off_is_refused(make_btf: MakeBtf, size: int) -> None:
    with pytest.raises(BuildError, match="BTF"):
        btf.parse(make_btf((*BASE, PAGE))[:size])


def test_another_file_is_refused() -> None:
    with pytest.raises(BuildError, match="not BTF"):
        btf.parse(b"\x7fELF" + bytes(60))


def test_an_unknown_kind_of_type_is_refused(make_btf: MakeBtf) -> None:
    with pytest.raises(BuildError, match="25"):
        btf.parse(make_btf((refer(25, 0),)))


BROKEN = {
    "a type that is not there": add_record("a", 4, ("x", 99, 0)),
    "a name that is not there": (Kind.STRUCT, "a", 4, (9999, U32, 0), 1, False),
    "a qualifier of itself": refer(Kind.CONST, 4),
    "a pointer to itself": refer(Kind.PTR, 4),
}


@pytest.mark.parametrize("case", BROKEN)
def test_types_that_refer_to_nothing_are_refused(make_btf: MakeBtf, case: str) -> None:
    types = btf.parse(make_btf((*BASE, BROKEN[case], add_record("b", 8, ("x", 4, 0)))))
    with pytest.raises(BuildError, match="BTF"):
        btf.compare(types, types)
