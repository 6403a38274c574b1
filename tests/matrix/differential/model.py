# SPDX-License-Identifier: GPL-2.0-only
"""The device as DEVICE.md promises it, as a bytearray: what each step must answer."""

import errno
import os
from typing import Unpack

from contract import FIGETBSZ, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, PAGE
from differential.steps import (
    CLIFF,
    FILES,
    MAPPINGS,
    PIPE,
    Answer,
    Arguments,
    Rights,
    Step,
    make_data,
    tell,
)

OFFSET_MAX = (1 << 63) - 1


class OpenFile:
    """An open file description: the way it was opened, and its position."""

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.position = 0

    @property
    def readable(self) -> bool:
        """Whether it may be read."""
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writable(self) -> bool:
        """Whether it may be written to."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY


class Area:
    """A mapping: which pages of the device, and copies of those that are its own (R17)."""

    def __init__(self, start: int, length: int, *, private: bool, writable: bool) -> None:
        self.start = start
        self.length = length
        self.private = private
        self.writable = writable
        self.copies: dict[int, bytearray] = {}


def refuse(code: int) -> OSError:
    """Return the error that a call fails with."""
    return OSError(code, os.strerror(code))


def spans(offset: int, size: int) -> list[tuple[int, int]]:
    """Return (offset, size) of the parts of a range, page by page."""
    parts = []
    while size:
        part = min(size, PAGE - offset % PAGE)
        parts.append((offset, part))
        offset += part
        size -= part
    return parts


class Model:
    """A device of some bytes, all zero, with its files open for reading and writing."""

    def __init__(self, size: int) -> None:
        self.contents = bytearray(size)
        self.files = [OpenFile(os.O_RDWR) for _ in range(FILES)]
        self.mappings: list[Area | None] = [None] * MAPPINGS
        # The buffer of a step that is told of when the step is refused, too.
        self.buffer = b""

    # -- steps --------------------------------------------------------------------------------

    def plan(self, step: Step) -> Step | None:
        """Return a step as it can be carried out now; None: it means nothing, or no promise."""
        name, arguments = step
        if "mapping" not in arguments or name == "map":
            return None if name == "copy" and self._is_muddled(arguments) else step
        index, mapping = self._choose(arguments["mapping"])
        if mapping is None or (name == "store" and not mapping.writable):
            return None
        fitted = {**arguments, "mapping": index}
        if name == "unmap":
            return (name, fitted)
        fitted["at"] = arguments["at"] % mapping.length
        fitted["size"] = min(arguments["size"], mapping.length - fitted["at"])
        if name == "read_into_mapping" and self._overlaps(mapping, fitted):
            return None
        return (name, fitted)

    def apply(self, step: Step) -> Answer:
        """Carry out a step that plan() returned; return what it must answer."""
        name, arguments = step
        code, self.buffer = 0, b""
        try:
            result, data = getattr(self, f"_{name}")(**arguments)
        except OSError as error:
            result, code, data = -1, error.errno or 0, self.buffer
        position = self.files[arguments["file"]].position if "file" in arguments else -1
        return (result, code, position, data if isinstance(data, str) else tell(data))

    def finish(self) -> tuple[Answer, ...]:
        """Return what must be there at the end: positions, the device, and each mapping."""
        shown = [bytes(self.contents)]
        shown += [self._show(mapping, 0, mapping.length) for mapping in self.mappings if mapping]
        positions = str([file.position for file in self.files])
        return ((0, 0, -1, positions), *((len(data), 0, -1, tell(data)) for data in shown))

    def _choose(self, index: int) -> tuple[int, Area | None]:
        """Return a mapping, or another one when it is not there; and which it is."""
        for other in (index, *range(MAPPINGS)):
            if self.mappings[other]:
                return other, self.mappings[other]
        return index, None

    def _is_muddled(self, arguments: Arguments) -> bool:
        """Tell whether a copy within the device depends on how the kernel cuts it into parts."""
        source, target = self.files[arguments["file"]], self.files[arguments["target"]]
        if source is target:
            return True
        offset: int = source.position if arguments["offset"] is None else arguments["offset"]
        size: int = arguments["size"]
        return offset < target.position + size and target.position < offset + size

    def _overlaps(self, mapping: Area, arguments: Arguments) -> bool:
        """Tell whether a read goes to the bytes that it reads (R17)."""
        start, offset = mapping.start + arguments["at"], arguments["offset"]
        size: int = arguments["size"]
        return not mapping.private and start < offset + size and offset < start + size

    # -- memory -------------------------------------------------------------------------------

    def _take(self, position: int, count: int) -> bytes:
        """R4."""
        return bytes(self.contents[position : position + count])

    def _left(self, position: int, count: int) -> int:
        """R5: how many bytes fit."""
        if not count:
            return 0
        if position >= len(self.contents):
            raise refuse(errno.ENOSPC)
        return min(count, len(self.contents) - position)

    def _put(self, position: int, data: bytes) -> int:
        count = self._left(position, len(data))
        self.contents[position : position + count] = data[:count]
        return count

    def _require(self, file: int, *, write: bool, offset: int = 0, count: int = 0) -> OpenFile:
        """The kernel's own checks, in its order."""
        opened = self.files[file]
        if not (opened.writable if write else opened.readable):
            raise refuse(errno.EBADF)
        if count and offset + count > OFFSET_MAX:
            raise refuse(errno.EINVAL)
        return opened

    # -- files --------------------------------------------------------------------------------

    def _open(self, file: int, flags: int) -> tuple[int, bytes]:
        self.files[file] = OpenFile(flags)
        return 0, b""

    def _duplicate(self, file: int, source: int) -> tuple[int, bytes]:
        self.files[file] = self.files[source]
        return 0, b""

    def _read(self, file: int, size: int) -> tuple[int, bytes]:
        opened = self._require(file, write=False)
        data = self._take(opened.position, size)
        opened.position += len(data)
        return len(data), data

    def _write(self, file: int, seed: int, size: int) -> tuple[int, bytes]:
        opened = self._require(file, write=True)
        count = self._put(opened.position, make_data(seed, size))
        opened.position += count
        return count, b""

    def _pread(self, file: int, size: int, offset: int) -> tuple[int, bytes]:
        if offset < 0:
            raise refuse(errno.EINVAL)
        self._require(file, write=False, offset=offset, count=size)
        data = self._take(offset, size)
        return len(data), data

    def _pwrite(self, file: int, seed: int, size: int, offset: int) -> tuple[int, bytes]:
        if offset < 0:
            raise refuse(errno.EINVAL)
        self._require(file, write=True, offset=offset, count=size)
        return self._put(offset, make_data(seed, size)), b""

    def _readv(self, file: int, sizes: list[int]) -> tuple[int, bytes]:
        return self._read(file, sum(sizes))

    def _writev(self, file: int, seed: int, sizes: list[int]) -> tuple[int, bytes]:
        return self._write(file, seed, sum(sizes))

    def _preadv(self, file: int, sizes: list[int], offset: int, flags: int) -> tuple[int, bytes]:
        self._require(file, write=False, offset=offset, count=sum(sizes))
        if flags and sum(sizes):
            raise refuse(errno.EOPNOTSUPP)
        return self._pread(file, sum(sizes), offset)

    def _pwritev(
        self, file: int, seed: int, sizes: list[int], offset: int, flags: int
    ) -> tuple[int, bytes]:
        self._require(file, write=True, offset=offset, count=sum(sizes))
        if flags and sum(sizes):
            raise refuse(errno.EOPNOTSUPP)
        return self._pwrite(file, seed, sum(sizes), offset)

    def _seek(self, file: int, offset: int, whence: int) -> tuple[int, bytes]:
        opened = self.files[file]
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: opened.position, os.SEEK_END: len(self.contents)}
        if whence not in bases or not 0 <= bases[whence] + offset <= len(self.contents):
            raise refuse(errno.EINVAL)
        opened.position = bases[whence] + offset
        return opened.position, b""

    # -- ioctl --------------------------------------------------------------------------------

    def _size(self, file: int) -> tuple[int, bytes]:
        del file
        return len(self.contents), b""

    def _clear(self, file: int) -> tuple[int, bytes]:
        del file
        self.contents[:] = bytes(len(self.contents))
        return 0, b""

    def _add(self, file: int, offset: int, delta: int) -> tuple[int, str]:
        del file
        return 0, str(self._sum_up(offset, delta))

    def _add_unanswered(self, file: int, offset: int, delta: int) -> tuple[int, bytes]:
        """The argument is read-only: the sum stays added (R14)."""
        del file
        self._sum_up(offset, delta)
        raise refuse(errno.EFAULT)

    def _sum_up(self, offset: int, delta: int) -> int:
        if offset % 8 or offset >= len(self.contents):
            raise refuse(errno.EINVAL)
        before = int.from_bytes(self.contents[offset : offset + 8], "little")
        after = (before + delta) % (1 << 64)
        self.contents[offset : offset + 8] = after.to_bytes(8, "little")
        return before

    def _command(self, file: int, number: int) -> tuple[int, bytes]:
        """R14; the argument is not an address."""
        del file
        if number in (FIOCLEX, FIONCLEX):
            return 0, b""
        raise refuse(errno.EFAULT if number in (FIONBIO, FIOASYNC, FIGETBSZ) else errno.ENOTTY)

    # -- calls for files on a disk --------------------------------------------------------------

    def _sync(self, file: int, data_only: bool) -> tuple[int, bytes]:
        """R25."""
        del file, data_only
        raise refuse(errno.EINVAL)

    def _truncate(self, file: int, size: int) -> tuple[int, bytes]:
        """R25."""
        del file, size
        raise refuse(errno.EINVAL)

    def _allocate(self, file: int, offset: int, size: int) -> tuple[int, bytes]:
        """R25."""
        del offset, size
        self._require(file, write=True)
        raise refuse(errno.ENODEV)

    # -- bad addresses ------------------------------------------------------------------------

    def _command_bad(self, file: int, number: int, address: int) -> tuple[int, bytes]:
        del file, number, address
        raise refuse(errno.EFAULT)

    def _pread_bad(self, file: int, address: int, size: int, offset: int) -> tuple[int, bytes]:
        self._require(file, write=False, offset=offset, count=size)
        if self._take(offset, size):
            raise refuse(errno.EFAULT)
        return 0, b""

    def _pwrite_bad(self, file: int, address: int, size: int, offset: int) -> tuple[int, bytes]:
        del address
        self._require(file, write=True, offset=offset, count=size)
        if self._left(offset, size):
            raise refuse(errno.EFAULT)
        return 0, b""

    def _read_cliff(
        self, file: int, good: int, size: int, offset: int | None, readonly: bool
    ) -> tuple[int, bytes]:
        """A read into a buffer of which only the first bytes can be written to (R9)."""
        self.buffer = make_data(0, CLIFF)
        opened = self._require(file, write=False, offset=offset or 0, count=size)
        wanted = self._take(opened.position if offset is None else offset, size)
        count = min(len(wanted), good)
        if wanted and not count:
            raise refuse(errno.EFAULT)
        if offset is None:
            opened.position += count
        start = CLIFF - good
        return count, self.buffer[:start] + wanted[:count] + self.buffer[start + count :]

    def _write_cliff(
        self, file: int, good: int, size: int, offset: int | None, readonly: bool
    ) -> tuple[int, bytes]:
        """A write from a buffer of which only the first bytes can be read (R9)."""
        opened = self._require(file, write=True, offset=offset or 0, count=size)
        position = opened.position if offset is None else offset
        count = self._left(position, size)
        # What is read-only can be written from.
        reach = size if readonly else good
        if count and not reach:
            raise refuse(errno.EFAULT)
        data = make_data(0, 2 * CLIFF)[CLIFF - good :]
        moved = self._put(position, data[: min(count, reach)])
        if offset is None:
            opened.position += moved
        return moved, b""

    # -- splice -------------------------------------------------------------------------------

    def _send_out(self, file: int, size: int, offset: int | None) -> tuple[int, bytes]:
        """Move from the device to another file: sendfile(2)."""
        opened = self._require(file, write=False)
        data = self._take(opened.position if offset is None else offset, size)
        if offset is None:
            opened.position += len(data)
        return len(data), data

    def _send_in(self, file: int, seed: int, size: int) -> tuple[int, bytes]:
        """Move from another file to the device: sendfile(2)."""
        return self._splice_in(file, seed, size, None)[0], b""

    def _copy(self, file: int, target: int, size: int, offset: int | None) -> tuple[int, bytes]:
        """Move from the device to the device: sendfile(2)."""
        source = self._require(file, write=False)
        opened = self._require(target, write=True)
        if opened.flags & os.O_APPEND:
            raise refuse(errno.EINVAL)
        data = self._take(source.position if offset is None else offset, size)
        moved = self._put(opened.position, data)
        opened.position += moved
        if offset is None:
            source.position += moved
        return moved, b""

    def _splice_out(self, file: int, size: int, offset: int | None) -> tuple[int, bytes]:
        """Move from the device to a pipe: splice(2)."""
        return self._send_out(file, min(size, PIPE), offset)

    def _splice_in(self, file: int, seed: int, size: int, offset: int | None) -> tuple[int, bytes]:
        """Move from a pipe to the device: splice(2); what did not fit is still in the pipe."""
        opened = self._require(file, write=True)
        if opened.flags & os.O_APPEND:
            raise refuse(errno.EINVAL)
        data = make_data(seed, size)
        moved = self._put(opened.position if offset is None else offset, data)
        if offset is None:
            opened.position += moved
        return moved, data[moved:]

    # -- mappings -----------------------------------------------------------------------------

    def _map(
        self, mapping: int, file: int, page: int, size: int, **rights: Unpack[Rights]
    ) -> tuple[int, bytes]:
        self.mappings[mapping] = None
        opened = self.files[file]
        start, length = page * PAGE, (size + PAGE - 1) // PAGE * PAGE
        may_write = opened.flags & os.O_ACCMODE == os.O_RDWR
        shared = rights["writable"] and not rights["private"]
        if not opened.readable or (shared and not may_write):
            raise refuse(errno.EACCES)
        if start + length > len(self.contents):
            raise refuse(errno.EINVAL)
        self.mappings[mapping] = Area(start, length, **rights)
        return 0, b""

    def _unmap(self, mapping: int) -> tuple[int, bytes]:
        self.mappings[mapping] = None
        return 0, b""

    def _find(self, mapping: int) -> Area:
        found = self.mappings[mapping]
        assert found is not None, "plan() lets no step pass that names no mapping"
        return found

    def _show(self, mapping: Area, at: int, size: int) -> bytes:
        """Return what is seen through a mapping."""
        shown = bytearray()
        for offset, count in spans(mapping.start + at, size):
            page, inside = offset // PAGE, offset % PAGE
            own = mapping.copies.get(page)
            shown += own[inside : inside + count] if own else self._take(offset, count)
        return bytes(shown)

    def _change(self, mapping: Area, at: int, data: bytes) -> None:
        """Store through a mapping."""
        for offset, count in spans(mapping.start + at, len(data)):
            part, data = data[:count], data[count:]
            if not mapping.private:
                self.contents[offset : offset + count] = part
                continue
            page, inside = offset // PAGE, offset % PAGE
            own = mapping.copies.setdefault(page, bytearray(self._take(page * PAGE, PAGE)))
            own[inside : inside + count] = part

    def _load(self, mapping: int, at: int, size: int) -> tuple[int, bytes]:
        return size, self._show(self._find(mapping), at, size)

    def _store(self, mapping: int, at: int, seed: int, size: int) -> tuple[int, bytes]:
        self._change(self._find(mapping), at, make_data(seed, size))
        return size, b""

    def _read_into_mapping(
        self, file: int, mapping: int, at: int, size: int, offset: int
    ) -> tuple[int, bytes]:
        self._require(file, write=False, offset=offset, count=size)
        data = self._take(offset, size)
        found = self._find(mapping)
        if data and not found.writable:
            raise refuse(errno.EFAULT)
        self._change(found, at, data)
        return len(data), b""

    def _write_from_mapping(
        self, file: int, mapping: int, at: int, size: int, offset: int
    ) -> tuple[int, bytes]:
        """Page by page of the device (R10): an earlier page can be the source of a later one."""
        self._require(file, write=True, offset=offset, count=size)
        count = self._left(offset, size)
        for start, part in spans(offset, count):
            self._put(start, self._show(self._find(mapping), at + start - offset, part))
        return count, b""
