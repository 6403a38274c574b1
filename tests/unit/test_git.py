# SPDX-License-Identifier: GPL-2.0-only
"""What git says of a checkout, and a copy of a commit."""

import os
from pathlib import Path

import pytest

from twinmod.base import git as base_git
from twinmod.base import process
from twinmod.base.process import Command
from twinmod.errors import ConfigError

IDENTITY = (
    ("GIT_AUTHOR_NAME", "a"),
    ("GIT_AUTHOR_EMAIL", "a@example.org"),
    ("GIT_COMMITTER_NAME", "a"),
    ("GIT_COMMITTER_EMAIL", "a@example.org"),
    ("GIT_COMMITTER_DATE", "@1700000000 +0000"),
    ("GIT_AUTHOR_DATE", "@1700000000 +0000"),
)


def git(folder: Path, *arguments: str) -> str:
    argv = ("git", "-C", str(folder), *arguments)
    return process.run(Command(argv=argv, purpose="git", timeout_s=60, environment=IDENTITY))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "kept").write_text("one\n")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / ".gitignore").write_text("out\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "tag", "v1")
    return folder


def test_a_clean_head_has_its_commit_time_and_tags(checkout: Path) -> None:
    head = base_git.read_head(checkout)
    assert (head.commit, head.epoch, head.tags, head.changes) == (
        git(checkout, "rev-parse", "HEAD").strip(),
        1700000000,
        ("v1",),
        (),
    )
    base_git.require_clean(head)


def test_what_no_commit_has_is_named_and_what_git_ignores_is_not(checkout: Path) -> None:
    (checkout / "kept").write_text("two\n")
    (checkout / "new file").write_text("")
    (checkout / "out").write_text("")
    git(checkout, "mv", "run", "renamed")
    head = base_git.read_head(checkout)
    assert set(head.changes) == {"kept", "new file", "renamed"}
    with pytest.raises(ConfigError, match="changes that no commit has") as caught:
        base_git.require_clean(head)
    assert "new file" in caught.value.facts[0][1]


def test_a_tag_is_another_commit_than_the_one_checked_out(checkout: Path) -> None:
    (checkout / "kept").write_text("two\n")
    git(checkout, "commit", "-q", "-a", "-m", "second")
    head = base_git.read_head(checkout, "v1")
    assert head.commit == git(checkout, "rev-parse", "v1").strip()
    assert head.commit != base_git.read_head(checkout).commit


def test_a_tag_that_is_not_there_is_refused_with_those_that_are(checkout: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tag v9") as caught:
        base_git.read_head(checkout, "v9")
    assert caught.value.facts == (("tags", "v1"),)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path, checkout: Path) -> None:
    inside = checkout / "inside"
    inside.mkdir()
    for folder in (tmp_path, inside):
        with pytest.raises(ConfigError, match="not a checkout"):
            base_git.read_head(folder)


def test_a_checkout_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(ConfigError, match="has no commit"):
        base_git.read_head(tmp_path)


def test_a_copy_has_what_the_commit_has_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    (checkout / "kept").write_text("two\n")
    (checkout / "new").write_text("")
    target = tmp_path / "copy"
    head = base_git.read_head(checkout)
    base_git.export(checkout, head, target, with_changes=False)
    assert sorted(path.name for path in target.iterdir()) == [".gitignore", "kept", "run"]
    assert (target / "kept").read_text() == "one\n"
    assert (target / "run").stat().st_mode & 0o111
    assert not (tmp_path / "copy.tar").exists()


def test_a_copy_with_changes_has_them_and_not_what_git_ignores(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "kept").unlink()
    (checkout / "new").write_text("n")
    (checkout / "out").write_text("")
    target = tmp_path / "copy"
    base_git.export(checkout, base_git.read_head(checkout), target, with_changes=True)
    assert sorted(path.name for path in target.iterdir()) == [".gitignore", "new", "run"]


# -- a person's own settings ------------------------------------------------------------------

CRLF = "[core]\n\tautocrlf = true\n\teol = crlf\n"

ATTRIBUTES = "* text eol=crlf\nkept export-ignore\n"

#: (file below the person's home or the checkout, what it says): each changes what git itself gives.
SETTINGS = [
    ("home/.gitconfig", CRLF),
    ("home/.config/git/config", CRLF),
    ("home/.config/git/attributes", ATTRIBUTES),
    ("home/.gitconfig", "[tar]\n\tumask = 0077\n"),
    ("home/.gitconfig", "[trace2]\n\tnormalTarget = 2\n"),
    ("home/.gitconfig", "[core\n"),
    ("a checkout/.git/info/attributes", ATTRIBUTES),
]


def read_files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }


def copy(checkout: Path, target: Path, *, with_changes: bool = False) -> dict[str, str]:
    """Return the text of each file of a copy, by name."""
    head = base_git.read_head(checkout)
    base_git.export(checkout, head, target, with_changes=with_changes)
    return {name: content.decode() for name, (content, _) in read_files(target).items()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a person who has no settings yet."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return path


@pytest.mark.parametrize(("name", "text"), SETTINGS)
def test_no_setting_of_a_person_enters_a_copy_of_a_tag(
    name: str, text: str, checkout: Path, tmp_path: Path, home: Path
) -> None:
    head = base_git.read_head(checkout, "v1")
    base_git.export(checkout, head, tmp_path / "plain", with_changes=False)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    assert base_git.read_head(checkout, "v1") == head
    base_git.export(checkout, head, tmp_path / "copy", with_changes=False)
    assert read_files(tmp_path / "copy") == read_files(tmp_path / "plain")


def test_a_setting_of_the_checkout_itself_does_not_enter_either(
    checkout: Path, tmp_path: Path, home: Path
) -> None:
    for name, text in (
        ("core.autocrlf", "true"),
        ("core.eol", "crlf"),
        ("tar.umask", "0077"),
        ("log.showSignature", "true"),
    ):
        git(checkout, "config", name, text)
    head = base_git.read_head(checkout, "v1")
    base_git.export(checkout, head, tmp_path / "copy", with_changes=False)
    assert (tmp_path / "copy/run").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "copy/run").stat().st_mode & 0o070


def test_a_replaced_object_is_not_what_was_committed(
    checkout: Path, tmp_path: Path, home: Path
) -> None:
    (checkout / "other").write_text("two\n")
    other = git(checkout, "hash-object", "-w", "other").strip()
    (checkout / "other").unlink()
    git(checkout, "replace", git(checkout, "rev-parse", "HEAD:kept").strip(), other)
    head = base_git.read_head(checkout, "v1")
    base_git.export(checkout, head, tmp_path / "copy", with_changes=False)
    assert (tmp_path / "copy/kept").read_text() == "one\n"


@pytest.mark.parametrize("setting", ["HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"])
def test_a_clone_with_other_line_ends_is_clean_and_its_changes_are_as_git_commits_them(
    setting: str, checkout: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = {
        "HOME": home / ".gitconfig",
        "XDG_CONFIG_HOME": home / "xdg/git/config",
        "GIT_CONFIG_GLOBAL": home / "mine",
    }[setting]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CRLF)
    if setting != "HOME":
        monkeypatch.setenv(setting, str(home / "xdg" if setting.startswith("XDG") else path))
    clone = tmp_path / "clone"
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "-q", str(checkout), str(clone))
    assert (clone / "run").read_bytes() == b"#!/bin/sh\r\n"
    # git compares the content of what is younger than its index.
    os.utime(clone / "run")
    assert base_git.read_head(clone).changes == ()
    assert copy(clone, tmp_path / "clean")["run"] == "#!/bin/sh\n"
    (clone / "kept").write_bytes(b"two\r\n")
    (clone / "new").write_bytes(b"n\r\n")
    assert base_git.read_head(clone).changes == ("kept", "new")
    made = copy(clone, tmp_path / "changed", with_changes=True)
    assert made == {".gitignore": "out\n", "kept": "two\n", "new": "n\n", "run": "#!/bin/sh\n"}


def test_to_read_a_checkout_writes_nothing_to_it_and_starts_no_program_of_its_own(
    checkout: Path, tmp_path: Path, home: Path
) -> None:
    seen = tmp_path / "seen"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    script = hooks / "post-index-change"
    script.write_text(f"#!/bin/sh\necho {script.name} >> '{seen}'\n")
    script.chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hooks}\n\tfsmonitor = {script}\n\tsplitIndex = true\n"
    )
    os.utime(checkout / "kept")
    (checkout / "new").write_text("n")
    before = read_files(checkout)
    assert "new" in copy(checkout, tmp_path / "copy", with_changes=True)
    assert read_files(checkout) == before
    assert not seen.exists()


def test_a_persons_settings_that_git_cannot_read_are_their_own_to_mend(
    checkout: Path, home: Path
) -> None:
    (home / ".gitconfig").write_text("[core\n")
    with pytest.raises(ConfigError, match="what has changed") as caught:
        base_git.read_head(checkout)
    assert ".gitconfig" in caught.value.facts[-1][1]


def test_a_second_working_tree_is_a_checkout_too(
    checkout: Path, tmp_path: Path, home: Path
) -> None:
    git(checkout, "worktree", "add", "-q", str(tmp_path / "second"))
    (tmp_path / "second/kept").write_text("two\n")
    assert base_git.read_head(tmp_path / "second").changes == ("kept",)
    assert copy(tmp_path / "second", tmp_path / "copy", with_changes=True)["kept"] == "two\n"
