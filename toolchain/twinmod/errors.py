# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong, each with the exit code that the command documents for it."""

from enum import IntEnum

from twinmod.guest import visible


class ExitCode(IntEnum):
    """Exit status of every ``twinmod`` verb."""

    PASSED = 0
    TESTS_FAILED = 1
    USAGE = 2
    ENVIRONMENT = 3
    BUILD_FAILED = 4
    VM_LOST = 5
    KERNEL_FAULT = 6
    # sysexits.h: EX_SOFTWARE
    INTERNAL = 70
    INTERRUPTED = 130
    # 128 + SIGPIPE
    UNREAD = 141


#: When several apply, the first of these is the one that is reported.
PRECEDENCE = (
    ExitCode.INTERRUPTED,
    ExitCode.UNREAD,
    ExitCode.INTERNAL,
    ExitCode.USAGE,
    ExitCode.ENVIRONMENT,
    ExitCode.BUILD_FAILED,
    ExitCode.KERNEL_FAULT,
    ExitCode.VM_LOST,
    ExitCode.TESTS_FAILED,
)


def compare_exit_codes(codes: tuple[ExitCode, ...]) -> ExitCode:
    """Return the one code that stands for several.

    Args:
        codes: Any number of codes, in any order.

    Returns:
        The first of PRECEDENCE that is among them, PASSED when none is.
    """
    return next((code for code in PRECEDENCE if code in codes), ExitCode.PASSED)


class TwinmodError(Exception):
    """The one root of everything that twinmod raises on purpose.

    Args:
        message: What went wrong, and why, in one line.
        facts: (name, value) pairs that help to see it: a command, a log, two versions.
        hint: One thing to do about it; a command that can be pasted where there is one.
    """

    exit_code = ExitCode.USAGE

    def __init__(
        self, message: str, *, facts: tuple[tuple[str, str], ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.hint = hint


class ConfigError(TwinmodError):
    """The configuration or the command line asks for something that cannot be."""


class NoProjectError(ConfigError):
    """No folder configures twinmod."""


class SelectionError(ConfigError):
    """What a caller narrowed a run to leaves nothing, whatever the kernel is."""


class MissingToolError(TwinmodError):
    """The environment lacks something: a program, a namespace, disk, the network."""

    exit_code = ExitCode.ENVIRONMENT


class BuildError(TwinmodError):
    """A kernel tree, a module or a tester did not build, or is not what it claims to be."""

    exit_code = ExitCode.BUILD_FAILED


class NotPassedError(TwinmodError):
    """What was to go on only if it passes does not pass."""

    exit_code = ExitCode.TESTS_FAILED


class VmLostError(TwinmodError):
    """A VM ended, or fell silent, before it had said how its work ended."""

    exit_code = ExitCode.VM_LOST


class InternalError(TwinmodError):
    """A bug of twinmod: an exception that it does not expect."""

    exit_code = ExitCode.INTERNAL


def render_error(error: TwinmodError) -> str:
    """Return an error as text: what and why, then the facts, then the hint.

    Args:
        error: Any error of twinmod.

    Returns:
        Lines without a trailing newline; a fact of several lines is indented as a block.
    """
    lines = [f"error: {visible.make_visible(error.message)}"]
    width = max((len(name) for name, _ in error.facts), default=0) + 1
    for name, value in error.facts:
        first, *rest = map(visible.make_visible, value.splitlines() or [""])
        lines.append(f"  {name + ':':<{width}} {first}")
        lines.extend(f"    {line}" for line in rest)
    if error.hint:
        lines.append(f"  {'hint:':<{width}} {error.hint}")
    return "\n".join(lines)
