# SPDX-License-Identifier: GPL-2.0-only
"""What differs between two builds of one commit: files by content, and in what by diffoscope."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from twinmod.base import process, sandbox
from twinmod.base.process import Command
from twinmod.base.sandbox import Bind, Chroot, Enter
from twinmod.errors import TwinmodError
from twinmod.guest import visible

#: Where a chroot has it, and the packages that bring it and what it opens wheels with.
PROGRAM = "usr/bin/diffoscope"
PACKAGES = ("diffoscope-minimal", "unzip")

#: For one file. A wheel takes seconds.
TIMEOUT_S = 300.0

#: How much of what it says of one file is wanted.
DETAIL_BYTES = 20_000

#: Where both builds appear inside the chroot, below a folder for each.
BUILDS = sandbox.INSIDE / "builds"
SIDES = ("before", "now")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A file that differs."""

    # Its path in the release.
    name: str
    # That only one side has it, or in what it differs: lines, each without what cannot be shown.
    detail: tuple[str, ...]

    def render(self) -> str:
        """Return it as lines, the details indented."""
        return "\n".join((f"{self.name} differs", *(f"    {line}" for line in self.detail)))


def find_names(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the names whose content is not the same on both sides, sorted. Pure."""
    return tuple(n for n in sorted({*before, *now}) if before.get(n) != now.get(n))


def plan_diffoscope(root: Chroot, name: str, builds_dir: Path) -> Command:
    """Return the command that says in what the two files of a name differ.

    Args:
        root: With diffoscope.
        name: Of the files, in the folder of each side.
        builds_dir: With those folders.

    Source: diffoscope(1), 297.
    """
    argv = (
        f"/{PROGRAM}",
        "--no-progress",
        # Of a wheel it would fill the report with offsets, before any member's content.
        "--exclude-command=^zipdetails",
        "--max-text-report-size",
        str(DETAIL_BYTES),
        *(str(BUILDS / side / name) for side in SIDES),
    )
    return sandbox.plan_command(
        root,
        argv,
        Enter(binds=(Bind(source_path=builds_dir, target_path=BUILDS),)),
        purpose=f"in what {name} differs cannot be said",
        timeout_s=TIMEOUT_S,
    )


def find_differences(
    root: Chroot, before: Mapping[str, bytes], now: Mapping[str, bytes]
) -> tuple[Difference, ...]:
    """Return the files that differ between two builds, and in what.

    A chroot without diffoscope, or a diffoscope that fails, hides no difference.

    Args:
        root: Where diffoscope runs, without network.
        before: Content by name.
        now: The same.
    """
    names = find_names(before, now)
    with tempfile.TemporaryDirectory(prefix="twinmod-") as folder:
        return tuple(
            Difference(name=name, detail=tuple(_describe(root, name, (before, now), Path(folder))))
            for name in names
        )


def _describe(
    root: Chroot, name: str, sides: tuple[Mapping[str, bytes], ...], builds_dir: Path
) -> Iterator[str]:
    missing = [side for side, files in zip(SIDES, sides, strict=True) if name not in files]
    if missing:
        yield f"only one build has it: it is missing {missing[0]}"
        return
    if not (root.root_dir / PROGRAM).exists():
        yield f"to see in what, add {' and '.join(PACKAGES)} to [tool.twinmod].packages"
        return
    for side, files in zip(SIDES, sides, strict=True):
        path = builds_dir / side / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
    try:
        status, output = process.run_unchecked(plan_diffoscope(root, name, builds_dir))
    except TwinmodError as error:
        yield error.message
        return
    finally:
        for side in SIDES:
            shutil.rmtree(builds_dir / side)
    # 1: they differ, which was known.
    if status != 1:
        yield f"diffoscope exited with status {status}"
    yield from map(visible.make_visible, output.splitlines())
