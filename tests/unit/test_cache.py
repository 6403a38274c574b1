# SPDX-License-Identifier: GPL-2.0-only
"""What outlives a run is whole, or is made again; two runs never make it at once."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from twinmod.base import cache, process
from twinmod.base.cache import CacheEntry, FoundEntry
from twinmod.base.process import Command
from twinmod.base.progress import Progress
from twinmod.errors import ExitCode, MissingToolError

LIMIT_S = 20.0


class Maker:
    """Makes an entry with one vital file, and counts."""

    def __init__(self, text: str = "content") -> None:
        self.text = text
        self.calls = 0

    def __call__(self, path: Path, progress: Progress) -> cache.Made:
        del progress
        self.calls += 1
        (path / "file").write_text(self.text)
        return {"made": self.calls}, ("file",)


class StopError(Exception):
    """What ends a make in the middle."""


def plan(make: cache.Make, *keep: str) -> CacheEntry:
    return CacheEntry(kind="kind", key="name", make=make, keep=keep)


def ensure(make: Maker, progress: Progress) -> FoundEntry:
    return plan(make).ensure(progress)


def test_the_cache_is_where_the_caller_says(cache_dir: Path) -> None:
    assert cache.find_cache_dir() == cache_dir


def test_the_cache_is_in_the_users_own_folder_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TWINMOD_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.find_cache_dir() == tmp_path / "twinmod"


def test_the_cache_says_to_backups_that_it_is_one(cache_dir: Path) -> None:
    cache.ensure_cache_dir()
    text = (cache_dir / "CACHEDIR.TAG").read_text()
    assert text.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


@pytest.mark.parametrize("folder", ["file/below", "/proc/twinmod"])
def test_a_place_that_cannot_be_written_is_an_environment_that_is_not_ready(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Neither takes a folder from anyone, root included.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TWINMOD_CACHE_DIR", str(tmp_path / folder))
    with pytest.raises(MissingToolError) as caught:
        cache.ensure_cache_dir()
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert ("path", str(tmp_path / folder)) in caught.value.facts
    assert "TWINMOD_CACHE_DIR" in caught.value.hint


# -- entries ----------------------------------------------------------------------------------


def test_an_entry_is_made_once(cache_dir: Path, progress: Progress) -> None:
    make = Maker()
    first, second = ensure(make, progress), ensure(make, progress)
    assert make.calls == 1
    assert first == second
    assert first.path == cache_dir / "kind/name"
    assert first.record["made"] == 1
    assert (first.path / "file").read_text() == "content"


@pytest.mark.parametrize("harm", ["truncated", "grown", "gone", "no record", "broken record"])
def test_a_harmed_entry_is_found_and_made_again(
    harm: str, cache_dir: Path, progress: Progress
) -> None:
    make = Maker()
    path = ensure(make, progress).path
    match harm:
        case "truncated":
            (path / "file").write_text("con")
        case "grown":
            (path / "file").write_text("content and more")
        case "gone":
            (path / "file").unlink()
        case "no record":
            (path / cache.RECORD).unlink()
        case "broken record":
            (path / cache.RECORD).write_text('{"vital": {"file"')
    (path / "stray").write_text("")
    assert plan(Maker()).find() is None
    found = ensure(make, progress)
    assert make.calls == 2
    assert (found.path / "file").read_text() == "content"
    assert not (found.path / "stray").exists()


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"vital": 3}', "", "\0"])
def test_a_record_that_is_no_record_is_no_entry(text: str, cache_dir: Path) -> None:
    (cache_dir / "kind/name").mkdir(parents=True)
    (cache_dir / "kind/name" / cache.RECORD).write_text(text)
    assert plan(Maker()).find() is None


def test_what_was_half_made_is_no_entry(cache_dir: Path, progress: Progress) -> None:
    def stop(path: Path, progress: Progress) -> cache.Made:
        (path / "file").write_text("con")
        raise StopError

    with pytest.raises(StopError):
        plan(stop).ensure(progress)
    assert plan(Maker()).find() is None
    assert not (cache_dir / "kind/name").exists()


def test_a_make_starts_empty_but_for_what_it_keeps(cache_dir: Path, progress: Progress) -> None:
    def stop(path: Path, progress: Progress) -> cache.Made:
        for name in ("work", "other/inner"):
            (path / name).mkdir(parents=True)
        (path / "work/download").write_text("half")
        (path / "stale").write_text("")
        (path / "link").symlink_to(path / "work")
        raise StopError

    def go_on(path: Path, progress: Progress) -> cache.Made:
        assert [child.name for child in path.iterdir()] == ["work"]
        assert (path / "work/download").read_text() == "half"
        return {}, ("work/download",)

    with pytest.raises(StopError):
        plan(stop, "work").ensure(progress)
    entry = plan(go_on, "work").ensure(progress)
    assert entry.path == cache_dir / "kind/name"
    assert not (cache_dir / "kind/name.partial").exists()


def test_a_vital_file_that_was_not_made_leaves_no_entry(
    cache_dir: Path, progress: Progress
) -> None:
    with pytest.raises(FileNotFoundError):
        plan(lambda *_: ({}, ("gone",))).ensure(progress)
    assert not (cache_dir / "kind/name").exists()


def test_an_entry_that_is_renewed_is_replaced_whole(cache_dir: Path, progress: Progress) -> None:
    old = ensure(Maker("old"), progress)
    (old.path / "stray").write_text("")
    new = plan(Maker("new")).renew(progress)
    assert new == plan(Maker()).find()
    assert {path.name for path in (cache_dir / "kind/name").iterdir()} == {"file", cache.RECORD}
    assert (new.path / "file").read_text() == "new"


def test_an_entry_that_cannot_be_renewed_stays(cache_dir: Path, progress: Progress) -> None:
    def stop(path: Path, progress: Progress) -> cache.Made:
        assert plan(Maker()).find() == old
        raise StopError

    old = ensure(Maker("old"), progress)
    with pytest.raises(StopError):
        plan(stop).renew(progress)
    assert plan(Maker()).find() == old
    assert [path.name for path in (cache_dir / "kind").iterdir()] == ["name"]


def test_an_entry_uses_its_half_made_folder_only_when_it_goes_on_with_it() -> None:
    assert plan(Maker()).folders == (("kind", "name"),)
    assert plan(Maker(), "work").folders == (("kind", "name"), ("kind", "name.partial"))


# -- two runs at once -------------------------------------------------------------------------


def test_a_second_run_says_that_it_waits_and_gets_what_the_first_made(cache_dir: Path) -> None:
    script = (
        "import sys\n"
        "from contextlib import nullcontext\n"
        "from twinmod.base import cache\n"
        "class Quiet:\n"
        "    def phase(self, title): return nullcontext()\n"
        "    def note(self, text): pass\n"
        "    def detail(self, text): pass\n"
        "def make(path, progress):\n"
        "    print('making', flush=True)\n"
        "    sys.stdin.read()\n"
        "    (path / 'file').write_text('of the first run')\n"
        "    return {}, ('file',)\n"
        "cache.CacheEntry(kind='kind', key='name', make=make).ensure(Quiet())\n"
    )
    command = Command(
        argv=(sys.executable, "-c", script),
        purpose="x",
        timeout_s=LIMIT_S,
        environment=(("TWINMOD_CACHE_DIR", str(cache_dir)),),
    )
    said: list[str] = []
    make = Maker("of the second run")
    with process.start(command, stdin=subprocess.PIPE) as first:
        assert first.stdin is not None
        release = first.stdin.close

        class Releasing:
            """Lets the first run go on only once this one has said that it waits."""

            @contextmanager
            def phase(self, title: str) -> Iterator[None]:
                yield

            def note(self, text: str) -> None:
                said.append(text)
                release()

            def detail(self, text: str) -> None:
                pytest.fail("a run that waits makes nothing")

        assert next(process.read_lines(first, lambda: LIMIT_S)) == "making"
        entry = ensure(make, Releasing())
        assert first.wait(timeout=LIMIT_S) == 0
    assert said == ["another run holds kind name; waiting for it"]
    assert make.calls == 0
    assert (entry.path / "file").read_text() == "of the first run"


def test_a_run_that_waits_too_long_says_who_to_look_for(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_S", 0.05)
    path = tmp_path / "lock"
    with (
        cache.hold_lock(path, "this checkout", progress),
        pytest.raises(MissingToolError) as caught,
        cache.hold_lock(path, "this checkout", progress),
    ):
        pytest.fail("two runs hold one lock")
    assert ("lock", str(path)) in caught.value.facts
    assert str(path) in caught.value.hint


def test_a_lock_is_free_again_after_an_error(
    tmp_path: Path, told: list[str], progress: Progress
) -> None:
    def fail() -> None:
        with cache.hold_lock(tmp_path / "lock", "it", progress):
            raise StopError

    with pytest.raises(StopError):
        fail()
    with cache.hold_lock(tmp_path / "lock", "it", progress):
        assert told == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("waits", [False, True])
def test_a_cache_whose_file_system_has_no_locks_is_named_with_what_to_do(
    cache_dir: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch, number: int, waits: bool
) -> None:
    held = [False] if waits else []

    def flock(descriptor: int, operation: int) -> None:
        if held:
            held.pop()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(MissingToolError, match="its file system has no locks") as caught:
        ensure(Maker(), progress)
    assert caught.value.facts[0] == ("folder", str(cache_dir))
    assert "export TWINMOD_CACHE_DIR=" in caught.value.hint


def test_a_checkout_whose_file_system_has_no_locks_is_not_told_of_the_cache(
    cache_dir: Path, tmp_path: Path
) -> None:
    error = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    found = cache.make_lock_error(tmp_path / "out/.lock", error)
    assert found.facts[0] == ("folder", str(tmp_path / "out"))
    assert "TWINMOD_CACHE_DIR" not in found.hint


def test_another_reason_why_a_file_cannot_be_locked_is_said_as_it_is(cache_dir: Path) -> None:
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))
    found = cache.make_lock_error(cache_dir / "locks/x.lock", error)
    assert found.message.endswith("cannot be locked: Read-only file system")


# -- files ------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/file"
    cache.write_atomically(path, "one")
    before = path.stat().st_ino
    cache.write_atomically(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_ino != before
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    cache.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        cache.write_atomically(path, "new \udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder/inner").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        cache.write_atomically(tmp_path / "folder", "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def remove_as_owner(folder: Path) -> str:
    """Remove ``tree`` in a folder as a user whom permissions bind, also when root runs this."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
    # Imports and paths above the folder may be root's alone: both are settled before.
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from twinmod.base import cache\n"
        "os.chdir(sys.argv[1])\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([])\n"
        "    os.setgid(65534)\n"
        "    os.setuid(65534)\n"
        "cache.remove_tree(Path('tree'))\n"
    )
    argv = (sys.executable, "-c", script, str(folder))
    return process.run(Command(argv=argv, purpose="the tree stays", timeout_s=LIMIT_S))


def test_a_tree_is_removed_with_folders_that_may_not_be_written_and_links_to_nowhere(
    tmp_path: Path,
) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "a/b").mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").write_text("")
    (tree / "a/b/file").write_text("")
    (tree / "a/nowhere").symlink_to("/nonexistent/x")
    (tree / "a/folder").symlink_to(outside)
    (tree / "a/b/file").chmod(0o400)
    for folder in ("a/b", "a"):
        (tree / folder).chmod(0o555)
    assert remove_as_owner(tmp_path) == ""
    assert not tree.exists()
    assert (outside / "kept").exists()


def test_a_tree_that_is_not_there_is_removed_already(tmp_path: Path) -> None:
    cache.remove_tree(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_hard_links_are_counted_once_and_links_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"x" * 100_000)
    once = cache.read_size(tmp_path)
    (tmp_path / "b").hardlink_to(tmp_path / "a/file")
    (tmp_path / "c").symlink_to("/nonexistent")
    assert once >= 100_000
    assert cache.read_size(tmp_path) == once


# -- list and prune ---------------------------------------------------------------------------


def test_the_list_shows_what_is_complete_and_what_is_not(
    cache_dir: Path, progress: Progress
) -> None:
    ensure(Maker(), progress)
    (cache_dir / "kind/half.partial").mkdir()
    (cache_dir / "accelerator.json").write_text("{}")
    shown = [(kind, name, complete) for kind, name, complete, _ in cache.list_entries()]
    assert shown == [("kind", "half.partial", False), ("kind", "name", True)]


def test_a_cache_that_is_not_there_has_no_entries(cache_dir: Path) -> None:
    assert cache.list_entries() == ()
    assert not cache_dir.exists()


@pytest.mark.parametrize("name", ["name", "name.partial"])
def test_an_entry_can_be_removed_complete_or_not(
    name: str, cache_dir: Path, progress: Progress
) -> None:
    ensure(Maker(), progress)
    (cache_dir / "kind/name.partial/inner").mkdir(parents=True)
    cache.remove_entry("kind", name, progress)
    left = {path.name for path in (cache_dir / "kind").iterdir()}
    assert left == {"name", "name.partial"} - {name}


def test_too_little_disk_is_said_before_it_is_filled(tmp_path: Path) -> None:
    cache.require_disk(tmp_path, 0, "nothing")
    with pytest.raises(MissingToolError, match="too little disk for the chroot") as caught:
        cache.require_disk(tmp_path, 10**18, "the chroot")
    assert "TWINMOD_CACHE_DIR" in caught.value.hint


def test_a_tree_is_removed_with_folders_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/a/b/file").write_text("")
    (tmp_path / "tree/a").chmod(0o000)
    assert remove_as_owner(tmp_path) == ""
    assert not (tmp_path / "tree").exists()


def test_a_broken_link_where_a_tree_should_go_is_removed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/nonexistent")
    cache.remove_tree(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
