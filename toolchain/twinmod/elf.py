# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel module's file says of itself: .modinfo, .comment and its symbols."""

from dataclasses import dataclass
from io import BytesIO

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from twinmod.errors import BuildError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFile:
    """The parts of a .ko that twinmod looks at."""

    # (key, value) in the file's order; a key can repeat.
    modinfo: tuple[tuple[str, str], ...]
    # What the compilers signed with, such as "GCC: (Debian 14.2.0-19) 14.2.0".
    comments: tuple[str, ...]
    symbols: tuple[str, ...]

    def find_modinfo(self, key: str) -> str:
        """Return the first value of a modinfo key, "" when there is none."""
        return next((value for name, value in self.modinfo if name == key), "")


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
    symbols = table.iter_symbols() if isinstance(table, SymbolTableSection) else ()
    pairs = (text.partition("=") for text in read_section(".modinfo"))
    return ModuleFile(
        modinfo=tuple((name, value) for name, _, value in pairs),
        comments=read_section(".comment"),
        symbols=tuple(symbol.name for symbol in symbols if symbol.name),
    )
