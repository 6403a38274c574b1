# SPDX-License-Identifier: GPL-2.0-only
"""Every module and one model, held to the same sequences of steps.

`test` carries out the scripts of the project's corpus, `soak` what hypothesis draws. Both happen on
the host, and a VM carries the steps out. So a sequence is still known when the VM dies of it, and
is then made smaller with fresh VMs. What the steps are, and what the model says of them, is the
project's: the package that the driver's ``differential`` names.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twinmod.cells import differences, outcomes
from twinmod.cells.model import CellResult, DifferentialCell
from twinmod.differential import corpus as differential_corpus
from twinmod.differential import scripts
from twinmod.differential.scripts import UNFIT, Definition, Expected, Sequence, Step
from twinmod.guest import faults
from twinmod.guest.protocol import Outcome, Request
from twinmod.project.model import DifferenceSpec, Subject
from twinmod.vm import session

#: What hypothesis draws from when it looks for something smaller than a script that failed.
SEED = 69

#: Sequences that hypothesis draws for each size of the device and each tester.
EXAMPLES = 60

#: How long a failing sequence is made smaller, in seconds.
SHRINK_S = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Sequences for devices of one size, by one tester."""

    size: int
    tester: str
    # What hypothesis draws from.
    seed: int
    examples: int = EXAMPLES
    # Carried out as they are; () where hypothesis draws the sequences.
    corpus: tuple[tuple[Step, ...], ...] = ()

    @property
    def name(self) -> str:
        """What the reports call it."""
        parts = [part for part in (str(self.size or ""), self.tester) if part]
        return f"differential[{'-'.join(parts)}]" if parts else "differential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The smallest sequence that was found to fail."""

    sequence: Sequence
    # FAILED when answers differ; else the outcome of the cell in the VM that died of it.
    outcome: Outcome
    # What differs, or what the VM died of.
    message: str
    # Whether it failed once more at the end.
    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What a number of rounds came to."""

    # (round, seconds, sequences), in order; the last one is that of the failure, if there is one.
    rounds: tuple[tuple[Round, float, int], ...]
    # How often each step was carried out, and how often that was refused.
    carried_out: Mapping[str, int]
    refused: Mapping[str, int]
    failure: Failure | None
    # Of all sequences that were carried out, as scripts, in their order.
    sequences_sha256: str
    # Sequences that hypothesis drew and that agreed: KEPT for each size.
    kept: tuple[Sequence, ...]

    @property
    def sequences(self) -> int:
        """How many sequences were carried out."""
        return sum(count for _, _, count in self.rounds)

    @property
    def steps(self) -> int:
        """How many steps were carried out, on each device."""
        return sum(self.carried_out.values())

    @property
    def seconds(self) -> float:
        """How long that took."""
        return sum(seconds for _, seconds, _ in self.rounds)


def plan_rounds(definition: Definition, testers: tuple[str, ...], seed: int) -> tuple[Round, ...]:
    """Return a round for each size and tester; each has a seed of its own."""
    pairs = ((size, tester) for size in definition.SIZES for tester in testers)
    return tuple(
        Round(size=size, tester=tester, seed=seed + number)
        for number, (size, tester) in enumerate(pairs)
    )


def plan_corpus_rounds(corpus: tuple[Sequence, ...], testers: tuple[str, ...]) -> tuple[Round, ...]:
    """Return a round for each size and tester: each tester carries out every script."""
    sizes = sorted({sequence.size for sequence in corpus})
    return tuple(
        Round(
            size=size,
            tester=tester,
            seed=SEED,
            corpus=tuple(sequence.steps for sequence in corpus if sequence.size == size),
        )
        for size in sizes
        for tester in testers
    )


def compare_answers(
    sequence: Sequence,
    expected: Expected,
    answers: Mapping[str, list[list[Any]]],
    declared: "Declared | None" = None,
) -> str:
    """Return the first difference between the model and the modules, "" when there is none.

    Args:
        sequence: What was carried out.
        expected: The model's answers: one for each step, then those about the end; None without a
            model, which the first module then stands for.
        answers: The same of each module.
        declared: Takes note of the differences that are none, because they are declared.
    """
    oracle = "the model" if expected is not None else next(iter(answers))
    rights = choose_expected(expected, answers)
    for number, right in enumerate(rights):
        wrong = {
            name: given[number] if number < len(given) else None
            for name, given in answers.items()
            if number >= len(given) or tuple(given[number]) != right
        }
        if declared:
            place = _name_place(sequence, number)
            wrong = {n: was for n, was in wrong.items() if not declared.note(n, place)}
        if wrong:
            told = [f"{oracle} {list(right)}", *(f"{name} {was}" for name, was in wrong.items())]
            return f"{_render_position(sequence, number)}: {', '.join(told)}"
    longer = [name for name, given in answers.items() if len(given) > len(rights)]
    return f"at the end, more is left than in {oracle}: {', '.join(longer)}" if longer else ""


def choose_expected(
    expected: Expected, answers: Mapping[str, list[list[Any]]]
) -> list[tuple[Any, ...]]:
    """Return what all must answer: what a model says, else what the first module answered."""
    if expected is not None:
        return expected
    return [tuple(answer) for answer in next(iter(answers.values()))]


def _render_position(sequence: Sequence, number: int) -> str:
    place = _name_place(sequence, number)
    return f"step {number + 1}, {place}" if number < len(sequence.steps) else place


def _name_place(sequence: Sequence, number: int) -> str:
    """Return what a declared difference calls an answer: the step, or the end."""
    if number < len(sequence.steps):
        return scripts.render_step(sequence.steps[number])
    return "at the end"


class Declared:
    """Differences of steps that are declared, and which of them occurred.

    Args:
        differences: Those of the driver; what is not about a step means nothing here.
        labels: By the kernel's name of a module, its label.
    """

    def __init__(
        self, differences: Iterable[DifferenceSpec] = (), labels: Mapping[str, str] | None = None
    ) -> None:
        self.steps = tuple(one for one in differences if one.subject == Subject.STEP)
        self.labels = labels or {}
        self.occurred: set[DifferenceSpec] = set()

    def note(self, module: str, place: str) -> bool:
        """Tell whether a module may differ in a place, and remember that it did."""
        label = self.labels.get(module, module)
        found = [
            o for o in self.steps if o.module == label and differences.matches(o.pattern, place)
        ]
        self.occurred.update(found)
        return bool(found)

    def find_missing(self) -> tuple[DifferenceSpec, ...]:
        """Return those of modules that were there which did not occur."""
        there = {*self.labels.values()}
        return tuple(o for o in self.steps if o.module in there and o not in self.occurred)


class Server:
    """Carries out sequences in the VM that is there, or in a fresh one after it died.

    Args:
        vm: A VM that is ready, and that somebody else ends.
        boot: Boots another one.
    """

    def __init__(
        self, vm: session.Vm, boot: Callable[[], AbstractContextManager[session.Vm]]
    ) -> None:
        self._vm: session.Vm | None = vm
        self._boot = boot
        self._own = ExitStack()

    def ask(self, sequence: Sequence) -> Mapping[str, list[list[Any]]]:
        """Return what each module answers.

        Raises:
            DiedError: The VM died of it.
        """
        if self._vm is None:
            self._vm = self._own.enter_context(self._boot())
        vm = self._vm
        try:
            answers: Mapping[str, list[list[Any]]] = vm.ask(plan_request(sequence)).answers
        except session.VmGoneError:
            self._vm = None
            self._own.close()
            raise DiedError(_classify_death(vm)) from None
        return answers

    def close(self) -> None:
        """End the VM, if it is our own."""
        self._own.close()


class DiedError(Exception):
    """A VM died of a sequence."""

    def __init__(self, result: CellResult) -> None:
        super().__init__(result.outcome)
        self.result = result


def _classify_death(vm: session.Vm) -> CellResult:
    """Return how the cell ended in a VM that did not answer."""
    vm.wait_for_end()
    end = session.read_end(vm)
    found = faults.parse_faults(end.console, end.by_programs)
    transcript = replace(
        end.transcript,
        cells=tuple(c for c in end.transcript.cells if isinstance(c.cell, DifferentialCell)),
        began_s=end.transcript.began_s[-1:],
    )
    return outcomes.classify(transcript, end.end, found)[-1]


class Explorer:
    """Holds the conversation with a VM: round after round, until one fails or there are no more.

    Args:
        definition: The project's.
        rounds: Taken one by one.
        boot: Boots a fresh VM, when the one that is there died.
        found: Called with each failing sequence, as it becomes smaller, and with its message.
        told: Called after each sequence with the numbers of sequences and of steps so far.
    """

    def __init__(
        self,
        definition: Definition,
        rounds: Iterable[Round],
        boot: Callable[[], AbstractContextManager[session.Vm]],
        found: Callable[[Sequence, str], object],
        told: Callable[[int, int], object],
    ) -> None:
        self.definition = definition
        self.rounds = rounds
        self.boot = boot
        self.found = found
        self.told = told
        # Whoever builds the modules knows their names.
        self.declared = Declared()
        self.done: list[tuple[Round, float, int]] = []
        self.carried_out: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.failure: Failure | None = None
        self.digest = hashlib.sha256()
        self.kept: dict[int, list[Sequence]] = {}

    def converse(self, vm: session.Vm) -> None:
        """Explore with a VM that is ready."""
        server = Server(vm, self.boot)
        try:
            for one in self.rounds:
                began = time.monotonic()
                search = Search(self, one, server)
                self.failure = search.run()
                self.done.append((one, time.monotonic() - began, search.sequences))
                if self.failure:
                    break
                self.kept.setdefault(one.size, differential_corpus.pick_sequences(search.drawn))
        finally:
            server.close()

    def count(self, sequence: Sequence, answers: list[tuple[Any, ...]]) -> None:
        """Count what was carried out, with one result."""
        self.digest.update(scripts.render_calls(sequence).encode())
        for (name, _), answer in zip(sequence.steps, answers, strict=False):
            self.carried_out[name] += 1
            self.refused[name] += answer[1] != 0

    def finish(self) -> Exploration:
        """Return what it came to."""
        return Exploration(
            rounds=tuple(self.done),
            carried_out=dict(self.carried_out),
            refused=dict(self.refused),
            failure=self.failure,
            sequences_sha256=self.digest.hexdigest(),
            kept=tuple(sequence for kept in self.kept.values() for sequence in kept),
        )


def keep_in(folder: Path) -> None:
    """Let hypothesis keep what it learns in a folder, and not in the one that a person is in."""
    from hypothesis import configuration  # noqa: PLC0415 - a third of a second, for two verbs of many

    configuration.set_hypothesis_home_dir(folder)


class Search:
    """One round: looks for a sequence that fails, and then for a smaller one."""

    def __init__(self, explorer: Explorer, one: Round, server: Server) -> None:
        self.explorer = explorer
        self.round = one
        self.server = server
        self.sequences = 0
        # Those that hypothesis drew, as long as none fails.
        self.drawn: list[Sequence] = []
        # What is known to fail, with its error: hypothesis asks again, and a VM is dear.
        self.known: dict[str, DisagreementError] = {}
        self.smallest: tuple[Sequence, DisagreementError] | None = None
        self.deadline = 0.0

    def run(self) -> Failure | None:
        """Explore; return the smallest failure that was found until the time was up."""
        with suppress(TimeUpError):
            self._find()
            if self.smallest:
                self._make_smaller()
        return self._confirm(*self.smallest) if self.smallest else None

    def _find(self) -> None:
        """Carry out sequences until one fails."""
        if not self.round.corpus:
            self._draw()
        for steps in self.round.corpus:
            with suppress(DisagreementError):
                self._try(list(steps))
            if self.smallest:
                break

    def _make_smaller(self) -> None:
        """Leave out steps; where they are a script's, which hypothesis cannot, lower the rest."""
        self._prune()
        if self.round.corpus:
            self._lower()

    def _draw(self) -> None:
        """Let hypothesis draw sequences until one fails, and make that smaller.

        Source: hypothesis's documentation, "Settings": what it does between two examples.
        """
        import hypothesis  # noqa: PLC0415 - a third of a second, for two verbs of many

        settings = hypothesis.settings(
            max_examples=self.round.examples,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        )

        @hypothesis.seed(self.round.seed)
        @settings
        @hypothesis.given(self.explorer.definition.make_strategy(self.round.size))
        def explore(steps: list[Step]) -> None:
            self._try(steps)

        try:
            explore()
        except Exception:
            if self.smallest is None:
                raise

    def _prune(self) -> None:
        """Leave out each step that the failure does not need; hypothesis leaves some of those."""
        number = len(self._steps())
        while number > 0:
            number -= 1
            steps = self._steps()
            with suppress(DisagreementError):
                self._try([*steps[:number], *steps[number + 1 :]])
            number = min(number, len(self._steps()))

    def _lower(self) -> None:
        """Bring the numbers of each step as near to zero as the failure allows, one at a time."""
        number = 0
        while number < len(self._steps()):
            if not self._lower_step(number):
                number += 1

    def _lower_step(self, number: int) -> bool:
        """Try smaller numbers of a step; return whether the failure was seen with one of them."""
        steps = self._steps()
        name, arguments = steps[number]
        for key, value in arguments.items():
            for lower in iterate_lower(value):
                # A step of the project may take no such number.
                with suppress(DisagreementError, *UNFIT):
                    step = (name, {**arguments, key: lower})
                    self._try([*steps[:number], step, *steps[number + 1 :]])
                if self._steps() != steps:
                    return True
        return False

    def _steps(self) -> tuple[Step, ...]:
        """Return the steps of the smallest sequence that failed."""
        assert self.smallest is not None, "only a failure is made smaller"
        return self.smallest[0].steps

    def _try(self, steps: list[Step]) -> None:
        if self.smallest and time.monotonic() > self.deadline:
            raise TimeUpError
        kept, expected = self.explorer.definition.expect(self.round.size, steps)
        if not kept:
            return
        sequence = Sequence(size=self.round.size, tester=self.round.tester, steps=tuple(kept))
        key = scripts.render_calls(sequence)
        if key in self.known:
            raise self.known[key]
        error = self._carry_out(sequence, expected)
        if error is not None:
            self._note(key, sequence, error)
            raise error
        if not self.round.corpus and self.smallest is None:
            self.drawn.append(sequence)

    def _note(self, key: str, sequence: Sequence, error: "DisagreementError") -> None:
        if self.smallest is None:
            self.deadline = time.monotonic() + SHRINK_S
        self.known[key] = error
        if self.smallest is None or measure(key) < measure(scripts.render_calls(self.smallest[0])):
            self.smallest = (sequence, error)
            self.explorer.found(sequence, error.message)

    def _carry_out(self, sequence: Sequence, expected: Expected) -> "DisagreementError | None":
        """Return how a sequence failed, None when all agree."""
        try:
            answers = self.server.ask(sequence)
        except DiedError as error:
            said = [fault.lines[0] for fault in error.result.kernel_faults]
            message = "; ".join(said or error.result.problems) or error.result.outcome
            return DisagreementError(error.result.outcome, f"the VM died of it: {message}")
        self.sequences += 1
        self.explorer.count(sequence, choose_expected(expected, answers))
        told = sum(count for _, _, count in self.explorer.done) + self.sequences
        self.explorer.told(told, sum(self.explorer.carried_out.values()))
        difference = compare_answers(sequence, expected, answers, self.explorer.declared)
        return DisagreementError(Outcome.FAILED, difference) if difference else None

    def _confirm(self, sequence: Sequence, error: "DisagreementError") -> Failure:
        """Carry out the smallest failing sequence once more."""
        _, expected = self.explorer.definition.expect(sequence.size, list(sequence.steps))
        again = self._carry_out(sequence, expected)
        error = again or error
        return Failure(
            sequence=sequence,
            outcome=error.outcome,
            message=error.message,
            again=again is not None,
        )


def measure(calls: str) -> tuple[int, str]:
    """Return what orders sequences: fewer and shorter calls first, then smaller digits."""
    return len(calls), calls


def iterate_lower(value: object) -> Iterator[object]:
    """Yield what is nearer to zero than a number, or than one of a list; the nearest first."""
    if isinstance(value, int) and value != 0:
        sign = 1 if value > 0 else -1
        yield from dict.fromkeys(
            lower for lower in (0, sign * (abs(value) // 2), value - sign) if lower != value
        )
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            for lower in iterate_lower(part):
                yield type(value)((*value[:number], lower, *value[number + 1 :]))


class DisagreementError(Exception):
    """A module does not answer as the model does, or the VM died."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message


class TimeUpError(BaseException):
    """A failing sequence was made smaller for as long as it may.

    No Exception: hypothesis takes each of those for a failure of the sequence, and goes on.
    """


def plan_request(sequence: Sequence) -> Request:
    """Return what the agent is asked."""
    steps = tuple((name, dict(arguments)) for name, arguments in sequence.steps)
    return Request(size=sequence.size, tester=sequence.tester, steps=steps)


def iterate_rounds(
    definition: Definition, testers: tuple[str, ...], seed: int, deadline: float
) -> Iterator[Round]:
    """Yield rounds with fresh seeds until the monotonic clock passes a deadline."""
    while True:
        for one in plan_rounds(definition, testers, seed):
            yield one
            if time.monotonic() > deadline:
                return
        seed += len(definition.SIZES) * len(testers)
