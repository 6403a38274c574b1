# SPDX-License-Identifier: GPL-2.0-only
"""How a chroot is entered: one exact vector, and the order of what is mounted."""

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from twinmod.base import sandbox
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import ConfigError

LINUX = Bind(source_path=Path("/cache/linux"), target_path=PurePosixPath("/twinmod/linux"))

STAGE = Bind(
    source_path=Path("/checkout/out/x"),
    target_path=PurePosixPath("/twinmod/linux/samples/rust/x"),
    writable=True,
)

EVERYTHING = Enter(
    binds=(LINUX, STAGE),
    devices=("/dev/kvm",),
    network=True,
    writable=True,
    terminal=True,
    environment=(("A", "b c"),),
    working_dir="/twinmod",
)


def find_all(argv: tuple[str, ...], word: str) -> list[int]:
    return [index for index, part in enumerate(argv) if part == word]


def test_everything_that_a_caller_can_ask_for(root: Chroot) -> None:
    assert sandbox.plan_enter(root, ("qemu",), EVERYTHING) == (
        "bwrap",
        "--unshare-all",
        "--share-net",
        "--die-with-parent",
        "--uid",
        "0",
        "--gid",
        "0",
        "--bind",
        "/cache/chroot/trixie-1/root",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/twinmod",
        "--dev-bind",
        "/dev/kvm",
        "/dev/kvm",
        "--ro-bind",
        "/cache/linux",
        "/twinmod/linux",
        "--bind",
        "/checkout/out/x",
        "/twinmod/linux/samples/rust/x",
        "--clearenv",
        "--setenv",
        "PATH",
        "/usr/sbin:/usr/bin:/sbin:/bin",
        "--setenv",
        "LC_ALL",
        "C.UTF-8",
        "--setenv",
        "HOME",
        "/tmp",
        "--setenv",
        "A",
        "b c",
        "--chdir",
        "/twinmod",
        "--",
        "qemu",
    )


def test_a_folder_is_covered_after_what_it_lies_in_and_before_what_lies_in_it(
    root: Chroot,
) -> None:
    samples = PurePosixPath("/twinmod/linux/samples/rust")
    argv = sandbox.plan_enter(root, ("true",), Enter(binds=(LINUX, STAGE), hidden=(samples,)))
    (covered,) = find_all(argv, str(samples))
    assert argv[covered - 1] == "--tmpfs"
    assert argv.index("/twinmod/linux") < covered < argv.index(str(STAGE.target_path))


def test_a_folder_is_covered_once_for_all_that_lies_in_it(root: Chroot) -> None:
    view = PurePosixPath("/view/twinmod")
    binds = tuple(
        Bind(source_path=Path(f"/cache/{name}"), target_path=view / name) for name in ("a", "b")
    )
    argv = sandbox.plan_enter(root, ("true",), Enter(binds=binds, hidden=(view,)))
    assert len(find_all(argv, str(view))) == 1


def test_a_folder_that_nothing_lies_in_is_left_alone(root: Chroot) -> None:
    argv = sandbox.plan_enter(
        root, ("true",), Enter(binds=(LINUX,), hidden=(PurePosixPath("/view"),))
    )
    assert "/view" not in argv


def test_nothing_has_the_network_or_may_write_unless_it_is_asked_for(root: Chroot) -> None:
    command = sandbox.plan_command(
        root,
        ("true",),
        Enter(binds=(LINUX,)),
        purpose="x",
        timeout_s=7,
    )
    assert "--share-net" not in command.argv
    assert "--bind" not in command.argv
    # A session of its own: what runs inside cannot type into the caller's terminal.
    assert "--new-session" in command.argv
    assert command.argv[command.argv.index("--chdir") + 1] == "/"
    assert (command.purpose, command.timeout_s, command.log_path) == ("x", 7, None)


def test_a_program_inside_may_look_like_an_option(root: Chroot) -> None:
    # bwrap stops to read its own options at "--".
    argv = sandbox.plan_enter(root, ("--bind", "x"))
    assert argv[-3:] == ("--", "--bind", "x")


def test_the_host_as_a_root_is_mounted_part_by_part_and_never_writable(root: Chroot) -> None:
    host = replace(
        root,
        root_dir=Path("/"),
        top=(("bin", "usr/bin"), ("usr", "")),
        environment=(("PATH", "/opt/gcc/bin:/usr/bin"),),
    )
    argv = sandbox.plan_enter(host, ("make",), Enter(environment=(("HOME", "/x"),), writable=True))
    link, usr, devices = argv.index("--symlink"), argv.index("--ro-bind"), argv.index("--dev")
    assert argv[link : link + 3] == ("--symlink", "usr/bin", "/bin")
    assert argv[usr : usr + 3] == ("--ro-bind", "/usr", "/usr")
    assert link < usr < devices
    assert "--bind" not in argv
    assert str(root.root_dir) not in argv
    # The last one that is set counts: a call's own, then the host's, then everyone's.
    settings = [(argv[at + 1], argv[at + 2]) for at in find_all(argv, "--setenv")]
    assert settings[-2:] == [("PATH", "/opt/gcc/bin:/usr/bin"), ("HOME", "/x")]


def test_what_a_host_keeps_of_the_sandboxs_own_folders_is_mounted_over_them(root: Chroot) -> None:
    kept = (Path("/run/current-system"), Path("/tmp/gcc-15"))
    argv = sandbox.plan_enter(replace(root, kept=kept), ("make",), Enter(devices=("/dev/kvm",)))
    for path in kept:
        index = argv.index(str(path))
        assert argv[index - 1 : index + 2] == ("--ro-bind", str(path), str(path))
        assert index > argv.index("/tmp")
        assert index > argv.index("/run")


def test_jobs_are_as_many_as_a_person_says_or_as_there_are_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TWINMOD_JOBS", raising=False)
    assert sandbox.find_jobs() == os.cpu_count()
    monkeypatch.setenv("TWINMOD_JOBS", "3")
    assert "-j3" in sandbox.plan_make((), "modules")


@pytest.mark.parametrize("given", ["0", "many", "-1"])
def test_what_is_no_number_of_jobs_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINMOD_JOBS", given)
    with pytest.raises(ConfigError, match="no number of jobs"):
        sandbox.find_jobs()
