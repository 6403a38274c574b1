# SPDX-License-Identifier: GPL-2.0-only
"""What kmemleak reports after a module was unloaded."""

import time
from collections import Counter
from pathlib import Path

from twinmod.guest import log

DEBUGFS = Path("/sys/kernel/debug")
KMEMLEAK = DEBUGFS / "kmemleak"

#: kmemleak tells of nothing that is younger; MSECS_MIN_AGE in mm/kmemleak.c, Linux 7.3.
LEAK_AGE_S = 5.0

#: Where modules are on x86-64: Documentation/arch/x86/x86_64/mm.rst, Linux 7.3. They begin 512 MiB
#: later on a kernel with CONFIG_RANDOMIZE_BASE; what lies between has names there.
MODULES = range(0xFFFF_FFFF_A000_0000, 0xFFFF_FFFF_FF00_0000)


def scan_leaks() -> str:
    """Return what kmemleak knows after a scan that sees each object a second time."""
    for _ in range(2):
        KMEMLEAK.write_text("scan")
    return KMEMLEAK.read_text(errors="replace")


def forget_leaks() -> None:
    """Let kmemleak tell of nothing that it knows now: a VM that is saved has had no module."""
    if KMEMLEAK.exists():
        scan_leaks()
        KMEMLEAK.write_text("clear")


def tell_leaks(code: "CodeRange") -> None:
    """Copy, after a module is unloaded, what it left behind into the kernel's log."""
    if not KMEMLEAK.exists():
        return
    time.sleep(LEAK_AGE_S)
    for leak, count in count_leaks(scan_leaks()):
        lines = [code.name_line(line) for line in leak]
        if any(f"[{code.module}]" in line for line in lines):
            for line in (lines[0], f"  {count} objects from this place", *lines[1:]):
                log.say(line)
    KMEMLEAK.write_text("clear")


def count_leaks(text: str) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return the lines of the first object from each place, and how many kmemleak tells of."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("unreferenced object "):
            found.append([])
        if found:
            found[-1].append(line)
    first: dict[tuple[str, ...], tuple[str, ...]] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for lines in found:
        begin = next((i for i, line in enumerate(lines) if "backtrace" in line), 0)
        stack = tuple(lines[begin + 1 :])
        first.setdefault(stack, tuple(lines))
        counts[stack] += 1
    return tuple((lines, counts[stack]) for stack, lines in first.items())


class CodeRange:
    """Where a module's code was: once it is unloaded, the kernel has only numbers for it."""

    def __init__(self, module: str) -> None:
        self.module = module
        folder = Path("/sys/module", module)
        section = folder / "sections/.text"
        self.start = int(section.read_text(), 16) if section.exists() else 0
        size = folder / "coresize"
        self.size = int(size.read_text()) if size.exists() else 0

    def name_line(self, line: str) -> str:
        """Return a stack's line with an address of unloaded code as a place in the module."""
        text = line.strip()
        if not text.startswith("0xffffffff") or int(text, 16) not in MODULES:
            return line
        offset = int(text, 16) - self.start
        known = 0 <= offset < self.size
        where = f".text+{offset:#x}/{self.size:#x}" if known else "unloaded+0x0/0x0"
        return f"    {where} [{self.module}]"
