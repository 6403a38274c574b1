# SPDX-License-Identifier: GPL-2.0-only
"""Where two files that should be the same differ: down through archives, to a line. Pure."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

#: RFC 8878
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: deb(5)
AR_MAGIC = b"!<arch>\n"
ELF_MAGIC = b"\x7fELF"

#: How many bytes on either side of a difference are shown, and how much of a line.
SHOWN_BYTES = 16
SHOWN_TEXT = 100

#: How deep archives lie in archives: a module in a tar in a deb, and some more.
DEEPEST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A place where two files differ."""

    # The file, and the members of archives on the way: ("a.deb", "data.tar.gz", "usr/x").
    path: tuple[str, ...]
    # What differs there, in words, with both.
    where: str

    def render(self) -> str:
        """Return it as a line."""
        return f"{' > '.join(self.path)}: {self.where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """What an archive says of a member, and what is in it."""

    about: str
    content: bytes


def find_differences(
    before: Mapping[str, bytes], now: Mapping[str, bytes], decompress: Callable[[bytes], bytes]
) -> tuple[Difference, ...]:
    """Return where files of the same names differ, and which only one side has.

    Args:
        before: Content by name.
        now: The same.
        decompress: Returns what zstd made smaller.
    """
    return tuple(_compare_sets(before, now, (), decompress))


def _compare_sets(
    before: Mapping[str, bytes],
    now: Mapping[str, bytes],
    path: tuple[str, ...],
    decompress: Callable[[bytes], bytes],
) -> Iterator[Difference]:
    for name in sorted({*before, *now}):
        here = (*path, name)
        if name not in now:
            yield Difference(path=here, where="is there before and not now")
        elif name not in before:
            yield Difference(path=here, where="is there now and not before")
        elif before[name] != now[name]:
            yield from _compare_content(before[name], now[name], here, decompress)


def _compare_content(
    before: bytes, now: bytes, path: tuple[str, ...], decompress: Callable[[bytes], bytes]
) -> Iterator[Difference]:
    old, new = (_parse_members(data, decompress) for data in (before, now))
    if old is None or new is None or len(path) > DEEPEST:
        yield Difference(path=path, where=_describe(before, now))
        return
    about = [
        Difference(path=(*path, name), where=f"{old[name].about} before, {new[name].about} now")
        for name in old
        if name in new and old[name].about != new[name].about
    ]
    inside = list(
        _compare_sets(
            {name: member.content for name, member in old.items()},
            {name: member.content for name, member in new.items()},
            path,
            decompress,
        )
    )
    yield from (*about, *inside)
    if not about and not inside:
        yield Difference(path=path, where=f"the members are the same; {_describe(before, now)}")


def _parse_members(data: bytes, decompress: Callable[[bytes], bytes]) -> dict[str, _Member] | None:
    """Return the members of an archive, None for what is none."""
    if data.startswith(ZSTD_MAGIC):
        data = decompress(data)
    if data.startswith(AR_MAGIC):
        return dict(_iterate_ar(data))
    stream = io.BytesIO(data)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            return {
                info.filename: _Member(
                    about=f"{stat.filemode(info.external_attr >> 16)} {info.date_time}",
                    content=archive.read(info),
                )
                for info in archive.infolist()
            }
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {member.name: _read_member(tar, member) for member in tar}
    except tarfile.TarError:
        return None


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    about = (
        f"{stat.filemode(member.mode)} {member.uname}({member.uid}) {member.gname}({member.gid}) "
        f"time {member.mtime}"
    )
    stream = tar.extractfile(member) if member.isfile() else None
    return _Member(about=about, content=stream.read() if stream else member.linkname.encode())


def _iterate_ar(data: bytes) -> Iterator[tuple[str, _Member]]:
    """Yield the members of an ar archive: a header of 60 bytes, then content, padded to even."""
    at = len(AR_MAGIC)
    while at + 60 <= len(data):
        header = data[at : at + 60].decode("ascii", "replace")
        size = int(header[48:58])
        content = data[at + 60 : at + 60 + size]
        yield header[:16].strip().rstrip("/"), _Member(about=header[16:48].strip(), content=content)
        at += 60 + size + size % 2


# -- what differs -----------------------------------------------------------------------------


def _find_first(before: bytes, now: bytes) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b),
        min(len(before), len(now)),
    )


def _describe(before: bytes, now: bytes) -> str:
    """Return in words where two contents first differ."""
    at = _find_first(before, now)
    text = _describe_text(before, now)
    if text:
        return text
    section = find_section(before, at) if before.startswith(ELF_MAGIC) else ""
    place = f"byte {at:#x}" + (f", in section {section}" if section else "")
    old, new = (data[max(0, at - SHOWN_BYTES) : at + SHOWN_BYTES] for data in (before, now))
    sizes = "" if len(before) == len(now) else f"; {len(before)} bytes before, {len(now)} now"
    return f"{place}: {old!r} before, {new!r} now{sizes}"


def _describe_text(before: bytes, now: bytes) -> str:
    """Return the first line in which two texts differ, "" for what is no text."""
    if b"\0" in before or b"\0" in now:
        return ""
    try:
        old, new = before.decode().splitlines(), now.decode().splitlines()
    except UnicodeDecodeError:
        return ""
    for number, (a, b) in enumerate(zip(old, new, strict=False), 1):
        if a != b:
            return f"line {number}: {a[:SHOWN_TEXT]!r} before, {b[:SHOWN_TEXT]!r} now"
    return f"{len(old)} lines before, {len(new)} now"


def find_section(data: bytes, at: int) -> str:
    """Return the section of an ELF file that a byte lies in, "" for none."""
    try:
        for section in ELFFile(io.BytesIO(data)).iter_sections():
            begin, size = section["sh_offset"], section["sh_size"]
            if section["sh_type"] != "SHT_NOBITS" and begin <= at < begin + size:
                return str(section.name)
    except (ELFError, ValueError):
        return ""
    return ""
