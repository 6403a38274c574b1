# SPDX-License-Identifier: GPL-2.0-only
"""The programs in C that run in a VM or in QEMU: QEMU's plugins, and how a VM speaks to one."""

from pathlib import Path

from twinmod.base import files as base_files
from twinmod.base import process, sandbox, templates
from twinmod.base.cache import CacheEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.userland import testers
from twinmod.userland.testers import BUILD_TIMEOUT_S

#: Where the sources are, in the package.
SOURCES = "guest/native"

#: (what is made of the sources, the option that makes it that)
NATIVE = (
    ("magic.so", "-shared"),
    ("pause.so", "-shared"),
    ("profiler.so", "-shared"),
    ("loop", "-pie"),
)


def prepare_entry(chroot: Chroot) -> CacheEntry:
    """Return the entry with QEMU's plugins and what speaks to one of them, compiled.

    To make it raises BuildError: They do not compile.
    """
    files = base_files.read_files(templates.PACKAGE_DIR / SOURCES)

    def make(work_dir: Path, progress: Progress) -> Made:
        for name, content in files:
            (work_dir / name).write_bytes(content)
        with progress.phase("plugins of QEMU"):
            for name, option in NATIVE:
                process.run(_plan_native(chroot, work_dir, name, option))
        return {}, tuple(name for name, _ in NATIVE)

    return CacheEntry(kind="native", key=testers.plan_digest(chroot, "", files), make=make)


def ensure_native(chroot: Chroot, progress: Progress) -> Path:
    """Return the folder with QEMU's plugins and what speaks to one of them, compiled.

    Raises:
        BuildError: They do not compile.
    """
    return prepare_entry(chroot).ensure(progress).path


def _plan_native(chroot: Chroot, work_dir: Path, name: str, option: str) -> Command:
    inside = sandbox.INSIDE / "out"
    return sandbox.plan_command(
        chroot,
        (
            "gcc",
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            option,
            "-fPIC",
            "-fvisibility=hidden",
            "-o",
            str(inside / name),
            str(inside / Path(name).with_suffix(".c")),
        ),
        Enter(binds=(Bind(source_path=work_dir, target_path=inside, writable=True),)),
        purpose=f"{name} was not made",
        timeout_s=BUILD_TIMEOUT_S,
    )
