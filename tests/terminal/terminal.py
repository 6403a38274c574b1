# SPDX-License-Identifier: GPL-2.0-only
"""A command in a terminal of its own, and what a person types there."""

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: twinmod as a process of its own, before its verb.
TWINMOD = (sys.executable, "-c", "from twinmod.ui.cli import main; main()")

#: What a person waits for, and what they then do; that returns what they type.
Turn = tuple[bytes, Callable[[], bytes]]


def run(
    argv: tuple[str, ...], folder: Path, turns: Sequence[Turn], limit_s: float
) -> tuple[int, bytes]:
    """Run a command in a terminal until it ends.

    Args:
        argv: The command.
        folder: The one that it runs in.
        turns: One after the other; each waits for words that come after the last typing.
        limit_s: After so many seconds the command is ended.

    Returns:
        Its exit code, and all that it wrote with all that was typed.
    """
    process_id, terminal = pty.fork()
    if process_id == 0:
        os.chdir(folder)
        os.execv(argv[0], argv)  # noqa: S606 - the command is ours.
    said, seen, pending = b"", 0, list(turns)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1.0)
        try:
            said += os.read(terminal, 1 << 16) if ready else b""
        except OSError:
            # How a terminal says that nobody has it any more.
            break
        if pending and pending[0][0] in said[seen:]:
            _, act = pending.pop(0)
            typed = act()
            seen = len(said)
            os.write(terminal, typed)
    else:
        os.kill(process_id, signal.SIGTERM)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]), said
