# SPDX-License-Identifier: GPL-2.0-only
"""The differential without a VM: scripts, answers, and the search for a small failure."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import configuration, given, settings
from hypothesis import strategies as st

from differential import executor, model, strategy
from twinmod.base import documents
from twinmod.cells.model import AnyCell, Cell, CellResult, DifferentialCell
from twinmod.cells.transcript import End
from twinmod.differential import corpus as differential_corpus
from twinmod.differential import explorer as differential_explorer
from twinmod.differential import report
from twinmod.differential import reproduce as differential_reproduce
from twinmod.differential import scripts as differential_scripts
from twinmod.differential.scripts import Sequence
from twinmod.errors import ConfigError
from twinmod.guest import protocol
from twinmod.guest.protocol import (
    Answered,
    Booted,
    CellBegan,
    CellEnded,
    Outcome,
    Ready,
    Request,
    render_event,
)
from twinmod.guest.testing.memory import errno_of
from twinmod.project.model import Language
from twinmod.vm import session

TESTERS = ("c", "rust")

MATRIX = Path(__file__).resolve().parents[1] / "matrix"
CORPUS = MATRIX / "differential" / differential_corpus.CORPUS
DATA = Path(__file__).resolve().parent / "data"

SIZE = 4096

READ = ("read", {"file": 0, "size": 9})

C = Cell(module="mdriver_c", label="c", tester="c")
DIFFERENTIAL = DifferentialCell(package="differential")


@pytest.fixture(scope="module")
def definition() -> differential_scripts.Definition:
    return differential_scripts.load_definition(MATRIX, "differential")


def make_sequence(*steps: differential_scripts.Step) -> Sequence:
    return Sequence(size=SIZE, tester="c", steps=steps)


# -- scripts ----------------------------------------------------------------------------------


# Each sequence has dozens of steps.
@settings(max_examples=20)
@given(data=st.data())
def test_a_script_gives_back_its_sequence(data: st.DataObject) -> None:
    definition = differential_scripts.load_definition(MATRIX, "differential")
    size = data.draw(st.sampled_from(definition.SIZES))
    kept, _ = definition.expect(size, data.draw(definition.make_strategy(size)))
    if not kept:
        return
    sequence = Sequence(size=size, tester="rust", steps=tuple(kept))
    script = differential_scripts.render_script(sequence, ("what failed: (", "and where"))
    assert differential_scripts.parse_script(script, definition, ("c", "rust")) == sequence


def test_a_script_by_a_tester_that_is_a_language_can_be_read_again(
    definition: differential_scripts.Definition,
) -> None:
    sequence = replace(make_sequence(READ), tester=Language.C)
    script = differential_scripts.render_script(sequence)
    assert differential_scripts.parse_script(script, definition, ("c", "rust")) == sequence


def test_a_script_is_one_call_a_line_below_what_failed() -> None:
    step = ("pwrite", {"file": 0, "seed": 5, "size": 1, "offset": 4095})
    assert differential_scripts.render_script(make_sequence(step, READ), ("it differs",)) == (
        "# twinmod replay: for `test --replay FILE`\n"
        "# it differs\n"
        "device(size=4096, tester='c')\n"
        "pwrite(file=0, seed=5, size=1, offset=4095)\n"
        "read(file=0, size=9)\n"
    )


DEVICE = "device(size=4096, tester='c')\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", "does not begin with its device"),
        ("read(file=0, size=9)\n", "does not begin with its device"),
        ("device(size=4096, tester='go')\nsize(file=0)\n", "does not begin with its device"),
        ("device(size='4096', tester='c')\nsize(file=0)\n", "does not begin with its device"),
        (DEVICE, "has no step"),
        (DEVICE + "size(file={[]: 1})\n", "line 2: not a call such as"),
        (DEVICE + "size(file={1})\n", "line 2: not a call such as"),
        (DEVICE + "size(file=b'x')\n", "line 2: not a call such as"),
        (DEVICE + f"size(file={'-' * 5000}1)\n", "not one call a line"),
        (DEVICE + "sized(file=0)\n", "line 2: there is no step 'sized'"),
        (DEVICE + "size(file=0)\nsize\n", "line 3: not a call"),
        (DEVICE + "size(0)\n", "line 2: not a call"),
        (DEVICE + "size(file=open)\n", "line 2: not a call"),
        (DEVICE + "size(file=7)\n", "line 2: size(file=7): "),
        (DEVICE + "size(file='a')\n", "line 2: size(file='a'): "),
        (DEVICE + "size()\n", "line 2: size(): "),
        (DEVICE + "read(file=0, size=1, offset=2)\n", "line 2: read("),
        (DEVICE + "unmap(mapping=0)\n", "means nothing here"),
        ("device(size=4096\n", "not one call a line"),
        ("\0", "not one call a line"),
    ],
)
def test_what_is_no_script_is_refused(
    script: str, words: str, definition: differential_scripts.Definition
) -> None:
    with pytest.raises(ConfigError) as failure:
        differential_scripts.parse_script(script, definition, ("c", "rust"))
    assert words in failure.value.message


def test_the_name_of_a_script_follows_its_content() -> None:
    names = {
        report.plan_script_name(sequence)
        for sequence in (
            make_sequence(READ),
            make_sequence(READ, READ),
            replace(make_sequence(READ), size=8192),
            replace(make_sequence(READ), tester="rust"),
        )
    }
    assert len(names) == 4
    assert report.plan_script_name(make_sequence(READ)) in names


# -- the corpus -------------------------------------------------------------------------------


def test_the_corpus_has_every_kind_of_step(definition: differential_scripts.Definition) -> None:
    corpus = differential_corpus.read_corpus(CORPUS, definition, TESTERS)
    assert len(corpus) == len([*CORPUS.iterdir()])
    assert {name for one in corpus for name, _ in one.steps} == {*definition.NAMES}


def test_each_tester_carries_out_every_script(definition: differential_scripts.Definition) -> None:
    corpus = differential_corpus.read_corpus(CORPUS, definition, TESTERS)
    rounds = differential_explorer.plan_corpus_rounds(corpus, TESTERS)
    assert [(one.size, one.tester) for one in rounds] == [
        (size, tester) for size in sorted(definition.SIZES) for tester in TESTERS
    ]
    for one in rounds:
        assert one.corpus == tuple(other.steps for other in corpus if other.size == one.size)


SCRIPT = DEVICE + "size(file=0)\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SCRIPT.encode(), "no script for a device of 20480, 1048576 bytes"),
        (None, "no script for a device of 4096, 20480, 1048576 bytes"),
        (SCRIPT.encode() + b"sized(file=0)\n", "line 3: there is no step 'sized'"),
        (SCRIPT.encode() + b"# \xff\n", "cannot be read"),
    ],
)
def test_a_corpus_that_is_not_whole_is_one_error(
    content: bytes | None, words: str, tmp_path: Path, definition: differential_scripts.Definition
) -> None:
    if content is not None:
        (tmp_path / "one.replay").write_bytes(content)
    with pytest.raises(ConfigError) as failure:
        differential_corpus.read_corpus(tmp_path, definition, TESTERS)
    assert words in failure.value.message
    assert str(tmp_path) in failure.value.facts[0][1]


# -- answers ----------------------------------------------------------------------------------

RIGHT = [(9, 0, 9, "00"), (0, 0, -1, "[9, 0, 0]")]


def render_difference(**answers: list[list[Any]]) -> str:
    return differential_explorer.compare_answers(make_sequence(READ), list(RIGHT), answers)


def test_modules_that_answer_as_the_model_does_agree() -> None:
    right = [list(answer) for answer in RIGHT]
    assert render_difference(c=right, rust=right) == ""


@pytest.mark.parametrize("part", range(4))
def test_each_part_of_an_answer_counts(part: int) -> None:
    wrong = [list(answer) for answer in RIGHT]
    wrong[0][part] = "x"
    said = render_difference(c=[list(answer) for answer in RIGHT], rust=wrong)
    assert said.startswith("step 1, read(file=0, size=9): the model [9, 0, 9, '00'], rust [")
    assert " c [" not in said


def test_the_end_counts_too_and_so_does_what_is_missing_or_too_much() -> None:
    first = list(RIGHT[0])
    assert render_difference(c=[first, [0, 0, -1, "[8, 0, 0]"]]).startswith("at the end: ")
    assert "c None" in render_difference(c=[first])
    assert "more is left" in render_difference(c=[*map(list, RIGHT), [0, 0, 0, ""]])


# -- carrying out -----------------------------------------------------------------------------


class FileDevice:
    """Stands for a tester's device: a file, which cannot be opened with O_EXCL."""

    def __init__(self, path: Path, flags: int = os.O_RDWR) -> None:
        if flags & os.O_EXCL:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.fd = os.open(path, flags)

    def lseek(self, offset: int, whence: int) -> int:
        if self.fd < 0:
            raise ValueError("I/O operation on closed device")
        return os.lseek(self.fd, offset, whence)

    def read(self, size: int) -> bytes:
        return os.read(self.fd, size)

    def close(self) -> None:
        os.close(self.fd)
        self.fd = -1


class ExclusiveModel(model.Model):
    """Refuses O_EXCL, as FileDevice does."""

    def _open(self, file: int, flags: int) -> tuple[int, bytes]:
        if flags & os.O_EXCL:
            raise model.refuse(errno.EINVAL)
        return super()._open(file, flags)


def test_a_file_that_cannot_be_opened_anew_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(bytes(SIZE))
    execution = executor.Execution(tmp_path / "device", SimpleNamespace(Device=FileDevice))
    modelled = ExclusiveModel(SIZE)
    replaced = execution.files[0].fd
    for step in (
        READ,
        ("open", {"file": 0, "flags": os.O_RDWR | os.O_EXCL}),
        READ,
        ("open", {"file": 0, "flags": os.O_RDONLY}),
        READ,
    ):
        assert execution.apply(*step) == modelled.apply(step), step
    opened = [replaced, *(device.fd for device in execution.files)]
    execution.close()
    for descriptor in opened:
        assert errno_of(os.fstat, descriptor) == errno.EBADF


# -- the search -------------------------------------------------------------------------------


class ForgetfulModel(model.Model):
    """Forgets to move the position when a write ends at the end of the device."""

    def _write(self, file: int, seed: int, size: int) -> tuple[int, bytes]:
        opened = self.files[file]
        position = opened.position
        result = super()._write(file, seed, size)
        if opened.position == len(self.contents):
            opened.position = position
        return result


def answer(kind: type[model.Model], request: Request) -> list[list[Any]]:
    device = kind(request.size)
    answers = [device.apply((name, arguments)) for name, arguments in request.steps]
    return [list(one) for one in (*answers, *device.finish())]


class ModelVm(session.Vm):
    """Stands for a VM: its two modules are models, and it dies of what it is told to die of."""

    def __init__(
        self,
        vm_dir: Path,
        modules: Mapping[str, type[model.Model]],
        deadly: str = "",
        before: tuple[AnyCell, ...] = (),
    ) -> None:
        cells = (*before, DIFFERENTIAL)
        self.plan = SimpleNamespace(vm_dir=vm_dir, cells=cells)  # type: ignore[assignment]
        self.modules = modules
        self.deadly = deadly
        self.end = End.EXITED
        self.refusal = ""
        self.lines = [
            render_event(Booted(release="7.3.4", python="3.13.5"), 1.0),
            *(
                line
                for cell in before
                for line in (
                    render_event(CellBegan(cell=cell.name), 1.5),
                    render_event(CellEnded(outcome=Outcome.PASSED, problems=()), 1.75),
                )
            ),
            render_event(CellBegan(cell=DIFFERENTIAL.name), 2.0),
            render_event(Ready(), 2.1),
        ]
        self.alive = True
        self.asked = 0

    def ask(self, request: Request) -> Answered:
        assert self.alive, "nobody may ask a VM that is gone"
        self.asked += 1
        heard = protocol.parse_request(protocol.render_request(request))
        assert heard is not None
        if self.deadly in [name for name, _ in heard.steps]:
            self.alive = False
            raise session.VmGoneError
        return Answered(answers={n: answer(kind, heard) for n, kind in self.modules.items()})

    def wait_for_end(self) -> None:
        self.alive = False


GOOD = {"c": model.Model, "rust": model.Model}
ROUND = differential_explorer.Round(size=SIZE, tester="c", seed=1, examples=60)
SCRIPTED = replace(
    ROUND,
    corpus=(
        (("size", {"file": 0}),),
        (
            ("seek", {"file": 1, "offset": -1, "whence": 2}),
            READ,
            ("clear", {"file": 2}),
            ("write", {"file": 1, "seed": 55, "size": 900}),
            READ,
        ),
        (READ,),
    ),
)

Explore = Callable[..., tuple[differential_explorer.Exploration, list[ModelVm], list[str]]]


@pytest.fixture
def explore(
    tmp_path: Path, definition: differential_scripts.Definition, monkeypatch: pytest.MonkeyPatch
) -> Explore:
    """Explore with stand-ins for VMs; return what came of it, the VMs, and what was found."""
    # However busy this machine is.
    monkeypatch.setattr(differential_explorer, "SHRINK_S", 3600.0)
    (tmp_path / "results").mkdir()
    (tmp_path / "qemu.log").touch()

    def explore_one(
        modules: Mapping[str, type[model.Model]],
        deadly: str = "",
        log: str = "",
        rounds: tuple[differential_explorer.Round, ...] = (ROUND, replace(ROUND, seed=2)),
        before: tuple[AnyCell, ...] = (),
    ) -> tuple[differential_explorer.Exploration, list[ModelVm], list[str]]:
        (tmp_path / "results/console.log").write_text(log)
        vms = [ModelVm(tmp_path, modules, deadly, before)]
        found: list[str] = []

        @contextlib.contextmanager
        def boot() -> Iterator[session.Vm]:
            assert not vms[-1].alive, "two VMs at once"
            vms.append(ModelVm(tmp_path, modules, deadly))
            yield vms[-1]
            vms[-1].alive = False

        explorer = differential_explorer.Explorer(
            definition,
            rounds,
            boot,
            lambda sequence, message: found.append(differential_scripts.render_script(sequence)),
            lambda sequences, steps: None,
        )
        explorer.converse(vms[0])
        return explorer.finish(), vms, found

    return explore_one


def test_modules_that_keep_to_the_model_pass_every_round(explore: Explore) -> None:
    rounds = tuple(replace(ROUND, seed=seed, examples=20) for seed in (1, 2))
    exploration, (vm,), found = explore(GOOD, rounds=rounds)
    assert exploration.failure is None
    assert found == []
    assert [one.seed for one, _, _ in exploration.rounds] == [1, 2]
    assert exploration.sequences == vm.asked > 30
    assert exploration.steps > 300


def test_the_same_seed_asks_the_same(explore: Explore) -> None:
    few = (replace(ROUND, examples=20),)
    first, second = (explore(GOOD, rounds=few)[0] for _ in range(2))
    assert first.sequences > 10
    assert first.sequences_sha256 == second.sequences_sha256


def test_scripts_are_carried_out_as_they_are_and_nothing_else(explore: Explore) -> None:
    other = replace(SCRIPTED, tester="rust")
    exploration, (vm,), _ = explore(GOOD, rounds=(SCRIPTED, other))
    assert vm.asked == exploration.sequences == 2 * len(SCRIPTED.corpus)
    calls = "".join(
        differential_scripts.render_calls(Sequence(size=SIZE, tester=tester, steps=steps))
        for tester in TESTERS
        for steps in SCRIPTED.corpus
    )
    assert exploration.sequences_sha256 == hashlib.sha256(calls.encode()).hexdigest()
    assert exploration.kept == ()


def test_a_soak_keeps_sequences_with_every_kind_of_step_as_scripts(
    explore: Explore, definition: differential_scripts.Definition
) -> None:
    exploration, _, _ = explore(GOOD, rounds=(ROUND,))
    kept = exploration.kept
    assert {name for one in kept for name, _ in one.steps} == {*exploration.carried_out}
    scripts = differential_corpus.plan_corpus(kept)
    assert [*scripts] == [f"{SIZE}-{number:02}.replay" for number in range(1, 31)]
    parsed = [
        differential_scripts.parse_script(text, definition, TESTERS) for text in scripts.values()
    ]
    assert parsed == [*kept]


def test_the_longest_sequences_are_kept_but_none_that_alone_has_a_kind_of_step() -> None:
    long = [make_sequence(*[READ] * (100 - number)) for number in range(40)]
    rare = make_sequence(("clear", {"file": 0}))
    assert differential_corpus.pick_sequences([*long, rare]) == [long[0], rare, *long[1:29]]


def test_a_module_that_differs_is_found_and_the_sequence_made_small(explore: Explore) -> None:
    exploration, vms, found = explore({"c": model.Model, "rust": ForgetfulModel})
    failure = exploration.failure
    assert failure is not None
    assert (failure.outcome, failure.again, len(vms)) == ("failed", True, 1)
    # To come near the end, and to write, which writev does too.
    (*before, last) = [name for name, _ in failure.sequence.steps]
    assert last in ("write", "writev")
    assert len(before) <= 1
    assert f"step {len(before) + 1}, {last}(" in failure.message
    assert ", rust [" in failure.message
    assert found[-1] == differential_scripts.render_script(failure.sequence)
    assert len(exploration.rounds) == 1


def test_what_fails_in_a_script_is_made_small(explore: Explore) -> None:
    modules = {"c": model.Model, "rust": ForgetfulModel}
    exploration, vms, _ = explore(modules, rounds=(SCRIPTED, replace(SCRIPTED, size=8192)))
    failure = exploration.failure
    assert failure is not None
    assert (failure.outcome, failure.again, len(vms)) == ("failed", True, 1)
    assert len(exploration.rounds) == 1
    # One byte is enough to come to the end, whatever it is.
    assert failure.sequence.steps == (
        ("seek", {"file": 1, "offset": -1, "whence": 2}),
        ("write", {"file": 1, "seed": 0, "size": 1}),
    )


def test_a_script_is_left_without_needless_steps_and_with_the_numbers_that_it_needs(
    explore: Explore,
) -> None:
    far = ("write", {"file": 1, "seed": 55, "size": 4095})
    script = (far, READ, ("write", {"file": 1, "seed": 1, "size": 1}), READ)
    lone = replace(SCRIPTED, corpus=(script,))
    failure = explore({"c": ForgetfulModel}, rounds=(lone,))[0].failure
    assert failure is not None
    assert failure.sequence.steps == (
        ("write", {"file": 1, "seed": 0, "size": 4095}),
        ("write", {"file": 1, "seed": 0, "size": 1}),
    )


@pytest.mark.parametrize(
    ("value", "lower"),
    [
        (0, []),
        (1, [0]),
        (2, [0, 1]),
        (900, [0, 450, 899]),
        (-3, [0, -1, -2]),
        ((2, 1), [(0, 1), (1, 1), (2, 0)]),
        ([5], [[0], [2], [4]]),
        ("text", []),
    ],
)
def test_a_number_is_lowered_towards_zero(value: object, lower: list[object]) -> None:
    assert list(differential_explorer.iterate_lower(value)) == lower


def test_a_vm_that_dies_is_replaced_until_the_sequence_is_small(explore: Explore) -> None:
    log = (DATA / "oops-null.log").read_text()
    exploration, vms, _ = explore(GOOD, deadly="clear", log=log)
    failure = exploration.failure
    assert failure is not None
    assert failure.outcome == "crashed"
    assert "NULL pointer" in failure.message
    assert [name for name, _ in failure.sequence.steps] == ["clear"]
    assert len(vms) > 2
    assert not any(vm.alive for vm in vms)


def test_the_vm_of_a_whole_run_dies_in_the_cell_of_the_differential(explore: Explore) -> None:
    log = (DATA / "oops-null.log").read_text()
    # What a run carries out are scripts: hypothesis would ask once more, of another VM.
    rounds = (SCRIPTED,)
    exploration, vms, _ = explore(GOOD, deadly="clear", log=log, rounds=rounds, before=(C,))
    failure = exploration.failure
    assert failure is not None
    assert failure.outcome == "crashed"
    assert [name for name, _ in failure.sequence.steps] == ["clear"]
    assert len(vms) > 2


def test_a_vm_that_is_gone_without_a_word_is_lost(explore: Explore) -> None:
    failure = explore(GOOD, deadly="clear", log="[    1.0] all is well\n")[0].failure
    assert failure is not None
    assert failure.outcome == "lost"


@pytest.mark.parametrize("one", [ROUND, SCRIPTED], ids=["drawn", "scripts"])
def test_nothing_is_drawn_or_carried_out_to_make_a_sequence_smaller_once_its_time_is_up(
    one: differential_explorer.Round, explore: Explore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, drawn = 0.0, 0
    expect = strategy.expect

    class SlowModel(ForgetfulModel):
        """Takes a second for each sequence."""

        def __init__(self, size: int) -> None:
            nonlocal now
            now += 1.0
            super().__init__(size)

    def count_drawn(size: int, steps: list[differential_scripts.Step]) -> Any:
        nonlocal drawn
        kept, answers = expect(size, steps)
        drawn += bool(kept)
        return kept, answers

    def count_asked(limit_s: float) -> int:
        monkeypatch.setattr(differential_explorer, "SHRINK_S", limit_s)
        exploration, (vm,), found = explore({"rust": SlowModel}, rounds=(one,))
        assert exploration.failure is not None
        assert exploration.failure.again
        assert found[-1] == differential_scripts.render_script(exploration.failure.sequence)
        assert (len(found) == 1) == (limit_s < 0)
        return vm.asked

    monkeypatch.setattr(differential_explorer, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(strategy, "expect", count_drawn)
    asked = count_asked(-1.0)
    assert drawn == asked
    # At once, in the seconds 1, 2 and 3, and not in the fourth.
    assert count_asked(3.0) == asked + 4


# -- results ----------------------------------------------------------------------------------

ENDED = CellResult(cell=DIFFERENTIAL, outcome=Outcome.PASSED)


def make_exploration(
    failure: differential_explorer.Failure | None, left_out: str = ""
) -> differential_explorer.Exploration:
    carried_out = {name: 3 for name in strategy.NAMES if name != left_out}
    return differential_explorer.Exploration(
        rounds=((ROUND, 1.5, 40), (replace(ROUND, size=8192), 0.5, 20)),
        carried_out=carried_out,
        refused=dict.fromkeys(carried_out, 1),
        failure=failure,
        sequences_sha256="69",
        kept=(),
    )


FAILURE = differential_explorer.Failure(
    sequence=make_sequence(READ), outcome=Outcome.FAILED, message="step 1 differs", again=True
)


def test_a_step_that_was_never_carried_out_fails_the_run(
    definition: differential_scripts.Definition,
) -> None:
    assert (
        report.find_problems(make_exploration(None), definition, differential_explorer.Declared())
        == ()
    )
    problems = report.find_problems(
        make_exploration(None, "copy"), definition, differential_explorer.Declared()
    )
    assert problems == ("never carried out: copy",)
    result = report.plan_result(ENDED, make_exploration(None, "copy"), problems, "")
    assert (result.outcome, result.problems) == ("failed", problems)


def test_each_round_is_a_test_and_the_one_that_failed_says_how_to_reproduce_it() -> None:
    passed = report.plan_result(ENDED, make_exploration(None), (), "")
    assert [(test.id, test.outcome) for test in passed.tests] == [
        ("differential[4096-c]", "passed"),
        ("differential[8192-c]", "passed"),
    ]
    assert passed.outcome == "passed"
    failed = report.plan_result(ENDED, make_exploration(FAILURE), (), "out/x.replay")
    assert [test.outcome for test in failed.tests] == ["passed", "failed"]
    assert failed.tests[1].message == "step 1 differs\n1 steps in out/x.replay"
    assert failed.outcome == "failed"


def test_a_failure_that_did_not_come_again_is_still_one_and_says_so() -> None:
    once = make_exploration(replace(FAILURE, again=False))
    (_, failed) = report.plan_result(ENDED, once, (), "x").tests
    assert "did not fail once more" in failed.message


def test_a_report_is_json_with_its_figures() -> None:
    exploration, script = make_exploration(FAILURE), "out/replays/x.replay"
    result = report.plan_result(ENDED, exploration, (), script)
    document = documents.to_json(report.plan_report(result, exploration, script))
    assert document["outcome"] == "failed"
    assert (document["sequences"], document["seconds"]) == (60, 2.0)
    assert document["sequences_sha256"] == "69"
    assert [one["seed"] for one in document["rounds"]] == [1, 1]
    assert document["steps"] == 3 * len(strategy.NAMES)
    assert document["steps_per_s"] == document["steps"] / 2
    assert document["failure"]["steps"] == ["read(file=0, size=9)"]


def test_a_soak_goes_on_with_fresh_seeds_until_its_time_is_up(
    definition: differential_scripts.Definition, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(
        differential_explorer, "time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    rounds = list(differential_explorer.iterate_rounds(definition, ("c", "rust"), 10, 12.0))
    assert len(rounds) == 14
    assert [one.seed for one in rounds] == list(range(10, 24))
    assert {one.tester for one in rounds} == {"c", "rust"}
    assert {one.size for one in rounds} == set(definition.SIZES)


# -- reproduction -----------------------------------------------------------------------------


def reproduce(tmp_path: Path, definition: differential_scripts.Definition, vm: ModelVm) -> str:
    steps = (
        ("seek", {"file": 0, "offset": -1, "whence": 2}),
        ("write", {"file": 0, "seed": 1, "size": 1}),
        READ,
    )
    reproducer = differential_reproduce.Reproducer(definition, make_sequence(*steps))
    reproducer.converse(vm)
    outcome = "passed" if vm.alive else "lost"
    reproduced = reproducer.finish(replace(ENDED, outcome=Outcome(outcome)))
    return reproduced.result.outcome + "\n" + differential_reproduce.render_reproduction(reproduced)


def test_a_reproduction_shows_each_step_and_the_first_that_differs(
    tmp_path: Path, definition: differential_scripts.Definition
) -> None:
    vm = ModelVm(tmp_path, {"c": ForgetfulModel})
    outcome, device, first, second, third, told = reproduce(tmp_path, definition, vm).splitlines()
    assert (outcome, device) == ("failed", "device(size=4096, tester='c')")
    assert first.split(maxsplit=2)[:2] == ["1", "agree"]
    assert second.split(maxsplit=2)[:2] == ["2", "DIFFER"]
    assert third.split(maxsplit=2)[:2] == ["3", "-"]
    assert told.startswith("step 2, write(")


def test_a_reproduction_shows_the_step_that_a_vm_died_of(
    tmp_path: Path, definition: differential_scripts.Definition
) -> None:
    outcome, *lines = reproduce(tmp_path, definition, ModelVm(tmp_path, GOOD, "write")).splitlines()
    assert outcome == "lost"
    assert [line.split()[1] for line in lines[1:]] == ["agree", "LOST", "-"]


def test_a_reproduction_of_what_was_mended_agrees(
    tmp_path: Path, definition: differential_scripts.Definition
) -> None:
    outcome, *lines = reproduce(tmp_path, definition, ModelVm(tmp_path, GOOD)).splitlines()
    assert outcome == "passed"
    assert [line.split()[1] for line in lines[1:]] == ["agree", "agree", "agree"]


def test_a_package_that_is_not_there_is_one_error() -> None:
    with pytest.raises(ConfigError) as failure:
        differential_scripts.load_definition(MATRIX, "diferential")
    assert "diferential" in failure.value.message


def find_storage(*names: str) -> Path:
    """Return where hypothesis keeps something; an older one gives the path itself."""
    found: Any = configuration.storage_directory(*names, intent_to_write=False)
    path: Path = getattr(found, "path", found)
    return path


def test_what_hypothesis_learns_is_kept_where_it_is_told(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = find_storage()
    request.addfinalizer(lambda: configuration.set_hypothesis_home_dir(before))
    differential_explorer.keep_in(tmp_path / "kept")
    assert find_storage("x") == tmp_path / "kept/x"
