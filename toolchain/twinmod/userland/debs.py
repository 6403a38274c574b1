# SPDX-License-Identifier: GPL-2.0-only
"""Debian packages in the VM's root: those that `vm.packages` names, and what they depend on.

They are unpacked beside the chroot, and lie over it in a VM: neither chroot nor kernel is made anew
for them. dpkg configures none of them, so no script of a package runs.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from twinmod.base import cache, commands, nearest, process, sandbox
from twinmod.base.cache import CacheEntry, FoundEntry, Made
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import ConfigError, MissingToolError, TwinmodError
from twinmod.kernels import packages as kernels_packages
from twinmod.kernels.packages import WORK
from twinmod.kernels.roots import UNWANTED

#: Changed when the same configuration must give another layer.
FORMAT = "1"

KIND = "vmroot"

#: In an entry, what lies over the chroot.
ROOT = "root"

#: Bytes that the disk needs: apt's lists, and packages twice.
DISK_BYTES = 1_000_000_000

UNPACK_TIMEOUT_S = 600.0

#: Where apt leaves what it fetched, and where the packages' control files go.
ARCHIVES, CONTROL = "apt/cache/archives", "control"

#: Where the dynamic loader looks without its cache, which nobody writes for a layer.
LOADER_DIR = "usr/lib/x86_64-linux-gnu"

#: What no program of a VM asks for in its locale: character sets, each a library, and half of what
#: comes from the chroot.
UNUSED = f"{LOADER_DIR}/gconv/"

#: What scripts of essential packages made in a chroot, which dpkg lists nowhere: programs ask for
#: names of users, and by these names for awk and which.
GENERATED = ("etc/group", "etc/nsswitch.conf", "etc/passwd", "usr/bin/awk", "usr/bin/which")

#: In a chroot, what dpkg knows of it.
DPKG = "var/lib/dpkg"

#: Takes a folder with ARCHIVES and ROOT, then patterns. tar goes through links to folders, as dpkg
#: does: an older package has files in /bin, which is a link.
UNPACK = f"""\
set -e
cd "$1"
shift
for deb in {ARCHIVES}/*.deb; do
    [ -e "$deb" ] || continue
    dpkg-deb --control "$deb" "{CONTROL}/${{deb##*/}}"
    dpkg-deb --fsys-tarfile "$deb" >files.tar
    tar -x -f files.tar -C {ROOT} --no-same-owner --keep-directory-symlink "$@"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What lies over a chroot in a VM."""

    # Identifies its content.
    key: str
    root_dir: Path
    # The packages of the chroot that those of the layer depend on, or expect everywhere.
    beside: tuple[str, ...]


def prepare_entry(names: tuple[str, ...], chroot: Chroot, mirror: str) -> CacheEntry:
    """Return the entry of some packages, without those that the chroot has.

    To make it raises:
        ConfigError: The suite has no such package, or it does not fit the chroot's.
        MissingToolError: The mirror does not answer, or there is too little disk.

    Args:
        names: Of `vm.packages`.
        chroot: Has apt, and lies below in a VM.
        mirror: The configured mirror, or "" for the chroot's.
    """
    wanted = tuple(sorted(set(names)))

    def make(partial_dir: Path, progress: Progress) -> Made:
        cache.require_disk(partial_dir, DISK_BYTES, "the VM's packages")
        work_dir = partial_dir / "work"
        with progress.phase(f"packages of the VM: {' '.join(wanted)}"):
            fetch(wanted, chroot, mirror or chroot.mirror, work_dir)
            unpack(chroot, work_dir)
            complete(work_dir, chroot.root_dir)
            record = read_record(wanted, chroot, work_dir)
        (work_dir / ROOT).rename(partial_dir / ROOT)
        cache.remove_tree(work_dir)
        paths = (partial_dir / name for name in iterate_tree(partial_dir, ROOT))
        vital = (path for path in paths if path.is_file() and not path.is_symlink())
        return record, tuple(str(path.relative_to(partial_dir)) for path in vital)

    key = cache.plan_key(chroot.name, (FORMAT, chroot.key, *wanted))
    return CacheEntry(kind=KIND, key=key, make=make)


def read_layer(found: FoundEntry) -> Layer:
    """Return the layer that an entry holds."""
    beside = tuple(found.record["beside"])
    # The entry's key follows from what was asked for, not from the versions that were served.
    content = "\n".join((*found.record["debs"], *beside))
    return Layer(
        key=f"{found.key} {cache.plan_short_digest(content.encode())}",
        root_dir=found.path / ROOT,
        beside=beside,
    )


# -- apt --------------------------------------------------------------------------------------


def fetch(names: tuple[str, ...], chroot: Chroot, mirror: str, work_dir: Path) -> None:
    """Fetch packages and what they depend on, as far as the chroot lacks it, verified by apt.

    Raises:
        ConfigError: The suite has no such package, or it does not fit the chroot's.
        MissingToolError: The mirror does not answer.
    """
    what = f"the VM's packages {', '.join(names)}"
    suite = chroot.suite
    try:
        kernels_packages.update_lists(suite, chroot, mirror, work_dir)
    except MissingToolError as error:
        raise plan_fetch_error(error) from error
    listed = run_apt(chroot, ("apt-cache", "pkgnames"), work_dir, f"{what} were not looked up")
    require_known(names, listed.split(), suite)
    simulated = ("--simulate", *names)
    purpose = f"{what} do not fit the root of Debian {suite}"
    run_apt(chroot, plan_install(*simulated), work_dir, purpose, ConfigError)
    # The chroot is read-only, and another run may read it at the same time.
    downloaded = ("-o", "Debug::NoLocking=1", "--download-only", *names)
    try:
        run_apt(chroot, plan_install(*downloaded), work_dir, f"{what} were not downloaded")
    except MissingToolError as error:
        raise plan_fetch_error(error) from error


def plan_install(*arguments: str) -> tuple[str, ...]:
    """Return apt's argument vector that adds packages to a root and removes none."""
    options = ("--yes", "--quiet", "--no-install-recommends", "--no-remove")
    return ("apt-get", "install", *options, *arguments)


def run_apt(
    chroot: Chroot,
    argv: tuple[str, ...],
    work_dir: Path,
    purpose: str,
    error: type[TwinmodError] = MissingToolError,
) -> str:
    """Run apt with the lists of a folder; return what it printed."""
    return process.run(kernels_packages.prepare_apt(chroot, argv, work_dir, purpose), error=error)


def plan_fetch_error(error: MissingToolError) -> MissingToolError:
    """Return the error of a mirror that does not answer, with what to do about it."""
    hint = error.hint or commands.render("doctor")
    return MissingToolError(error.message, facts=error.facts, hint=hint)


def require_known(names: tuple[str, ...], known: Iterable[str], suite: str) -> None:
    """Refuse a package that a suite does not have.

    Raises:
        ConfigError: There is one; the nearest name of the suite is among the facts.
    """
    served = frozenset(known)
    lacking = tuple(name for name in names if name not in served)
    if not lacking:
        return
    first = lacking[0]
    # Debian has 70000 names: only those are compared that begin alike.
    found = nearest.find_nearest(first, (name for name in served if name[:1] == first[:1]))
    raise ConfigError(
        f"main of Debian {suite} has no package {', '.join(lacking)} for amd64",
        facts=(("nearest", found),) if found else (),
        hint="correct `packages` in the table `vm`",
    )


# -- the layer --------------------------------------------------------------------------------


def unpack(chroot: Chroot, work_dir: Path) -> None:
    """Unpack what was fetched into ROOT, and the packages' control files into CONTROL.

    Raises:
        MissingToolError: A package is damaged, or the disk is full.
    """
    (work_dir / CONTROL).mkdir()
    prepare_links(work_dir / ROOT, chroot.root_dir)
    process.run(plan_unpack(chroot, work_dir), error=MissingToolError)


def prepare_links(root_dir: Path, below_dir: Path) -> None:
    """Make the folder of a layer, with the links at the top of the root below it."""
    root_dir.mkdir()
    for path in below_dir.iterdir():
        if path.is_symlink() and path.is_dir():
            target = path.readlink()
            (root_dir / str(target).lstrip("/")).mkdir(parents=True, exist_ok=True)
            (root_dir / path.name).symlink_to(target)


def plan_unpack(chroot: Chroot, work_dir: Path) -> Command:
    """Return the command that runs UNPACK in the chroot."""
    excluded = (f"--exclude=.{pattern}" for pattern in ("/dev/*", *UNWANTED))
    return sandbox.plan_command(
        chroot,
        ("sh", "-c", UNPACK, "sh", str(WORK), *excluded),
        Enter(binds=(Bind(source_path=work_dir, target_path=WORK, writable=True),)),
        purpose="the VM's packages were not unpacked",
        timeout_s=UNPACK_TIMEOUT_S,
    )


def complete(work_dir: Path, below_dir: Path) -> None:
    """Add the links that the packages' scripts would make: alternatives, and the loader's names."""
    root_dir = work_dir / ROOT
    scripts = sorted((work_dir / CONTROL).glob("*/postinst"))
    for script in scripts:
        for link, target in parse_alternatives(script.read_text(errors="replace")):
            there = (root_dir / link, below_dir / link)
            if (root_dir / target).is_file() and not any(map(os.path.lexists, there)):
                there[0].parent.mkdir(parents=True, exist_ok=True)
                there[0].symlink_to(f"/{target}")
    for folder in read_loader_folders(root_dir):
        for path in sorted((root_dir / folder).glob("*.so*")):
            link = f"{LOADER_DIR}/{path.name}"
            if not any(os.path.lexists(parent / link) for parent in (root_dir, below_dir)):
                (root_dir / LOADER_DIR).mkdir(parents=True, exist_ok=True)
                (root_dir / link).symlink_to(f"/{folder}/{path.name}")


def parse_alternatives(script: str) -> tuple[tuple[str, str], ...]:
    """Return (link, target) of the alternatives that a postinst installs in plain words.

    Both are relative to the root. Source: update-alternatives(1), dpkg 1.22.
    """
    found: list[tuple[str, str]] = []
    for line in script.replace("\\\n", " ").splitlines():
        _, install, rest = line.partition("update-alternatives")
        try:
            words = shlex.split(rest, comments=True) if install else []
        except ValueError:
            continue
        for option, link, _, target in zip(words, words[1:], words[2:], words[3:], strict=False):
            if option in ("--install", "--slave") and _is_plain(link) and _is_plain(target):
                found.append((link.lstrip("/"), target.lstrip("/")))
    return tuple(found)


def _is_plain(path: str) -> bool:
    return re.fullmatch(r"(/[\w+.,-]+)+", path) is not None and "/.." not in path


def read_loader_folders(root_dir: Path) -> tuple[str, ...]:
    """Return the folders, relative to a root, that its ld.so.conf.d adds to the loader's path."""
    texts = (path.read_text() for path in sorted((root_dir / "etc/ld.so.conf.d").glob("*.conf")))
    lines = (line.strip() for text in texts for line in text.splitlines())
    return tuple(line.lstrip("/") for line in lines if _is_plain(line))


def read_record(names: tuple[str, ...], chroot: Chroot, work_dir: Path) -> Mapping[str, object]:
    """Return what the cache records of a layer."""
    controls = sorted((work_dir / CONTROL).glob("*/control"))
    fetched = kernels_packages.parse_stanzas(
        "\n\n".join(path.read_text(errors="replace") for path in controls)
    )
    status = (chroot.root_dir / DPKG / "status").read_text(errors="replace")
    return {
        "chroot": chroot.key,
        "packages": names,
        "debs": [path.parent.name for path in controls],
        "beside": find_beside(names, fetched, kernels_packages.parse_stanzas(status)),
    }


def find_beside(
    names: tuple[str, ...],
    fetched: tuple[dict[str, str], ...],
    installed: tuple[dict[str, str], ...],
) -> tuple[str, ...]:
    """Return which packages of a chroot those of a layer need.

    Args:
        names: Those that were asked for; the chroot may have one.
        fetched: The stanzas of the layer's packages.
        installed: The stanzas of the chroot's packages.

    Returns:
        Names, sorted: what Debian expects everywhere, and what is depended on.
    """
    by_name = {stanza["Package"]: stanza for stanza in installed}
    providers = {
        virtual: stanza["Package"]
        for stanza in installed
        for virtual in parse_relation(stanza.get("Provides", ""))
    }
    queue = [s["Package"] for s in installed if s.get("Essential") == "yes"] + list(names)
    queue += [name for stanza in fetched for name in list_depended(stanza)]
    found: set[str] = set()
    while queue:
        name = queue.pop()
        name = name if name in by_name else providers.get(name, "")
        if name and name not in found:
            found.add(name)
            queue += list_depended(by_name[name])
    return tuple(sorted(found - {stanza["Package"] for stanza in fetched}))


def list_depended(stanza: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names that a package depends on, all alternatives."""
    fields = (stanza.get(field, "") for field in ("Pre-Depends", "Depends"))
    return tuple(name for field in fields for name in parse_relation(field))


def parse_relation(text: str) -> tuple[str, ...]:
    """Return the names in a field such as Depends. Source: Debian Policy 4.7, 7.1."""
    parts = (part.split("(")[0].split(":")[0].strip() for part in re.split(r"[,|]", text))
    return tuple(part for part in parts if part)


def iterate_names(layer: Layer, below_dir: Path) -> Iterator[str]:
    """Yield the paths, relative to the root, of what a VM in memory has of its packages.

    Args:
        layer: The packages.
        below_dir: The chroot's root.
    """
    yield from iterate_tree(layer.root_dir)
    yield from GENERATED
    for package in layer.beside:
        for ending in (".list", ":amd64.list"):
            path = below_dir / DPKG / "info" / f"{package}{ending}"
            if path.is_file():
                names = (line.lstrip("/") for line in path.read_text().splitlines())
                yield from (name for name in names if not name.startswith(UNUSED))


def iterate_tree(folder: Path, inner: str = "") -> Iterator[str]:
    """Yield the paths, relative to a folder, of all that is below it or below a folder in it."""
    for parent, folders, names in os.walk(folder / inner):
        folders.sort()
        yield from (str(Path(parent, name).relative_to(folder)) for name in sorted(names + folders))
