# SPDX-License-Identifier: GPL-2.0-only
"""What a person may have meant by a name that nothing has."""

import difflib
from collections.abc import Iterable

#: How many names a hint has at most.
NEAR = 3


def find_nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like another one, "" when none is like it."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else ""


def plan_hint(name: str, known: Iterable[str]) -> str:
    """Return the hint of an error that refuses a name: the nearest known ones; "" for none."""
    near = difflib.get_close_matches(name, tuple(known), NEAR)
    return f"did you mean {' or '.join(near)}?" if near else ""


def plan_fact(name: str, known: Iterable[str], what: str) -> tuple[str, str]:
    """Return the fact of an error about a name: the nearest known one, else all of them.

    Args:
        name: As a person wrote it.
        known: Those that there are.
        what: What an error calls them, as in "kernels".
    """
    names = tuple(known)
    found = find_nearest(name, names)
    return ("nearest", found) if found else (what, ", ".join(names) or "none")
