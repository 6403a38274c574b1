# SPDX-License-Identifier: GPL-2.0-only
"""Variants are built in the background, and run as soon as a VM is worth it; refusals are kept."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

import fakevm
from fakevm import MakeElf
from twinmod.base.cache import FoundEntry
from twinmod.base.progress import Progress
from twinmod.cells.model import Cell, CellResult, TestResult
from twinmod.errors import BuildError, ConfigError, ExitCode
from twinmod.experiments import engine, variants
from twinmod.experiments.engine import Bench, Built, Step
from twinmod.guest.protocol import Outcome
from twinmod.vm import running
from twinmod.vm.session import Boots

WORDS = """make: Entering directory
error[E0382]: use of moved value: `buffer`
  --> zoo.rs:4:9
error: no literal
error[E0382]: use of moved value: `page`
error: aborting due to 3 previous errors
"""

#: How long a build waits for something that a test says comes.
LIMIT_S = 60.0


# -- refusals ---------------------------------------------------------------------------------


def test_a_compilers_errors_are_named_by_their_codes_else_by_their_text() -> None:
    assert variants.parse_compiler_errors(WORDS) == ("E0382", "no literal")


def test_a_refusal_is_remembered_for_exactly_the_same_variant(tmp_path: Path) -> None:
    path = tmp_path / "refused.json"
    assert engine.read_refusal(path, "a") == ""
    path.write_text(json.dumps({"digest": "a", "words": WORDS}))
    assert engine.read_refusal(path, "a") == WORDS
    assert engine.read_refusal(path, "b") == ""
    for damaged in ("{}", '{"digest": "a", "words": 7}', "[" * 100_000):
        path.write_text(damaged)
        assert engine.read_refusal(path, "a") == ""


@pytest.mark.parametrize(
    "words", ["", "make: *** no rule", WORDS.partition("error: aborting")[0], "aborting due to"]
)
def test_an_error_that_is_not_all_of_a_compilers_words_is_no_refusal(words: str) -> None:
    error = BuildError("it did not build", facts=(("output", words),))
    with pytest.raises(BuildError) as raised:
        engine.find_refusal(error)
    assert raised.value is error


# -- what is wanted, and what is shown --------------------------------------------------------


@dataclass(frozen=True)
class Named:
    name: str


def test_variants_are_selected_by_a_part_of_their_name() -> None:
    both = (Named("mdriver_c"), Named("mdriver_rust"))
    options = {"none": "no module", "hint": "look"}
    assert variants.select(both, "driver_r", **options) == both[1:]
    assert variants.select(both, "", **options) == both
    with pytest.raises(ConfigError, match="-k driver_r leaves no module"):
        variants.select(both[:1], "driver_r", **options)


@pytest.mark.parametrize(
    ("passed", "others", "code"),
    [
        ((True, True), (), ExitCode.PASSED),
        ((True, False), (), ExitCode.TESTS_FAILED),
        ((), (ExitCode.TESTS_FAILED,), ExitCode.TESTS_FAILED),
        ((False,), (ExitCode.VM_LOST,), ExitCode.VM_LOST),
    ],
)
def test_the_exit_code_is_the_worst_of_all_verdicts_and_failures(
    passed: tuple[bool, ...], others: tuple[ExitCode, ...], code: ExitCode
) -> None:
    verdicts = (SimpleNamespace(passed=one) for one in passed)
    assert variants.compare_exit_codes(verdicts, *others) == code


def test_a_trouble_has_its_evidence_below_it() -> None:
    troubles = (("a failed", ("line", "")), ("b failed", ()))
    assert variants.render_troubles(troubles) == "a failed\n    line\n    \nb failed"


# -- runs -------------------------------------------------------------------------------------


#: What runs the cells of a test instead of VMs: given the cells' names, returns nothing.
Watched = Callable[[list[str]], None]

#: What the snapshot has collected, with rules.
TESTS = [("test_one", ("R1",)), ("test_two", ("R1",))]

STEP: Step[str] = Step(
    name="step",
    plan_cell=lambda name, product: Cell(module=product.module, label=name, tester="c"),
)


def plan_end(cell: Cell) -> CellResult:
    """Return how a cell ends: the second test of one that is called "bad" fails."""
    bad = cell.label == "bad"
    test = TestResult(
        id="test_two",
        rules=("R1",),
        outcome=Outcome.FAILED if bad else Outcome.PASSED,
        duration_s=0.5,
    )
    return CellResult(cell=cell, outcome=test.outcome, tests=(test,))


@pytest.fixture
def orders() -> list[dict[str, tuple[str, ...]]]:
    """What each run was told of the order of its tests, by the name of a cell."""
    return []


@pytest.fixture
def run(
    orders: list[dict[str, tuple[str, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
    make_elf: MakeElf,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., list[list[str]]]:
    """Return what runs jobs, ended by plan_end(); it returns the cells of each run."""
    host = fakevm.make_host(tmp_path_factory, make_elf, monkeypatch)
    made = fakevm.make_bench(host, progress)
    product = made.products[0]
    runs: list[list[str]] = []

    def run_jobs(
        jobs: dict[str, Callable[[], bool]],
        watch: Watched = lambda _: None,
        *,
        cloned: bool = False,
        **values: Any,
    ) -> list[list[str]]:
        found = FoundEntry(kind="snapshot", key="toy", path=made.out_dir, record={"tests": TESTS})
        setting = replace(made.setting, snapshot=found if cloned else None)

        def run_cells(_: Any, work: Any, *__: Any) -> tuple[tuple[CellResult, ...], Boots]:
            names = [cell.label for cell in work.cells]
            runs.append(names)
            orders.append(dict(work.tests))
            watch(names)
            return tuple(map(plan_end, work.cells)), Boots(total=1)

        def plan_job(job: Callable[[], bool]) -> Callable[[], Built]:
            return lambda: Built(product=product if job() else None)

        monkeypatch.setattr(running, "run_cells", run_cells)
        bench = Bench(
            prepare=lambda: setting,
            limit_s=5.0,
            out_dir=made.out_dir / "runs",
            progress=progress,
            **values,
        )
        with engine.start_builds({name: plan_job(job) for name, job in jobs.items()}) as builds:
            ran = engine.run_steps(bench, builds, (STEP,))
        assert list(ran) == list(jobs)
        done, runs[:] = [*runs], []
        assert len(bench.boots) == len(done)
        return done

    return run_jobs


def test_a_cell_with_a_clone_of_its_own_runs_while_others_are_built(
    run: Callable[..., list[list[str]]], told: list[str]
) -> None:
    began = Event()

    def build_late() -> bool:
        return began.wait(LIMIT_S)

    jobs = {"a": lambda: True, "b": build_late}
    assert run(jobs, lambda _: began.set(), cloned=True, batch=2) == [["a"], ["b"]]
    assert "2 of 2 built, 2 run" in told


def test_a_clone_that_takes_long_keeps_no_other_from_running(
    run: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    others = Event()

    def watch(names: list[str]) -> None:
        if names == ["slow"]:
            assert others.wait(LIMIT_S), "the last one waits for the first"
        if names == ["last"]:
            others.set()

    jobs = {name: lambda: True for name in ("slow", "second", "last")}
    assert sorted(run(jobs, watch, cloned=True)) == [["last"], ["second"], ["slow"]]


def test_a_test_that_failed_last_time_runs_first(
    run: Callable[..., list[list[str]]], orders: list[dict[str, tuple[str, ...]]]
) -> None:
    jobs = {"good": lambda: True, "bad": lambda: True}
    for cloned in (True, True, False):
        run(jobs, cloned=cloned)
    assert orders[:2] == [{}, {}]
    assert sorted(orders[2:4], key=len) == [{}, {"bad/c": ("test_two", "test_one")}]
    assert orders[4:] == [{}], "what a VM that boots collects is not known"


@pytest.mark.parametrize(
    ("values", "runs"),
    [
        ({}, [["a", "c", "d"]]),
        ({"batch": 1}, [["a"], ["c"], ["d"]]),
        ({"batch": 2}, [["a"], ["c", "d"]]),
        ({"lanes": 2}, [["a", "d"], ["c"]]),
        ({"lanes": 9}, [["a"], ["c"], ["d"]]),
    ],
)
def test_a_vm_boots_for_as_many_cells_as_it_is_worth(
    run: Callable[..., list[list[str]]],
    values: dict[str, int],
    runs: list[list[str]],
) -> None:
    begun = Event()

    def build_third() -> bool:
        return not values.get("batch") or begun.wait(LIMIT_S)

    jobs = {"a": lambda: True, "b": lambda: False, "c": build_third, "d": lambda: True}

    def watch(names: list[str]) -> None:
        if names == ["a"]:
            begun.set()

    assert sorted(run(jobs, watch, **values)) == runs


def test_a_build_that_cannot_be_judged_ends_all(run: Callable[..., list[list[str]]]) -> None:
    def fail() -> bool:
        raise BuildError("the disk is full")

    with pytest.raises(BuildError, match="the disk is full"):
        run({"a": lambda: True, "b": fail})


def test_only_the_first_cell_of_a_vm_is_blamed_for_its_end() -> None:
    ends = (
        (1, Outcome.CRASHED),
        (2, Outcome.PASSED),
        (2, Outcome.CRASHED),
        (3, Outcome.TIMEOUT),
        (4, Outcome.FAILED),
        (4, Outcome.LOST),
        # The VM did not come as far as these.
        (0, Outcome.LOST),
        (0, Outcome.LOST),
    )
    ended = tuple(
        CellResult(
            cell=Cell(module="m", label="c", tester="c", variant=str(number)),
            vm=vm,
            outcome=outcome,
        )
        for number, (vm, outcome) in enumerate(ends)
    )
    assert engine.find_doubtful(ended) == (ended[2].cell, ended[5].cell)
