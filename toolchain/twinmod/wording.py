# SPDX-License-Identifier: GPL-2.0-only
"""Counts, sizes and calls as a person says them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def render_entry(entry: Mapping[str, Any]) -> str:
    """Return what calls an entry is about."""
    words = [entry["operation"]]
    if entry["size_bytes"]:
        words.append(render_size(entry["size_bytes"]))
    if entry["buffers"] == "fresh":
        words.append("fresh")
    if entry["threads"] > 1:
        where = "" if entry["operation"] == "count" else f" on {entry['regions']}"
        words.append(f"{entry['threads']} threads{where}")
    if entry["loop"] == "bare":
        words.append("(bare loop)")
    return " ".join(words)


def label_accelerator(accelerator: str) -> str:
    """Return what a clock tells in a VM on some accelerator."""
    return "time" if accelerator == "kvm" else "emulation, not time"


def render_count(count: float | None) -> str:
    """Return a count of instructions or nanoseconds with as many digits as mean something."""
    if count is None:
        return "-"
    return f"{count:.0f}" if count >= 100 or count == int(count) else f"{count:.1f}"


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
