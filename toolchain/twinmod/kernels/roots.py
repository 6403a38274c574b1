# SPDX-License-Identifier: GPL-2.0-only
"""A private Debian root with a kernel's own compilers, QEMU, and the userland of the VM.

Made once as a tar by mmdebstrap and unpacked as the calling user, who can then remove it.
"""

import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from twinmod.base import cache, commands, network, process, sandbox
from twinmod.base.cache import CacheEntry, Made
from twinmod.base.check import Check
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Chroot
from twinmod.errors import MissingToolError, TwinmodError
from twinmod.project.model import ChrootSpec

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

#: Where mmdebstrap reads which subordinate ids a user has, and usermod's word for them; subuid(5).
SUBID_FILES = (("/etc/subuid", "subuids"), ("/etc/subgid", "subgids"))

#: How many a chroot takes, up to Debian's nobody (65534), and where shadow begins to give them out.
SUBIDS = 65536
FIRST_SUBID = 100_000

#: What a container must be allowed before bubblewrap can work in it, by who runs it: namespaces,
#: mounts, and a /proc without covered parts. Source: github.com/containers/bubblewrap/issues/505.
CONTAINER_OPTIONS = {
    "docker": "--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined",
    "podman": "--security-opt seccomp=unconfined --security-opt unmask=ALL",
}

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
    wanted = [
        ("mmdebstrap", "mmdebstrap"),
        ("bwrap", "bubblewrap"),
        ("keyring", "debian-archive-keyring"),
    ]
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


def prepare_mmdebstrap(
    spec: ChrootSpec,
    mirror: str | None,
    partial_dir: Path,
    apt_options: tuple[tuple[str, str], ...],
    *,
    is_root: bool,
) -> Command:
    """Return the command that writes a chroot as a tar to its standard output."""
    options = (
        'APT::Install-Recommends "false"',
        'Acquire::Languages "none"',
        'Acquire::Retries "3"',
        *(f'{name} "{value}"' for name, value in apt_options),
    )
    return Command(
        argv=(
            "mmdebstrap",
            "--variant=minbase",
            f"--mode={'root' if is_root else 'unshare'}",
            "--format=tar",
            *(f"--aptopt={option}" for option in options),
            *(f"--dpkgopt=path-exclude={path}" for path in UNWANTED),
            f"--include={','.join(spec.packages)}",
            spec.suite,
            "-",
            *((mirror,) if mirror else ()),
        ),
        purpose=f"the chroot of Debian {spec.suite} was not made",
        log_path=partial_dir / "mmdebstrap.log",
        environment=(("TMPDIR", str(find_temporary_dir(partial_dir, is_root=is_root))),),
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )


def plan_unpack(root_dir: Path) -> Command:
    """Return the command that unpacks a chroot's tar from its standard input."""
    return Command(
        argv=("tar", "-x", "-f", "-", "-C", str(root_dir), "--no-same-owner", "--exclude=./dev/*"),
        purpose="the chroot was not unpacked",
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )


def find_temporary_dir(partial_dir: Path, *, is_root: bool) -> Path:
    """Return where mmdebstrap unpacks before it writes the tar.

    As an ordinary user it works as another one, who may not enter the cache.
    """
    return partial_dir if is_root else Path(tempfile.gettempdir())


def make_chroot(
    spec: ChrootSpec,
    mirror: str | None,
    apt_options: tuple[tuple[str, str], ...],
    partial_dir: Path,
) -> Mapping[str, Any]:
    """Make a chroot in a folder; return what the cache records of it."""
    root_dir = partial_dir / "root"
    root_dir.mkdir()
    is_root = os.geteuid() == 0
    producer = prepare_mmdebstrap(spec, mirror, partial_dir, apt_options, is_root=is_root)
    try:
        process.run_pipeline(producer, plan_unpack(root_dir))
    except TwinmodError as error:
        upgrade = render_install(("debian-archive-keyring",))
        raise network.plan_suite_error(error, spec.suite, upgrade) from error
    for folder in (sandbox.INSIDE, PurePosixPath("/view")):
        (root_dir / folder.relative_to("/")).mkdir()
    # Without a mirror of ours, mmdebstrap has written its default there.
    used = mirror or network.parse_mirror((root_dir / "etc/apt/sources.list").read_text())
    return {
        "suite": spec.suite,
        "packages": list(spec.packages),
        "mirror": used or "",
        "apt_options": apt_options,
    }


def plan_entry(spec: ChrootSpec, mirror: str) -> CacheEntry:
    """Return a chroot's entry of the cache.

    Args:
        spec: The configured chroot.
        mirror: The configured mirror, or "".
    """

    def make(partial_dir: Path, progress: Progress) -> Made:
        require_namespaces()
        what = f"the chroot of Debian {spec.suite}"
        cache.require_disk(partial_dir, SETUP_BYTES, what)
        temporary_dir = find_temporary_dir(partial_dir, is_root=os.geteuid() == 0)
        cache.require_disk(temporary_dir, DISK_BYTES, what)
        with progress.phase(f"chroot of Debian {spec.suite}"):
            apt_options = () if mirror else read_apt_options()
            record = make_chroot(spec, network.find_mirror(mirror), apt_options, partial_dir)
        return record, ("root/usr/bin/make", "root/usr/bin/python3")

    inputs = (FORMAT, spec.suite, *sorted(spec.packages))
    return CacheEntry(kind="chroot", key=cache.plan_key(spec.name, inputs), make=make)


def ensure_chroot(spec: ChrootSpec, mirror: str, progress: Progress) -> Chroot:
    """Return a chroot, made first when it is not there.

    Raises:
        MissingToolError: No disk, no network, no namespaces, no subordinate ids.
        ConfigError: The mirror has no such suite.
    """
    return plan_chroot(spec, plan_entry(spec, mirror).ensure(progress).record)


def find_chroot(spec: ChrootSpec) -> Chroot | None:
    """Return a chroot when it is there."""
    found = plan_entry(spec, "").find()
    return plan_chroot(spec, found.record) if found else None


def locate_chroot(spec: ChrootSpec) -> Chroot:
    """Return a chroot where it is, or where it will be."""
    return find_chroot(spec) or plan_chroot(spec, {})


def plan_chroot(spec: ChrootSpec, record: Mapping[str, Any]) -> Chroot:
    """Return a chroot as it is once it is made.

    Args:
        spec: The configured chroot.
        record: What the cache recorded of it, {} for one that is not there.
    """
    entry = plan_entry(spec, "")
    return Chroot(
        name=spec.name,
        suite=spec.suite,
        root_dir=entry.path / "root",
        key=entry.key,
        mirror=record.get("mirror", ""),
        apt_options=tuple((name, value) for name, value in record.get("apt_options", ())),
    )


# -- what the doctor asks ---------------------------------------------------------------------


def probe_namespace() -> tuple[bool, str]:
    """Try a user namespace with bubblewrap; return whether it works, and what was seen."""
    if process.find_program("bwrap") is None:
        return False, "bwrap is not installed"
    command = Command(
        argv=(
            "bwrap",
            "--unshare-all",
            "--uid",
            "0",
            "--gid",
            "0",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "true",
        ),
        purpose="a user namespace was not made",
        timeout_s=20.0,
    )
    status, output = process.run_unchecked(command)
    if status == 0:
        return True, "made one with bwrap"
    return False, output.strip().splitlines()[-1] if output.strip() else f"status {status}"


def find_namespace_fix(
    apparmor: str, sysctl: str, in_container: bool, *, maximum: str = "", runner: str = "docker"
) -> str:
    """Return what allows user namespaces where something forbids them.

    Args:
        apparmor: kernel.apparmor_restrict_unprivileged_userns, "" where there is none.
        sysctl: kernel.unprivileged_userns_clone, "" where there is none.
        in_container: Whether this is a container: what the host forbids is read-only there.
        maximum: user.max_user_namespaces.
        runner: What runs the container, of CONTAINER_OPTIONS.

    Returns:
        A command; in a container on a host that forbids them, the command for the host and the
        container's option that does without.
    """
    causes = (
        (sysctl == "0", "kernel.unprivileged_userns_clone=1"),
        (apparmor == "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        (maximum == "0" or not in_container, "user.max_user_namespaces=15000"),
    )
    setting = next((setting for forbids, setting in causes if forbids), "")
    if not in_container:
        return f"sudo sysctl -w {setting}"
    if not setting:
        return f"{runner} run {CONTAINER_OPTIONS[runner]} ..."
    return (
        f"on the container's host: sudo sysctl -w {setting}; or start the container with all "
        f"rights: {runner} run --privileged ..."
    )


def find_container(markers: Mapping[str, bool], init: str) -> str:
    """Return what runs the container that this is, "" for none.

    Args:
        markers: Whether each of "/.dockerenv", "/run/.containerenv" and "/run/systemd/container" is
            there, and whether "/proc/sys" is mounted read-only.
        init: The environment of process 1, "" when it cannot be read.
    """
    kind = re.search(r"(?:^|\0)container=([^\0]+)", init)
    if markers["/run/.containerenv"] or (kind and kind.group(1) == "podman"):
        return "podman"
    return "docker" if kind or any(markers.values()) else ""


def read_container() -> str:
    """Return what runs the container that this is, "" for none; see find_container."""
    names = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
    read_only = bool(os.statvfs("/proc/sys").f_flag & os.ST_RDONLY)
    try:
        init = Path("/proc/1/environ").read_text(errors="replace")
    except OSError:
        init = ""
    return find_container(
        {name: Path(name).exists() for name in names} | {"/proc/sys": read_only}, init
    )


def read_namespace_fix() -> str:
    """Return what would allow user namespaces on this host; see find_namespace_fix."""
    container = read_container()
    return find_namespace_fix(
        _read_sysctl("kernel/apparmor_restrict_unprivileged_userns"),
        _read_sysctl("kernel/unprivileged_userns_clone"),
        bool(container),
        maximum=_read_sysctl("user/max_user_namespaces"),
        runner=container or "docker",
    )


def require_namespaces() -> None:
    """Refuse a host on which no chroot can be made or entered, before anything is fetched.

    Raises:
        MissingToolError: It has no user namespaces, or its user too few subordinate ids.
    """
    works, seen = probe_namespace()
    if not works:
        raise MissingToolError(
            "bubblewrap cannot make a user namespace",
            facts=(("bwrap", seen),),
            hint=read_namespace_fix(),
        )
    subids = read_subids()
    if subids is not None and not subids.ok:
        raise MissingToolError(
            "mmdebstrap needs subordinate ids to make a chroot, and you have too few",
            facts=(("yours", subids.found), ("needed", subids.needed)),
            hint=subids.fix,
        )


def parse_subids(text: str) -> tuple[tuple[str, int, int], ...]:
    """Return (user, first id, how many) of each line of /etc/subuid or /etc/subgid; subuid(5)."""
    pattern = re.compile(r"^([^:#\n]+):(\d+):(\d+)\s*$", re.MULTILINE)
    return tuple((name, int(first), int(count)) for name, first, count in pattern.findall(text))


def plan_subids(texts: Mapping[str, str], user: str, *, uid: str) -> Check:
    """Return what the doctor says of the subordinate ids that a user has.

    Args:
        texts: The content of each of SUBID_FILES, "" for one that is not there.
        user: Their name.
        uid: Their number, which a line may have instead; "" where it may not.
    """
    lines = {path: parse_subids(text) for path, text in texts.items()}
    taken = sorted((first, count) for found in lines.values() for _, first, count in found)
    free = FIRST_SUBID
    for first, count in taken:
        if first < free + SUBIDS and first + count > free:
            free = first + count
    seen, options = [], []
    for path, word in SUBID_FILES:
        # mmdebstrap takes the first line that is the user's.
        own = next(
            ((first, count) for name, first, count in lines[path] if name in (user, uid)), None
        )
        seen.append(f"{own[1] if own else 'none'} in {path}")
        if own is None or own[1] < SUBIDS:
            if own:
                options.append(f"--del-{word} {own[0]}-{sum(own) - 1}")
            options.append(f"--add-{word} {free}-{free + SUBIDS - 1}")
    return Check(
        group="host",
        name="subordinate ids",
        found=", ".join(seen),
        needed=f"{SUBIDS} in both",
        ok=not options,
        fix=f"sudo usermod {' '.join(options)} {user}" if options else "",
    )


def read_subids() -> Check | None:
    """Return what the doctor says of the caller's subordinate ids, None for root: it needs none."""
    if os.geteuid() == 0:
        return None
    uid = str(os.getuid())
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = uid
    paths = {name: Path(name) for name, _ in SUBID_FILES}
    texts = {
        name: path.read_text(errors="replace") if path.is_file() else ""
        for name, path in paths.items()
    }
    check = plan_subids(texts, user, uid=uid)
    return check if not check.ok or _is_understood() else plan_subids(texts, user, uid="")


def _is_understood() -> bool:
    """Tell whether mmdebstrap finds the caller's ids; 1.3.5 looks for their name alone."""
    if process.find_program("mmdebstrap") is None:
        return True
    command = Command(
        argv=("mmdebstrap", "--unshare-helper", "true"),
        timeout_s=20.0,
        purpose="mmdebstrap did not say which ids it finds",
    )
    status, output = process.run_unchecked(command, error=MissingToolError)
    return status == 0 or "/etc/sub" not in output


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
        Check(
            group="host",
            name=name,
            found="yes" if found[program] else "no",
            needed="yes",
            ok=found[program],
            fix="" if found[program] else fix,
        )
        for name, program in (
            ("mmdebstrap", "mmdebstrap"),
            ("bubblewrap", "bwrap"),
            ("Debian keyring", "keyring"),
        )
    ]
    if not is_root:
        checks.append(
            Check(
                group="host",
                name="newuidmap",
                found="yes" if found["newuidmap"] else "no",
                needed="yes",
                ok=found["newuidmap"],
                fix="" if found["newuidmap"] else fix,
            )
        )
    subids = read_subids()
    if subids is not None:
        checks.append(subids)
    works, seen = probe_namespace()
    cure = read_namespace_fix() if found["bwrap"] else fix
    checks.append(
        Check(
            group="host",
            name="user namespace",
            found=seen,
            needed="one made with bwrap",
            ok=works,
            fix="" if works else cure,
        )
    )
    return (*checks, _check_disk(), _check_memory())


def _check_disk() -> Check:
    path = cache.find_cache_dir()
    while not path.exists():
        path = path.parent
    free_bytes = shutil.disk_usage(path).free
    # A complete cache needs no more room.
    needed_bytes = SETUP_BYTES if not (cache.find_cache_dir() / "kernel").exists() else 10**9
    return Check(
        group="host",
        name="disk for the cache",
        found=f"{free_bytes / 1e9:.1f} GB free",
        needed=f"{needed_bytes / 1e9:.1f} GB",
        ok=free_bytes >= needed_bytes,
        fix="" if free_bytes >= needed_bytes else commands.render("cache", "prune"),
    )


def _check_memory() -> Check:
    match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    available_mib = int(match.group(1)) // 1024 if match else 0
    return Check(
        group="host",
        name="memory",
        found=f"{available_mib} MiB available",
        needed="2048 MiB",
        ok=available_mib >= 2048,
    )


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
        Check(
            group="chroot",
            name=f"Debian {spec.suite}",
            found=found,
            needed="complete",
            ok=chroot is not None,
            required=False,
            fix="" if chroot else commands.render("setup", "--kernel", kernel),
        ),
        Check(
            group="chroot",
            name="mirror",
            ok=answers,
            required=chroot is None,
            found=f"{whose}{', answers' if answers and used else '' if answers else ', silent'}",
            needed="answers until setup is done",
            fix="",
        ),
    )
