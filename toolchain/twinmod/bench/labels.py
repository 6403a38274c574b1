# SPDX-License-Identifier: GPL-2.0-only
"""Counts and calls as text. Pure."""

from collections.abc import Iterable
from typing import Protocol

from twinmod.base import text
from twinmod.guest.protocol import BufferKind, Caller, Operation
from twinmod.vm.machine import AcceleratorName


class Call(Protocol):
    """What an entry says of the calls that it is about; Timing says what each means."""

    @property
    def operation(self) -> str:
        """What is called."""

    @property
    def size_bytes(self) -> int:
        """Of the buffer; 0 for a call without."""

    @property
    def threads(self) -> int:
        """How many call at once."""

    @property
    def buffers(self) -> str:
        """Which memory."""

    @property
    def loop(self) -> str:
        """Whose loop."""

    @property
    def regions(self) -> str:
        """Which bytes of the device."""


def render_entry(entry: Call) -> str:
    """Return what calls an entry is about."""
    words = [entry.operation]
    if entry.size_bytes:
        words.append(text.render_size(entry.size_bytes))
    if entry.buffers == BufferKind.FRESH:
        words.append("fresh")
    if entry.threads > 1:
        where = "" if entry.operation == Operation.COUNT else f" on {entry.regions}"
        words.append(f"{entry.threads} threads{where}")
    if entry.loop == Caller.BARE:
        words.append("(bare loop)")
    return " ".join(words)


def find_pair(labels: Iterable[str]) -> tuple[str, str] | None:
    """Return the label of the module that another one is compared with, and that of the other.

    Args:
        labels: Of all modules, in the configuration's order.

    Returns:
        None unless there are two modules.
    """
    found = tuple(labels)
    return (found[0], found[1]) if len(found) == 2 else None


def name_ratio(labels: Iterable[str], sign: str = " / ") -> str:
    """Return what a table calls the ratio of two modules: "Rust / C"; "" unless there are two."""
    pair = find_pair(labels)
    return sign.join(text.LANGUAGES.get(label, label) for label in reversed(pair)) if pair else ""


def label_accelerator(accelerator: str) -> str:
    """Return what a clock tells in a VM on some accelerator."""
    return "time" if accelerator == AcceleratorName.KVM else "emulation, not time"


def render_count(count: float | None) -> str:
    """Return a count of instructions or nanoseconds with as many digits as mean something."""
    if count is None:
        return "-"
    return f"{count:.0f}" if count >= 100 or count == int(count) else f"{count:.1f}"
