# SPDX-License-Identifier: GPL-2.0-only
"""Where two files that should be the same differ, down through archives."""

import io
import zipfile
from pathlib import Path

import pytest

from twinmod.base import archives, process
from twinmod.base.archives import File
from twinmod.base.process import Command
from twinmod.release import differing


def refuse(data: bytes) -> bytes:
    raise AssertionError(f"nothing here is zstd: {data[:8]!r}")


def find(before: dict[str, bytes], now: dict[str, bytes]) -> list[str]:
    return [d.render() for d in differing.find_differences(before, now, refuse)]


def pack(path: str, content: bytes, epoch: int = 7) -> bytes:
    return archives.plan_tar((File(path=path, content=content),), epoch)


def test_what_is_the_same_differs_nowhere() -> None:
    assert find({"a": pack("x", b"1")}, {"a": pack("x", b"1")}) == []


def test_a_file_that_only_one_side_has_is_named() -> None:
    assert find({"a": b"", "b": b""}, {"b": b"", "c": b""}) == [
        "a: is there before and not now",
        "c: is there now and not before",
    ]


def test_a_line_of_a_text_in_a_tar_in_a_tar_is_found() -> None:
    old, new = (
        pack("data.tar.gz", archives.compress_gzip(pack("doc/built", b"one\n" + line + b"\n")))
        for line in (b"built at 12:00", b"built at 12:01")
    )
    (line,) = find({"p.tar": old}, {"p.tar": new})
    assert line == (
        "p.tar > data.tar.gz > doc/built: line 2: 'built at 12:00' before, 'built at 12:01' now"
    )


def test_the_time_of_a_member_is_a_difference_of_its_own() -> None:
    (line,) = find({"p.tar": pack("x", b"1", 7)}, {"p.tar": pack("x", b"1", 8)})
    assert line.startswith("p.tar > x: ")
    assert "time 7 before" in line
    assert line.endswith("time 8 now")


def test_archives_whose_members_are_the_same_still_differ() -> None:
    tar = pack("x", b"1")
    (line,) = find({"p": archives.compress_gzip(tar)}, {"p": archives.compress_gzip(tar) + b"\0"})
    assert "the members are the same" in line
    assert "byte 0x" in line


def test_a_wheel_is_opened(tmp_path: Path) -> None:
    def wheel(content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(zipfile.ZipInfo("m/version.py"), content)
        return stream.getvalue()

    (line,) = find({"w.whl": wheel(b"v = 1\n")}, {"w.whl": wheel(b"v = 2\n")})
    assert line == "w.whl > m/version.py: line 1: 'v = 1' before, 'v = 2' now"


def test_a_deb_is_opened() -> None:
    def deb(content: bytes) -> bytes:
        data = pack("usr/x", content)
        header = f"{'data.tar/':<16}{7:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
        return differing.AR_MAGIC + header.encode() + data

    (line,) = find({"p.deb": deb(b"1")}, {"p.deb": deb(b"2")})
    assert line == "p.deb > data.tar > usr/x: line 1: '1' before, '2' now"


@pytest.mark.skipif(process.find_program("gcc") is None, reason="this host has no compiler")
def test_a_byte_of_an_object_file_is_told_with_its_section(tmp_path: Path) -> None:
    source_path, object_path = tmp_path / "a.c", tmp_path / "a.o"
    objects = []
    for text in ("one", "two"):
        source_path.write_text(f'const char built[] = "\\001 built at {text}";\n')
        argv = ("gcc", "-c", "-o", str(object_path), str(source_path))
        process.run(Command(argv=argv, purpose="object", timeout_s=60))
        objects.append(object_path.read_bytes())
    (line,) = find({"a.o": objects[0]}, {"a.o": objects[1]})
    assert "in section .rodata" in line
    assert "built at one" in line
    assert "built at two" in line
