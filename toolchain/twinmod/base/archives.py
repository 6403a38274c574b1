# SPDX-License-Identifier: GPL-2.0-only
"""Archives that are the same, byte for byte, whenever and by whomever they are made. Pure."""

import base64
import csv
import gzip
import hashlib
import io
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

FILE_MODE = 0o644
PROGRAM_MODE = 0o755
FOLDER_MODE = 0o755

#: The first moment that a zip can tell, and what it calls the system of a file's mode.
ZIP_EPOCH = 315532800
UNIX = 3


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


# -- what Python installs ----------------------------------------------------------------------


def parse_zip(data: bytes) -> tuple[File, ...]:
    """Return the files of a zip; one that its owner may run is a program.

    Raises:
        zipfile.BadZipFile: It is not one.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return tuple(
            File(
                path=member.filename,
                content=archive.read(member),
                mode=PROGRAM_MODE if member.external_attr >> 16 & stat.S_IXUSR else FILE_MODE,
            )
            for member in archive.infolist()
            if not member.is_dir()
        )


def plan_zip(files: Iterable[File], epoch: int) -> bytes:
    """Return a zip of some files: sorted, of Unix, all of one time.

    Args:
        files: No two of one path.
        epoch: Seconds since 1970; a zip knows no time before 1980.
    """
    when = time.gmtime(max(epoch, ZIP_EPOCH))[:6]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(files, key=lambda file: file.path):
            member = zipfile.ZipInfo(file.path, when)
            member.create_system = UNIX
            member.external_attr = (stat.S_IFREG | file.mode) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, file.content)
    return stream.getvalue()


def plan_record(files: Iterable[File]) -> tuple[File, ...]:
    """Return a wheel's files with its RECORD written anew, in the order of its paths.

    Source: PyPA, "Recording installed projects" and "Binary distribution format".

    Args:
        files: With exactly one ``NAME.dist-info/RECORD``.
    """
    kept = {file.path: file for file in files}
    (record,) = (path for path in kept if path.endswith(".dist-info/RECORD"))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for path in sorted(kept.keys() - {record}):
        content = kept[path].content
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow((path, f"sha256={digest}", len(content)))
    writer.writerow((record, "", ""))
    kept[record] = File(path=record, content=stream.getvalue().encode())
    return tuple(kept.values())


def plan_wheel(data: bytes, epoch: int) -> bytes:
    """Return a wheel as it is whoever packed it, and when.

    Args:
        data: The wheel.
        epoch: The time of all its files, in seconds since 1970.
    """
    return plan_zip(plan_record(parse_zip(data)), epoch)
