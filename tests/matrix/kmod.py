# SPDX-License-Identifier: GPL-2.0-only
"""Kernel modules without external programs: load, unload, and what they say."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Source: arch/x86/entry/syscalls/syscall_64.tbl, Linux 7.3.
NR_DELETE_MODULE = 176
NR_FINIT_MODULE = 313

# Longer than any record of the kernel log. Source: CONSOLE_EXT_LOG_MAX, Linux 7.3.
RECORD_SIZE = 8192

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """The kernel module under test."""

    name: str
    # The file that holds it.
    ko_path: Path
    # The node of its device while it is loaded.
    device_path: Path

    @property
    def sysfs_path(self) -> Path:
        """What the kernel shows of it while it is loaded."""
        return Path("/sys/module") / self.name

    def is_loaded(self) -> bool:
        """Return whether the kernel has it."""
        return self.sysfs_path.exists()

    def load(self, parameters: str = "") -> None:
        """Load it with parameters such as ``size=4096``.

        Raises:
            OSError: What finit_module(2) failed with.
        """
        with self.ko_path.open("rb") as file:
            _call(NR_FINIT_MODULE, ctypes.c_int(file.fileno()), parameters.encode(), 0)

    def unload(self) -> None:
        """Unload it, without waiting for its users.

        Raises:
            OSError: What delete_module(2) with O_NONBLOCK failed with.
        """
        _call(NR_DELETE_MODULE, self.name.encode(), os.O_NONBLOCK)


def _call(number: int, *arguments: object) -> None:
    if _libc.syscall(ctypes.c_long(number), *arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


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


class KernelLog:
    """The kernel log from the moment of its making on."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.lseek(descriptor, 0, os.SEEK_END)

    def read_lines(self) -> list[str]:
        """Return the texts of the records that came since, without their prefixes.

        Source: Documentation/ABI/testing/dev-kmsg, Linux 7.3.
        """
        lines = []
        while record := self._read_record():
            lines.append(record.partition(";")[2].splitlines()[0])
        return lines

    def _read_record(self) -> str:
        try:
            return os.read(self.descriptor, RECORD_SIZE).decode(errors="replace")
        except BlockingIOError:
            return ""


@contextmanager
def open_log() -> Iterator[KernelLog]:
    """Open the kernel log at its end."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield KernelLog(descriptor)
    finally:
        os.close(descriptor)
