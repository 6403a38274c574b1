# SPDX-License-Identifier: GPL-2.0-only
"""How a caller wants cells to be run, beside what they are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from twinmod.cells.history import History
from twinmod.cells.model import TestResult
from twinmod.vm import session
from twinmod.vm.session import Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a caller wants cells to be run."""

    # Holds the conversation of the differential's cell, once.
    converse: Callable[[Vm], None] | None = None
    # What earlier runs tell of the tests.
    history: History = field(default_factory=History)
    # How many clones run at a time at most; 0: as many as the host has room for.
    lanes: int = 0
    # How many processors the host is taken to have; 0: as many as it has.
    processors: int = 0
    # Called with the name of a cell and each test of it that did not pass, as soon as it is known.
    told: Callable[[str, TestResult], None] = session.ignore
    # Set by whoever wants no more of the run.
    stopped: Event = field(default_factory=Event)
