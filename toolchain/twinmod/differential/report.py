# SPDX-License-Identifier: GPL-2.0-only
"""A differential as part of a document, and as text. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twinmod.base import commands
from twinmod.cells.model import CellResult, TestResult
from twinmod.differential import scripts
from twinmod.differential.explorer import Exploration, Failure
from twinmod.differential.scripts import SUFFIX, Definition, Sequence
from twinmod.guest.protocol import Outcome


def render_differential(differential: Mapping[str, Any]) -> str:
    """Return how far a differential went, how it ended, and the command that repeats a failure."""
    line = (
        f"differential: {differential['outcome']}, {differential['sequences']} sequences "
        f"(sha256 {differential['sequences_sha256'][:12]}), "
        f"{differential['steps']} steps on each module, {differential['seconds']:.1f} s, "
        f"{differential['steps_per_s']:.0f} steps/s"
    )
    if not differential["failure"]:
        return line
    again = commands.render("test", "--replay", differential["failure"]["script"])
    return f"{line}\nto see the failure again, step by step: {again}"


def find_problems(exploration: Exploration, definition: Definition) -> tuple[str, ...]:
    """Return why a run that found no failure proves less than it should."""
    if exploration.failure:
        return ()
    missing = [name for name in definition.NAMES if not exploration.carried_out.get(name)]
    return (f"never carried out: {', '.join(missing)}",) if missing else ()


def plan_result(
    ended: CellResult, exploration: Exploration, problems: tuple[str, ...], script: str
) -> CellResult:
    """Return the result of the cell DIFFERENTIAL: a test for each round.

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


def plan_report(exploration: Exploration, script: str) -> dict[str, Any]:
    """Return what a report says of an exploration: JSON's own types."""
    failure = exploration.failure
    seconds = exploration.seconds
    return {
        "rounds": [
            {
                "size": one.size,
                "tester": one.tester,
                "seed": None if one.corpus else one.seed,
                "sequences": count,
                "seconds": round(spent, 2),
            }
            for one, spent, count in exploration.rounds
        ],
        "sequences": exploration.sequences,
        "sequences_sha256": exploration.sequences_sha256,
        "steps": exploration.steps,
        "seconds": round(seconds, 2),
        "steps_per_s": round(exploration.steps / seconds, 1) if seconds else 0.0,
        "carried_out": dict(sorted(exploration.carried_out.items())),
        "refused": dict(sorted(exploration.refused.items())),
        "failure": None
        if failure is None
        else {
            "outcome": failure.outcome,
            "message": failure.message,
            "again": failure.again,
            "steps": [scripts.render_step(step) for step in failure.sequence.steps],
            "script": script,
        },
    }


def plan_script_name(sequence: Sequence) -> str:
    """Return the name of the file that a failing sequence is kept in; it follows its content."""
    content = json.dumps((sequence.size, sequence.tester, sequence.steps))
    return f"{hashlib.sha256(content.encode()).hexdigest()[:12]}{SUFFIX}"
