# SPDX-License-Identifier: GPL-2.0-only
"""Steps as system calls on a device, and what they answered: the VM's side of the differential."""

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from contract import PAGE
from differential.steps import (
    CLIFF,
    CLIFF_PAGES,
    FILES,
    MAPPINGS,
    Answer,
    Arguments,
    Rights,
    Step,
    make_data,
    split,
    tell,
)
from twinmod.guest.testing.memory import PROT_NONE, PROT_READ, PROT_WRITE, Mapping, Memory

if TYPE_CHECKING:
    from mdriver_tester_c import Device


def execute(path: Path, tester: Any, size: int, steps: Iterable[Step]) -> list[Answer]:
    """Carry out steps on a device that is made all zero first; return what they answered.

    The answers are followed by those about what is left at the end.
    """
    with tester.Device(path) as whole:
        whole.pwrite(bytes(size), 0)
        execution = Execution(path, tester)
        try:
            answers = [execution.apply(name, arguments) for name, arguments in steps]
            return [*answers, *execution.finish(whole.pread(size + PAGE, 0))]
        finally:
            execution.close()


class Execution:
    """Open files and mappings of one device; its methods have the names of the steps."""

    def __init__(self, path: Path, tester: Any) -> None:
        self.path = path
        self.tester = tester
        self.files: list[Device] = [tester.Device(path) for _ in range(FILES)]
        self.mappings: list[Mapping | None] = [None] * MAPPINGS
        # The buffer of a step that is told of when the step is refused, too.
        self.buffer = b""

    def apply(self, name: str, arguments: Arguments) -> Answer:
        """Carry out one step; return what it answered."""
        code, self.buffer = 0, b""
        try:
            result, data = getattr(self, f"_{name}")(**arguments)
        except OSError as error:
            result, code, data = -1, error.errno or 0, self.buffer
        except LookupError as error:
            return (-1, 0, -1, str(error))
        position = self._find_position(arguments["file"]) if "file" in arguments else -1
        return (result, code, position, data if isinstance(data, str) else tell(data))

    def finish(self, contents: bytes) -> tuple[Answer, ...]:
        """Return what is there at the end: positions, the device, and each mapping."""
        shown = [contents]
        shown += [mapping[: mapping.length] for mapping in self.mappings if mapping]
        positions = str([self._find_position(file) for file in range(FILES)])
        return ((0, 0, -1, positions), *((len(data), 0, -1, tell(data)) for data in shown))

    def close(self) -> None:
        """Give everything back."""
        for mapping in self.mappings:
            if mapping:
                mapping.unmap()
        for file in self.files:
            file.close()

    def _find_position(self, file: int) -> int:
        return self.files[file].lseek(0, os.SEEK_CUR)

    # -- files --------------------------------------------------------------------------------

    def _open(self, file: int, flags: int) -> tuple[int, bytes]:
        # A call that is refused leaves the file that there was, as in the model.
        opened = self.tester.Device(self.path, flags)
        self.files[file].close()
        self.files[file] = opened
        return 0, b""

    def _duplicate(self, file: int, source: int) -> tuple[int, bytes]:
        if file != source:
            os.dup2(self.files[source].fd, self.files[file].fd)
        return 0, b""

    def _read(self, file: int, size: int) -> tuple[int, bytes]:
        data = self.files[file].read(size)
        return len(data), data

    def _write(self, file: int, seed: int, size: int) -> tuple[int, bytes]:
        return self.files[file].write(make_data(seed, size)), b""

    def _pread(self, file: int, size: int, offset: int) -> tuple[int, bytes]:
        data = self.files[file].pread(size, offset)
        return len(data), data

    def _pwrite(self, file: int, seed: int, size: int, offset: int) -> tuple[int, bytes]:
        return self.files[file].pwrite(make_data(seed, size), offset), b""

    def _readv(self, file: int, sizes: list[int]) -> tuple[int, bytes]:
        buffers = [bytearray(size) for size in sizes]
        moved = os.readv(self.files[file].fd, buffers)
        return moved, b"".join(buffers)[:moved]

    def _writev(self, file: int, seed: int, sizes: list[int]) -> tuple[int, bytes]:
        return os.writev(self.files[file].fd, split(make_data(seed, sum(sizes)), sizes)), b""

    def _preadv(self, file: int, sizes: list[int], offset: int, flags: int) -> tuple[int, bytes]:
        buffers = [bytearray(size) for size in sizes]
        moved = os.preadv(self.files[file].fd, buffers, offset, flags)
        return moved, b"".join(buffers)[:moved]

    def _pwritev(
        self, file: int, seed: int, sizes: list[int], offset: int, flags: int
    ) -> tuple[int, bytes]:
        buffers = split(make_data(seed, sum(sizes)), sizes)
        return os.pwritev(self.files[file].fd, buffers, offset, flags), b""

    def _seek(self, file: int, offset: int, whence: int) -> tuple[int, bytes]:
        return self.files[file].lseek(offset, whence), b""

    # -- ioctl --------------------------------------------------------------------------------

    def _size(self, file: int) -> tuple[int, bytes]:
        return self.files[file].size(), b""

    def _clear(self, file: int) -> tuple[int, bytes]:
        self.files[file].clear()
        return 0, b""

    def _add(self, file: int, offset: int, delta: int) -> tuple[int, str]:
        return 0, str(self.files[file].add(offset, delta))

    def _add_unanswered(self, file: int, offset: int, delta: int) -> tuple[int, bytes]:
        memory = Memory(1)
        memory.map[:16] = offset.to_bytes(8, "little") + delta.to_bytes(8, "little")
        memory.protect(0, PROT_READ)
        return self.files[file].ioctl(self.tester.IOC_ADD, memory.address), b""

    def _command(self, file: int, number: int) -> tuple[int, bytes]:
        return self.files[file].ioctl(number), b""

    # -- calls for files on a disk --------------------------------------------------------------

    def _sync(self, file: int, data_only: bool) -> tuple[int, bytes]:
        (os.fdatasync if data_only else os.fsync)(self.files[file].fd)
        return 0, b""

    def _truncate(self, file: int, size: int) -> tuple[int, bytes]:
        os.ftruncate(self.files[file].fd, size)
        return 0, b""

    def _allocate(self, file: int, offset: int, size: int) -> tuple[int, bytes]:
        os.posix_fallocate(self.files[file].fd, offset, size)
        return 0, b""

    # -- bad addresses ------------------------------------------------------------------------

    def _command_bad(self, file: int, number: int, address: int) -> tuple[int, bytes]:
        return self.files[file].ioctl(number, address), b""

    def _pread_bad(self, file: int, address: int, size: int, offset: int) -> tuple[int, bytes]:
        return self.files[file].pread_to(address, size, offset), b""

    def _pwrite_bad(self, file: int, address: int, size: int, offset: int) -> tuple[int, bytes]:
        return self.files[file].pwrite_from(address, size, offset), b""

    def _read_cliff(
        self, file: int, good: int, size: int, offset: int | None, readonly: bool
    ) -> tuple[int, bytes]:
        memory, device = make_cliff(readonly), self.files[file]
        address = memory.address + CLIFF - good
        try:
            if offset is None:
                moved = device.read_to(address, size)
            else:
                moved = device.pread_to(address, size, offset)
        finally:
            self.buffer = memory.map[:CLIFF]
        return moved, self.buffer

    def _write_cliff(
        self, file: int, good: int, size: int, offset: int | None, readonly: bool
    ) -> tuple[int, bytes]:
        memory, device = make_cliff(readonly), self.files[file]
        address = memory.address + CLIFF - good
        if offset is None:
            return device.write_from(address, size), b""
        return device.pwrite_from(address, size, offset), b""

    # -- splice -------------------------------------------------------------------------------

    def _send_out(self, file: int, size: int, offset: int | None) -> tuple[int, bytes]:
        target = os.memfd_create("target")
        try:
            moved = os.sendfile(target, self.files[file].fd, offset, size)
            return moved, os.pread(target, size + PAGE, 0)
        finally:
            os.close(target)

    def _send_in(self, file: int, seed: int, size: int) -> tuple[int, bytes]:
        source = os.memfd_create("source")
        try:
            os.write(source, make_data(seed, size))
            return os.sendfile(self.files[file].fd, source, 0, size), b""
        finally:
            os.close(source)

    def _copy(self, file: int, target: int, size: int, offset: int | None) -> tuple[int, bytes]:
        return os.sendfile(self.files[target].fd, self.files[file].fd, offset, size), b""

    def _splice_out(self, file: int, size: int, offset: int | None) -> tuple[int, bytes]:
        reader, writer = os.pipe()
        try:
            moved = os.splice(self.files[file].fd, writer, size, offset_src=offset)
            os.close(writer)
            writer = -1
            return moved, drain(reader)
        finally:
            close_pipe(reader, writer)

    def _splice_in(self, file: int, seed: int, size: int, offset: int | None) -> tuple[int, bytes]:
        reader, writer = os.pipe()
        try:
            os.write(writer, make_data(seed, size))
            moved = os.splice(reader, self.files[file].fd, size, offset_dst=offset)
            os.close(writer)
            writer = -1
            return moved, drain(reader)
        finally:
            close_pipe(reader, writer)

    # -- mappings -----------------------------------------------------------------------------

    def _map(
        self, mapping: int, file: int, page: int, size: int, **rights: Unpack[Rights]
    ) -> tuple[int, bytes]:
        self._unmap(mapping)
        flags = mmap.MAP_PRIVATE if rights["private"] else mmap.MAP_SHARED
        protection = PROT_READ | PROT_WRITE if rights["writable"] else PROT_READ
        length = (size + PAGE - 1) // PAGE * PAGE
        made = Mapping(self.files[file].fd, length, page * PAGE, flags, protection)
        self.mappings[mapping] = made
        return 0, b""

    def _unmap(self, mapping: int) -> tuple[int, bytes]:
        made, self.mappings[mapping] = self.mappings[mapping], None
        if made:
            made.unmap()
        return 0, b""

    def _find(self, mapping: int) -> Mapping:
        made = self.mappings[mapping]
        if made is None:
            raise LookupError(f"there is no mapping {mapping}: an earlier answer was wrong")
        return made

    def _load(self, mapping: int, at: int, size: int) -> tuple[int, bytes]:
        return size, self._find(mapping)[at : at + size]

    def _store(self, mapping: int, at: int, seed: int, size: int) -> tuple[int, bytes]:
        self._find(mapping)[at : at + size] = make_data(seed, size)
        return size, b""

    def _read_into_mapping(
        self, file: int, mapping: int, at: int, size: int, offset: int
    ) -> tuple[int, bytes]:
        address = self._find(mapping).address + at
        return self.files[file].pread_to(address, size, offset), b""

    def _write_from_mapping(
        self, file: int, mapping: int, at: int, size: int, offset: int
    ) -> tuple[int, bytes]:
        address = self._find(mapping).address + at
        return self.files[file].pwrite_from(address, size, offset), b""


def make_cliff(readonly: bool) -> Memory:
    """Return memory of which the second half can only be read, or not even that."""
    memory = Memory(2 * CLIFF_PAGES)
    memory.map[:] = make_data(0, 2 * CLIFF)
    memory.protect(CLIFF_PAGES, PROT_READ if readonly else PROT_NONE, pages=CLIFF_PAGES)
    return memory


def drain(reader: int) -> bytes:
    """Return what is left in a pipe that nobody writes to any more."""
    parts = []
    while part := os.read(reader, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def close_pipe(reader: int, writer: int) -> None:
    """Close the ends that are open."""
    os.close(reader)
    if writer >= 0:
        os.close(writer)
