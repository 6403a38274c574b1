# SPDX-License-Identifier: GPL-2.0-only
"""The one door of a VM's programs to other processes, and the one root of their errors."""

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a program is given."""

    argv: tuple[str, ...]
    working_dir: Path
    # All of its environment.
    environment: Mapping[str, str]
    # Descriptors that it inherits beside the usual three, by the same numbers.
    descriptors: tuple[int, ...] = ()


def run_watched(started: Started, watch: Callable[[str], object]) -> tuple[int, str]:
    """Run a program without standard input to its end, however long that takes.

    Args:
        started: What it is given.
        watch: Called with each line that it prints, as it comes.

    Returns:
        Its exit status (negative for a signal), and all that it printed.

    Raises:
        GuestError: It is not there, or may not be executed.
    """
    try:
        process = subprocess.Popen(
            started.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=started.working_dir,
            env=started.environment,
            pass_fds=started.descriptors,
        )
    except OSError as error:
        raise GuestError(f"{started.argv[0]} does not start: {error.strerror}") from error
    lines = []
    with process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            lines.append(line)
            watch(line)
    return process.returncode, "".join(lines)
