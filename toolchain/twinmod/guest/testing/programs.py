# SPDX-License-Identifier: GPL-2.0-only
"""Tests that are programs: a script NAME.sh, or NAME.c, which lies compiled beside it as NAME.

A program passes with exit status 0, is skipped with 4, as the kernel's selftests have it, and fails
with any other one, or when it prints the Test Anything Protocol and that says so.
"""

import errno
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from twinmod.guest import applets, door
from twinmod.guest import log as guest_log
from twinmod.guest.devices import Devices
from twinmod.guest.door import GuestError, Started
from twinmod.guest.modules import Module
from twinmod.guest.testing import tap

#: What a program ends with that cannot test here: tools/testing/selftests/kselftest.h, Linux 7.3.
SKIPPED = 4

#: How many of a program's last lines the message of a failure repeats.
OUTPUT_LINES = 15

#: ``# rule: R3 R4``, ``// rule: R3``, `` * rule: R3``
_RULE = re.compile(r"^\s*(?:#|//|/?\*+)\s*rule:\s*(.+?)\s*(?:\*/)?$", re.MULTILINE)

#: Limit for a program that a test calls, in seconds; less than a test may take without a step.
CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a program learns of its cell."""

    module: Module
    devices: Devices
    tester: str
    long: bool
    mark_step: Callable[[], object]


class ProgramFailedError(Exception):
    """A program did not pass; its text says why."""


def parse_rules(source: str) -> tuple[str, ...]:
    """Return the rules that a program's comments name."""
    named = (word for found in _RULE.findall(source) for word in re.split(r"[\s,]+", found))
    return tuple(dict.fromkeys(filter(None, named)))


def plan_argv(path: Path, source: str) -> tuple[str, ...]:
    """Return what runs a test: a script by the program that its first line names, or by sh."""
    if path.suffix != ".sh":
        return (str(path.with_suffix("")),)
    first = source.partition("\n")[0]
    # As the kernel has it: all after the program is one argument.
    words = first[2:].strip().split(None, 1) if first.startswith("#!") else []
    return (*(words or ["sh"]), str(path))


def read_environment(given: Given, log: int) -> dict[str, str]:
    """Return what a program has in its environment.

    Args:
        given: What it learns of its cell.
        log: Its descriptor of the kernel's log.
    """
    nodes = given.devices.nodes
    return {
        **os.environ,
        "TWINMOD_MODULE": given.module.name,
        "TWINMOD_MODULE_PATH": str(given.module.ko_path),
        "TWINMOD_DEVICE": str(nodes[0]) if nodes else "",
        "TWINMOD_DEVICES": " ".join(map(str, nodes)),
        "TWINMOD_TESTER": given.tester,
        "TWINMOD_LONG": "1" if given.long else "",
        "TWINMOD_LOG": str(log),
    }


def judge(status: int, output: str) -> tuple[str, str]:
    """Return why a program failed and why it was skipped; both are "" for one that passed.

    Args:
        status: Its exit status, negative for a signal.
        output: All that it printed.
    """
    report = tap.parse(output)
    failed = list(report.failed) if report else []
    if status == SKIPPED and not failed:
        return "", (report.skip_reason if report else "") or find_last_line(output)
    problems = list(report.problems) if report else []
    if status:
        how = f"signal {-status} ended it" if status < 0 else f"it exited with status {status}"
        problems.insert(0, how)
    if not failed and not problems:
        return "", report.skip_reason if report else ""
    count = [f"{len(failed)} of {report.ended} subtests failed"] if report and failed else []
    said = output.splitlines()[-OUTPUT_LINES:]
    shown = ["its output ends with", *(f"  {line}" for line in said)] if said else []
    return "\n".join((*count, *failed, *problems, *shown)), ""


def find_last_line(output: str) -> str:
    """Return the last line of an output that says something."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else f"it exited with status {SKIPPED}"


class TestProgramFile(pytest.File):
    """The source of a test that is a program."""

    # pytest would otherwise take the class for tests.
    __test__ = False

    def collect(self) -> Iterator["TestProgram"]:
        """Yield its one test."""
        item = TestProgram.from_parent(self, name=self.path.stem)
        rules = parse_rules(self.path.read_text(errors="replace"))
        if rules:
            item.add_marker(pytest.mark.rule(*rules))
        yield item


class TestProgram(pytest.Item):
    """A test that is a program."""

    __test__ = False
    given: Given

    def runtest(self) -> None:
        """Run it.

        Raises:
            ProgramFailedError: It did not pass.
        """
        argv = plan_argv(self.path, self.path.read_text(errors="replace"))
        if self.path.suffix == ".sh":
            applets.install()
        log = guest_log.open_log()
        try:
            started = Started(
                argv=argv,
                working_dir=self.path.parent,
                environment=read_environment(self.given, log),
                descriptors=(log,),
            )
            # Every line that it prints is a step.
            status, output = door.run_watched(started, lambda _: self.given.mark_step())
        except GuestError as error:
            raise ProgramFailedError(str(error)) from error
        finally:
            os.close(log)
        failed, skipped = judge(status, output)
        if failed:
            raise ProgramFailedError(failed)
        if skipped:
            pytest.skip(skipped)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return why it failed, in its own words."""
        if isinstance(excinfo.value, ProgramFailedError):
            return f"{self.path.name}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where it is."""
        return self.path, None, self.name


def run_lines(path: Path, *arguments: str) -> list[str] | None:
    """Run a program that a test needs; return the lines that it printed.

    None: this kernel runs no programs of its kind, such as 32-bit ones.

    Raises:
        AssertionError: It exited with another status than 0.
        GuestError: It is not there, or did not end within CALL_TIMEOUT_S.
    """
    argv = (str(path), *arguments)
    try:
        status, output = door.run(argv, CALL_TIMEOUT_S)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return None
    assert status == 0, f"{shlex.join(argv)} exited with status {status}: {output}"
    return output.splitlines()
