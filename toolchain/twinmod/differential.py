# SPDX-License-Identifier: GPL-2.0-only
"""Every module and one model, held to the same sequences of steps.

`test` carries out the scripts of the project's corpus, `soak` what hypothesis draws. Both happen on
the host, and a VM carries the steps out. So a sequence is still known when the VM dies of it, and
is then made smaller with fresh VMs. What the steps are, and what the model says of them, is the
project's: the package that ``[tool.twinmod] differential`` names.
"""

import ast
import hashlib
import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from twinmod import commands, faults, guest, results
from twinmod.errors import ConfigError
from twinmod.specs import DIFFERENTIAL, CellResult, TestResult

#: (name, arguments), as the project's package has them.
Step = tuple[str, Mapping[str, Any]]

#: The folder of the project's package with the scripts that `test` carries out, and their suffix.
CORPUS = "corpus"
SUFFIX = ".replay"

#: What hypothesis draws from when it looks for something smaller than a script that failed.
SEED = 69

#: Sequences that hypothesis draws for each size of the device and each tester.
EXAMPLES = 60

#: Of the first sequences that a soak draws for a size, so many are kept for a corpus.
KEPT = 30

#: How long a failing sequence is made smaller, in seconds.
SHRINK_S = 150.0

#: The first line of a script.
HEADER = "# twinmod replay: for `test --replay FILE`"

#: The call that a script starts with: which device, and which tester.
DEVICE = "device"


class Definition(Protocol):
    """What a project's package has in its module ``strategy``."""

    # Sizes of the device, in bytes, that a run takes in turn.
    SIZES: tuple[int, ...]
    # The names of all steps; a run that left one out has failed.
    NAMES: tuple[str, ...]

    def make_strategy(self, size: int) -> Any:
        """Return hypothesis's strategy for lists of steps."""

    def expect(self, size: int, steps: list[Step]) -> tuple[list[Step], list[tuple[Any, ...]]]:
        """Return the steps that can be carried out, and what they and the end must answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """Steps for devices of one size, by one tester."""

    size: int
    tester: str
    steps: tuple[Step, ...]


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
        return f"differential[{self.size}-{self.tester}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The smallest sequence that was found to fail."""

    sequence: Sequence
    # "failed" when answers differ; else the outcome of the cell in the VM that died of it.
    outcome: str
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


def load_definition(matrix_dir: Path, package: str) -> Definition:
    """Import the project's package.

    Raises:
        ConfigError: It is not there, or does not import.
    """
    sys.path.insert(0, str(matrix_dir))
    try:
        return cast("Definition", importlib.import_module(f"{package}.strategy"))
    except ImportError as error:
        raise ConfigError(
            f"differential = {package!r} does not import: {error}",
            facts=(("folder", str(matrix_dir / package)),),
            hint="correct [tool.twinmod]",
        ) from error
    finally:
        sys.path.remove(str(matrix_dir))


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


# -- scripts ----------------------------------------------------------------------------------


def render_step(step: Step) -> str:
    """Return a step as a call: ``pread(file=0, size=9, offset=4090)``."""
    name, arguments = step
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def render_script(sequence: Sequence, comments: Iterable[str] = ()) -> str:
    """Return a sequence as a script that replays it: one call a line."""
    lines = [HEADER, *(f"# {line}" for line in comments)]
    return "\n".join(lines) + "\n" + render_calls(sequence)


def render_calls(sequence: Sequence) -> str:
    """Return what a script consists of beside comments."""
    device = (DEVICE, {"size": sequence.size, "tester": sequence.tester})
    return "".join(f"{render_step(step)}\n" for step in (device, *sequence.steps))


def parse_script(text: str, definition: Definition, testers: tuple[str, ...]) -> Sequence:
    """Return the sequence that a script has.

    Raises:
        ConfigError: A line is no call of a step; the message names the line.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the script is not one call a line: {error}") from error
    (size, tester), calls = _parse_device(body, testers), body[1:]
    if not calls:
        raise ConfigError("the script has no step")
    steps = []
    for node in calls:
        name, arguments = _parse_call(node)
        if name not in definition.NAMES:
            raise ConfigError(f"line {node.lineno}: there is no step {name!r}")
        steps.append((name, arguments))
    fitted = _fit_steps(definition, size, steps, [node.lineno for node in calls])
    return Sequence(size=size, tester=tester, steps=tuple(fitted))


def parse_file(text: str, name: str, definition: Definition, testers: tuple[str, ...]) -> Sequence:
    """Return the sequence of a script, as parse_script; an error has the script's name as a fact.

    Raises:
        ConfigError: It is no script.
    """
    try:
        return parse_script(text, definition, testers)
    except ConfigError as error:
        facts = (*error.facts, ("script", name))
        raise ConfigError(error.message, facts=facts, hint=error.hint) from error


def read_corpus(
    folder: Path, definition: Definition, testers: tuple[str, ...]
) -> tuple[Sequence, ...]:
    """Return the sequences of a folder's scripts, in the order of the scripts' names.

    Raises:
        ConfigError: A file is no script, or a size of the device has none.
    """
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"a script of the differential cannot be read: {error}",
                facts=(("script", str(path)),),
            ) from error
        found.append(parse_file(text, str(path), definition, testers))
    missing = sorted({*definition.SIZES} - {sequence.size for sequence in found})
    if missing:
        sizes = ", ".join(map(str, missing))
        raise ConfigError(
            f"the differential has no script for a device of {sizes} bytes",
            facts=(("folder", str(folder)),),
            hint=f"{commands.render('soak')}, then copy out/soak/{CORPUS}/*{SUFFIX} to that folder",
        )
    return tuple(found)


def _parse_device(body: list[ast.stmt], testers: tuple[str, ...]) -> tuple[int, str]:
    name, arguments = _parse_call(body[0]) if body else ("", {})
    size, tester = arguments.get("size"), arguments.get("tester")
    if name != DEVICE or type(size) is not int or size <= 0 or tester not in testers:
        raise ConfigError(
            "the script does not begin with its device",
            hint=f"{DEVICE}(size=4096, tester='c'), with a tester of: {', '.join(testers)}",
        )
    return size, str(tester)


def _parse_call(node: ast.stmt) -> Step:
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
        try:
            arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
            # The agent is told in JSON.
            json.dumps(arguments)
            return call.func.id, arguments
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    raise ConfigError(f"line {node.lineno}: not a call such as size(file=0)")


#: What a model raises for a step that it cannot take.
UNFIT = (TypeError, AttributeError, LookupError, ValueError, ArithmeticError)


def _fit_steps(
    definition: Definition, size: int, steps: list[Step], lines: list[int]
) -> list[Step]:
    """Return a script's steps as they are carried out.

    Raises:
        ConfigError: One lacks an argument, has one too many, or one that means nothing there; the
            message names its line.
    """
    with suppress(*UNFIT):
        kept, _ = definition.expect(size, steps)
        if len(kept) == len(steps):
            return kept
    for count, line in enumerate(lines, 1):
        shown = f"line {line}: {render_step(steps[count - 1])}"
        try:
            kept, _ = definition.expect(size, steps[:count])
        except UNFIT as error:
            raise ConfigError(f"{shown}: {str(error).replace('Model._', '')}") from error
        if len(kept) < count:
            raise ConfigError(f"{shown} means nothing here")
    raise AssertionError("the last of these is all steps, which were refused")


# -- answers ----------------------------------------------------------------------------------


def compare_answers(
    sequence: Sequence, expected: list[tuple[Any, ...]], answers: Mapping[str, list[list[Any]]]
) -> str:
    """Return the first difference between the model and the modules, "" when there is none.

    Args:
        sequence: What was carried out.
        expected: The model's answers: one for each step, then those about the end.
        answers: The same of each module.
    """
    for number, right in enumerate(expected):
        wrong = {
            name: given[number] if number < len(given) else None
            for name, given in answers.items()
            if number >= len(given) or tuple(given[number]) != right
        }
        if wrong:
            told = [f"the model {list(right)}", *(f"{name} {was}" for name, was in wrong.items())]
            return f"{_render_place(sequence, number)}: {', '.join(told)}"
    longer = [name for name, given in answers.items() if len(given) > len(expected)]
    return f"at the end, more is left than in the model: {', '.join(longer)}" if longer else ""


def _render_place(sequence: Sequence, number: int) -> str:
    if number < len(sequence.steps):
        return f"step {number + 1}, {render_step(sequence.steps[number])}"
    return "at the end"


class Server:
    """Carries out sequences in the VM that is there, or in a fresh one after it died.

    Args:
        vm: A VM that is ready, and that somebody else ends.
        boot: Boots another one.
    """

    def __init__(self, vm: guest.Vm, boot: Callable[[], AbstractContextManager[guest.Vm]]) -> None:
        self._vm: guest.Vm | None = vm
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
            answers: Mapping[str, list[list[Any]]] = vm.ask(plan_request(sequence))["answers"]
        except guest.VmGoneError:
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


def _classify_death(vm: guest.Vm) -> CellResult:
    """Return how the cell ended in a VM that did not answer."""
    vm.wait_for_end()
    end = guest.read_end(vm, (DIFFERENTIAL,))
    found = faults.parse_faults(end.console, end.by_programs)
    transcript = replace(
        end.transcript,
        cells=tuple(c for c in end.transcript.cells if c.cell == DIFFERENTIAL),
        began_s=end.transcript.began_s[-1:],
    )
    return results.classify(transcript, end.end, found)[-1]


# -- exploring --------------------------------------------------------------------------------


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
        boot: Callable[[], AbstractContextManager[guest.Vm]],
        found: Callable[[Sequence, str], object],
        told: Callable[[int, int], object],
    ) -> None:
        self.definition = definition
        self.rounds = rounds
        self.boot = boot
        self.found = found
        self.told = told
        self.done: list[tuple[Round, float, int]] = []
        self.carried_out: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.failure: Failure | None = None
        self.digest = hashlib.sha256()
        self.kept: dict[int, list[Sequence]] = {}

    def converse(self, vm: guest.Vm) -> None:
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
                self.kept.setdefault(one.size, pick_sequences(search.drawn))
        finally:
            server.close()

    def count(self, sequence: Sequence, answers: list[tuple[Any, ...]]) -> None:
        """Count what was carried out, with one result."""
        self.digest.update(render_calls(sequence).encode())
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
        key = render_calls(sequence)
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
        if self.smallest is None or measure(key) < measure(render_calls(self.smallest[0])):
            self.smallest = (sequence, error)
            self.explorer.found(sequence, error.message)

    def _carry_out(
        self, sequence: Sequence, expected: list[tuple[Any, ...]]
    ) -> "DisagreementError | None":
        """Return how a sequence failed, None when all agree."""
        try:
            answers = self.server.ask(sequence)
        except DiedError as error:
            said = [fault.lines[0] for fault in error.result.kernel_faults]
            message = "; ".join(said or error.result.problems) or error.result.outcome
            return DisagreementError(error.result.outcome, f"the VM died of it: {message}")
        self.sequences += 1
        self.explorer.count(sequence, expected)
        told = sum(count for _, _, count in self.explorer.done) + self.sequences
        self.explorer.told(told, sum(self.explorer.carried_out.values()))
        difference = compare_answers(sequence, expected, answers)
        return DisagreementError("failed", difference) if difference else None

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


def pick_sequences(drawn: list[Sequence]) -> list[Sequence]:
    """Return KEPT sequences: first those that bring a kind of step, then the longest."""
    first: list[Sequence] = []
    others: list[Sequence] = []
    seen: set[str] = set()
    for sequence in sorted(drawn, key=lambda sequence: -len(sequence.steps)):
        kinds = {name for name, _ in sequence.steps}
        (others if kinds <= seen else first).append(sequence)
        seen |= kinds
    return [*first, *others][:KEPT]


class DisagreementError(Exception):
    """A module does not answer as the model does, or the VM died."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message


class TimeUpError(BaseException):
    """A failing sequence was made smaller for as long as it may.

    No Exception: hypothesis takes each of those for a failure of the sequence, and goes on.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a script's steps came to."""

    sequence: Sequence
    result: CellResult
    # How many of the steps agreed.
    agreed: int
    # What differs in the one after them, "" when all agree or the VM died.
    difference: str


class Replayer:
    """Carries out a sequence from its beginning, with one more step each time."""

    def __init__(self, definition: Definition, sequence: Sequence) -> None:
        self.definition = definition
        self.sequence = sequence
        self.agreed = 0
        self.difference = ""

    def converse(self, vm: guest.Vm) -> None:
        """Replay with a VM that is ready; returns early when it dies, or when answers differ."""
        steps = self.sequence.steps
        for count in range(1, len(steps) + 1):
            part = replace(self.sequence, steps=steps[:count])
            _, expected = self.definition.expect(part.size, list(part.steps))
            try:
                answers = vm.ask(plan_request(part))["answers"]
            except guest.VmGoneError:
                return
            self.difference = compare_answers(part, expected, answers)
            if self.difference:
                return
            self.agreed = count

    def finish(self, ended: CellResult) -> Replay:
        """Return what it came to, after the VM is gone."""
        outcome = ended.outcome
        if outcome == "passed" and self.difference:
            outcome = "failed"
        return Replay(
            sequence=self.sequence,
            result=replace(ended, outcome=outcome),
            agreed=self.agreed,
            difference=self.difference,
        )


def render_replay(replay: Replay) -> str:
    """Return a replay as text: each step, and what came of it."""
    steps = replay.sequence.steps
    lines = [
        render_step((DEVICE, {"size": replay.sequence.size, "tester": replay.sequence.tester}))
    ]
    for number, step in enumerate(steps):
        mark = "agree" if number < replay.agreed else "-"
        if number == replay.agreed:
            mark = "DIFFER" if replay.difference else replay.result.outcome.upper()
        lines.append(f"{number + 1:>4}  {mark:<7} {render_step(step)}")
    if replay.difference:
        lines.append(replay.difference)
    return "\n".join(lines)


def plan_request(sequence: Sequence) -> dict[str, Any]:
    """Return what the agent is asked: JSON's own types."""
    return {
        "size": sequence.size,
        "tester": sequence.tester,
        "steps": [[name, dict(arguments)] for name, arguments in sequence.steps],
    }


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


# -- results ----------------------------------------------------------------------------------


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
            outcome=failure.outcome if failure and number == last else "passed",
            message=_render_failure(failure, script) if failure and number == last else "",
        )
        for number, (one, seconds, _) in enumerate(exploration.rounds)
    )
    outcome = ended.outcome
    if outcome == "passed" and (failure or problems):
        outcome = failure.outcome if failure else "failed"
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
            "steps": [render_step(step) for step in failure.sequence.steps],
            "script": script,
        },
    }


def plan_corpus(kept: tuple[Sequence, ...]) -> dict[str, str]:
    """Return name -> script of sequences that a soak kept."""
    counts: Counter[int] = Counter()
    scripts = {}
    for sequence in kept:
        counts[sequence.size] += 1
        name = f"{sequence.size}-{counts[sequence.size]:02}{SUFFIX}"
        scripts[name] = render_script(sequence)
    return scripts


def plan_script_name(sequence: Sequence) -> str:
    """Return the name of the file that a failing sequence is kept in; it follows its content."""
    content = json.dumps((sequence.size, sequence.tester, sequence.steps))
    return f"{hashlib.sha256(content.encode()).hexdigest()[:12]}{SUFFIX}"
