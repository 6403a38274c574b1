# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel module's file says of it."""

import struct
from pathlib import Path


def read_modinfo(ko_path: Path) -> dict[str, list[str]]:
    """Return the fields of a module's file, each with its values in the file's order."""
    fields: dict[str, list[str]] = {}
    for entry in filter(None, read_section(ko_path.read_bytes(), b".modinfo").split(b"\0")):
        key, _, value = entry.decode().partition("=")
        fields.setdefault(key, []).append(value)
    return fields


def read_section(elf: bytes, name: bytes) -> bytes:
    """Return a section of a 64-bit little-endian ELF file.

    Done here because to import a library for it takes longer, when emulated, than many tests.

    Raises:
        LookupError: There is no section of that name.

    Source: elf(5): Elf64_Ehdr, Elf64_Shdr.
    """
    table, entry_size, count, names_index = struct.unpack_from("<40xQ10xHHH", elf)
    headers = [
        struct.unpack_from("<I20xQQ", elf, table + index * entry_size) for index in range(count)
    ]
    names = headers[names_index][1]
    for name_offset, offset, size in headers:
        if elf.startswith(name + b"\0", names + name_offset):
            return elf[offset : offset + size]
    raise LookupError(name.decode())
