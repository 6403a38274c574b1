# SPDX-License-Identifier: GPL-2.0-only
"""gdb for a VM's kernel and its modules, with symbols and sources, in another terminal.

gdb runs in the kernel's chroot and sees the tree, the modules and their sources at the paths that
they were compiled at.

Source: Documentation/process/debugging/gdb-kernel-debugging.rst, Linux 7.3.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from twinmod.base import commands, documents, process, sandbox
from twinmod.base.documents import Part
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.builds import build as builds_build
from twinmod.errors import ConfigError, MissingToolError
from twinmod.kernels.model import KernelTree
from twinmod.vm import machine

#: What a shell leaves for gdb.
RECORD = "gdb.json"

#: The kernel's commands for gdb, as `make scripts_gdb` leaves them.
SCRIPTS = "vmlinux-gdb.py"

#: How far a VM that waits before its first instruction goes for gdb to see its kernel.
BIRTH = ("hbreak start_kernel", "continue", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What gdb sees."""

    tree: KernelTree
    chroot: Chroot
    builds: tuple[builds_build.BuildPlan, ...]
    # The folder of the VM's socket.
    socket_dir: Path
    # Whether the VM waits before its first instruction, when it has no kernel to look at yet.
    unborn: bool = False


def require_debugger(tree: KernelTree, chroot: Chroot) -> None:
    """Refuse what gdb could make nothing of.

    Raises:
        ConfigError: The kernel's image has no debug information, or no commands for gdb.
        MissingToolError: The chroot has no gdb.
    """
    # The commands are a link to where the sources were when they were made: inside the chroot.
    lacking = [n for n in ("vmlinux", SCRIPTS) if not os.path.lexists(tree.build_dir / n)]
    if lacking:
        raise ConfigError(
            f"kernel {tree.name} cannot be debugged: its build has no {' and no '.join(lacking)}",
            hint=commands.render("shell", "--kernel", "kasan", "--gdb"),
        )
    if not (chroot.root_dir / "usr/bin/gdb").exists():
        raise MissingToolError(
            f"the chroot {chroot.name} has no gdb",
            hint=f'add "gdb" to `packages` of the table roots.{chroot.name}',
        )


def plan_gdb(sight: Sight) -> tuple[str, ...]:
    """Return what enters the chroot and runs gdb, connected, with every symbol loaded.

    A person's own arguments follow it.
    """
    binds = [
        Bind(source_path=sight.tree.source_dir, target_path=sandbox.LINUX),
        Bind(source_path=sight.tree.build_dir, target_path=sandbox.BUILD),
        Bind(source_path=sight.socket_dir, target_path=machine.RESULTS),
    ]
    hidden: list[PurePosixPath] = []
    folders = []
    for build in sight.builds:
        own, covered = builds_build.plan_binds(build.module, sight.tree, build.stage_dir)
        binds.append(own[-1])
        hidden += covered
        folders.append(str(own[-1].target_path))
    argv = (
        "gdb",
        "-q",
        "-iex",
        f"add-auto-load-safe-path {sandbox.BUILD}",
        "-iex",
        f"add-auto-load-safe-path {sandbox.LINUX}",
        "-iex",
        "set pagination off",
        f"{sandbox.BUILD}/vmlinux",
        "-ex",
        f"source {sandbox.BUILD}/{SCRIPTS}",
        "-ex",
        f"target remote {machine.GDB_SOCKET}",
        *(word for line in (BIRTH if sight.unborn else ()) for word in ("-ex", line)),
        "-ex",
        f"lx-symbols {' '.join(folders)}",
        # A module that is not loaded yet has no symbols yet.
        "-ex",
        "set breakpoint pending on",
    )
    return sandbox.plan_enter(
        sight.chroot,
        argv,
        Enter(
            binds=tuple(binds),
            hidden=tuple(hidden),
            terminal=True,
            working_dir=str(sandbox.BUILD),
        ),
    )


class Record(Part, frozen=True, kw_only=True):
    """How gdb reaches a VM."""

    # That of gdb, inside the chroot.
    argv: tuple[str, ...]


def write_record(folder: Path, argv: tuple[str, ...]) -> Path:
    """Leave in a folder how gdb reaches a VM; return the file, which goes when the VM does."""
    path = folder / RECORD
    documents.write(path, Record(argv=argv))
    return path


def run(folder: Path, arguments: tuple[str, ...]) -> int:
    """Run gdb on the VM that left a record in a folder; return its status.

    Raises:
        ConfigError: There is no VM that waits for it.
    """
    try:
        argv = documents.parse_part((folder / RECORD).read_bytes(), Record).argv
    except (OSError, *documents.INVALID) as error:
        raise ConfigError(
            "there is no VM to debug",
            facts=(("folder", str(folder)),),
            hint=commands.render("shell", "--kernel", "kasan", "--gdb"),
        ) from error
    command = Command(argv=(*argv, *arguments), purpose="gdb did not run", timeout_s=float("inf"))
    return process.run_interactive(command)
