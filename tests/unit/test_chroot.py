# SPDX-License-Identifier: GPL-2.0-only
"""How a chroot is planned; nothing is made here."""

from dataclasses import replace
from pathlib import Path

import pytest

from twinmod import chroot
from twinmod.specs import ChrootSpec

SPEC = ChrootSpec(name="trixie", suite="trixie", packages=("make", "rustc"))

NOTHING = {"mmdebstrap": False, "bwrap": False, "keyring": False, "newuidmap": False}

ALL = dict.fromkeys(NOTHING, True)


def test_a_complete_host_lacks_nothing() -> None:
    assert chroot.plan_host_packages(ALL, is_root=False) == ()


def test_an_ordinary_user_needs_every_package() -> None:
    assert chroot.plan_host_packages(NOTHING, is_root=False) == (
        "mmdebstrap", "bubblewrap", "debian-archive-keyring", "uidmap",
    )  # fmt: skip


def test_root_needs_no_newuidmap() -> None:
    assert "uidmap" not in chroot.plan_host_packages(NOTHING, is_root=True)


@pytest.mark.parametrize(
    ("program", "package"),
    [("mmdebstrap", "mmdebstrap"), ("bwrap", "bubblewrap"), ("newuidmap", "uidmap"),
     ("keyring", "debian-archive-keyring")],
)  # fmt: skip
def test_only_the_package_of_what_is_missing_is_named(program: str, package: str) -> None:
    assert chroot.plan_host_packages(ALL | {program: False}, is_root=False) == (package,)


def test_what_the_host_lacks_is_a_command_to_paste() -> None:
    assert chroot.render_install(("mmdebstrap", "uidmap")) == (
        "sudo apt-get install --no-install-recommends mmdebstrap uidmap"
    )


def test_the_host_is_looked_at_for_just_what_the_plan_asks() -> None:
    assert set(chroot.read_host()) == set(NOTHING)


def test_the_command_that_makes_a_chroot() -> None:
    command = chroot.plan_mmdebstrap(
        SPEC, "http://mirror.example/debian", Path("/cache/x.partial"),
        (("Acquire::Check-Valid-Until", "false"),), is_root=False,
    )  # fmt: skip
    assert command.argv == (
        "mmdebstrap", "--variant=minbase", "--mode=unshare", "--format=tar",
        '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"', '--aptopt=Acquire::Check-Valid-Until "false"',
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*",
        "--include=make,rustc", "trixie", "-", "http://mirror.example/debian",
    )  # fmt: skip
    assert command.log_path == Path("/cache/x.partial/mmdebstrap.log")


def test_root_makes_a_chroot_without_a_namespace() -> None:
    command = chroot.plan_mmdebstrap(SPEC, None, Path("/x"), (), is_root=True)
    assert "--mode=root" in command.argv


def test_without_a_mirror_mmdebstrap_takes_its_own() -> None:
    command = chroot.plan_mmdebstrap(SPEC, None, Path("/x"), (), is_root=False)
    assert command.argv[-2:] == ("trixie", "-")


def test_a_chroot_is_unpacked_as_the_calling_user() -> None:
    command = chroot.plan_unpack(Path("/cache/x/root"))
    assert command.argv == (
        "tar", "-x", "-f", "-", "-C", "/cache/x/root", "--no-same-owner", "--exclude=./dev/*",
    )  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [replace(SPEC, suite="sid"), replace(SPEC, packages=("make",)), replace(SPEC, name="x")],
    ids=("suite", "packages", "name"),
)
def test_another_content_is_another_entry(other: ChrootSpec) -> None:
    assert chroot.plan_key(other) != chroot.plan_key(SPEC)


def test_the_order_of_packages_is_no_content() -> None:
    assert chroot.plan_key(replace(SPEC, packages=("rustc", "make"))) == chroot.plan_key(SPEC)


@pytest.mark.parametrize(
    ("apparmor", "sysctl", "in_container", "fix"),
    [
        ("", "0", False, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("1", "1", False, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        ("1", "0", True, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("0", "1", True, "docker run --security-opt"),
        ("", "", False, "sysctl -w user.max_user_namespaces="),
    ],
)
def test_the_fix_for_namespaces_fits_what_forbids_them(
    apparmor: str, sysctl: str, in_container: bool, fix: str
) -> None:
    assert fix in chroot.find_namespace_fix(apparmor, sysctl, in_container)


def test_a_chroot_that_was_not_made_is_not_found_and_not_made(cache_dir: Path) -> None:
    assert chroot.find_chroot(SPEC) is None
    assert not cache_dir.exists()


@pytest.mark.parametrize("answers", [True, False])
def test_the_doctor_asks_the_mirror_for_the_suite(cache_dir: Path, answers: bool) -> None:
    asked: list[str] = []

    def probe(url: str) -> bool:
        asked.append(url)
        return answers

    whole, mirror = chroot.check_chroot(SPEC, "http://mirror.example/debian", probe, "sid")
    assert asked == ["http://mirror.example/debian/dists/trixie/InRelease"]
    assert (whole.ok, whole.required, whole.fix) == (False, False, "twinmod setup --kernel sid")
    assert (mirror.ok, mirror.required) == (answers, True)
    assert not cache_dir.exists()


def test_only_the_freshness_of_a_mirror_is_taken_from_the_hosts_apt() -> None:
    dump = (
        'APT::Architecture "amd64";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::Check-Date "false";\n'
        'Acquire::AllowInsecureRepositories "true";\n'
    )
    assert chroot.parse_apt_options(dump) == (
        ("Acquire::Check-Valid-Until", "false"), ("Acquire::Check-Date", "false"),
    )  # fmt: skip
