# SPDX-License-Identifier: GPL-2.0-only
"""One thing that the doctor looked at: what is there, what is needed, and what mends it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor."""

    group: str
    name: str
    found: str
    needed: str
    ok: bool
    # A build can run without it when False.
    required: bool = True
    # One command that can be pasted, or "".
    fix: str = ""
