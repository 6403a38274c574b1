# SPDX-License-Identifier: GPL-2.0-only
"""What docs/your-driver.md lets its reader write and type, in its order. Pure."""

import re
import shlex
from dataclasses import dataclass

#: A block with its language, and the file that is named before it.
_BLOCK = re.compile(r"(?:^`([\w./]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that the reader writes."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A line that the reader types into a shell, as words."""

    words: tuple[str, ...]


def parse_page(text: str) -> tuple[File | Typed, ...]:
    """Return the files and the lines of a page; a block in another language is only looked at."""
    found: list[File | Typed] = []
    for name, language, block in _BLOCK.findall(text):
        if name:
            found.append(File(name=name, text=block))
        elif language == "sh":
            found += (Typed(words=tuple(shlex.split(line))) for line in block.splitlines())
    return tuple(found)
