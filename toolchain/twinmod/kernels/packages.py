# SPDX-License-Identifier: GPL-2.0-only
"""The packages of a distribution's kernel: which ones, and fetching them verified."""

import os
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from twinmod.base import commands, files, network, process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import ConfigError, MissingToolError
from twinmod.project.model import KernelSpec

WORK = sandbox.INSIDE / "scratch"

DOWNLOAD_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPackages:
    """The packages of one kernel, all of one version."""

    release: str
    version: str
    names: tuple[str, ...]
    # SHA-256 of each, in the same order, from the index that the suite's signature covers.
    digests: tuple[str, ...]


def render_sources(mirror: str, suite: str, keyring: str) -> str:
    """Return apt's sources, in the deb822 format, for one suite of a mirror."""
    return f"Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n"


def parse_stanzas(text: str) -> tuple[dict[str, str], ...]:
    """Return the stanzas of apt-cache's output; only the first line of a field is kept."""
    blocks = (block for block in text.split("\n\n") if block.strip())
    return tuple(
        {
            name: value.strip()
            for name, colon, value in (line.partition(":") for line in block.splitlines())
            if colon and not name.startswith((" ", "\t"))
        }
        for block in blocks
    )


def plan_packages(spec: KernelSpec, stanzas: tuple[dict[str, str], ...]) -> KernelPackages:
    """Choose image, modules, headers and source of the newest kernel of a flavour.

    Args:
        spec: The configured kernel.
        stanzas: Every ``linux-*`` package of the suite, the newest of a name first.

    Raises:
        ConfigError: The suite has no such flavour, or lacks a package of the same version.
    """
    found = find_releases(spec, stanzas)
    if not found:
        which = f"kernel {spec.series} of" if spec.series else "kernel of"
        raise ConfigError(
            f"suite {spec.suite} has no {which} flavour {spec.flavour!r}",
            hint="correct the kernel in [tool.twinmod]",
        )
    release, version = found[0]
    series = ".".join(release.split(".")[:2])
    digests = {s["Package"]: s["SHA256"] for s in stanzas if s.get("Version") == version}
    # Since 7.0 Debian splits the image; before, linux-image itself holds the files.
    split = f"linux-binary-{release}" in digests
    wanted = (
        *((f"linux-binary-{release}",) if split else ()),
        *find_modules_packages(release, digests),
        f"linux-headers-{release}",
        f"linux-source-{series}",
    )
    lacking = tuple(name for name in wanted if name not in digests)
    if lacking:
        raise ConfigError(
            f"suite {spec.suite} serves kernel {version} without {', '.join(lacking)}",
            hint="wait until the mirror is complete, or name another suite in [tool.twinmod]",
        )
    return KernelPackages(
        release=release,
        version=version,
        names=wanted,
        digests=tuple(digests[name] for name in wanted),
    )


def find_modules_packages(release: str, served: Container[str]) -> tuple[str, ...]:
    """Return the packages with a kernel's modules and the list of those that are built in.

    Args:
        release: The kernel's.
        served: All packages of its version.
    """
    modules, base = f"linux-modules-{release}", f"linux-base-{release}"
    if modules not in served and f"linux-binary-{release}" not in served:
        return (f"linux-image-{release}",)
    return (modules, *((base,) if base in served else ()))


def find_releases(
    spec: KernelSpec, stanzas: tuple[dict[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """Return (release, version) of a suite's kernels that a specification fits, newest first."""
    pattern = re.compile(rf"linux-image-(\d+\.\d+[^-]*(?:-rc\d+)?-{re.escape(spec.flavour)})")
    found = set()
    for stanza in stanzas:
        match = pattern.fullmatch(stanza.get("Package", ""))
        if match and f"{match.group(1)}.".startswith(f"{spec.series}." if spec.series else ""):
            found.add((match.group(1), stanza["Version"]))
    return tuple(sorted(found, key=lambda pair: plan_order(pair[0]), reverse=True))


def plan_order(release: str) -> tuple[int, ...]:
    """Return what orders kernel releases; a release candidate comes before its release."""
    upstream = release.partition("+")[0]
    numbers, _, candidate = upstream.partition("-rc")
    parts = [int(part) for part in re.findall(r"\d+", numbers.partition("-")[0])]
    padded = (*parts, 0, 0, 0)[:3]
    rank = re.match(r"\d+", candidate)
    return (*padded, int(rank.group()) if rank else 1_000_000)


def prepare_apt(chroot: Chroot, argv: tuple[str, ...], work_dir: Path, purpose: str) -> Command:
    """Return an apt command that reads our sources and keeps its state in our folder.

    The files are verified by apt against the signatures of the suite.
    """
    options = {
        "Dir::Etc::SourceList": f"{WORK}/apt/debian.sources",
        "Dir::Etc::SourceParts": "/nonexistent",
        "Dir::State::Lists": f"{WORK}/apt/lists",
        "Dir::Cache": f"{WORK}/apt/cache",
        # The one user in the namespace is root; there is no _apt to change to.
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "3",
        "Acquire::Languages": "none",
        **dict(chroot.apt_options),
    }
    program, *rest = argv
    settings = tuple(part for name, value in options.items() for part in ("-o", f"{name}={value}"))
    command = (
        "sh",
        "-c",
        'cd "$1" && shift && exec "$@"',
        "sh",
        f"{WORK}/deb",
        program,
        *settings,
        *rest,
    )
    return sandbox.plan_command(
        chroot,
        command,
        Enter(
            network=True,
            environment=network.plan_environment(os.environ),
            binds=(
                *network.find_binds(),
                Bind(source_path=work_dir, target_path=WORK, writable=True),
            ),
        ),
        purpose=purpose,
        timeout_s=DOWNLOAD_TIMEOUT_S,
    )


def plan_package_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return which of a suite's packages plan_packages wants to know of."""
    kinds = ("image", "binary", "modules", "base", "headers", "source")
    wanted = tuple(f"linux-{kind}-" for kind in kinds)
    return tuple(sorted(n for n in names if n.startswith(wanted) and not n.endswith("-dbg")))


def read_packages(spec: KernelSpec, chroot: Chroot, mirror: str, work_dir: Path) -> KernelPackages:
    """Ask the mirror which kernel it serves.

    Raises:
        MissingToolError: The mirror does not answer, or its signatures are wrong.
        ConfigError: It has no such suite or kernel.
    """
    return plan_packages(spec, read_stanzas(spec, chroot, mirror, work_dir))


def read_modules_packages(
    spec: KernelSpec, chroot: Chroot, mirror: str, work_dir: Path, which: tuple[str, str]
) -> KernelPackages:
    """Ask the mirror for the packages with the modules of a kernel that is there already.

    Args:
        spec: The configured kernel.
        chroot: Has apt.
        mirror: Where it asks.
        work_dir: For apt's lists.
        which: The kernel's release and version.

    Raises:
        MissingToolError: The mirror does not answer, or serves that kernel no longer.
        ConfigError: It has no such suite.
    """
    return plan_modules_packages(spec, read_stanzas(spec, chroot, mirror, work_dir), which)


def plan_modules_packages(
    spec: KernelSpec, stanzas: tuple[dict[str, str], ...], which: tuple[str, str]
) -> KernelPackages:
    """Choose the packages with the modules of one kernel; see read_modules_packages."""
    release, version = which
    digests = {s["Package"]: s["SHA256"] for s in stanzas if s.get("Version") == version}
    names = find_modules_packages(release, digests)
    if not all(name in digests for name in names):
        prune = commands.render("cache", "prune", "--all")
        raise MissingToolError(
            f"suite {spec.suite} no longer serves kernel {version}, whose modules are needed",
            facts=(("package", names[0]),),
            hint=f"{prune} && {commands.render('setup', '--kernel', spec.name)}",
        )
    return KernelPackages(
        release=release,
        version=version,
        names=names,
        digests=tuple(digests[name] for name in names),
    )


def read_stanzas(
    spec: KernelSpec, chroot: Chroot, mirror: str, work_dir: Path
) -> tuple[dict[str, str], ...]:
    """Ask the mirror for all packages of its kernels; see read_packages."""
    update_lists(spec.suite, chroot, mirror, work_dir)
    purpose = f"the packages of {spec.suite} were not listed"

    def run_apt(*argv: str) -> str:
        return process.run(prepare_apt(chroot, argv, work_dir, purpose), error=MissingToolError)

    names = plan_package_names(tuple(run_apt("apt-cache", "pkgnames", "linux-").split()))
    if not names:
        raise ConfigError(f"suite {spec.suite} serves no kernel", facts=(("mirror", mirror),))
    return parse_stanzas(run_apt("apt-cache", "show", *names))


def update_lists(suite: str, chroot: Chroot, mirror: str, work_dir: Path) -> None:
    """Fetch what a suite serves into a folder, for what prepare_apt plans there.

    Raises:
        MissingToolError: The mirror does not answer, or its signatures are wrong.
        ConfigError: It has no such suite.
    """
    for name in ("deb", "apt/lists/partial", "apt/cache/archives/partial"):
        (work_dir / name).mkdir(parents=True, exist_ok=True)
    keyring = find_keyring(chroot)
    (work_dir / "apt/debian.sources").write_text(render_sources(mirror, suite, keyring))
    purpose = f"the packages of {suite} were not listed"
    update = ("apt-get", "update", "--error-on=any")
    try:
        process.run(prepare_apt(chroot, update, work_dir, purpose), error=MissingToolError)
    except MissingToolError as error:
        # The keys are the chroot's own.
        upgrade = f"{commands.render('cache', 'prune', '--all')} && {commands.render('setup')}"
        raise network.plan_suite_error(error, suite, upgrade) from error


def find_keyring(chroot: Chroot) -> str:
    """Return the path, inside a chroot, of the keys that sign Debian's suites.

    Newer suites have it under another name only.
    """
    folder = "usr/share/keyrings"
    names = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
    found = next((name for name in names if (chroot.root_dir / folder / name).exists()), names[0])
    return f"/{folder}/{found}"


def download_packages(packages: KernelPackages, chroot: Chroot, work_dir: Path) -> None:
    """Fetch a kernel's packages, and verify each against the signed index.

    apt verifies what it fetches, and takes a file of the right size that is there already as it
    is: what an interrupted run left is fetched again here unless it is whole.

    Raises:
        MissingToolError: They cannot be fetched, or are not what the index says.
    """
    for path in find_broken_packages(packages, work_dir / "deb"):
        path.unlink(missing_ok=True)
    argv = ("apt-get", "download", *(f"{name}={packages.version}" for name in packages.names))
    purpose = f"the packages of kernel {packages.release} were not downloaded"
    process.run(prepare_apt(chroot, argv, work_dir, purpose), error=MissingToolError)
    broken = find_broken_packages(packages, work_dir / "deb")
    if broken:
        raise MissingToolError(
            f"{purpose}: the mirror's files are not those of its signed index",
            facts=tuple(("package", path.name) for path in broken),
        )


def find_broken_packages(packages: KernelPackages, folder: Path) -> tuple[Path, ...]:
    """Return what of a folder is not one of a kernel's packages, whole; a missing one too."""
    paths = sorted(folder.glob("*.deb"))
    by_name = {path.name.partition("_")[0]: path for path in paths}
    whole = {
        by_name[name]
        for name, digest in zip(packages.names, packages.digests, strict=True)
        if name in by_name and files.read_digest(by_name[name]) == digest
    }
    missing = tuple(folder / f"{name}_.deb" for name in packages.names if name not in by_name)
    return (*(path for path in paths if path not in whole), *missing)
