# SPDX-License-Identifier: GPL-2.0-only
"""How C's types lie in memory, as BTF describes them, and where two descriptions differ.

Source: include/uapi/linux/btf.h and Documentation/bpf/btf.rst, Linux 7.3.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from twinmod.errors import BuildError

MAGIC = 0xEB9F

#: Bytes of a pointer: twinmod knows 64-bit kernels alone.
POINTER_BYTES = 8


class Kind(IntEnum):
    """What a type is; BTF's own numbers."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: 32-bit words that follow a type: (once, for each of its members, constants or parameters).
EXTRA_WORDS = {
    Kind.INT: (1, 0),
    Kind.ARRAY: (3, 0),
    Kind.STRUCT: (0, 3),
    Kind.UNION: (0, 3),
    Kind.ENUM: (0, 2),
    Kind.FUNC_PROTO: (0, 2),
    Kind.VAR: (1, 0),
    Kind.DATASEC: (0, 3),
    Kind.DECL_TAG: (1, 0),
    Kind.ENUM64: (0, 3),
}

#: They say how a value may be used, and nothing about its layout.
QUALIFIERS = (Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG)

RECORDS = (Kind.STRUCT, Kind.UNION)
ENUMS = (Kind.ENUM, Kind.ENUM64)


@dataclass(frozen=True, slots=True)
class Type:
    """One type of a BTF; others refer to it by its number, from 1 on."""

    kind: Kind
    # "" for an anonymous one.
    name: str
    # Of a record: its members can be bitfields. Of an enum: its constants are signed. Of a forward
    # declaration: it is a union.
    flag: bool
    # Bytes, or the number of the type that it refers to.
    value: int
    # The words that follow.
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What of a type a compiled program relies on."""

    # "struct page", "typedef gfp_t", "enum {FIRST, ...}" for an anonymous one.
    name: str
    size_bytes: int
    # By the name of a member, ".a.b" in an anonymous one, or of an enum's constant: its offset and
    # type, or its value, as a person reads it.
    parts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first part of a type that differs between two kernels."""

    name: str
    # A name of Layout.parts, or "size".
    part: str
    # "none" where the type has no such part.
    here: str
    there: str

    def __str__(self) -> str:
        return f"{self.name}: {self.part}: {self.here}, not {self.there}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of it when each layout of one BTF was looked for in another one."""

    equal: tuple[str, ...]
    differing: tuple[Difference, ...]
    # Types that the other BTF does not have.
    unknown: tuple[str, ...]
    # Those of `equal` that are one of several types of that name there.
    ambiguous: tuple[str, ...]


# -- the format -------------------------------------------------------------------------------


class Types:
    """The types of a BTF that stands alone."""

    def __init__(self, types: list[Type], strings: bytes) -> None:
        # Number 0 is void.
        self._types = types
        self._strings = strings

    def __iter__(self) -> Iterator[Type]:
        return iter(self._types)

    def read_name(self, offset: int) -> str:
        """Return the string at an offset."""
        return _read_string(self._strings, offset)

    def strip(self, number: int) -> Type | None:
        """Return a type without qualifiers; None is void."""
        if not number:
            return None
        found = self._types[number - 1]
        return self.strip(found.value) if found.kind in QUALIFIERS else found

    def measure(self, number: int) -> int:
        """Return the bytes that a type takes, 0 for void and functions."""
        found = self.strip(number)
        if found is None or found.kind in (Kind.FWD, Kind.FUNC, Kind.FUNC_PROTO):
            return 0
        if found.kind is Kind.PTR:
            return POINTER_BYTES
        if found.kind is Kind.ARRAY:
            return found.words[2] * self.measure(found.words[0])
        return self.measure(found.value) if found.kind is Kind.TYPEDEF else found.value

    def render(self, number: int) -> str:
        """Return a type as text: named ones by name, anonymous ones with all that they hold."""
        found = self.strip(number)
        if found is None:
            return "void"
        if found.kind is Kind.PTR:
            return f"{self.render(found.value)} *"
        if found.kind is Kind.ARRAY:
            return f"{self.render(found.words[0])}[{found.words[2]}]"
        if found.kind is Kind.FUNC_PROTO:
            parameters = (self.render(number) for number in found.words[1::2])
            return f"{self.render(found.value)} ({', '.join(parameters)})"
        word = plan_word(found)
        if found.name:
            return f"{word}{found.name}"
        parts = self.plan_layout(found).parts
        return f"{word}{{{'; '.join(f'{name} {text}' for name, text in parts.items())}}}"

    def plan_layout(self, found: Type) -> Layout:
        """Return the layout of a record, an enum or a typedef."""
        if found.kind in ENUMS:
            parts = dict(self._iter_constants(found))
        elif found.kind in RECORDS:
            parts = dict(self._iter_members(found, "", 0))
        else:
            parts = {"type": self.render(found.value)}
        name = found.name or f"{{{next(iter(parts), '')}, ...}}"
        word = "typedef " if found.kind is Kind.TYPEDEF else plan_word(found)
        size = self.measure(found.value) if found.kind is Kind.TYPEDEF else found.value
        return Layout(name=f"{word}{name}", size_bytes=size, parts=parts)

    def _iter_constants(self, found: Type) -> Iterator[tuple[str, str]]:
        step = EXTRA_WORDS[found.kind][1]
        for index in range(0, len(found.words), step):
            words = found.words[index + 1 : index + step]
            value = sum(word << 32 * number for number, word in enumerate(words))
            bits = 32 * len(words)
            if found.flag and value >> (bits - 1):
                value -= 1 << bits
            yield self.read_name(found.words[index]), str(value)

    def _iter_members(self, found: Type, above: str, base: int) -> Iterator[tuple[str, str]]:
        for index in range(0, len(found.words), 3):
            name_offset, number, position = found.words[index : index + 3]
            bits, offset = (position >> 24, position & 0xFFFFFF) if found.flag else (0, position)
            name = f"{above}.{self.read_name(name_offset)}"
            member = self.strip(number)
            if member is not None and member.kind in RECORDS and name.endswith("."):
                yield from self._iter_members(member, above, base + offset)
            elif bits:
                yield name, f"bit {base + offset}, {bits} bits of {self.render(number)}"
            else:
                yield (
                    name,
                    (
                        f"byte {(base + offset) // 8}, {self.render(number)}, "
                        f"{self.measure(number)} bytes"
                    ),
                )


def plan_word(found: Type) -> str:
    """Return the word of C that stands before a type's name, with a space; "" for none."""
    if found.kind is Kind.UNION or (found.kind is Kind.FWD and found.flag):
        return "union "
    if found.kind in (Kind.STRUCT, Kind.FWD):
        return "struct "
    return "enum " if found.kind in ENUMS else ""


def _read_string(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode()


def parse(data: bytes) -> Types:
    """Return the types of a BTF: of a section .BTF, or of a file that holds nothing else.

    Raises:
        BuildError: It is none, it is cut off, or it has kinds of types that are not known.
    """
    try:
        magic, _, _, header_len = struct.unpack_from("<HBBI", data)
        type_off, type_len, str_off, str_len = struct.unpack_from("<4I", data, 8)
        if magic != MAGIC:
            raise BuildError(f"this is not BTF: it begins with {magic:#x}, not {MAGIC:#x}")
        body, strings = data[header_len:], data[header_len + str_off :][:str_len]
        words = struct.unpack_from(f"<{type_len // 4}I", body, type_off)
        return Types(list(_iter_types(words, strings)), strings)
    except (struct.error, ValueError, IndexError) as error:
        raise BuildError(f"a BTF cannot be read: {error}") from error


def _iter_types(words: tuple[int, ...], strings: bytes) -> Iterator[Type]:
    at = 0
    while at < len(words):
        name, info, value = words[at : at + 3]
        kind = Kind(info >> 24 & 0x7F)
        once, each = EXTRA_WORDS.get(kind, (0, 0))
        begin, at = at + 3, at + 3 + once + each * (info & 0xFFFFFF)
        yield Type(kind, _read_string(strings, name), bool(info >> 31), value, words[begin:at])


# -- the comparison ---------------------------------------------------------------------------


def find_layouts(types: Types) -> Iterator[tuple[tuple[str, ...], Type]]:
    """Yield (keys, type) of all records, enums and typedefs that a comparison can name.

    An anonymous enum is known by each of its constants, any other type by its own name. An
    anonymous record is part of what holds it.
    """
    for found in types:
        if found.name and found.kind in (*RECORDS, *ENUMS):
            yield (f"{plan_word(found)}{found.name}",), found
        elif found.name and found.kind is Kind.TYPEDEF:
            yield (f"typedef {found.name}",), found
        elif found.kind in ENUMS:
            step = EXTRA_WORDS[found.kind][1]
            yield tuple(f"constant {types.read_name(word)}" for word in found.words[::step]), found


def compare(here: Types, there: Types) -> Comparison:
    """Look for the layout of each type of one BTF among those of the same name in another one.

    C lets two source files give one name to two types: one of those there has to be the same.

    Raises:
        BuildError: A type refers to one that is not there, or to itself.
    """
    try:
        return _compare(here, there)
    except (IndexError, ValueError, RecursionError) as error:
        raise BuildError(f"a BTF cannot be read: {error}") from error


def _compare(here: Types, there: Types) -> Comparison:
    known: dict[str, list[Type]] = {}
    for keys, found in find_layouts(there):
        for key in keys:
            known.setdefault(key, []).append(found)
    equal, differing, unknown, ambiguous = [], [], [], []
    for keys, found in find_layouts(here):
        layout = here.plan_layout(found)
        others = [there.plan_layout(other) for key in keys for other in known.get(key, ())]
        if not others:
            unknown.append(layout.name)
        elif layout in others:
            equal.append(layout.name)
            if any(other != layout for other in others):
                ambiguous.append(layout.name)
        else:
            differing.append(find_difference(layout, others[0]))
    return Comparison(
        equal=tuple(equal),
        differing=tuple(differing),
        unknown=tuple(unknown),
        ambiguous=tuple(ambiguous),
    )


def find_difference(here: Layout, there: Layout) -> Difference:
    """Return the first part of a type that differs."""
    for part in (*here.parts, *there.parts):
        seen, wanted = here.parts.get(part, "none"), there.parts.get(part, "none")
        if seen != wanted:
            return Difference(name=here.name, part=part, here=seen, there=wanted)
    return Difference(
        name=here.name,
        part="size",
        here=f"{here.size_bytes} bytes",
        there=f"{there.size_bytes} bytes",
    )
