# SPDX-License-Identifier: GPL-2.0-only
"""The one door of a VM's programs to other processes, and the one root of their errors."""

import subprocess


class GuestError(Exception):
    """A program of the VM cannot go on."""


def run(argv: tuple[str, ...], timeout_s: float) -> tuple[int, str]:
    """Run a program without standard input; return its exit status and all that it printed.

    Raises:
        GuestError: The program is not there, or did not end within the limit.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise GuestError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise GuestError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error
    return done.returncode, done.stdout.decode(errors="replace")
