# SPDX-License-Identifier: GPL-2.0-only
"""A script carried out again, one step more each time, until a step fails."""

from dataclasses import dataclass, replace

from twinmod.cells.model import CellResult
from twinmod.differential import explorer, scripts
from twinmod.differential.scripts import Definition, Sequence
from twinmod.guest.protocol import Outcome
from twinmod.vm import session


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What a script's steps came to."""

    sequence: Sequence
    result: CellResult
    # How many of the steps agreed.
    agreed: int
    # What differs in the one after them, "" when all agree or the VM died.
    difference: str


class Reproducer:
    """Carries out a sequence from its beginning, with one more step each time."""

    def __init__(self, definition: Definition, sequence: Sequence) -> None:
        self.definition = definition
        self.sequence = sequence
        # The differences that are none; whoever builds the modules knows their names.
        self.declared = explorer.Declared()
        self.agreed = 0
        self.difference = ""

    def converse(self, vm: session.Vm) -> None:
        """Go on with a VM that is ready; returns early when it dies, or when answers differ."""
        steps = self.sequence.steps
        for count in range(1, len(steps) + 1):
            part = replace(self.sequence, steps=steps[:count])
            _, expected = self.definition.expect(part.size, list(part.steps))
            try:
                answers = vm.ask(explorer.plan_request(part)).answers
            except session.VmGoneError:
                return
            self.difference = explorer.compare_answers(part, expected, answers, self.declared)
            if self.difference:
                return
            self.agreed = count

    def finish(self, ended: CellResult) -> Reproduction:
        """Return what it came to, after the VM is gone."""
        outcome = ended.outcome
        if outcome == Outcome.PASSED and self.difference:
            outcome = Outcome.FAILED
        return Reproduction(
            sequence=self.sequence,
            result=replace(ended, outcome=outcome),
            agreed=self.agreed,
            difference=self.difference,
        )


def render_reproduction(reproduction: Reproduction) -> str:
    """Return a reproduction as text: each step, and what came of it."""
    steps = reproduction.sequence.steps
    lines = [scripts.render_step(scripts.plan_device(reproduction.sequence))]
    for number, step in enumerate(steps):
        word = "agree" if number < reproduction.agreed else "-"
        if number == reproduction.agreed:
            word = "DIFFER" if reproduction.difference else reproduction.result.outcome.upper()
        lines.append(f"{number + 1:>4}  {word:<7} {scripts.render_step(step)}")
    if reproduction.difference:
        lines.append(reproduction.difference)
    return "\n".join(lines)
