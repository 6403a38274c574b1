# SPDX-License-Identifier: GPL-2.0-only
"""Which files differ between two builds, and in what."""

from pathlib import Path

import pytest

from twinmod.base import sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Chroot
from twinmod.release import differing


def make_root(folder: Path) -> Chroot:
    return Chroot(name="x", suite="trixie", root_dir=folder, key="k", mirror="")


def put_diffoscope(
    root: Chroot, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give a root a diffoscope: a shell's script, which runs here with the builds' folder as $1."""
    path = root.root_dir / differing.PROGRAM
    path.parent.mkdir(parents=True)
    path.write_text(script)

    def plan(root: Chroot, name: str, builds_dir: Path) -> Command:
        argv = ("sh", str(path), str(builds_dir), name)
        return Command(argv=argv, purpose="the detail", timeout_s=30, log_path=tmp_path / "log")

    monkeypatch.setattr(differing, "plan_diffoscope", plan)


def find(root: Chroot, before: dict[str, bytes], now: dict[str, bytes]) -> list[str]:
    return [d.render() for d in differing.find_differences(root, before, now)]


def test_names_are_of_what_is_not_the_same_on_both_sides() -> None:
    before = {"same": b"1", "b": b"1", "gone": b""}
    assert differing.find_names(before, {"same": b"1", "b": b"2", "a": b""}) == ("a", "b", "gone")


def test_what_is_the_same_differs_nowhere(tmp_path: Path) -> None:
    assert find(make_root(tmp_path), {"a": b"1"}, {"a": b"1"}) == []


def test_a_file_that_only_one_side_has_is_named(tmp_path: Path) -> None:
    assert find(make_root(tmp_path), {"a": b"", "b": b""}, {"b": b"", "c": b""}) == [
        "a differs\n    only one build has it: it is missing now",
        "c differs\n    only one build has it: it is missing before",
    ]


def test_without_diffoscope_a_name_comes_with_what_brings_it(tmp_path: Path) -> None:
    (text,) = find(make_root(tmp_path), {"a": b"1"}, {"a": b"2"})
    assert text == (
        "a differs\n    to see in what, add diffoscope-minimal and unzip to [tool.twinmod].packages"
    )


def test_diffoscope_sees_both_sides_and_no_escape_reaches_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root(tmp_path)
    script = 'cd "$1"; cat "before/$2" "now/$2"; printf "\\033[31m\\n"; exit 1\n'
    put_diffoscope(root, script, tmp_path, monkeypatch)
    found = find(root, {"a": b"1\n", "d/b": b"3\n"}, {"a": b"2\n", "d/b": b"4\n"})
    assert found == [
        "a differs\n    1\n    2\n    \\x1b[31m",
        "d/b differs\n    3\n    4\n    \\x1b[31m",
    ]


def test_a_diffoscope_that_fails_hides_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root(tmp_path)
    put_diffoscope(root, "echo no memory; exit 2\n", tmp_path, monkeypatch)
    (text,) = find(root, {"a": b"1"}, {"a": b"2"})
    assert text == "a differs\n    diffoscope exited with status 2\n    no memory"


def test_diffoscope_runs_inside_the_chroot_with_both_builds(tmp_path: Path) -> None:
    command = differing.plan_diffoscope(make_root(tmp_path / "root"), "a.deb", tmp_path / "builds")
    assert command.argv[-2:] == ("/twinmod/builds/before/a.deb", "/twinmod/builds/now/a.deb")
    at = command.argv.index(str(tmp_path / "builds"))
    assert command.argv[at - 1 : at + 2] == (
        "--ro-bind",
        str(tmp_path / "builds"),
        str(sandbox.INSIDE / "builds"),
    )
