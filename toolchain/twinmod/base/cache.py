# SPDX-License-Identifier: GPL-2.0-only
"""Everything that outlives a run and lies outside the checkout: one folder, whole entries.

A module that keeps something here plans its CacheEntry in one function. A run calls ``ensure`` on
that entry, and ``cache prune`` keeps the entry's folders: the two cannot disagree.

An entry is a folder with a ``record.json`` that was written last, and that names the size of
the files which matter: an entry without it, or whose files do not fit it, is made again.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from twinmod.base.progress import Progress
from twinmod.errors import MissingToolError

RECORD = "record.json"

#: Ends the name of the folder in which an entry is made.
PARTIAL = ".partial"

#: What a compiler keeps from build to build; no entry, and never complete.
SCRATCH = "cargo-target"

#: How long one run waits for another that makes the same entry.
LOCK_TIMEOUT_S = 3600.0

#: Between two tries to share an entry that another run makes or removes.
SHARE_INTERVAL_S = 0.05

#: What flock(2) says where there are none: of NFS without its lock service, FUSE, 9p.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

#: Standard text: https://bford.info/cachedir/
CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by twinmod.\n"

#: How many hexadecimal digits of a SHA-256 stand in a key.
DIGITS = 12

#: The record of an entry, and its vital files, relative to its folder.
Made = tuple[Mapping[str, Any], tuple[str, ...]]

#: Fills the folder that it is given, and tells of every phase.
Make = Callable[[Path, Progress], Made]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEntry:
    """A complete entry of the cache."""

    kind: str
    key: str
    path: Path
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """What an entry of the cache is called and how it is made, whether it is there or not."""

    # The folder of its kind.
    kind: str
    # Its own folder. It follows from all inputs: the same key means the same content.
    key: str
    make: Make = field(compare=False, repr=False)
    # What survives in the half-made folder of an interrupted run, to go on with.
    keep: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where it lies once it is made."""
        return find_cache_dir() / self.kind / self.key

    @property
    def folders(self) -> tuple[tuple[str, str], ...]:
        """(kind, name) of each folder that ``ensure`` would use, there or not."""
        half = ((self.kind, f"{self.key}{PARTIAL}"),) if self.keep else ()
        return ((self.kind, self.key), *half)

    def find(self) -> FoundEntry | None:
        """Return the entry when it is there, complete and unharmed."""
        return find_entry(self.kind, self.key)

    def ensure(self, progress: Progress) -> FoundEntry:
        """Return the entry, made first when it is missing or broken.

        Args:
            progress: Told of every phase, and when another run makes the same entry.
        """
        found = self.find()
        if found is not None:
            return found
        with self._hold(progress):
            found = self.find()
            if found is not None:
                return found
            remove_tree(self.path)
            return self._replace(progress)

    def renew(self, progress: Progress) -> FoundEntry:
        """Return the entry, made again; an old one stays until the new one is complete."""
        with self._hold(progress):
            return self._replace(progress)

    @contextmanager
    def _hold(self, progress: Progress) -> Iterator[None]:
        lock_path = ensure_cache_dir() / "locks" / f"{self.kind}-{self.key}.lock"
        with hold_lock(lock_path, f"{self.kind} {self.key}", progress):
            yield

    def _replace(self, progress: Progress) -> FoundEntry:
        partial = self.path.with_name(f"{self.key}{PARTIAL}")
        _clear(partial, self.keep)
        try:
            record, vital = self.make(partial, progress)
        except BaseException:
            _clear(partial, (*self.keep, *(log.name for log in partial.glob("*.log"))))
            with suppress(OSError):
                partial.rmdir()
            raise
        write_record(partial, record, vital)
        remove_tree(self.path)
        partial.rename(self.path)
        written = json.loads((self.path / RECORD).read_text())
        return FoundEntry(kind=self.kind, key=self.key, path=self.path, record=written)


def plan_key(name: str, inputs: Iterable[str]) -> str:
    """Return the key of an entry that has a name and follows from lines of text."""
    text = "\n".join(inputs)
    return f"{name}-{plan_short_digest(text.encode())}"


def plan_short_digest(content: bytes) -> str:
    """Return the first DIGITS of the SHA-256 of some content, as keys have it."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def find_cache_dir() -> Path:
    """Return the cache directory: TWINMOD_CACHE_DIR, or the user's own by XDG."""
    named = os.environ.get("TWINMOD_CACHE_DIR")
    return Path(named).absolute() if named else Path(platformdirs.user_cache_dir("twinmod"))


def ensure_cache_dir() -> Path:
    """Make the cache directory with its tag.

    Raises:
        MissingToolError: It cannot be written.
    """
    path = find_cache_dir()
    try:
        path.mkdir(parents=True, exist_ok=True)
        tag = path / "CACHEDIR.TAG"
        if not tag.exists():
            write_atomically(tag, CACHEDIR_TAG)
        (path / "locks").mkdir(exist_ok=True)
        if not os.access(path / "locks", os.W_OK):
            raise PermissionError(13, "Permission denied", str(path / "locks"))
    except OSError as error:
        raise MissingToolError(
            f"the cache directory cannot be written: {error.strerror}",
            facts=(("path", str(path)),),
            hint="export TWINMOD_CACHE_DIR=/some/folder/of/yours",
        ) from error
    return path


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, whole.

    It is UTF-8 whatever the locale says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def hold_lock(path: Path, what: str, progress: Progress) -> Iterator[None]:
    """Hold a lock file; say so when another run holds it, and wait for that run.

    Raises:
        MissingToolError: The other run did not end within LOCK_TIMEOUT_S, or the file system has no
            locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        _acquire(lock, path, 0)
    except filelock.Timeout:
        progress.note(f"another run holds {what}; waiting for it")
        try:
            _acquire(lock, path, LOCK_TIMEOUT_S)
        except filelock.Timeout as error:
            raise MissingToolError(
                f"another run has held {what} for {LOCK_TIMEOUT_S:.0f} s",
                facts=(("lock", str(path)),),
                hint=f"fuser -v {path}",
            ) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: filelock.BaseFileLock, path: Path, timeout_s: float) -> None:
    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout:
        raise
    except OSError as error:
        raise make_lock_error(path, error) from error


def make_lock_error(path: Path, error: OSError) -> MissingToolError:
    """Return the error of a lock that cannot be taken, whoever holds it."""
    why = error.strerror or str(error)
    if error.errno in NO_LOCKS:
        why = f"its file system has no locks ({why})"
    own = find_cache_dir() in path.parents
    if own:
        what, folder = "the cache directory", find_cache_dir()
        hint = "export TWINMOD_CACHE_DIR=/a/folder/on/a/local/disk"
    else:
        what, folder = "the folder of results", path.parent
        hint = "copy the project to a local disk, and run this there"
    return MissingToolError(
        f"a file of {what} cannot be locked: {why}",
        facts=(("folder", str(folder)), ("lock", str(path))),
        hint=hint,
    )


def remove_tree(path: Path) -> None:
    """Remove a folder, also one that holds folders its owner may not read or write."""
    if path.is_symlink():
        path.unlink()
    if not path.exists():
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        _allow_tree(path)
        shutil.rmtree(path)


def _allow_tree(path: Path) -> None:
    path.chmod(stat.S_IRWXU)
    for child in path.iterdir():
        if not child.is_symlink() and child.is_dir():
            _allow_tree(child)


def write_record(path: Path, record: Mapping[str, Any], vital: tuple[str, ...]) -> None:
    """Complete an entry: note the sizes of its vital files, then write its record."""
    sizes = {name: (path / name).stat().st_size for name in vital}
    text = json.dumps({**record, "vital": sizes}, indent=2, sort_keys=True)
    write_atomically(path / RECORD, text + "\n")


def find_entry(kind: str, key: str) -> FoundEntry | None:
    """Return an entry when it is there, complete and unharmed."""
    path = find_cache_dir() / kind / key
    try:
        record = json.loads((path / RECORD).read_text())
        whole = all((path / file).stat().st_size == size for file, size in record["vital"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return FoundEntry(kind=kind, key=key, path=path, record=record) if whole else None


def _clear(path: Path, keep: tuple[str, ...]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for child in path.iterdir():
        if child.name in keep:
            continue
        if child.is_dir() and not child.is_symlink():
            remove_tree(child)
        else:
            child.unlink()


def read_size(path: Path) -> int:
    """Return the bytes that a folder's files take on disk, hard links counted once."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            status = Path(folder, name).lstat()
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def list_entries() -> tuple[tuple[str, str, bool, int], ...]:
    """Return (kind, name, whether complete, bytes) of everything in the cache."""
    root = find_cache_dir()
    kinds = sorted(path for path in root.glob("*") if path.is_dir() and path.name != "locks")
    return tuple(
        (
            kind.name,
            entry.name,
            kind.name == SCRATCH or find_entry(kind.name, entry.name) is not None,
            read_size(entry),
        )
        for kind in kinds
        for entry in sorted(kind.iterdir())
        if entry.is_dir()
    )


def remove_entry(kind: str, name: str, progress: Progress) -> None:
    """Remove one entry, complete or not; waits for a run that makes it."""
    root = ensure_cache_dir()
    base = name.removesuffix(PARTIAL)
    with hold_lock(root / "locks" / f"{kind}-{base}.lock", f"{kind} {base}", progress):
        remove_tree(root / kind / name)


@contextmanager
def share(entry: FoundEntry) -> Iterator[None]:
    """Let nobody remove an entry until the context is left; any number may share it.

    Raises:
        MissingToolError: Somebody makes it anew or removes it for longer than LOCK_TIMEOUT_S.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with _open_lock(entry.kind, entry.key) as descriptor:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise MissingToolError(
                        f"another run has held {entry.kind} {entry.key} for {LOCK_TIMEOUT_S:.0f} s"
                    ) from error
                time.sleep(SHARE_INTERVAL_S)
        yield


def remove_unused(kind: str, key: str) -> None:
    """Remove an entry that nobody shares and nobody makes; one that is in use stays."""
    with _open_lock(kind, key) as descriptor, suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(find_cache_dir() / kind / key)


@contextmanager
def _open_lock(kind: str, key: str) -> Iterator[int]:
    """Open the file that whoever makes or removes an entry locks, as filelock does."""
    path = ensure_cache_dir() / "locks" / f"{kind}-{key}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def require_disk(path: Path, needed_bytes: int, what: str) -> None:
    """Refuse early what would fill the disk.

    Raises:
        MissingToolError: Less is free than it takes.
    """
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < needed_bytes:
        raise MissingToolError(
            f"too little disk for {what}: {free_bytes / 1e9:.1f} GB free, "
            f"{needed_bytes / 1e9:.1f} GB needed",
            facts=(("disk of", str(path)),),
            hint="export TWINMOD_CACHE_DIR=/a/folder/on/a/larger/disk",
        )
