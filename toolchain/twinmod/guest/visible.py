# SPDX-License-Identifier: GPL-2.0-only
"""Text that a person can see and that every report can hold. Pure."""

import re

#: What no XML file may hold, or what a terminal obeys instead of showing it: control characters
#: but tab and newline, halves of surrogate pairs, noncharacters, and what reverses the order of a
#: line. Source: XML 1.0, section 2.2.
_UNSEEN = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff\\ufffe\\uffff]"
)


def make_visible(text: str) -> str:
    r"""Return text with every character that cannot be shown as its escape: ``\x1b``, ``\udcff``.

    Text that was made visible stays as it is.
    """
    return _UNSEEN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
