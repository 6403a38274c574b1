# SPDX-License-Identifier: GPL-2.0-only
"""Archives that are the same whenever they are made."""

import io
import tarfile

from twinmod import archives
from twinmod.archives import File

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
