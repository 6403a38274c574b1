# SPDX-License-Identifier: GPL-2.0-only
"""The modules that a kernel came with: a distribution's are kept in one file, as they are packed.

A VM loads a few of them, and only what other modules need: each is decompressed when it is wanted.
"""

import lzma
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twinmod.errors import BuildError, MissingToolError
from twinmod.project.names import normalize

#: What the kernel says of the modules that are linked into it; in the archive too.
BUILTIN = "modules.builtin"

#: An archive's time: the same modules give the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)

#: How a file of a module ends, with what decompresses it.
DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {".ko": bytes, ".ko.xz": lzma.decompress}


def plan_module_name(path: Path) -> str:
    """Return the name of a module's file, decompressed, after the kernel's name of it."""
    return f"{normalize(path.name.partition('.ko')[0])}.ko"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModules:
    """The modules that a kernel came with, by the kernel's names of them."""

    release: str
    # What of them is in a file: the name in the archive, or a path.
    files: Mapping[str, str]
    # What is linked into the kernel.
    builtin: frozenset[str]
    # Returns the content of one of the files.
    read_file: Callable[[str], bytes] = field(repr=False)

    def read(self, name: str) -> bytes:
        """Return the content of a module's file, decompressed.

        Args:
            name: One of `files`.

        Raises:
            BuildError: It is packed in a way that this does not know.
        """
        file_name = self.files[name]
        _, dot, ending = file_name.rpartition("/")[2].partition(".ko")
        unpack = DECOMPRESS.get(dot + ending)
        if unpack is None:
            raise BuildError(
                f"module {name} of kernel {self.release} is packed in an unknown way",
                facts=(("file", file_name),),
            )
        return unpack(self.read_file(file_name))


# -- a distribution's -------------------------------------------------------------------------


def write_archive(modules_dir: Path, target: Path) -> int:
    """Keep all modules below a kernel's folder in one file, each as it is; return how many.

    Args:
        modules_dir: lib/modules/RELEASE of a package.
        target: Replaced when it is complete.

    Raises:
        BuildError: It holds none.
    """
    paths = sorted(path for path in (modules_dir / "kernel").rglob("*.ko*") if path.is_file())
    if not paths:
        raise BuildError(
            "the kernel's packages hold no module", facts=(("folder", str(modules_dir)),)
        )
    builtin = modules_dir / BUILTIN
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            listed = builtin.read_bytes() if builtin.is_file() else b""
            archive.writestr(zipfile.ZipInfo(BUILTIN, _TIME), listed)
            for path in paths:
                archive.writestr(zipfile.ZipInfo(path.name, _TIME), path.read_bytes())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return len(paths)


def read_archive(path: Path, release: str) -> KernelModules:
    """Return the modules that write_archive kept.

    Args:
        path: The archive.
        release: The kernel's.

    Raises:
        MissingToolError: It is not there, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name != BUILTIN]
            builtin = archive.read(BUILTIN).decode()
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise MissingToolError(
            f"the modules of kernel {release} cannot be read: {error}",
            facts=(("file", str(path)),),
        ) from error

    def read_file(name: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    return KernelModules(
        release=release,
        files=_plan_files(names),
        builtin=parse_builtin(builtin),
        read_file=read_file,
    )


# -- of a build -------------------------------------------------------------------------------


def read_build(build_dir: Path, release: str) -> KernelModules:
    """Return the modules that a kernel's own build left.

    Args:
        build_dir: Where its outputs are.
        release: The kernel's.
    """

    def read_lines(name: str) -> str:
        path = build_dir / name
        return path.read_text() if path.is_file() else ""

    # Linux 6.2 names objects there, and did name modules.
    lines = (line.removeprefix("kernel/") for line in read_lines("modules.order").split())
    names = (f"{line.removesuffix('.o').removesuffix('.ko')}.ko" for line in lines)
    return KernelModules(
        release=release,
        files=_plan_files(name for name in names if (build_dir / name).is_file()),
        builtin=parse_builtin(read_lines(BUILTIN)),
        read_file=lambda name: (build_dir / name).read_bytes(),
    )


def _plan_files(names: Iterable[str]) -> dict[str, str]:
    return {plan_module_name(Path(name)).removesuffix(".ko"): name for name in names}


def parse_builtin(text: str) -> frozenset[str]:
    """Return the kernel's names of the modules that a modules.builtin lists."""
    return frozenset(plan_module_name(Path(line)).removesuffix(".ko") for line in text.split())
