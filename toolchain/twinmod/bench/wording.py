# SPDX-License-Identifier: GPL-2.0-only
"""Counts and calls as text. Pure."""

from collections.abc import Mapping
from typing import Any

from twinmod.base import text
from twinmod.vm.machine import AcceleratorName


def render_entry(entry: Mapping[str, Any]) -> str:
    """Return what calls an entry is about."""
    words = [entry["operation"]]
    if entry["size_bytes"]:
        words.append(text.render_size(entry["size_bytes"]))
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
    return "time" if accelerator == AcceleratorName.KVM else "emulation, not time"


def render_count(count: float | None) -> str:
    """Return a count of instructions or nanoseconds with as many digits as mean something."""
    if count is None:
        return "-"
    return f"{count:.0f}" if count >= 100 or count == int(count) else f"{count:.1f}"
