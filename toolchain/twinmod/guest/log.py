# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's log while a cell runs."""

import os
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from twinmod.guest import faults

#: A splat, which is what the kernel writes of a fault, is whole when no more comes for so long.
SPLAT_PAUSE_S = 0.5
SPLAT_TIMEOUT_S = 5.0

#: How many of the kernel's last lines say why it refused a module.
KERNELS_WORDS = 2

#: Facilities of syslog(3), which a record of /dev/kmsg has: 0 is the kernel, and programs have 1
#: unless they name another one, as the agent does with LOG_LOCAL0.
KERNEL, AGENT = 0, 16

#: Levels of syslog(3).
ERROR, DEBUG = 3, 7

#: Longer than any record of /dev/kmsg; CONSOLE_EXT_LOG_MAX, Linux 7.3.
RECORD_BYTES = 8192

#: How /dev/kmsg writes a byte that is not printable, and a backslash.
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one call of printk() said, or one write of a program."""

    # Who said it. A program cannot say that it is the kernel.
    facility: int
    # How grave it is, as syslog(3) has it: 3 is an error, and less is worse.
    level: int
    # What the console shows before each line: the time, and the number of the caller.
    stamp: str
    # May have several lines.
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines of the console that it is."""
        return [self.stamp + line for line in self.text.split("\n")]


class KernelLog:
    """What the kernel says from now on: many faults it survives, and a cell must not.

    Args:
        descriptor: Of /dev/kmsg, that does not block.
        modules: Those under test; a data race of the kernel's own code is no fault of theirs.
        tell: Called with each line that a program wrote to /dev/kmsg and that looks like the first
            one of a splat. On the console nothing tells it from the kernel's own.
    """

    def __init__(
        self,
        descriptor: int,
        modules: tuple[str, ...],
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.descriptor = descriptor
        self.modules = modules
        self.tell = tell
        self.lines: list[str] = []
        # What the fault that has_fault found is, in one line.
        self.complaint = ""

    def read(self) -> bool:
        """Read what is new; return whether a splat begins in it."""
        begun = False
        for record in iterate_records(self.descriptor):
            firsts = [
                line for line in record.lines if faults.find_kind(faults.parse_line(line).text)
            ]
            if record.facility not in (KERNEL, AGENT):
                for line in firsts:
                    self.tell(line)
                continue
            self.lines += record.lines
            begun = begun or bool(firsts)
        return begun

    def has_fault(self) -> bool:
        """Wait until the splats that have begun are whole, and tell whether one ends a cell."""
        deadline = time.monotonic() + SPLAT_TIMEOUT_S
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while time.monotonic() < deadline and poll.poll(SPLAT_PAUSE_S * 1000):
            self.read()
        found = faults.parse_faults("\n".join(self.lines))
        bad = [fault for fault in found if not faults.is_tolerated(fault, self.modules)]
        self.complaint = faults.render_complaint(bad[0]) if bad else ""
        return bool(bad)


def open_log() -> int:
    """Return a descriptor of the kernel's log, after all that it has said so far."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(descriptor, 0, os.SEEK_END)
    return descriptor


def iterate_records(descriptor: int) -> Iterator[Record]:
    """Yield the records that a descriptor of /dev/kmsg, which does not block, has now."""
    while True:
        try:
            record = os.read(descriptor, RECORD_BYTES)
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The ring buffer went round; what comes next is the oldest that is left.
            continue
        if not record:
            return
        yield parse_record(record.decode(errors="replace"))


@contextmanager
def follow() -> Iterator[Callable[[], list[str]]]:
    """Give a function that returns what the kernel's log got since it was called before.

    Each text is one record's, without its stamp.
    """
    with follow_records() as read:
        yield lambda: [record.text for record in read()]


@contextmanager
def follow_records() -> Iterator[Callable[[], list[Record]]]:
    """Give a function that returns the records that the kernel's log got since it was called."""
    descriptor = open_log()
    try:
        yield lambda: list(iterate_records(descriptor))
    finally:
        os.close(descriptor)


def parse_record(record: str) -> Record:
    """Return a record of /dev/kmsg.

    Source: Documentation/ABI/testing/dev-kmsg, and devkmsg_write() in kernel/printk/printk.c,
    Linux 7.3.
    """
    head, _, text = record.partition(";")
    fields = head.split(",")
    at_us = int(fields[2]) if len(fields) > 2 else 0
    caller = next((f.removeprefix("caller=") for f in fields if f.startswith("caller=")), "")
    stamp = f"[{at_us // 1_000_000:5d}.{at_us % 1_000_000:06d}]"
    said = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text.partition("\n")[0])
    # Each escape is a byte of UTF-8.
    said = said.encode("latin-1", "replace").decode(errors="replace")
    priority = int(fields[0]) if fields[0].isdecimal() else KERNEL << 3 | DEBUG
    return Record(
        facility=priority >> 3,
        level=priority & 7,
        stamp=f"{stamp}[{caller:>6}] " if caller else f"{stamp} ",
        text=said,
    )


def say(text: str) -> None:
    """Put a line into the kernel's log as a warning, where the console shows it."""
    Path("/dev/kmsg").write_text(f"<{AGENT << 3 | 4}>{text}\n")
