# SPDX-License-Identifier: GPL-2.0-only
"""Sizes, columns and commands as text. Pure."""

import io
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

KIB, MIB = 1024, 1024 * 1024

#: Of a line, in characters: none is cut.
LONGEST = 100_000

#: Languages as people write them.
LANGUAGES = {"c": "C", "rust": "Rust"}


def render_size(size_bytes: int) -> str:
    """Return a size as a person says it."""
    if size_bytes < KIB:
        return f"{size_bytes} B"
    if size_bytes < MIB:
        return f"{size_bytes // KIB} KiB"
    return f"{size_bytes // MIB} MiB"


def render_columns(
    rows: Sequence[tuple[str, ...]], others: Literal["left", "right"] = "right"
) -> list[str]:
    """Return rows as lines of whatever length: the first column left, the others as is said."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for number in range(len(rows[0])):
        table.add_column(justify=others if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    stream = io.StringIO()
    Console(file=stream, width=LONGEST, color_system=None).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]
