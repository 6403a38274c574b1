# SPDX-License-Identifier: GPL-2.0-only
"""Whatever ends a verb, in the form of all errors."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from twinmod.base import bugs, commands
from twinmod.errors import ConfigError, MissingToolError, TwinmodError


def make_error(error: BaseException) -> TwinmodError:
    """Return what ended a verb in the form of all errors."""
    if isinstance(error, TwinmodError):
        return error
    if isinstance(error, click.ClickException):
        return plan_usage_error(error)
    if isinstance(error, OSError):
        return make_os_error(error)
    return bugs.make_error(error, bugs.keep_traceback(error))


def plan_usage_error(error: click.ClickException) -> ConfigError:
    """Return a wrong command line's error in the form of all others."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "twinmod"
    message = error.format_message().replace("\n", " ")
    return ConfigError(message[:1].lower() + message[1:], hint=f"{path} --help")


@contextmanager
def os_errors() -> Iterator[None]:
    """Give what fails under us in the context the form of all errors.

    Raises:
        MissingToolError: A system call failed.
    """
    try:
        yield
    except OSError as error:
        raise make_os_error(error) from error


def make_os_error(error: OSError) -> TwinmodError:
    """Return the error of a system call that failed under us: a full disk, a missing right."""
    facts = [("file", str(error.filename))] if error.filename else []
    # The folder we are in may be what is gone.
    with suppress(OSError):
        free_bytes = shutil.disk_usage(Path.cwd()).free
        facts.append(("free here", f"{free_bytes / 1e9:.2f} GB"))
    return MissingToolError(
        f"the system refused: {error.strerror or error}",
        facts=tuple(facts),
        hint=commands.render("doctor"),
    )
