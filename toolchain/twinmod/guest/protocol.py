# SPDX-License-Identifier: GPL-2.0-only
"""What a host and its VM say to each other; both sides use it."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a test, a rule or a cell ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    # The kernel reported a fault.
    CRASHED = "crashed"
    # The VM, or the process of the cell, went on for too long without a step.
    TIMEOUT = "timeout"
    # The VM was gone before it said more.
    LOST = "lost"
    # Of a rule: no test answered for it.
    MISSING = "missing"
    # It began, and nothing has said how it ended.
    RUNNING = ""


class Job(StrEnum):
    """What a VM is to do, or one cell in it."""

    MATRIX = "matrix"
    COUNT = "count"
    MEASURE = "measure"
    TURNS = "turns"
    DIFFERENTIAL = "differential"
    SHELL = "shell"


#: A file in memory of the VM, which calls are measured on too.
TMPFS_FILE = "/tmp/twinmod.yardstick"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Calls of one kind, whose instructions are counted."""

    # read, write, pread, pwrite, add; open, which closes too; load, unload.
    operation: str
    size_bytes: int = 0
    # What is opened; "" is the module's own device.
    path: str = ""
    # "reused": one buffer, all of it there. "fresh": each call's was never touched.
    buffers: str = "reused"
    # Whose loop makes the calls: the tester's, or one in C with nothing else in it, "bare".
    loop: str = "tester"
    # How many make them at once; only a clock can tell what that costs.
    threads: int = 1
    # What several threads move: "disjoint" regions of the device, or the same "one".
    regions: str = "one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What is counted in each cell."""

    timings: tuple[Timing, ...]
    # How often the module is loaded in one VM; all is counted anew after each load.
    loads: int
    # Each of two segments of calls. The first ones are not believed: a module that was just loaded
    # has things to do for the first time.
    rounds: int
    # Of a clock: how often each module's turn comes.
    turns: int = 0
    # Whether a loop of reads and writes is looked at too, with buffers that are made in it.
    loop: bool = False
    # Of the device's memory; 0 leaves the module its own.
    device_bytes: int = 0
