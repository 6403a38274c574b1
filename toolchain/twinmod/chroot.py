# SPDX-License-Identifier: GPL-2.0-only
"""A private Debian root with a kernel's own compilers, QEMU, and the userland of the VM.

Made once as a tar by mmdebstrap and unpacked as the calling user, who can then remove it.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from twinmod import cache, commands, network, process, sandbox
from twinmod.errors import MissingToolError, TwinmodError
from twinmod.specs import Check, Chroot, ChrootSpec, Command, Progress

#: Changed when the same configuration must give another chroot.
FORMAT = "1"

#: Bytes of a chroot, with room to download; measured for trixie: 1.8 GB.
DISK_BYTES = 2_500_000_000

#: Bytes that a first setup takes at its largest: a chroot, then a kernel's tree beside it.
SETUP_BYTES = 6_500_000_000

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)

#: Nobody reads manuals in a VM that lives for seconds.
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

DOWNLOAD_TIMEOUT_S = 1800.0


# -- the host ---------------------------------------------------------------------------------


def plan_host_packages(found: Mapping[str, bool], *, is_root: bool) -> tuple[str, ...]:
    """Return the Debian packages that the host lacks.

    Args:
        found: Whether each of mmdebstrap, bwrap, newuidmap, keyring is there.
        is_root: Root needs no newuidmap.

    Returns:
        Package names, in the order in which they are named to a person.
    """
    wanted = [("mmdebstrap", "mmdebstrap"), ("bwrap", "bubblewrap"),
              ("keyring", "debian-archive-keyring")]  # fmt: skip
    if not is_root:
        wanted.append(("newuidmap", "uidmap"))
    return tuple(package for program, package in wanted if not found[program])


def read_host() -> dict[str, bool]:
    """Return which of the host's parts are there; see plan_host_packages."""
    programs = ("mmdebstrap", "bwrap", "newuidmap")
    found = {name: process.find_program(name) is not None for name in programs}
    return found | {"keyring": any(path.exists() for path in KEYRINGS)}


def render_install(packages: tuple[str, ...]) -> str:
    """Return the command that installs packages, for a person to paste."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def ensure_host_packages(progress: Progress) -> None:
    """Install what the host lacks, as root on a system with apt; name it otherwise.

    Raises:
        MissingToolError: Something is missing and may not be installed from here.
    """
    packages = plan_host_packages(read_host(), is_root=os.geteuid() == 0)
    if not packages:
        return
    if os.geteuid() != 0 or process.find_program("apt-get") is None:
        raise MissingToolError(
            f"the host lacks {', '.join(packages)}", hint=render_install(packages)
        )
    progress.note(f"installing host packages: {' '.join(packages)}")
    settings = (("DEBIAN_FRONTEND", "noninteractive"),)
    with progress.phase("host packages"):
        for argv in (
            ("apt-get", "update"),
            ("apt-get", "install", "--yes", "--no-install-recommends", *packages),
        ):
            purpose = f"the host packages {' '.join(packages)} were not installed"
            command = Command(
                argv=argv, purpose=purpose, environment=settings, timeout_s=DOWNLOAD_TIMEOUT_S
            )
            process.run(command, error=MissingToolError)


# -- the root ---------------------------------------------------------------------------------


def plan_key(spec: ChrootSpec) -> str:
    """Return what identifies a chroot's content in the cache."""
    text = "\n".join((FORMAT, spec.suite, *sorted(spec.packages)))
    return f"{spec.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def parse_apt_options(dump: str) -> tuple[tuple[str, str], ...]:
    """Return the settings among apt-config's output that say how fresh a mirror must be."""
    pattern = r'^(Acquire::Check-(?:Valid-Until|Date)) "(\w+)";$'
    return tuple(re.findall(pattern, dump, re.MULTILINE))


def read_apt_options() -> tuple[tuple[str, str], ...]:
    """Return the host's own settings for its mirror: an archived one no longer is renewed."""
    if process.find_program("apt-config") is None:
        return ()
    command = Command(
        argv=("apt-config", "dump"), purpose="apt's settings were not read", timeout_s=20
    )
    return parse_apt_options(process.run(command, error=MissingToolError))


def plan_mmdebstrap(
    spec: ChrootSpec, mirror: str | None, partial_dir: Path,
    apt_options: tuple[tuple[str, str], ...], *, is_root: bool,
) -> Command:  # fmt: skip
    """Return the command that writes a chroot as a tar to its standard output."""
    options = ("APT::Install-Recommends \"false\"", "Acquire::Languages \"none\"",
               "Acquire::Retries \"3\"",
               *(f'{name} "{value}"' for name, value in apt_options))  # fmt: skip
    return Command(
        argv=(
            "mmdebstrap", "--variant=minbase", f"--mode={'root' if is_root else 'unshare'}",
            "--format=tar", *(f"--aptopt={option}" for option in options),
            *(f"--dpkgopt=path-exclude={path}" for path in UNWANTED),
            f"--include={','.join(spec.packages)}", spec.suite, "-",
            *((mirror,) if mirror else ()),
        ),
        purpose=f"the chroot of Debian {spec.suite} was not made",
        log_path=partial_dir / "mmdebstrap.log",
        environment=(("TMPDIR", str(plan_temporary_dir(partial_dir, is_root=is_root))),),
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )  # fmt: skip


def plan_unpack(root_dir: Path) -> Command:
    """Return the command that unpacks a chroot's tar from its standard input."""
    return Command(
        argv=("tar", "-x", "-f", "-", "-C", str(root_dir), "--no-same-owner", "--exclude=./dev/*"),
        purpose="the chroot was not unpacked",
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )


def plan_temporary_dir(partial_dir: Path, *, is_root: bool) -> Path:
    """Return where mmdebstrap unpacks before it writes the tar.

    As an ordinary user it works as another one, who may not enter the cache.
    """
    return partial_dir if is_root else Path(tempfile.gettempdir())


def make_chroot(
    spec: ChrootSpec, mirror: str | None, apt_options: tuple[tuple[str, str], ...],
    partial_dir: Path,
) -> Mapping[str, Any]:  # fmt: skip
    """Make a chroot in a folder; return what the cache records of it."""
    root_dir = partial_dir / "root"
    root_dir.mkdir()
    is_root = os.geteuid() == 0
    producer = plan_mmdebstrap(spec, mirror, partial_dir, apt_options, is_root=is_root)
    try:
        process.run_pipeline(producer, plan_unpack(root_dir))
    except TwinmodError as error:
        raise network.plan_suite_error(error, spec.suite) from error
    for folder in (sandbox.INSIDE, PurePosixPath("/view")):
        (root_dir / folder.relative_to("/")).mkdir()
    # Without a mirror of ours, mmdebstrap has written its default there.
    used = mirror or network.parse_mirror((root_dir / "etc/apt/sources.list").read_text())
    return {
        "suite": spec.suite, "packages": list(spec.packages), "mirror": used or "",
        "apt_options": apt_options,
    }  # fmt: skip


def ensure_chroot(spec: ChrootSpec, mirror: str, progress: Progress) -> Chroot:
    """Return a chroot, made first when it is not there.

    Raises:
        MissingToolError: No disk, no network, no namespaces.
        ConfigError: The mirror has no such suite.
    """
    key = plan_key(spec)

    def make(partial_dir: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        what = f"the chroot of Debian {spec.suite}"
        cache.require_disk(partial_dir, SETUP_BYTES, what)
        temporary_dir = plan_temporary_dir(partial_dir, is_root=os.geteuid() == 0)
        cache.require_disk(temporary_dir, DISK_BYTES, what)
        with progress.phase(f"chroot of Debian {spec.suite}"):
            apt_options = () if mirror else read_apt_options()
            record = make_chroot(spec, network.find_mirror(mirror), apt_options, partial_dir)
        return record, ("root/usr/bin/make", "root/usr/bin/python3")

    entry = cache.ensure_entry("chroot", key, make, progress)
    return _read_chroot(spec, entry)


def find_chroot(spec: ChrootSpec) -> Chroot | None:
    """Return a chroot when it is there."""
    entry = cache.find_entry("chroot", plan_key(spec))
    return _read_chroot(spec, entry) if entry else None


def _read_chroot(spec: ChrootSpec, entry: cache.Entry) -> Chroot:
    return Chroot(
        name=spec.name, suite=spec.suite, root_dir=entry.path / "root", key=entry.name,
        mirror=entry.record["mirror"],
        apt_options=tuple((name, value) for name, value in entry.record.get("apt_options", ())),
    )  # fmt: skip


# -- what the doctor asks ---------------------------------------------------------------------


def probe_namespace() -> tuple[bool, str]:
    """Try a user namespace with bubblewrap; return whether it works, and what was seen."""
    if process.find_program("bwrap") is None:
        return False, "bwrap is not installed"
    command = Command(
        argv=("bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--ro-bind", "/", "/",
              "--dev", "/dev", "--proc", "/proc", "true"),
        purpose="a user namespace was not made", timeout_s=20.0,
    )  # fmt: skip
    status, output = process.run_unchecked(command)
    if status == 0:
        return True, "made one with bwrap"
    return False, output.strip().splitlines()[-1] if output.strip() else f"status {status}"


def find_namespace_fix(apparmor: str, sysctl: str, in_container: bool) -> str:
    """Return the command that allows user namespaces where something forbids them.

    Args:
        apparmor: kernel.apparmor_restrict_unprivileged_userns, "" where there is none.
        sysctl: kernel.unprivileged_userns_clone, "" where there is none.
        in_container: Whether this is a container.
    """
    if sysctl == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if apparmor == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    if in_container:
        return "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ..."
    return "sudo sysctl -w user.max_user_namespaces=15000"


def read_namespace_fix() -> str:
    """Return the command that would allow user namespaces on this host; see find_namespace_fix."""
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    apparmor = _read_sysctl("kernel/apparmor_restrict_unprivileged_userns")
    clone = _read_sysctl("kernel/unprivileged_userns_clone")
    return find_namespace_fix(apparmor, clone, in_container)


def _read_sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split("/")).read_text().strip()
    except OSError:
        return ""


def check_host() -> tuple[Check, ...]:
    """Return what the doctor says of the host; installs and changes nothing."""
    is_root = os.geteuid() == 0
    found = read_host()
    fix = render_install(plan_host_packages(found, is_root=is_root) or ("bubblewrap",))
    checks = [
        Check(group="host", name=name, found="yes" if found[program] else "no", needed="yes",
              ok=found[program], fix="" if found[program] else fix)
        for name, program in (("mmdebstrap", "mmdebstrap"), ("bubblewrap", "bwrap"),
                              ("Debian keyring", "keyring"))
    ]  # fmt: skip
    if not is_root:
        checks.append(
            Check(group="host", name="newuidmap", found="yes" if found["newuidmap"] else "no",
                  needed="yes", ok=found["newuidmap"], fix="" if found["newuidmap"] else fix)
        )  # fmt: skip
    works, seen = probe_namespace()
    cure = read_namespace_fix() if found["bwrap"] else fix
    checks.append(
        Check(group="host", name="user namespace", found=seen, needed="one made with bwrap",
              ok=works, fix="" if works else cure)
    )  # fmt: skip
    return (*checks, _check_disk(), _check_memory())


def _check_disk() -> Check:
    path = cache.find_cache_dir()
    while not path.exists():
        path = path.parent
    free_bytes = shutil.disk_usage(path).free
    # A complete cache needs no more room.
    needed_bytes = SETUP_BYTES if not (cache.find_cache_dir() / "kernel").exists() else 10**9
    return Check(
        group="host", name="disk for the cache", found=f"{free_bytes / 1e9:.1f} GB free",
        needed=f"{needed_bytes / 1e9:.1f} GB", ok=free_bytes >= needed_bytes,
        fix="" if free_bytes >= needed_bytes else commands.render("cache", "prune"),
    )  # fmt: skip


def _check_memory() -> Check:
    match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    available_mib = int(match.group(1)) // 1024 if match else 0
    return Check(
        group="host", name="memory", found=f"{available_mib} MiB available", needed="2048 MiB",
        ok=available_mib >= 2048,
    )  # fmt: skip


def check_chroot(
    spec: ChrootSpec, mirror: str, probe: Callable[[str], bool], kernel: str
) -> tuple[Check, ...]:
    """Return what the doctor says of the chroot and of where it would come from.

    Args:
        spec: The configured chroot.
        mirror: The configured mirror, or "".
        probe: Tells whether a URL answers.
        kernel: The name of the kernel that it is for.
    """
    chroot = find_chroot(spec)
    used = network.find_mirror(mirror)
    found = "complete" if chroot else "not made yet"
    answers = used is None or probe(f"{used}/dists/{spec.suite}/InRelease")
    whose = "configured" if mirror else "the host's own" if used else "mmdebstrap's default"
    return (
        Check(group="chroot", name=f"Debian {spec.suite}", found=found, needed="complete",
              ok=chroot is not None, required=False,
              fix="" if chroot else commands.render("setup", "--kernel", kernel)),
        Check(group="chroot", name="mirror", ok=answers, required=chroot is None,
              found=f"{whose}{', answers' if answers and used else '' if answers else ', silent'}",
              needed="answers until setup is done", fix=""),
    )  # fmt: skip
