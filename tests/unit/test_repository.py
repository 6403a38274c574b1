# SPDX-License-Identifier: GPL-2.0-only
"""What git says of a checkout, and a copy of a commit."""

from pathlib import Path

import pytest

from twinmod import process, repository
from twinmod.errors import ConfigError
from twinmod.specs import Command

IDENTITY = (
    ("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.org"), ("GIT_COMMITTER_NAME", "a"),
    ("GIT_COMMITTER_EMAIL", "a@example.org"), ("GIT_COMMITTER_DATE", "@1700000000 +0000"),
    ("GIT_AUTHOR_DATE", "@1700000000 +0000"),
)  # fmt: skip


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
    head = repository.read_head(checkout)
    assert (head.commit, head.epoch, head.tags, head.changes) == (
        git(checkout, "rev-parse", "HEAD").strip(), 1700000000, ("v1",), ()
    )  # fmt: skip
    repository.require_clean(head)


def test_what_no_commit_has_is_named_and_what_git_ignores_is_not(checkout: Path) -> None:
    (checkout / "kept").write_text("two\n")
    (checkout / "new file").write_text("")
    (checkout / "out").write_text("")
    git(checkout, "mv", "run", "renamed")
    head = repository.read_head(checkout)
    assert set(head.changes) == {"kept", "new file", "renamed"}
    with pytest.raises(ConfigError, match="changes that no commit has") as caught:
        repository.require_clean(head)
    assert "new file" in caught.value.facts[0][1]


def test_a_tag_is_another_commit_than_the_one_checked_out(checkout: Path) -> None:
    (checkout / "kept").write_text("two\n")
    git(checkout, "commit", "-q", "-a", "-m", "second")
    head = repository.read_head(checkout, "v1")
    assert head.commit == git(checkout, "rev-parse", "v1").strip()
    assert head.commit != repository.read_head(checkout).commit


def test_a_tag_that_is_not_there_is_refused_with_those_that_are(checkout: Path) -> None:
    with pytest.raises(ConfigError, match="there is no tag v9") as caught:
        repository.read_head(checkout, "v9")
    assert caught.value.facts == (("tags", "v1"),)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path, checkout: Path) -> None:
    inside = checkout / "inside"
    inside.mkdir()
    for folder in (tmp_path, inside):
        with pytest.raises(ConfigError, match="not a checkout"):
            repository.read_head(folder)


def test_a_checkout_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(ConfigError, match="has no commit"):
        repository.read_head(tmp_path)


def test_a_copy_has_what_the_commit_has_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    (checkout / "kept").write_text("two\n")
    (checkout / "new").write_text("")
    target = tmp_path / "copy"
    head = repository.read_head(checkout)
    repository.export(checkout, head, target, with_changes=False)
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
    repository.export(checkout, repository.read_head(checkout), target, with_changes=True)
    assert sorted(path.name for path in target.iterdir()) == [".gitignore", "new", "run"]
