# SPDX-License-Identifier: GPL-2.0-only
"""Archives that are the same whenever they are made."""

import io
import tarfile
import time
import zipfile

import pytest

from twinmod.base import archives
from twinmod.base.archives import File

FILES = (
    File(path="usr/bin/b", content=b"#!/bin/sh\n", mode=archives.PROGRAM_MODE),
    File(path="usr/a", content=b"text\n"),
)


def test_a_tar_depends_on_its_files_and_their_time_alone() -> None:
    assert archives.plan_tar(FILES, 7) == archives.plan_tar(reversed(FILES), 7)
    assert archives.plan_tar(FILES, 7) != archives.plan_tar(FILES, 8)


def test_a_tar_is_roots_sorted_and_has_every_folder_before_what_is_in_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archives.plan_tar(FILES, 7))) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["usr", "usr/bin", "usr/a", "usr/bin/b"]
    assert [m.mode for m in members] == [0o755, 0o755, 0o644, 0o755]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(7, 0, 0, "root")}


def test_what_was_packed_comes_out_again_compressed_or_not() -> None:
    tar = archives.plan_tar(FILES, 7)
    assert set(archives.parse_tar(tar)) == set(FILES)
    packed = archives.compress_gzip(tar)
    assert set(archives.parse_tar(packed)) == set(FILES)
    assert packed == archives.compress_gzip(tar)


# -- what Python installs ----------------------------------------------------------------------

WHEEL = (
    File(path="x/native.so", content=b"\x7fELF", mode=archives.PROGRAM_MODE),
    File(path="x/__init__.py", content=b""),
    File(path="x-1.dist-info/METADATA", content=b"Name: x\n"),
    File(path="x-1.dist-info/RECORD", content=b"what a backend wrote\n"),
)


def test_a_zip_depends_on_its_files_and_their_time_alone() -> None:
    epoch = 1_780_000_000
    assert archives.plan_zip(WHEEL, epoch) == archives.plan_zip(reversed(WHEEL), epoch)
    assert archives.plan_zip(WHEEL, epoch) != archives.plan_zip(WHEEL, epoch + 2)
    assert archives.plan_zip(WHEEL, 0) == archives.plan_zip(WHEEL, archives.ZIP_EPOCH)


def test_what_was_zipped_comes_out_again_sorted_and_with_its_mode() -> None:
    found = archives.parse_zip(archives.plan_zip(WHEEL, 1_780_000_000))
    assert found == tuple(sorted(WHEEL, key=lambda file: file.path))
    with zipfile.ZipFile(io.BytesIO(archives.plan_zip(WHEEL, 1_780_000_001))) as opened:
        members = opened.infolist()
    assert {member.date_time for member in members} == {(2026, 5, 28, 20, 26, 40)}
    assert {member.external_attr >> 16 for member in members} == {0o100644, 0o100755}


def test_a_time_does_not_depend_on_where_one_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    here = archives.plan_zip(WHEEL, 1_780_000_000)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert archives.plan_zip(WHEEL, 1_780_000_000) == here
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_record_names_every_file_with_its_digest_and_itself_without() -> None:
    record = next(f for f in archives.plan_record(WHEEL) if f.path.endswith("/RECORD"))
    lines = record.content.decode().splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "x-1.dist-info/METADATA",
        "x/__init__.py",
        "x/native.so",
        "x-1.dist-info/RECORD",
    ]
    assert lines[1] == "x/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0"
    assert lines[-1] == "x-1.dist-info/RECORD,,"


@pytest.mark.parametrize("records", [0, 2])
def test_what_has_not_one_record_is_no_wheel(records: int) -> None:
    more = tuple(File(path=f"{n}.dist-info/RECORD", content=b"") for n in range(records))
    with pytest.raises(ValueError, match="unpack"):
        archives.plan_record((*WHEEL[:3], *more))


def test_a_wheel_is_the_same_by_whichever_umask_and_order_it_was_made() -> None:
    made = []
    for mode, files in ((0o600, WHEEL), (0o664, tuple(reversed(WHEEL)))):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as opened:
            for file in files:
                member = zipfile.ZipInfo(file.path, (2000 + mode % 7, 1, 1, 0, 0, 0))
                own = mode | (0o100 if file.mode == archives.PROGRAM_MODE else 0)
                member.external_attr = own << 16
                opened.writestr(member, file.content)
        made.append(archives.plan_wheel(stream.getvalue(), 7))
    assert made[0] == made[1]
