# SPDX-License-Identifier: GPL-2.0-only
"""A differential as part of a document, and as text. Pure."""

import hashlib
import json
from dataclasses import replace

from twinmod.base import commands
from twinmod.base.documents import Part
from twinmod.cells import differences
from twinmod.cells import report as cells_report
from twinmod.cells.model import CellResult, TestResult
from twinmod.differential import scripts
from twinmod.differential.explorer import Declared, Exploration, Failure
from twinmod.differential.scripts import SUFFIX, Definition, Sequence
from twinmod.guest.protocol import Outcome


class RoundEntry(Part, frozen=True, kw_only=True):
    """A round of a differential."""

    size: int
    tester: str
    # None for a round that carries out the scripts of the project.
    seed: int | None
    sequences: int
    seconds: float


class FailureEntry(Part, frozen=True, kw_only=True):
    """The sequence that failed, as small as it got."""

    outcome: str
    message: str
    # Whether it failed once more.
    again: bool
    steps: tuple[str, ...]
    # The file that it was kept in, relative to the checkout.
    script: str


class DifferentialReport(Part, frozen=True, kw_only=True):
    """What a differential came to."""

    outcome: str
    problems: tuple[str, ...]
    kernel_faults: tuple[cells_report.FaultEntry, ...]
    rounds: tuple[RoundEntry, ...]
    sequences: int
    sequences_sha256: str
    steps: int
    seconds: float
    steps_per_s: float
    # By the name of a step, how often.
    carried_out: dict[str, int]
    refused: dict[str, int]
    failure: FailureEntry | None


def render_differential(differential: DifferentialReport) -> str:
    """Return how far a differential went, how it ended, and the command that repeats a failure."""
    line = (
        f"differential: {differential.outcome}, {differential.sequences} sequences "
        f"(sha256 {differential.sequences_sha256[:12]}), "
        f"{differential.steps} steps on each module, {differential.seconds:.1f} s, "
        f"{differential.steps_per_s:.0f} steps/s"
    )
    if not differential.failure:
        return line
    again = commands.render("test", "--replay", differential.failure.script)
    return f"{line}\nto see the failure again, step by step: {again}"


def find_problems(
    exploration: Exploration, definition: Definition, declared: Declared
) -> tuple[str, ...]:
    """Return why a run that found no failure proves less than it should, or other than it says.

    A declared difference has to occur where scripts were carried out; what hypothesis draws may
    not come across it.
    """
    if exploration.failure:
        return ()
    missing = [name for name in definition.NAMES if not exploration.carried_out.get(name)]
    problems = [f"never carried out: {', '.join(missing)}"] if missing else []
    if exploration.rounds and all(one.corpus for one, _, _ in exploration.rounds):
        problems += [
            f"{differences.render_declared(one)} does not occur: {one.why}"
            for one in declared.find_missing()
        ]
    return tuple(problems)


def plan_result(
    ended: CellResult, exploration: Exploration, problems: tuple[str, ...], script: str
) -> CellResult:
    """Return the result of the differential's cell: a test for each round.

    Args:
        ended: How it ended in the VM where it began.
        exploration: What came of it.
        problems: From find_problems.
        script: The file that the failure was kept in, "" without one.
    """
    failure = exploration.failure
    last = len(exploration.rounds) - 1
    tests = tuple(
        TestResult(
            id=one.name,
            rules=(),
            duration_s=round(seconds, 2),
            outcome=failure.outcome if failure and number == last else Outcome.PASSED,
            message=_render_failure(failure, script) if failure and number == last else "",
        )
        for number, (one, seconds, _) in enumerate(exploration.rounds)
    )
    outcome = ended.outcome
    if outcome == Outcome.PASSED and (failure or problems):
        outcome = failure.outcome if failure else Outcome.FAILED
    return replace(ended, outcome=outcome, tests=tests, problems=(*ended.problems, *problems))


def _render_failure(failure: Failure, script: str) -> str:
    steps = len(failure.sequence.steps)
    again = "" if failure.again else "; it did not fail once more"
    return f"{failure.message}\n{steps} steps in {script}{again}"


def plan_report(result: CellResult, exploration: Exploration, script: str) -> DifferentialReport:
    """Return what a report says of an exploration.

    Args:
        result: From plan_result.
        exploration: What came of it.
        script: The file that the failure was kept in, "" without one.
    """
    failure = exploration.failure
    seconds = exploration.seconds
    return DifferentialReport(
        outcome=result.outcome,
        problems=result.problems,
        kernel_faults=tuple(cells_report.plan_fault(fault) for fault in result.kernel_faults),
        rounds=tuple(
            RoundEntry(
                size=one.size,
                tester=one.tester,
                seed=None if one.corpus else one.seed,
                sequences=count,
                seconds=round(spent, 2),
            )
            for one, spent, count in exploration.rounds
        ),
        sequences=exploration.sequences,
        sequences_sha256=exploration.sequences_sha256,
        steps=exploration.steps,
        seconds=round(seconds, 2),
        steps_per_s=round(exploration.steps / seconds, 1) if seconds else 0.0,
        carried_out=dict(sorted(exploration.carried_out.items())),
        refused=dict(sorted(exploration.refused.items())),
        failure=_plan_failure(failure, script) if failure is not None else None,
    )


def _plan_failure(failure: Failure, script: str) -> FailureEntry:
    return FailureEntry(
        outcome=failure.outcome,
        message=failure.message,
        again=failure.again,
        steps=tuple(scripts.render_step(step) for step in failure.sequence.steps),
        script=script,
    )


def plan_script_name(sequence: Sequence) -> str:
    """Return the name of the file that a failing sequence is kept in; it follows its content."""
    content = json.dumps((sequence.size, sequence.tester, sequence.steps))
    return f"{hashlib.sha256(content.encode()).hexdigest()[:12]}{SUFFIX}"
