# SPDX-License-Identifier: GPL-2.0-only
"""Archives that are the same, byte for byte, whenever and by whomever they are made. Pure."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

FILE_MODE = 0o644
PROGRAM_MODE = 0o755
FOLDER_MODE = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of an archive or a package."""

    # Relative, as it lies in the archive: "lib/modules/7.3.4/updates/mdriver_c.ko".
    path: str
    content: bytes
    mode: int = FILE_MODE


def plan_folders(files: Iterable[File]) -> tuple[str, ...]:
    """Return the folders that some files lie in, parents first."""
    found = {
        str(parent)
        for file in files
        for parent in PurePosixPath(file.path).parents
        if str(parent) != "."
    }
    return tuple(sorted(found))


def _plan_member(path: str, epoch: int, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mtime, member.mode = epoch, mode
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def plan_tar(files: Iterable[File], epoch: int) -> bytes:
    """Return a tar of some files and their folders: sorted, root's, all of one time.

    Args:
        files: No two of one path.
        epoch: Seconds since 1970.
    """
    ordered = sorted(files, key=lambda file: file.path)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in plan_folders(ordered):
            member = _plan_member(folder, epoch, FOLDER_MODE)
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        for file in ordered:
            member = _plan_member(file.path, epoch, file.mode)
            member.size = len(file.content)
            tar.addfile(member, io.BytesIO(file.content))
    return stream.getvalue()


def compress_gzip(data: bytes) -> bytes:
    """Return data as gzip, without a name or a time in it."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def parse_tar(data: bytes) -> tuple[File, ...]:
    """Return the files of a tar, compressed by gzip or not.

    Raises:
        tarfile.TarError: It is not one.
    """
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tuple(
            File(path=member.name, content=stream.read(), mode=member.mode)
            for member in tar
            if (stream := tar.extractfile(member)) is not None
        )
