# SPDX-License-Identifier: GPL-2.0-only
"""How a chroot is planned; nothing is made here."""

from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.base import cache
from twinmod.base.check import Check
from twinmod.base.progress import Progress
from twinmod.errors import MissingToolError
from twinmod.kernels import roots
from twinmod.project.model import ChrootSpec

SPEC = ChrootSpec(name="trixie", suite="trixie", packages=("make", "rustc"))

NOTHING = {"mmdebstrap": False, "bwrap": False, "keyring": False, "newuidmap": False}

ALL = dict.fromkeys(NOTHING, True)


def test_a_complete_host_lacks_nothing() -> None:
    assert roots.plan_host_packages(ALL, is_root=False) == ()


def test_an_ordinary_user_needs_every_package() -> None:
    assert roots.plan_host_packages(NOTHING, is_root=False) == (
        "mmdebstrap",
        "bubblewrap",
        "debian-archive-keyring",
        "uidmap",
    )


def test_root_needs_no_newuidmap() -> None:
    assert "uidmap" not in roots.plan_host_packages(NOTHING, is_root=True)


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("mmdebstrap", "mmdebstrap"),
        ("bwrap", "bubblewrap"),
        ("newuidmap", "uidmap"),
        ("keyring", "debian-archive-keyring"),
    ],
)
def test_only_the_package_of_what_is_missing_is_named(program: str, package: str) -> None:
    assert roots.plan_host_packages(ALL | {program: False}, is_root=False) == (package,)


def test_what_the_host_lacks_is_a_command_to_paste() -> None:
    assert roots.render_install(("mmdebstrap", "uidmap")) == (
        "sudo apt-get install --no-install-recommends mmdebstrap uidmap"
    )


def test_the_host_is_looked_at_for_just_what_the_plan_asks() -> None:
    assert set(roots.read_host()) == set(NOTHING)


def test_the_command_that_makes_a_chroot() -> None:
    command = roots.prepare_mmdebstrap(
        SPEC,
        "http://mirror.example/debian",
        Path("/cache/x.partial"),
        (("Acquire::Check-Valid-Until", "false"),),
        is_root=False,
    )
    assert command.argv == (
        "mmdebstrap",
        "--variant=minbase",
        "--mode=unshare",
        "--format=tar",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"',
        '--aptopt=Acquire::Check-Valid-Until "false"',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        "--include=make,rustc",
        "trixie",
        "-",
        "http://mirror.example/debian",
    )
    assert command.log_path == Path("/cache/x.partial/mmdebstrap.log")


def test_root_makes_a_chroot_without_a_namespace() -> None:
    command = roots.prepare_mmdebstrap(SPEC, None, Path("/x"), (), is_root=True)
    assert "--mode=root" in command.argv


def test_without_a_mirror_mmdebstrap_takes_its_own() -> None:
    command = roots.prepare_mmdebstrap(SPEC, None, Path("/x"), (), is_root=False)
    assert command.argv[-2:] == ("trixie", "-")


def test_a_chroot_is_unpacked_as_the_calling_user() -> None:
    command = roots.plan_unpack(Path("/cache/x/root"))
    assert command.argv == (
        "tar",
        "-x",
        "-f",
        "-",
        "-C",
        "/cache/x/root",
        "--no-same-owner",
        "--exclude=./dev/*",
    )


@pytest.mark.parametrize(
    "other",
    [replace(SPEC, suite="sid"), replace(SPEC, packages=("make",)), replace(SPEC, name="x")],
    ids=("suite", "packages", "name"),
)
def test_another_content_is_another_entry(other: ChrootSpec) -> None:
    assert roots.plan_entry(other, "").key != roots.plan_entry(SPEC, "").key


def test_the_order_of_packages_is_no_content() -> None:
    assert (
        roots.plan_entry(replace(SPEC, packages=("rustc", "make")), "").key
        == roots.plan_entry(SPEC, "").key
    )


@pytest.mark.parametrize(
    ("apparmor", "sysctl", "in_container", "fix"),
    [
        ("", "0", False, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("1", "1", False, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        ("1", "0", True, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("1", "1", True, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        ("1", "1", True, "docker run --privileged"),
        ("", "0", True, "docker run --privileged"),
        ("0", "1", True, "docker run --security-opt"),
        ("", "", True, "--security-opt systempaths=unconfined"),
        ("", "", False, "sysctl -w user.max_user_namespaces="),
    ],
)
def test_the_fix_for_namespaces_fits_what_forbids_them(
    apparmor: str, sysctl: str, in_container: bool, fix: str
) -> None:
    assert fix in roots.find_namespace_fix(apparmor, sysctl, in_container)


def test_what_the_host_of_a_container_forbids_is_not_said_to_be_the_containers_to_allow() -> None:
    fix = roots.find_namespace_fix("1", "1", True)
    assert fix.startswith("on the container's host: sudo sysctl -w kernel.apparmor_")
    forbidden = roots.find_namespace_fix("", "", True, maximum="0", runner="podman")
    assert "on the container's host: sudo sysctl -w user.max_user_namespaces=" in forbidden
    assert "podman run --privileged" in forbidden
    assert "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL" in (
        roots.find_namespace_fix("0", "1", True, maximum="15000", runner="podman")
    )


@pytest.mark.parametrize(
    ("marker", "init", "runner"),
    [
        ("", "PATH=/bin\0HOME=/\0", ""),
        ("", "", ""),
        ("", "notcontainer=podman\0", ""),
        ("/.dockerenv", "", "docker"),
        ("/run/.containerenv", "", "podman"),
        ("/run/systemd/container", "", "docker"),
        # containerd, as under Kubernetes, leaves no other trace.
        ("/proc/sys", "PATH=/bin\0", "docker"),
        ("", "PATH=/bin\0container=podman\0", "podman"),
        ("", "container=lxc\0", "docker"),
    ],
)
def test_a_container_is_seen_by_what_it_was_given(marker: str, init: str, runner: str) -> None:
    names = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container", "/proc/sys")
    assert roots.find_container({name: name == marker for name in names}, init) == runner


# -- subordinate ids --------------------------------------------------------------------------

BOTH = "--add-subuids 100000-165535 --add-subgids 100000-165535"


def plan_subids(subuid: str, subgid: str, uid: str = "1000") -> Check:
    return roots.plan_subids({"/etc/subuid": subuid, "/etc/subgid": subgid}, "alice", uid=uid)


@pytest.mark.parametrize(
    ("subuid", "subgid", "options"),
    [
        ("alice:100000:65536\n", "alice:100000:65536\n", ""),
        ("bob:1:65536\nalice:100000:65536", "alice:100000:100000\n", ""),
        ("1000:100000:65536\n", "alice:100000:65536\n", ""),
        ("", "", BOTH),
        (
            "# alice:100000:65536\n\nalice\nalice:x:65536\n",
            "alice-2:100000:65536\n",
            "--add-subuids 165536-231071 --add-subgids 165536-231071",
        ),
        ("alice:100000:65536\n", "", "--add-subgids 165536-231071"),
        ("", "alice:200000:65536\n", "--add-subuids 100000-165535"),
        # The ranges of others stay theirs, and a gap that is too small stays one.
        (
            "bob:100000:65536\ncarol:240000:65536\n",
            "",
            "--add-subuids 165536-231071 --add-subgids 165536-231071",
        ),
        (
            "bob:100000:65536\ncarol:231000:65536\n",
            "",
            "--add-subuids 296536-362071 --add-subgids 296536-362071",
        ),
        # mmdebstrap takes the first line, so one that is too short must go.
        (
            "alice:100000:1000\nalice:200000:65536\n",
            "alice:100000:65536\n",
            "--del-subuids 100000-100999 --add-subuids 265536-331071",
        ),
    ],
)
def test_a_user_with_too_few_subordinate_ids_is_told_how_to_get_more(
    subuid: str, subgid: str, options: str
) -> None:
    check = plan_subids(subuid, subgid)
    assert (check.ok, check.required) == (not options, True)
    assert check.fix == (f"sudo usermod {options} alice" if options else "")


def test_what_a_user_has_is_said_of_each_file() -> None:
    check = plan_subids("alice:100000:65536\n", "")
    assert check.found == "65536 in /etc/subuid, none in /etc/subgid"


def test_an_old_mmdebstrap_finds_no_number_of_a_user() -> None:
    line = "1000:100000:65536\n"
    assert plan_subids(line, line).ok
    assert plan_subids(line, line, uid="").fix.endswith(
        "--add-subuids 165536-231071 --add-subgids 165536-231071 alice"
    )


@pytest.mark.parametrize("lacks", ["namespace", "ids", ""])
def test_a_chroot_is_not_begun_where_none_can_be_made(
    lacks: str, cache_dir: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def make_chroot(*_: object) -> dict[str, object]:
        begun.append("made")
        raise MissingToolError("made")

    works = (lacks != "namespace", "bwrap: Creating new namespace failed")
    monkeypatch.setattr(roots, "probe_namespace", lambda: works)
    line = "" if lacks == "ids" else "alice:100000:65536\n"
    monkeypatch.setattr(roots, "read_subids", lambda: plan_subids(line, line))
    monkeypatch.setattr(roots, "make_chroot", make_chroot)
    monkeypatch.setattr(cache, "require_disk", lambda *_: None)
    with pytest.raises(MissingToolError) as caught:
        roots.ensure_chroot(SPEC, "http://mirror.example/debian", progress)
    assert begun == ([] if lacks else ["made"])
    if lacks:
        assert (
            caught.value.hint
            == {
                "namespace": roots.read_namespace_fix(),
                "ids": f"sudo usermod {BOTH} alice",
            }[lacks]
        )


def test_a_chroot_that_was_not_made_is_not_found_and_not_made(cache_dir: Path) -> None:
    assert roots.find_chroot(SPEC) is None
    assert not cache_dir.exists()


@pytest.mark.parametrize("answers", [True, False])
def test_the_doctor_asks_the_mirror_for_the_suite(cache_dir: Path, answers: bool) -> None:
    asked: list[str] = []

    def probe(url: str) -> bool:
        asked.append(url)
        return answers

    whole, mirror = roots.check_chroot(SPEC, "http://mirror.example/debian", probe, "sid")
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
    assert roots.parse_apt_options(dump) == (
        ("Acquire::Check-Valid-Until", "false"),
        ("Acquire::Check-Date", "false"),
    )
