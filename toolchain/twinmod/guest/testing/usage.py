# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel has in use, told so exactly that a leak of a page or an object shows."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twinmod.guest.testing.children import PATIENCE_S
from twinmod.guest.testing.memory import PAGE

# What /proc/meminfo has a name for, each page once; a page that a driver takes has none.
NAMED = (
    *("MemFree", "Buffers", "Cached", "AnonPages", "Slab", "PageTables", "SecPageTables"),
    *("VmallocUsed", "Percpu"),
)

# By the same names: pages that only a driver can have, and what it can have instead.
WATCHED = ("Unnamed", "VmallocUsed", "Percpu")

# How often the free pages are read until they stay the same, but for what the reading itself takes.
TRIES = 50
NEARLY = 2

# How many readings in a row must be no lower, to believe that nothing more is freed.
STEADY = 3

# How long each measurement waits for what is freed late, until one finds nothing lost.
PATIENCES_S = (1, PATIENCE_S)

# How much more may be in use after a step. The rest of the system was seen to take 64 KiB, and to
# give back 68 KiB that an earlier step had used: a step that loses something must lose much more.
TOLERATED_KIB = 96


def read_kib() -> dict[str, int]:
    """Return the figures of WATCHED, in KiB.

    Source: proc_meminfo(5); Documentation/admin-guide/sysctl/vm.rst, Linux 7.3: compact_memory
    begins by taking back the pages that processors keep on their way to or from a list, of which
    there can be hundreds; stat_refresh adds up what each processor has counted by itself.
    """
    Path("/proc/sys/vm/compact_memory").write_text("1")
    Path("/proc/sys/vm/stat_refresh").write_text("1")
    kib, waiting = read_at_once()
    # Free is also what waits for a processor.
    kib["MemFree"] += waiting * PAGE // 1024
    kib["Unnamed"] = kib["MemTotal"] - sum(kib[name] for name in NAMED)
    return {name: kib[name] for name in WATCHED}


def read_settled_kib() -> dict[str, int]:
    """Return the least of read_kib() that is seen before it falls no more.

    What is freed late would else hide as much that is lost meanwhile.
    """
    least = read_kib()
    falls = True
    while falls:
        falls = False
        for _ in range(STEADY):
            now = read_kib()
            falls = falls or any(now[name] < least[name] for name in WATCHED)
            least = {name: min(now[name], least[name]) for name in WATCHED}
    return least


def read_at_once() -> tuple[dict[str, int], int]:
    """Return the figures of /proc/meminfo, in KiB, and how many free pages wait for a processor.

    A processor takes and gives back 63 pages at a time: were that to happen between the two
    readings, so many pages would be counted twice, or not at all.
    """
    for _ in range(TRIES):
        waiting = read_waiting()
        lines = Path("/proc/meminfo").read_text().splitlines()
        if abs(read_waiting() - waiting) <= NEARLY:
            break
    pairs = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) for name, _, rest in pairs}, waiting


def read_waiting() -> int:
    """Return how many free pages wait for a processor."""
    counts = re.findall(r"^ +count: +(\d+)$", Path("/proc/zoneinfo").read_text(), re.MULTILINE)
    return sum(map(int, counts))


@contextmanager
def one_processor() -> Iterator[None]:
    """Run on one processor: what the reading itself keeps at hand is then the same each time."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def read_objects() -> dict[str, int]:
    """Return the active objects of each slab cache. Source: slabinfo(5)."""
    lines = Path("/proc/slabinfo").read_text().splitlines()[2:]
    return {name: int(active) for name, active, _ in (line.split(None, 2) for line in lines)}


def shrink(caches: Iterator[str]) -> None:
    """Take back what processors keep of slab caches: it would count as active.

    Source: Documentation/ABI/testing/sysfs-kernel-slab, Linux 7.3.
    """
    for cache in caches:
        Path("/sys/kernel/slab", cache, "shrink").write_text("1")


def read_shrunk_objects() -> dict[str, int]:
    """Return the active objects of each slab cache, and no others."""
    with one_processor():
        shrink(cache for cache, active in read_objects().items() if active)
        return read_objects()


def find_lost(measure: Callable[[float], dict[str, int]]) -> dict[str, int]:
    """Return what a measurement finds lost each time; one that finds nothing is the last.

    A kernel that does something for the first time takes memory for good, and does so once. So
    nothing has to run before, and it does not matter what did.

    Args:
        measure: Does what may lose memory, and returns what is lost after so many seconds.
    """
    lost: dict[str, int] = {}
    for patience_s in PATIENCES_S:
        lost = measure(patience_s)
        if not lost:
            break
    return lost


def find_growth(
    before: dict[str, int],
    read: Callable[[], dict[str, int]],
    tolerance: int,
    patience_s: float,
) -> dict[str, int]:
    """Return by how much figures have grown that have grown by more than is tolerated.

    What is freed late, after a grace period or by a worker, is waited for.
    """
    deadline = time.monotonic() + patience_s
    while True:
        grown = {name: now - before.get(name, 0) for name, now in read().items()}
        found = {name: growth for name, growth in grown.items() if growth > tolerance}
        if not found or time.monotonic() > deadline:
            return found


def find_kib_lost(step: Callable[[], object], patience_s: float) -> dict[str, int]:
    """Return by how many KiB the figures of WATCHED have grown after a step."""
    before = read_settled_kib()
    step()
    return find_growth(before, read_kib, TOLERATED_KIB, patience_s)


def find_object_growth(before: dict[str, int], tolerance: int, patience_s: float) -> dict[str, int]:
    """Return find_growth() of read_shrunk_objects(); only what seems to have grown is shrunk."""

    def read() -> dict[str, int]:
        now = read_objects()
        shrink(cache for cache, active in now.items() if active > before.get(cache, 0) + tolerance)
        return read_objects()

    with one_processor():
        return find_growth(before, read, tolerance, patience_s)
