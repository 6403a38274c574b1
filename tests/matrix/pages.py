# SPDX-License-Identifier: GPL-2.0-only
"""Which pages of memory nobody accounts for: there, and only there, a driver's lost pages show."""

import re
from pathlib import Path

from contract import PAGE

# What the kernel says its memory is used for. Source: proc_meminfo(5).
USES = (
    *("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab", "KernelStack"),
    *("PageTables", "SecPageTables", "VmallocUsed", "Percpu"),
)


def count_unaccounted() -> int:
    """Return the pages that are neither free nor in any use that the kernel counts.

    A page that a driver asked for itself is one. Whatever else goes on meanwhile shows as a few
    pages here, where it makes hundreds of free ones more or less.
    """
    # A processor keeps back what it has freed, and its counts, until they are many, or asked for:
    # compact_nodes() in mm/compaction.c, vmstat_refresh() in mm/vmstat.c, Linux 7.3.
    Path("/proc/sys/vm/compact_memory").write_text("1")
    Path("/proc/sys/vm/stat_refresh").write_text("1")
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    used = sum(kib.get(name, 0) for name in USES)
    # Free pages that wait for a processor.
    waiting = re.findall(r"^ +count: +(\d+)$", Path("/proc/zoneinfo").read_text(), re.MULTILINE)
    return (kib["MemTotal"] - used) * 1024 // PAGE - sum(map(int, waiting))
