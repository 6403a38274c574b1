# SPDX-License-Identifier: GPL-2.0-only
"""The programs that a shell expects, for a root in memory: it has Python, busybox and bash."""

from pathlib import Path

from twinmod.guest import door

#: Where programs are, and one of those that every root has but the one in memory.
PROGRAMS = Path("/usr/bin")
KNOWN = PROGRAMS / "ls"

#: Limit for linking the programs of busybox, in seconds.
INSTALL_TIMEOUT_S = 30.0


def install() -> None:
    """Let busybox be every program that it can be, in a root that has none of them."""
    if not KNOWN.exists():
        argv = ("busybox", "--install", "-s", str(PROGRAMS))
        door.run(argv, INSTALL_TIMEOUT_S)
