# SPDX-License-Identifier: GPL-2.0-only
"""A throwaway Debian root in which packages are installed, upgraded and removed.

No kernel runs in it: dkms builds for every kernel whose headers are there, as it does in any
chroot. Whoever has a kernel may boot the root afterwards.

Source: mmdebstrap(1), apt-get(8), dkms(8).
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from twinmod.base import commands, network, process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot
from twinmod.errors import BuildError, MissingToolError

#: Where packages to install appear inside.
DEBS = sandbox.INSIDE / "debs"

#: One apt run: it may fetch a gigabyte, and rebuild the crates of several kernels.
APT_TIMEOUT_S = 3600.0

#: What changes by itself, or belongs to the package manager, below a root.
VOLATILE = (
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "twinmod",
    "var/cache/apt",
    "var/cache/ldconfig",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
)

#: Where the record of each kernel lies, for mdriver-rust.
RECORDS = PurePosixPath("var/lib/mdriver-rust-dkms")

_STATUS = re.compile(r"([^/,:]+)/([^/,:]+)(?:, ([^,]+), ([^:]+))?: (\w[\w-]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleState:
    """A line of ``dkms status``."""

    name: str
    version: str
    # "" for a module that dkms knows and has built for no kernel.
    release: str
    # "added", "built", "installed".
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRecord:
    """What mdriver-rust has noted of a kernel."""

    release: str
    # "ready", "skipped", "failed".
    state: str
    # Why it is not ready, and the command that may help; "" when it is.
    reason: str
    help: str


# -- plan -------------------------------------------------------------------------------------


def plan_root(
    suite: str,
    mirror: str,
    apt_options: tuple[tuple[str, str], ...],
    root_dir: Path,
    packages: tuple[str, ...] = (),
) -> Command:
    """Return the command that makes a root of a suite, with its backports to be asked for.

    Args:
        suite: A stable one, which has backports.
        mirror: Where its packages come from.
        apt_options: (name, value) of settings for that mirror; see Chroot.
        root_dir: Where it goes; mmdebstrap makes it.
        packages: Installed beside the essential ones and apt.
    """
    options = (
        'APT::Install-Recommends "false"',
        'Acquire::Languages "none"',
        'Acquire::Retries "3"',
        *(f'{name} "{value}"' for name, value in apt_options),
    )
    return Command(
        argv=(
            "mmdebstrap",
            "--variant=apt",
            "--mode=root",
            "--format=directory",
            *(f"--aptopt={option}" for option in options),
            *((f"--include={','.join(packages)}",) if packages else ()),
            suite,
            str(root_dir),
            f"deb {mirror} {suite} main",
            f"deb {mirror} {suite}-backports main",
        ),
        purpose=f"the throwaway root of Debian {suite} was not made",
        log_path=root_dir.with_suffix(".log"),
        timeout_s=APT_TIMEOUT_S,
    )


def prepare_inside(
    root: Chroot,
    argv: tuple[str, ...],
    purpose: str,
    *,
    debs_dir: Path | None = None,
    online: bool = False,
) -> Command:
    """Return a command that runs as root's root and may change it.

    Args:
        root: See make_root.
        argv: What to run.
        purpose: As an error would say it: "the packages were not installed".
        debs_dir: A folder of the host that appears as DEBS.
        online: Share the host's network, by the proxies that the host uses; for apt.
    """
    # apt resolves names as the host does.
    resolver = Path("/etc/resolv.conf")
    binds = (
        *((Bind(source_path=debs_dir, target_path=DEBS),) if debs_dir else ()),
        *(
            (Bind(source_path=resolver.resolve(), target_path=PurePosixPath(resolver)),)
            if online and resolver.exists()
            else ()
        ),
    )
    settings = (
        *sandbox.ENVIRONMENT,
        ("DEBIAN_FRONTEND", "noninteractive"),
        *(network.plan_environment(os.environ) if online else ()),
    )
    # Not sandbox.plan_enter: in a user namespace of one user dpkg can give files to root alone.
    entered = (
        *("bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-uts"),
        *(() if online else ("--unshare-net",)),
        *("--die-with-parent", "--new-session"),
        *sandbox.plan_root(root, writable=True),
        # apt reads what it fetched as a user of its own, with files in /tmp.
        *sandbox.plan_own_folders("--perms", "1777"),
        *(part for bind in binds for part in sandbox.plan_bind(bind)),
        *sandbox.plan_start(settings, "/"),
        *argv,
    )
    return Command(argv=entered, purpose=purpose, timeout_s=APT_TIMEOUT_S)


def plan_apt(verb: str, *arguments: str, suite: str = "") -> tuple[str, ...]:
    """Return apt-get's argument vector.

    Args:
        verb: "install", "purge", ...
        arguments: Names of packages, or paths inside of files.
        suite: Prefer this one, as in "trixie-backports".
    """
    target = ("--target-release", suite) if suite else ()
    return ("apt-get", verb, "--yes", "--no-install-recommends", *target, *arguments)


def parse_status(text: str) -> tuple[ModuleState, ...]:
    """Return what ``dkms status`` printed, of dkms 3.0 or newer; its warnings are left out."""
    return tuple(
        ModuleState(name=name, version=version, release=release or "", state=state)
        for line in text.splitlines()
        for match in (_STATUS.match(line),)
        if match
        for name, version, release, _, state in (match.groups(),)
    )


def parse_record(release: str, text: str) -> KernelRecord:
    """Return what mdriver-rust has noted of a kernel."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return KernelRecord(
        release=release,
        state=fields.get("state", ""),
        reason=fields.get("reason", ""),
        help=fields.get("help", ""),
    )


# -- act --------------------------------------------------------------------------------------


def make_root(
    suite: str,
    mirror: str,
    apt_options: tuple[tuple[str, str], ...],
    root_dir: Path,
    packages: tuple[str, ...] = (),
) -> Chroot:
    """Make a throwaway root; see plan_root. Whoever made it removes it.

    Raises:
        MissingToolError: mmdebstrap fails, or this is not root: dpkg inside gives files to
            many users, and an ordinary user has but one.
        BuildError: The lists of packages cannot be fetched.
    """
    if os.geteuid() != 0:
        raise MissingToolError(
            "packages are installed in a throwaway root by root alone",
            hint=f"sudo {commands.render('release', '--verify', 'DIR')}",
        )
    process.run(plan_root(suite, mirror, apt_options, root_dir, packages), error=MissingToolError)
    (root_dir / sandbox.INSIDE.relative_to("/")).mkdir(exist_ok=True)
    root = Chroot(
        name=f"throwaway-{suite}",
        suite=suite,
        root_dir=root_dir,
        key=root_dir.name,
        mirror=mirror,
        apt_options=apt_options,
    )
    # mmdebstrap leaves no lists.
    run_apt(root, ("apt-get", "update"), "the lists of packages were not fetched")
    return root


def run_apt(
    root: Chroot,
    argv: tuple[str, ...],
    purpose: str,
    *,
    debs_dir: Path | None = None,
    log_path: Path | None = None,
) -> str:
    """Run apt in a root, see plan_apt; return what it printed.

    Raises:
        BuildError: It fails.
    """
    command = prepare_inside(root, argv, purpose, debs_dir=debs_dir, online=True)
    return process.run(replace(command, log_path=log_path), error=BuildError)


def install_debs(root: Chroot, debs: tuple[Path, ...], log_path: Path | None = None) -> str:
    """Install or upgrade packages of one folder, with what they depend on.

    Raises:
        BuildError: apt fails.
    """
    inside = tuple(str(DEBS / path.name) for path in debs)
    return run_apt(
        root,
        plan_apt("install", *inside),
        "the packages were not installed",
        debs_dir=debs[0].parent,
        log_path=log_path,
    )


def read_status(root: Chroot) -> tuple[ModuleState, ...]:
    """Return what dkms says of all modules in a root.

    Raises:
        BuildError: There is no dkms, or it fails.
    """
    return parse_status(process.run(prepare_inside(root, ("dkms", "status"), "dkms was not asked")))


def read_records(root: Chroot) -> tuple[KernelRecord, ...]:
    """Return what mdriver-rust has noted of each kernel, sorted by release."""
    paths = sorted((root.root_dir / RECORDS).glob("*/record"))
    return tuple(parse_record(path.parent.name, path.read_text()) for path in paths)


def read_files(root: Chroot) -> frozenset[str]:
    """Return all paths of a root but the volatile ones, relative to it."""
    found: set[str] = set()
    for folder, names, files in os.walk(root.root_dir):
        here = Path(folder).relative_to(root.root_dir)
        names[:] = [name for name in names if str(here / name) not in VOLATILE]
        found.update(str(here / name) for name in (*names, *files))
    return frozenset(found)
