# SPDX-License-Identifier: GPL-2.0-only
"""A real 32-bit program, compat32.c, which lies compiled beside this file in the VM."""

import errno
import os
from pathlib import Path

PROGRAM = Path(__file__).with_name("compat32")


def run_compat32(device_path: Path, part: str) -> list[str] | None:
    """Run a part of it on a device; return the lines that it wrote.

    None: this kernel runs no 32-bit programs.
    """
    read_end, write_end = os.pipe()
    try:
        pid = os.posix_spawn(
            PROGRAM,
            (PROGRAM, device_path, part),
            {},
            file_actions=((os.POSIX_SPAWN_DUP2, write_end, 1),),
        )
    except OSError as error:
        os.close(read_end)
        if error.errno != errno.ENOEXEC:
            raise
        return None
    finally:
        os.close(write_end)
    with os.fdopen(read_end) as stream:
        lines = stream.read().splitlines()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"the program ended with {status} after {lines}"
    return lines
