# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel module's file says of itself, what it needs, and what a kernel has for it."""

import lzma
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from elftools.elf.segments import InterpSegment

from twinmod.errors import BuildError

#: How every ELF file begins.
MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFile:
    """The parts of a .ko that twinmod looks at."""

    # (key, value) in the file's order; a key can repeat.
    modinfo: tuple[tuple[str, str], ...]
    # What the compilers signed with, such as "GCC: (Debian 14.2.0-19) 14.2.0".
    comments: tuple[str, ...]
    symbols: tuple[str, ...]
    # Those of them that the kernel or another module has to have.
    undefined: tuple[str, ...] = ()

    def find_modinfo(self, key: str) -> str:
        """Return the first value of a modinfo key, "" when there is none."""
        return next(iter(self.find_all_modinfo(key)), "")

    def find_all_modinfo(self, key: str) -> tuple[str, ...]:
        """Return all values of a modinfo key, in the file's order."""
        return tuple(value for name, value in self.modinfo if name == key)

    def find_depends(self) -> tuple[str, ...]:
        """Return the modules that it depends on, by the kernel's names of them."""
        return tuple(n.replace("-", "_") for n in self.find_modinfo("depends").split(",") if n)


def parse_needed(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return a program's or library's interpreter, "" for none, and the libraries that it names.

    Args:
        data: The whole file.
    """
    elf = ELFFile(BytesIO(data))
    interpreter = ""
    needed: tuple[str, ...] = ()
    for segment in elf.iter_segments():
        if isinstance(segment, InterpSegment):
            interpreter = segment.get_interp_name()
        elif isinstance(segment, DynamicSegment):
            # The library gives a tag's value its name as it reads it.
            tags: Iterator[Any] = segment.iter_tags("DT_NEEDED")
            needed = tuple(tag.needed for tag in tags)
    return interpreter, needed


def parse_strings(data: bytes) -> tuple[str, ...]:
    """Return the NUL-separated strings of a section, without empty ones."""
    return tuple(part.decode(errors="replace") for part in data.split(b"\0") if part)


def parse_module(data: bytes) -> ModuleFile:
    """Return what a kernel module's file says of itself.

    Args:
        data: The whole file, decompressed.

    Raises:
        BuildError: It is not an ELF file.
    """
    try:
        elf = ELFFile(BytesIO(data))
    except ELFError as error:
        raise BuildError(f"a kernel module is not an ELF file: {error}") from error

    def read_section(name: str) -> tuple[str, ...]:
        section = elf.get_section_by_name(name)
        return parse_strings(section.data()) if section is not None else ()

    table = elf.get_section_by_name(".symtab")
    symbols = tuple(table.iter_symbols()) if isinstance(table, SymbolTableSection) else ()
    pairs = (text.partition("=") for text in read_section(".modinfo"))
    return ModuleFile(
        modinfo=tuple((name, value) for name, _, value in pairs),
        comments=read_section(".comment"),
        symbols=tuple(symbol.name for symbol in symbols if symbol.name),
        undefined=tuple(s.name for s in symbols if s.name and s["st_shndx"] == "SHN_UNDEF"),
    )


def count_text(data: bytes) -> int:
    """Return how many bytes of code a module's file has."""
    return sum(
        int(section["sh_size"])
        for section in ELFFile(BytesIO(data)).iter_sections()
        if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR
    )


def read_section(path: Path, name: str) -> bytes:
    """Return the content of a file's section, empty where it has none.

    Raises:
        BuildError: It is not an ELF file.
    """
    try:
        with path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(name)
            return bytes(section.data()) if section is not None else b""
    except ELFError as error:
        raise BuildError(f"{path} is not an ELF file: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A function of a module's file."""

    section: str
    # Bytes from the section's begin.
    value: int


def parse_functions(data: bytes) -> dict[str, Symbol]:
    """Return the functions of a module's file by name."""
    elf = ELFFile(BytesIO(data))
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return {}
    return {
        symbol.name: Symbol(
            section=elf.get_section(symbol["st_shndx"]).name, value=symbol["st_value"]
        )
        for symbol in table.iter_symbols()
        if symbol["st_info"]["type"] == "STT_FUNC" and isinstance(symbol["st_shndx"], int)
    }


#: Where code or data refers to a function; what else does is of use to the kernel or to gdb alone.
_REFERRING = re.compile(r"\.(?:text|init|exit|data|rodata|gnu\.linkonce)")


def _iter_relocations(elf: ELFFile) -> Iterator[tuple[Any, Any]]:
    """Yield (the section that is filled in, relocation) of a whole file."""
    for section in elf.iter_sections():
        if isinstance(section, RelocationSection):
            target = elf.get_section(section["sh_info"])
            yield from ((target, relocation) for relocation in section.iter_relocations())


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The bytes of a function in a section: from begin, up to end."""

    section: str
    begin: int
    end: int


def parse_unused(data: bytes) -> tuple[Span, ...]:
    """Return the public functions of a module's file that nothing in it refers to.

    A compiler that has put a function into all of its callers leaves it behind when it is public,
    and nobody ever calls it. Of one that is not, a caller beside it needs no relocation.
    """
    elf = ELFFile(BytesIO(data))
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return ()
    named = {
        relocation["r_info_sym"]
        for section, relocation in _iter_relocations(elf)
        if _REFERRING.match(section.name)
    }
    return tuple(
        Span(
            section=elf.get_section(symbol["st_shndx"]).name,
            begin=symbol["st_value"],
            end=symbol["st_value"] + symbol["st_size"],
        )
        for number, symbol in enumerate(table.iter_symbols())
        if symbol["st_info"]["type"] == "STT_FUNC"
        and isinstance(symbol["st_shndx"], int)
        and symbol["st_info"]["bind"] == "STB_GLOBAL"
        and number not in named
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A place in a module's code that names another function."""

    section: str
    # Bytes from the section's begin to what is filled in when the module is loaded.
    offset: int
    target: str


def parse_calls(data: bytes) -> tuple[Call, ...]:
    """Return what a module's functions name, by the relocations of its code."""
    elf = ELFFile(BytesIO(data))
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return ()
    return tuple(
        Call(
            section=section.name,
            offset=relocation["r_offset"],
            target=table.get_symbol(relocation["r_info_sym"]).name,
        )
        for section, relocation in _iter_relocations(elf)
        if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR
    )


# -- what it needs -----------------------------------------------------------------------------


def plan_load_order(
    depends: Mapping[str, tuple[str, ...]], wanted: tuple[str, ...]
) -> tuple[str, ...]:
    """Return wanted modules and what they depend on, each after what it needs.

    Of modules that depend on each other, one comes too early.

    Args:
        depends: For each module that is a file, the modules it names in its .modinfo.
        wanted: The modules to load.
    """
    order: list[str] = []
    seen: set[str] = set()

    def add(name: str) -> None:
        if name in seen or name not in depends:
            return
        seen.add(name)
        for needed in depends[name]:
            add(needed)
        order.append(name)

    for name in wanted:
        add(name)
    return tuple(order)


def read_load_order(
    paths: Mapping[str, Path], wanted: tuple[str, ...]
) -> tuple[tuple[Path, bytes], ...]:
    """Return (path, content) of wanted modules and of what they depend on, in load order.

    Args:
        paths: The file of each module that is one, by the kernel's name of it.
        wanted: The modules to load.

    Returns:
        Each file once, decompressed.
    """
    texts: dict[str, bytes] = {}
    depends: dict[str, tuple[str, ...]] = {}

    def read(name: str) -> None:
        if name in depends or name not in paths:
            return
        texts[name] = decompress(paths[name])
        depends[name] = parse_module(texts[name]).find_depends()
        for needed in depends[name]:
            read(needed)

    for name in wanted:
        read(name)
    return tuple((paths[name], texts[name]) for name in plan_load_order(depends, wanted))


def decompress(path: Path) -> bytes:
    """Return a module's file, decompressed."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


# -- what a kernel has for it ------------------------------------------------------------------


def parse_exports(text: str) -> tuple[str, ...]:
    """Return the symbols that a generated ``exports_*_generated.h`` exports."""
    return tuple(re.findall(r"^EXPORT_SYMBOL_RUST_GPL\((\w+)\);", text, re.MULTILINE))


def read_exports(build_dir: Path) -> tuple[str, ...]:
    """Return the symbols that a built tree's crates export; none in one without Rust."""
    headers = sorted((build_dir / "rust").glob("exports_*_generated.h"))
    return tuple(name for path in headers for name in parse_exports(path.read_text()))


def compare_symbols(exports: tuple[str, ...], symvers: str) -> tuple[str, ...]:
    """Return the exported symbols that a kernel's Module.symvers does not have.

    A missing name shows another set of exports, crate name or rustc. That none is missing shows
    no more than the same ones: neither configuration nor source is part of a name.
    """
    known = {line.split("\t")[1] for line in symvers.splitlines() if "\t" in line}
    return tuple(symbol for symbol in exports if symbol not in known)
