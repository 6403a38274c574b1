# SPDX-License-Identifier: GPL-2.0-only
"""What git says of a checkout, and a copy of one of its commits.

A release is the same whoever makes it, so a commit is read from an empty repository that borrows
the checkout's objects: no configuration, attributes, hooks or replaced objects of a person reach
it. Their own git is asked one thing alone, which tree ``git add --all`` would give: their working
tree is as that git has written it (line ends, filters, modes).

Source: git(1), git-config(1), gitattributes(5), gitrepository-layout(5), git 2.47.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from twinmod.base import archives, commands, process
from twinmod.base.process import Command
from twinmod.errors import ConfigError, MissingToolError

GIT_TIMEOUT_S = 60.0

#: Neither a person's files nor the system's are read; /dev/null has nothing below it.
ISOLATED = (
    ("HOME", os.devnull),
    ("XDG_CONFIG_HOME", os.devnull),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
)

#: Where a person's git finds their configuration, beside HOME.
PERSONAL = ("GIT_CONFIG", "XDG_CONFIG_HOME")

#: What a checkout's own configuration may say, and must not when a commit is read.
READ_SETTINGS = ("safe.directory=*", "log.showSignature=false")

#: What a person's git must not do while it writes a tree for us: start other programs, refuse line
#: ends, take time to compress, or change files of the checkout.
WRITE_SETTINGS = (
    "safe.directory=*",
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "core.safecrlf=false",
    "core.compression=0",
    "core.splitIndex=false",
)

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
    """Return a git command on a repository, whoever owns it, free of a person's settings."""
    settings = (part for setting in READ_SETTINGS for part in ("-c", setting))
    argv = ("git", "-C", str(root_dir), *settings, *arguments)
    return Command(argv=argv, purpose=purpose, environment=ISOLATED, timeout_s=GIT_TIMEOUT_S)


def plan_own_git(
    root_dir: Path, reader_dir: Path, environment: Mapping[str, str], *arguments: str
) -> Command:
    """Return a command of a person's own git that writes objects, and nothing to the checkout.

    Args:
        root_dir: The checkout.
        reader_dir: A repository of ours; gets the objects, and has the index.
        environment: The caller's, for where their configuration lies.
        arguments: Of git.
    """
    settings = (part for setting in WRITE_SETTINGS for part in ("-c", setting))
    own = tuple((name, text) for name, text in environment.items() if name.startswith(PERSONAL))
    return Command(
        argv=("git", "-C", str(root_dir), *settings, *arguments),
        purpose="git cannot say what has changed since the commit",
        environment=(
            *own,
            ("GIT_INDEX_FILE", str(reader_dir / "index")),
            ("GIT_OBJECT_DIRECTORY", str(reader_dir / "objects")),
            # Its own log of events could go to where its answer does.
            ("GIT_TRACE2", "0"),
            ("GIT_TRACE2_PERF", "0"),
            ("GIT_TRACE2_EVENT", "0"),
        ),
        timeout_s=GIT_TIMEOUT_S,
    )


def _require_checkout(root_dir: Path) -> None:
    if process.find_program("git") is None:
        raise MissingToolError("git is missing, and a release is of a commit")
    inside = plan_git(root_dir, "rev-parse", "--show-toplevel", purpose="no checkout")
    status, output = process.run_unchecked(inside)
    if status != 0 or Path(output.strip()).resolve() != root_dir.resolve():
        raise ConfigError(
            "a release is of a commit, and this project is not a checkout of git",
            facts=(("folder", str(root_dir)),),
            hint="git clone it, and run this there",
        )


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
    wanted = plan_git(
        root_dir, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", purpose="no such commit"
    )
    status, output = process.run_unchecked(wanted)
    if status != 0:
        known = process.run(plan_git(root_dir, "tag", "--list", purpose="tags")).split()
        what = f"there is no tag {tag}" if tag else "the checkout has no commit"
        raise ConfigError(
            what,
            facts=(("tags", " ".join(known) or "none"),),
            hint=f"git tag {tag}" if tag else "git commit",
        )
    commit = output.strip()
    changes = () if tag else _read_changes(root_dir, commit)
    return Head(
        commit=commit,
        epoch=int(_ask(root_dir, "log", "-1", "--format=%ct", commit)),
        tags=tuple(_ask(root_dir, "tag", "--points-at", commit).split()),
        changes=changes,
    )


def _ask(root_dir: Path, *arguments: str) -> str:
    command = plan_git(root_dir, *arguments, purpose="the commit cannot be read")
    return process.run(command, error=ConfigError)


@contextmanager
def _open_reader(root_dir: Path) -> Iterator[Path]:
    """Give an empty repository that has the objects of a checkout, until the context is left."""
    with tempfile.TemporaryDirectory(prefix="twinmod-") as name:
        reader_dir = Path(name) / "reader.git"
        kind = _ask(root_dir, "rev-parse", "--show-object-format").strip()
        _ask(
            Path(name),
            "init",
            "--quiet",
            "--bare",
            "--template=",
            f"--object-format={kind}",
            str(reader_dir),
        )
        # Relative to the checkout, unless it is a second working tree.
        objects_dir = root_dir / _ask(root_dir, "rev-parse", "--git-path", "objects").rstrip("\n")
        info_dir = reader_dir / "objects/info"
        info_dir.mkdir(exist_ok=True)
        (info_dir / "alternates").write_text(f"{objects_dir.resolve()}\n")
        yield reader_dir


def _write_tree(root_dir: Path, reader_dir: Path) -> str:
    """Return the tree that a person's own git would commit of their files as they are."""
    index = _ask(root_dir, "rev-parse", "--git-path", "index").rstrip("\n")
    with suppress(FileNotFoundError):
        # With its time: git trusts what it knows of a file that is older than its index.
        shutil.copy2(root_dir / index, reader_dir / "index")
    for arguments in (("add", "--all"), ("write-tree",)):
        command = plan_own_git(root_dir, reader_dir, os.environ, *arguments)
        output = process.run(command, error=ConfigError)
    return output.split()[-1]


def _read_changes(root_dir: Path, commit: str) -> tuple[str, ...]:
    """Return the files that a commit does not have as they are; of a renamed one the new name."""
    with _open_reader(root_dir) as reader_dir:
        tree = _write_tree(root_dir, reader_dir)
        names = _ask(reader_dir, "diff-tree", "-r", "-z", "-M", "--name-only", commit, tree)
    return tuple(name for name in names.split("\0") if name)


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
        with_changes: Copy what ``git add --all`` would commit now instead.
    """
    target_dir.mkdir(parents=True)
    with _open_reader(root_dir) as reader_dir:
        tree = _write_tree(root_dir, reader_dir) if with_changes else head.commit
        tar_path = reader_dir.with_name("files.tar")
        process.run(
            plan_git(
                reader_dir,
                "archive",
                "--format=tar",
                f"--output={tar_path}",
                tree,
                purpose="the commit's files cannot be read",
            )
        )
        files = archives.parse_tar(tar_path.read_bytes())
    for file in files:
        path = target_dir / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
