# SPDX-License-Identifier: GPL-2.0-only
"""Sizes, columns and commands as text. Pure."""

from collections.abc import Sequence

KIB, MIB = 1024, 1024 * 1024

#: Languages as people write them.
LANGUAGES = {"c": "C", "rust": "Rust"}


def render_size(size_bytes: int) -> str:
    """Return a size as a person says it."""
    if size_bytes < KIB:
        return f"{size_bytes} B"
    if size_bytes < MIB:
        return f"{size_bytes // KIB} KiB"
    return f"{size_bytes // MIB} MiB"


def render_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines: the first column left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            f"{text:<{width}}" if number == 0 else f"{text:>{width}}"
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
