# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin that announces each test, and how it ended."""

from pathlib import Path
from typing import Any

from twinmod.guest.child import Heartbeat
from twinmod.guest.protocol import Outcome, TestBegan, TestEnded
from twinmod.guest.stream import Stream

#: Parts of pytest that the matrix does not need; together they are half of what a test costs
#: beside its own work, and an emulated processor makes each twenty times dearer.
PYTEST_SAVINGS = (
    "--capture=no",
    *(
        f"-pno:{name}"
        for name in (
            "debugging",
            "doctest",
            "faulthandler",
            "junitxml",
            "logging",
            "pastebin",
            "setuponly",
            "setupplan",
            "stepwise",
            "threadexception",
            "unraisableexception",
            "warnings",
        )
    ),
)


class Announcer:
    """A pytest plugin: says when a test begins and how it ended.

    Args:
        stream: Where it says that.
        heartbeat: Of this process.
        rules: Those of each test, by its name.
    """

    def __init__(
        self, stream: Stream, heartbeat: Heartbeat, rules: dict[str, tuple[str, ...]]
    ) -> None:
        self.stream = stream
        self.heartbeat = heartbeat
        self.rules = rules
        self.spent: dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say that a test begins, before it can do any harm."""
        self.spent[nodeid] = 0.0
        self.stream.emit(TestBegan(id=nodeid, rules=self.rules[nodeid]))
        self.heartbeat.beat()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Say how a test ended: at the first phase that failed, or after its last."""
        self.spent[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            return
        if report.when == "setup" and report.passed:
            return
        if report.nodeid not in self.rules:
            return
        message = "" if report.passed else _find_message(report)
        rules = self.rules.pop(report.nodeid)
        self.stream.emit(
            TestEnded(
                id=report.nodeid,
                rules=rules,
                outcome=Outcome(report.outcome),
                duration_s=round(self.spent[report.nodeid], 4),
                message=message,
            )
        )
        self.heartbeat.beat()


def _find_message(report: Any) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return f"{Path(crash.path).name}:{crash.lineno}: {crash.message}"
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    # Of a program: what failed comes first.
    if isinstance(report.longrepr, str):
        return report.longrepr
    return str(report.longrepr)[-500:]
