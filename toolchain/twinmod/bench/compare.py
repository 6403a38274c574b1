# SPDX-License-Identifier: GPL-2.0-only
"""What changed since another benchmark, and whether a call became too dear. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import structs

from twinmod.base import commands, documents
from twinmod.base.documents import Document
from twinmod.bench import document as bench_document
from twinmod.bench import explain, labels
from twinmod.bench.document import BenchReport, ClockEntry, CountEntry
from twinmod.errors import ConfigError, ExitCode
from twinmod.guest.protocol import BufferKind, Operation
from twinmod.kernels.model import KernelEntry

#: The keys of an entry in a baseline.
KEPT = (
    "module",
    "tester",
    "operation",
    "size_bytes",
    "threads",
    "buffers",
    "loop",
    "path",
    "mode",
    "instructions_per_call",
    "functions",
)


class CountedCall(msgspec.Struct, frozen=True, kw_only=True, tag_field="mode", tag="exact"):
    """What a comparison uses of what was counted of calls."""

    module: str
    tester: str
    operation: str
    size_bytes: int
    # Instructions are counted on one processor.
    threads: Annotated[int, msgspec.Meta(ge=1, le=1)]
    buffers: str
    loop: str
    path: str
    instructions_per_call: Annotated[float, msgspec.Meta(gt=0)]
    functions: tuple[tuple[str, float], ...] = ()

    @property
    def regions(self) -> str:
        """One thread has one."""
        return "one"

    @property
    def key(self) -> tuple[str | int, ...]:
        """What identifies it, in two reports alike."""
        return (
            self.module,
            self.tester,
            self.operation,
            self.size_bytes,
            self.threads,
            self.buffers,
            self.loop,
            self.path,
        )


class TimedCall(msgspec.Struct, frozen=True, kw_only=True, tag_field="mode", tag="wall"):
    """What a clock told of calls, of which a comparison uses nothing."""


class Counting(msgspec.Struct, frozen=True, kw_only=True):
    """How it was counted."""

    qemu: str


class Compared(
    Document,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=False,
    tag=documents.name_schema(BenchReport),
):
    """What a comparison uses of a report; a baseline has no more."""

    quick: bool
    kernel: KernelEntry
    parameters: str
    exact: Counting
    results: tuple[CountedCall | TimedCall, ...]
    yardsticks: tuple[CountedCall | TimedCall, ...]

    @property
    def counts(self) -> dict[tuple[str | int, ...], CountedCall]:
        """What was counted, by what identifies it."""
        entries = (*self.results, *self.yardsticks)
        return {entry.key: entry for entry in entries if isinstance(entry, CountedCall)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A count that is not what it was."""

    entry: CountedCall
    before: float
    now: float
    # (function, how many more instructions it takes), the most first.
    functions: tuple[tuple[str, float], ...]

    @property
    def share(self) -> float:
        """By how much it grew, as a share of what it was."""
        return (self.now - self.before) / self.before


def select_compared(document: BenchReport) -> Compared:
    """Return what a comparison uses of a report."""
    return Compared(
        quick=document.quick,
        kernel=document.kernel,
        parameters=document.parameters,
        exact=Counting(qemu=document.exact.qemu or ""),
        results=_select_counts(document.results),
        yardsticks=_select_counts(document.yardsticks),
    )


def _select_counts(entries: Iterable[CountEntry | ClockEntry]) -> tuple[CountedCall, ...]:
    return tuple(
        CountedCall(
            module=entry.module,
            tester=entry.tester,
            operation=entry.operation,
            size_bytes=entry.size_bytes,
            threads=entry.threads,
            buffers=entry.buffers,
            loop=entry.loop,
            path=entry.path,
            instructions_per_call=entry.instructions_per_call,
            functions=entry.functions,
        )
        for entry in bench_document.select_counts(entries)
    )


def compare_reports(before: Compared, now: Compared) -> tuple[tuple[Change, ...], int]:
    """Return the counts of our modules that two reports both have, as changes; and how many.

    Loads, unloads and calls with fresh pages are left out: what those cost is the kernel's.
    """
    old, new = before.counts, now.counts
    shared = [key for key in new if key in old and new[key].module and is_comparable(new[key])]
    changes = (
        Change(
            entry=new[key],
            before=old[key].instructions_per_call,
            now=new[key].instructions_per_call,
            functions=explain.compare_functions(old[key].functions, new[key].functions)
            if old[key].functions
            else (),
        )
        for key in shared
    )
    return tuple(c for c in changes if c.now != c.before), len(shared)


def find_lost(before: Compared, now: Compared) -> tuple[str, ...]:
    """Return the calls that another report counted and this one should have counted too.

    A quick report has less than a whole one.
    """
    if now.quick and not before.quick:
        return ()
    new = now.counts
    return tuple(
        f"{entry.module} {entry.tester} {labels.render_entry(entry)}"
        for key, entry in before.counts.items()
        if entry.module and is_comparable(entry) and key not in new
    )


def is_comparable(entry: CountEntry | CountedCall) -> bool:
    """Tell whether what the calls of an entry cost is a module's doing.

    What fresh pages take more is the kernel's, as what a load takes is.
    """
    return (
        entry.operation not in (Operation.LOAD, Operation.UNLOAD)
        and entry.buffers != BufferKind.FRESH
    )


def find_other_ground(before: Compared, now: Compared) -> str:
    """Return in what two reports differ beside the modules, "" when nothing does.

    Counts that another kernel, compiler or QEMU makes say nothing of a change to a module.
    """

    def read_grounds(report: Compared) -> dict[str, str]:
        return {
            "kernel": report.kernel.version,
            "rustc": report.kernel.rustc,
            "parameters": report.parameters,
            "QEMU": report.exact.qemu,
        }

    old, new = read_grounds(before), read_grounds(now)
    return "; ".join(
        f"{name} {old[name]!r} then, {new[name]!r} now" for name in new if old[name] != new[name]
    )


def compare_changes(
    changes: Iterable[Change],
    compared: int,
    share: float,
    other_ground: str = "",
    lost: tuple[str, ...] = (),
) -> ExitCode:
    """Return the exit code of a comparison: nothing compared, or less, is no success.

    On other ground a count that grew is shown, and proves nothing.
    """
    grown = any(change.share > share for change in changes) and not other_ground
    return ExitCode.TESTS_FAILED if grown or lost or not compared else ExitCode.PASSED


def plan_baseline(document: BenchReport) -> Compared:
    """Return what of a report another one is compared with."""
    found = select_compared(document)
    results = tuple(entry for entry in _select_counts(document.results) if is_comparable(entry))
    return structs.replace(found, results=results, yardsticks=())


def render_baseline(baseline: Compared) -> str:
    """Return a baseline as JSON with a line for each entry, so that a change of one is seen."""
    head = json.dumps(msgspec.to_builtins(structs.replace(baseline, results=())), indent=1)
    entries = map(msgspec.to_builtins, baseline.results)
    lines = ",\n".join(json.dumps({name: entry[name] for name in KEPT}) for entry in entries)
    return head.replace('"results": []', f'"results": [\n{lines}\n]') + "\n"


def find_unsettled(document: BenchReport) -> tuple[str, ...]:
    """Return the counts of a report that did not settle, of those that are to."""
    entries = bench_document.select_counts((*document.results, *document.yardsticks))
    return tuple(
        f"{entry.module or entry.path} {entry.tester} {labels.render_entry(entry)}"
        for entry in entries
        if is_comparable(entry) and not entry.settled
    )


def compare_settled(document: BenchReport) -> ExitCode:
    """Return the exit code of a report's counts: each must have settled."""
    return ExitCode.TESTS_FAILED if find_unsettled(document) else ExitCode.PASSED


def parse_report(content: str | bytes, path: str) -> Compared:
    """Return an earlier report, of which all that a comparison uses is there.

    Raises:
        ConfigError: It is none, or has no exact counts.
    """
    try:
        return documents.parse(content, Compared)
    except documents.INVALID as error:
        raise ConfigError(
            "this is no report of a benchmark with exact counts",
            facts=(("file", path), ("why", repr(error))),
            hint=f"{commands.render('bench')} writes one to out/bench/report.json",
        ) from error
