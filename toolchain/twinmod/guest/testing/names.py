# SPDX-License-Identifier: GPL-2.0-only
"""Which files of a folder of tests are programs; the host compiles them. Pure, without pytest."""

from pathlib import PurePath

#: A script, and a program in C.
SUFFIXES = (".sh", ".c")

#: A program for 32-bit processes without a libc; it is not a test, but a test may call it.
M32 = ".m32.c"

#: How the name of a file begins that others include or source.
HELPER = "_"


def is_compiled(path: PurePath) -> bool:
    """Tell whether a file is compiled to a program."""
    return path.suffix == ".c" and not path.name.startswith(HELPER)


def is_test(path: PurePath) -> bool:
    """Tell whether a file is a test that is a program."""
    helper = path.name.startswith(HELPER) or path.name.endswith(M32)
    return path.suffix in SUFFIXES and not helper
