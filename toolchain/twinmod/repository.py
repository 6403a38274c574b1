# SPDX-License-Identifier: GPL-2.0-only
"""What git says of a checkout, and a copy of one of its commits."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from twinmod import archives, commands, process
from twinmod.errors import ConfigError, MissingToolError
from twinmod.specs import Command

GIT_TIMEOUT_S = 60.0

#: How many changed files an error names.
SHOWN_CHANGES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A commit of a checkout."""

    # 40 hexadecimal digits.
    commit: str
    # Seconds since 1970, of the commit.
    epoch: int
    tags: tuple[str, ...]
    # Files that the commit does not have as they are; () for a commit that is not checked out.
    changes: tuple[str, ...]


def plan_git(root_dir: Path, *arguments: str, purpose: str) -> Command:
    """Return a git command on a checkout, whoever owns it."""
    argv = ("git", "-C", str(root_dir), "-c", "safe.directory=*", *arguments)
    return Command(argv=argv, purpose=purpose, timeout_s=GIT_TIMEOUT_S)


def parse_status(output: str) -> tuple[str, ...]:
    """Return the paths of ``git status --porcelain -z``; of a renamed file the new one."""
    fields = iter(output.split("\0"))
    found = []
    for field in fields:
        if field:
            found.append(field[3:])
            if field[0] in "RC":
                next(fields, None)
    return tuple(found)


def _require_checkout(root_dir: Path) -> None:
    if process.find_program("git") is None:
        raise MissingToolError("git is missing, and a release is of a commit")
    inside = plan_git(root_dir, "rev-parse", "--show-toplevel", purpose="no checkout")
    status, output = process.run_unchecked(inside)
    if status != 0 or Path(output.strip()).resolve() != root_dir.resolve():
        raise ConfigError(
            "a release is of a commit, and this project is not a checkout of git",
            facts=(("folder", str(root_dir)),), hint="git clone it, and run this there",
        )  # fmt: skip


def read_head(root_dir: Path, tag: str = "") -> Head:
    """Return the commit that is checked out, or that of a tag.

    Args:
        root_dir: The checkout.
        tag: "" for what is checked out.

    Raises:
        ConfigError: It is no checkout, has no commit, or no such tag.
        MissingToolError: There is no git.
    """
    _require_checkout(root_dir)
    name = f"refs/tags/{tag}" if tag else "HEAD"
    wanted = plan_git(root_dir, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}",
                      purpose="no such commit")  # fmt: skip
    status, output = process.run_unchecked(wanted)
    if status != 0:
        known = process.run(plan_git(root_dir, "tag", "--list", purpose="tags")).split()
        what = f"there is no tag {tag}" if tag else "the checkout has no commit"
        raise ConfigError(what, facts=(("tags", " ".join(known) or "none"),),
                          hint=f"git tag {tag}" if tag else "git commit")  # fmt: skip
    commit = output.strip()

    def ask(*arguments: str) -> str:
        return process.run(plan_git(root_dir, *arguments, purpose="the commit cannot be read"))

    status_output = "" if tag else ask("status", "--porcelain", "-z", "--untracked-files=all")
    return Head(
        commit=commit, epoch=int(ask("log", "-1", "--format=%ct", commit)),
        tags=tuple(ask("tag", "--points-at", commit).split()),
        changes=parse_status(status_output),
    )  # fmt: skip


def require_clean(head: Head) -> None:
    """Refuse a tree with changes.

    Raises:
        ConfigError: It has some.
    """
    if head.changes:
        shown = "\n".join(head.changes[:SHOWN_CHANGES])
        more = len(head.changes) - SHOWN_CHANGES
        raise ConfigError(
            "the tree has changes that no commit has, so nobody could make this release again",
            facts=(("changed", shown + (f"\n{more} more" if more > 0 else "")),),
            hint=f"commit them, or try {commands.render('release', '--dev')}, which marks every "
            "version as dirty",
        )


def export(root_dir: Path, head: Head, target_dir: Path, *, with_changes: bool) -> None:
    """Copy a commit's files, and nothing else, to a new folder.

    Args:
        root_dir: The checkout.
        head: Its commit.
        target_dir: Made here.
        with_changes: Copy the files that git knows, or would, as they are instead.
    """
    target_dir.mkdir(parents=True)
    if with_changes:
        listing = plan_git(root_dir, "ls-files", "-z", "--cached", "--others",
                           "--exclude-standard", purpose="files")  # fmt: skip
        for name in sorted(set(process.run(listing).split("\0")) - {""}):
            source_path, path = root_dir / name, target_dir / name
            if source_path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source_path, path)
        return
    tar_path = target_dir.with_name(f"{target_dir.name}.tar")
    process.run(plan_git(
        root_dir, "archive", "--format=tar", f"--output={tar_path}", head.commit,
        purpose="the commit's files cannot be read",
    ))  # fmt: skip
    for file in archives.parse_tar(tar_path.read_bytes()):
        path = target_dir / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    tar_path.unlink()
