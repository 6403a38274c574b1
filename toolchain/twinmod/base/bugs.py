# SPDX-License-Identifier: GPL-2.0-only
"""An exception that nobody expected, as an error with what a report of the bug needs."""

import os
import sys
import tempfile
import traceback
from pathlib import Path

from twinmod.base import templates
from twinmod.errors import InternalError, TwinmodError

#: What making a page of a document ends in that is damaged, or of another version of twinmod.
MALFORMED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    templates.TemplateError,
)

#: Characters of an exception's own words that the message repeats; the file has all of them.
MESSAGE_WIDTH = 200


def is_ours(file_name: str) -> bool:
    """Tell whether a file of code is twinmod's, a script of its checkout, or a person's own."""
    path = Path(file_name).absolute()
    if templates.PACKAGE_DIR in path.parents:
        return True
    libraries = (Path(sys.prefix, "lib"), Path(sys.base_prefix, "lib"))
    return path.is_file() and not any(library in path.parents for library in libraries)


def find_place(error: BaseException) -> str:
    """Return the innermost line of ours that an exception passed: "vm/boot.py:61 in plan_boot"."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_ours(frame.filename)] or list(frames)
    if not own:
        return "unknown"
    path = Path(own[-1].filename)
    inside = templates.PACKAGE_DIR in path.parents
    name = path.relative_to(templates.PACKAGE_DIR) if inside else path.name
    return f"{name}:{own[-1].lineno} in {own[-1].name}"


def render_words(error: BaseException) -> str:
    """Return an exception as one line."""
    name = type(error).__name__
    words = " ".join(str(error).split())
    shown = words if len(words) <= MESSAGE_WIDTH else words[:MESSAGE_WIDTH] + " ..."
    return f"{name}: {shown}" if shown else name


def find_version() -> str:
    """Return the version of twinmod, or why it has none."""
    try:
        return templates.read_version()
    except TwinmodError as error:
        return error.message


def keep_traceback(error: BaseException) -> str:
    """Write an exception's traceback to a new temporary file; return its path, or why not."""
    text = "".join(traceback.format_exception(error))
    try:
        descriptor, name = tempfile.mkstemp(prefix="twinmod-traceback-", suffix=".txt")
    except OSError as refused:
        return f"not kept: {refused.strerror}"
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
            file.write(text)
    except OSError as refused:
        path.unlink(missing_ok=True)
        return f"not kept: {refused.strerror}"
    return str(path)


def make_error(error: BaseException, kept: str) -> InternalError:
    """Return the error that an unexpected exception becomes.

    Args:
        error: As it was raised.
        kept: From keep_traceback.
    """
    return InternalError(
        f"twinmod itself failed: {render_words(error)}",
        facts=(
            ("where", find_place(error)),
            ("version", f"{find_version()}, Python {sys.version.split()[0]}"),
            ("traceback", kept),
        ),
        hint="this is a bug of twinmod: please report it, with the command and the traceback",
    )
