# SPDX-License-Identifier: GPL-2.0-only
"""What changed since another benchmark, and whether a call became too dear. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from twinmod.base import commands
from twinmod.bench import explain, figures, wording
from twinmod.errors import ConfigError, ExitCode

#: What identifies an entry of results, in two reports alike.
KEYS = ("module", "tester", "operation", "size_bytes", "threads", "buffers", "loop", "path")


class Exact(msgspec.Struct, kw_only=True):
    """What a comparison uses of an exact entry of a report."""

    module: str
    tester: str
    operation: str
    size_bytes: int
    # Instructions are counted on one processor.
    threads: Literal[1]
    buffers: str
    loop: str
    path: str
    instructions_per_call: Annotated[float, msgspec.Meta(gt=0)]
    functions: list[tuple[str, float]] = []


class Ground(msgspec.Struct, kw_only=True):
    """The kernel that a report is of."""

    version: str
    rustc: str


class Counting(msgspec.Struct, kw_only=True):
    """How it was counted."""

    qemu: str


class Compared(msgspec.Struct, kw_only=True):
    """What a comparison uses of a report, beside its entries."""

    quick: bool
    parameters: str
    kernel: Ground
    exact: Counting
    results: list[dict[str, Any]]
    yardsticks: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A count that is not what it was."""

    entry: Mapping[str, Any]
    before: float
    now: float
    # (function, how many more instructions it takes), the most first.
    functions: tuple[tuple[str, float], ...]

    @property
    def share(self) -> float:
        """By how much it grew, as a share of what it was."""
        return (self.now - self.before) / self.before


def index_results(document: Mapping[str, Any]) -> dict[tuple[Any, ...], Mapping[str, Any]]:
    """Return the exact entries of a report by what identifies them."""
    return {
        tuple(entry[key] for key in KEYS): entry
        for entry in (*document["results"], *document["yardsticks"])
        if entry["mode"] == "exact"
    }


def compare_reports(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[tuple[Change, ...], int]:
    """Return the counts of our modules that two reports both have, as changes; and how many.

    Loads, unloads and calls with fresh pages are left out: what those cost is the kernel's.
    """
    old, new = index_results(before), index_results(now)
    shared = [key for key in new if key in old and new[key]["module"] and is_comparable(new[key])]
    changes = (
        Change(
            entry=new[key],
            before=old[key]["instructions_per_call"],
            now=new[key]["instructions_per_call"],
            functions=explain.compare_functions(
                tuple(map(tuple, old[key].get("functions", ()))),
                tuple(map(tuple, new[key]["functions"])),
            )
            if old[key].get("functions")
            else (),
        )
        for key in shared
    )
    return tuple(c for c in changes if c.now != c.before), len(shared)


def find_lost(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the calls that another report counted and this one should have counted too.

    A quick report has less than a whole one.
    """
    if now["quick"] and not before["quick"]:
        return ()
    old, new = index_results(before), index_results(now)
    return tuple(
        f"{entry['module']} {entry['tester']} {wording.render_entry(entry)}"
        for key, entry in old.items()
        if entry["module"] and is_comparable(entry) and key not in new
    )


def is_comparable(entry: Mapping[str, Any]) -> bool:
    """Tell whether what the calls of an entry cost is a module's doing.

    What fresh pages take more is the kernel's, as what a load takes is.
    """
    return entry["operation"] not in ("load", "unload") and entry["buffers"] != "fresh"


def find_other_ground(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in what two reports differ beside the modules, "" when nothing does.

    Counts that another kernel, compiler or QEMU makes say nothing of a change to a module.
    """

    def read_grounds(report: Mapping[str, Any]) -> dict[str, str]:
        kernel = report["kernel"]
        return {
            "kernel": kernel["version"],
            "rustc": kernel["rustc"],
            "parameters": report["parameters"],
            "QEMU": report["exact"]["qemu"],
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


def plan_baseline(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a report another one is compared with."""
    kept = (*KEYS, "mode", "instructions_per_call", "functions")
    return {
        **{name: document[name] for name in ("schema", "quick", "kernel", "parameters")},
        "exact": {"qemu": document["exact"]["qemu"]},
        "results": [
            {name: entry[name] for name in kept}
            for entry in document["results"]
            if entry["mode"] == "exact" and is_comparable(entry)
        ],
        "yardsticks": [],
    }


def render_baseline(document: Mapping[str, Any]) -> str:
    """Return a baseline as JSON with a line for each entry, so that a change of one is seen."""
    head = json.dumps({**document, "results": []}, indent=1)
    lines = ",\n".join(json.dumps(entry) for entry in document["results"])
    return head.replace('"results": []', f'"results": [\n{lines}\n]') + "\n"


def find_unsettled(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the counts of a report that did not settle, of those that are to."""
    return tuple(
        f"{entry['module'] or entry['path']} {entry['tester']} {wording.render_entry(entry)}"
        for entry in (*document["results"], *document["yardsticks"])
        if entry["mode"] == "exact" and is_comparable(entry) and not entry["settled"]
    )


def compare_settled(document: Mapping[str, Any]) -> ExitCode:
    """Return the exit code of a report's counts: each must have settled."""
    return ExitCode.TESTS_FAILED if find_unsettled(document) else ExitCode.PASSED


def parse_report(content: str | bytes, path: str) -> dict[str, Any]:
    """Return an earlier report, of which all that a comparison uses is there.

    Raises:
        ConfigError: It is none, or has no exact counts.
    """
    try:
        document = json.loads(content)
        if document["schema"] != figures.SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, not {figures.SCHEMA!r}")
        msgspec.convert(document, Compared)
        msgspec.convert(list(index_results(document).values()), list[Exact])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            "this is no report of a benchmark with exact counts",
            facts=(("file", path), ("why", repr(error))),
            hint=f"{commands.render('bench')} writes one to out/bench/report.json",
        ) from error
    return dict(document)
