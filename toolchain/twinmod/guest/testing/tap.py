# SPDX-License-Identifier: GPL-2.0-only
"""The Test Anything Protocol, as the kernel's selftests print it. Pure.

Source: https://testanything.org/tap-version-14-specification.html and
Documentation/dev-tools/ktap.rst, Linux 7.3. Indented lines are those of subtests of a subtest,
whose own line says how they ended.
"""

import re
from dataclasses import dataclass, field

_VERSION = re.compile(r"K?TAP version \d+$")
_PLAN = re.compile(r"1\.\.(\d+)\s*(?:#\s*(.*))?$")
_RESULT = re.compile(r"(not )?ok\b(?:\s+(\d+))?(.*)$")
_BAIL_OUT = re.compile(r"Bail out!\s*(.*)$")
_DIRECTIVE = re.compile(r"(?<!\\)#\s*(TODO\b|SKIP|XFAIL\b)", re.IGNORECASE)


@dataclass(slots=True)
class Report:
    """What a program's output says in this protocol."""

    # How many subtests there were; -1: nobody said.
    planned: int = -1
    # Those that ended.
    ended: int = 0
    skipped: int = 0
    # The lines of those that failed.
    failed: list[str] = field(default_factory=list)
    # What makes the output wrong, whatever its subtests say.
    problems: list[str] = field(default_factory=list)
    # Why nothing was tested, "" when something was.
    skip_reason: str = ""


def parse(output: str) -> Report | None:
    """Return what an output says; None: it is not in this protocol."""
    lines = [line.rstrip() for line in output.splitlines()]
    if not any(_VERSION.match(line) or _PLAN.match(line) for line in lines):
        # A program may say "ok" of itself; one whose plan is missing may not say "not ok".
        numbered = (_RESULT.match(line) for line in lines)
        if not any(found and (found[1] or found[2]) for found in numbered):
            return None
    report = Report()
    for line in lines:
        _take(line, report)
    _check_plan(report)
    if report.ended and report.skipped == report.ended and not report.skip_reason:
        report.skip_reason = "every subtest was skipped"
    return report


def _take(line: str, report: Report) -> None:
    if found := _PLAN.match(line):
        if report.planned >= 0:
            report.problems.append(f"a second plan: {line}")
        report.planned = int(found[1])
        if report.planned == 0:
            report.skip_reason = re.sub(r"(?i)^skip\S*\s*", "", found[2] or "") or "an empty plan"
    elif found := _BAIL_OUT.match(line):
        report.problems.append(line)
    elif found := _RESULT.match(line):
        _take_result(line, found, report)


def _take_result(line: str, found: re.Match[str], report: Report) -> None:
    report.ended += 1
    if found[2] and int(found[2]) != report.ended:
        report.problems.append(f"number {report.ended} was expected: {line}")
    directive = _DIRECTIVE.search(found[3])
    report.skipped += bool(directive and directive[1].upper() == "SKIP")
    if found[1] and directive is None:
        report.failed.append(line)


def _check_plan(report: Report) -> None:
    if any(map(_BAIL_OUT.match, report.problems)):
        return
    if report.planned < 0:
        report.problems.append(f"no plan (1..{report.ended}), and {report.ended} subtests ended")
    elif report.planned != report.ended:
        said = f"1..{report.planned} were planned, and {report.ended} ended"
        report.problems.append(said)
