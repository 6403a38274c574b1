# SPDX-License-Identifier: GPL-2.0-only
"""How a chroot is entered: bubblewrap's arguments, planned and not run.

Source: bwrap(1), bubblewrap 0.8.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from twinmod.base.process import Command
from twinmod.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A folder or file of the host at a path inside the chroot."""

    source_path: Path
    target_path: PurePosixPath
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chroot:
    """A complete private Debian root; or this host as a root that nothing is written to."""

    name: str
    suite: str
    root_dir: Path
    # Identifies its content: a product that was built inside is as old as this.
    key: str
    # Where its packages came from, and where a kernel's come from unless one is configured.
    mirror: str
    # (name, value) of the host's own apt settings for its mirror, such as Check-Valid-Until.
    apt_options: tuple[tuple[str, str], ...] = ()
    # Of this host, (name, where it links to or "") of what lies at its top: mounted one by one,
    # because INSIDE needs a place beside them. A root of our own is mounted whole.
    top: tuple[tuple[str, str], ...] = ()
    # Of this host, what stays visible of folders that a sandbox has of its own, such as /run.
    kept: tuple[Path, ...] = ()
    # (name, value) beside the fixed environment: how this host's user finds their compilers.
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Enter:
    """What a process inside a chroot sees beside its root, and what it may do there."""

    # Mounted in order, so a later one may lie inside an earlier one.
    binds: tuple[Bind, ...] = ()
    # Folders covered by an empty, writable one before the binds that lie in them: a mount point can
    # be made there although the folder is read-only.
    hidden: tuple[PurePosixPath, ...] = ()
    # Device nodes of the host.
    devices: tuple[str, ...] = ()
    # (name, value), added to ENVIRONMENT.
    environment: tuple[tuple[str, str], ...] = ()
    # Where the program starts.
    working_dir: str = "/"
    # It shares the host's network; nothing has it otherwise.
    network: bool = False
    # It may change the root itself.
    writable: bool = False
    # It stays in the caller's session, and reads their terminal.
    terminal: bool = False


#: A process that sees its root, and nothing else.
PLAIN = Enter()

#: All that twinmod puts into a chroot appears below this folder, at the same path everywhere,
#: so that products do not depend on where the checkout or the cache lies.
INSIDE = PurePosixPath("/twinmod")

#: A kernel's source and its build directory.
LINUX = INSIDE / "linux"
BUILD = INSIDE / "build"

#: The environment inside; nothing of the host's.
ENVIRONMENT = (
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("LC_ALL", "C.UTF-8"),
    ("HOME", "/tmp"),
)


def find_jobs() -> int:
    """Return how many jobs make runs at once: TWINMOD_JOBS, or as many as there are processors.

    Raises:
        ConfigError: TWINMOD_JOBS is no such number.
    """
    given = os.environ.get("TWINMOD_JOBS", "")
    if not given:
        return os.cpu_count() or 1
    if not given.isdecimal() or int(given) == 0:
        raise ConfigError(
            f"TWINMOD_JOBS={given} is no number of jobs", hint="unset TWINMOD_JOBS, or make it 1"
        )
    return int(given)


def plan_make(flags: tuple[str, ...], *arguments: str, in_place: bool = False) -> tuple[str, ...]:
    """Return make's argument vector for a kernel's tree, as it is called inside the chroot.

    Args:
        flags: The variables that name the compilers which built the kernel.
        arguments: Variables and targets.
        in_place: The tree's outputs lie among its sources.
    """
    outputs = () if in_place else (f"O={BUILD}",)
    return (
        "make",
        "-C",
        str(LINUX),
        *outputs,
        "ARCH=x86",
        *flags,
        f"-j{find_jobs()}",
        *arguments,
    )


def plan_bind(bind: Bind) -> tuple[str, ...]:
    """Return the arguments of one bind mount."""
    verb = "--bind" if bind.writable else "--ro-bind"
    return (verb, str(bind.source_path), str(bind.target_path))


def plan_root(chroot: Chroot, *, writable: bool = False) -> tuple[str, ...]:
    """Return the arguments that mount a root."""
    if not chroot.top:
        return ("--bind" if writable else "--ro-bind", str(chroot.root_dir), "/")
    return tuple(
        part
        for name, link in chroot.top
        for part in (
            ("--symlink", link, f"/{name}")
            if link
            else ("--ro-bind", str(chroot.root_dir / name), f"/{name}")
        )
    )


def plan_enter(chroot: Chroot, argv: tuple[str, ...], enter: Enter = PLAIN) -> tuple[str, ...]:
    """Return the argument vector that runs something inside a chroot, as its root.

    Args:
        chroot: Where to enter.
        argv: What to run there.
        enter: What it sees there, and what it may do.

    Returns:
        A vector that starts with ``bwrap``. Everything inside dies with it.
    """
    settings = (*ENVIRONMENT, *chroot.environment, *enter.environment)
    return (
        *("bwrap", "--unshare-all", *(("--share-net",) if enter.network else ())),
        *("--die-with-parent", *(() if enter.terminal else ("--new-session",))),
        *("--uid", "0", "--gid", "0"),
        *plan_root(chroot, writable=enter.writable),
        *plan_own_folders(),
        *(part for path in chroot.kept for part in ("--ro-bind", str(path), str(path))),
        *(part for device in enter.devices for part in ("--dev-bind", device, device)),
        *_plan_mounts(enter.binds, enter.hidden),
        *plan_start(settings, enter.working_dir),
        *argv,
    )


def plan_own_folders(*options: str) -> tuple[str, ...]:
    """Return the arguments for the folders that every root has of its own.

    Args:
        options: Of bwrap, for /tmp.
    """
    return (
        *("--dev", "/dev", "--proc", "/proc"),
        *(*options, "--tmpfs", "/tmp", "--tmpfs", "/run", "--tmpfs", str(INSIDE)),
    )


def plan_start(settings: Iterable[tuple[str, str]], working_dir: str) -> tuple[str, ...]:
    """Return the last arguments before the program: its environment, and where it starts."""
    return (
        "--clearenv",
        *(part for name, value in settings for part in ("--setenv", name, value)),
        *("--chdir", working_dir, "--"),
    )


def _plan_mounts(binds: tuple[Bind, ...], hidden: tuple[PurePosixPath, ...]) -> tuple[str, ...]:
    mounts: list[str] = []
    covered: set[PurePosixPath] = set()
    for bind in binds:
        for folder in hidden:
            if folder in bind.target_path.parents and folder not in covered:
                mounts += ("--tmpfs", str(folder))
                covered.add(folder)
        mounts += plan_bind(bind)
    return tuple(mounts)


def plan_command(
    chroot: Chroot,
    argv: tuple[str, ...],
    enter: Enter = PLAIN,
    *,
    purpose: str,
    timeout_s: float,
) -> Command:
    """Return a command that runs inside a chroot; see plan_enter for the arguments."""
    return Command(argv=plan_enter(chroot, argv, enter), purpose=purpose, timeout_s=timeout_s)
