# SPDX-License-Identifier: GPL-2.0-only
"""Declared differences: what they excuse, and what becomes of one that does not occur."""

from dataclasses import replace
from pathlib import Path

import pytest

from twinmod.cells import differences, outcomes
from twinmod.cells.model import Cell, CellResult, DifferentialCell, TestResult
from twinmod.errors import ConfigError, ExitCode
from twinmod.guest.protocol import Outcome
from twinmod.project import config as project_config
from twinmod.project import rules as project_rules
from twinmod.project.model import DifferenceSpec, Subject

C = Cell(module="toy_c", label="c", tester="c")
RUST = Cell(module="toy_rust", label="rust", tester="c")
OTHER = replace(RUST, tester="rust")

R2 = DifferenceSpec(module="rust", subject=Subject.RULE, pattern="R2", why="it rounds up")
NAMED = replace(R2, subject=Subject.TEST, pattern="test_b*")


def make_result(cell: Cell, *ends: str, outcome: str = "") -> CellResult:
    """Return a cell whose tests of R1, R2 and so on ended so."""
    tests = tuple(
        TestResult(
            id=f"test_{'abcdef'[number]}.py::test_it",
            rules=(f"R{number + 1}",),
            outcome=Outcome(end),
            duration_s=0.1,
            message="1 != 2",
        )
        for number, end in enumerate(ends)
    )
    whole = "failed" if "failed" in ends else "passed"
    return CellResult(cell=cell, outcome=Outcome(outcome or whole), tests=tests)


def judge(
    *results: CellResult, declared: tuple[DifferenceSpec, ...] = (R2,), whole: bool = True
) -> tuple[CellResult, ...]:
    found = differences.declare(results, declared)
    return differences.compare_declared(found, declared, whole=whole)


@pytest.mark.parametrize(
    ("pattern", "text", "right"),
    [
        ("pwrite(*)", "pwrite(file=0)", True),
        ("pwrite(*)", "pread(file=0)", False),
        ("pwrite", "pwrite(file=0)", False),
        ("*", "", True),
        ("readv(file=0, sizes=[1, 2])", "readv(file=0, sizes=[1, 2])", True),
        ("a.c", "abc", False),
        ("test_x[1]", "test_x1", False),
        ("a*c", "a\nc", True),
    ],
)
def test_a_pattern_has_one_sign_for_any_text(pattern: str, text: str, *, right: bool) -> None:
    assert differences.matches(pattern, text) == right


@pytest.mark.parametrize("declared", [R2, NAMED])
def test_a_test_that_fails_as_declared_differs_and_its_cell_passes(
    declared: DifferenceSpec,
) -> None:
    found = judge(
        make_result(C, "passed", "passed"),
        make_result(RUST, "passed", "failed"),
        declared=(declared,),
    )
    assert [result.outcome for result in found] == [Outcome.PASSED, Outcome.PASSED]
    assert found[1].tests[1].outcome == Outcome.DIFFERED
    assert found[1].tests[1].message == "declared: it rounds up\n1 != 2"
    assert outcomes.count_totals(found) == {"passed": 3, "failed": 0, "skipped": 1}
    assert outcomes.compare_rule(found[1], "R2") == Outcome.DIFFERED
    assert outcomes.compare_coverage(found, ("R1", "R2"), ("R1", "R2")) == found
    (entry,) = differences.plan_entries(found, (declared,))
    assert differences.render_entries((entry,)) == [
        f"rust differs as declared in {declared.subject} {declared.pattern!r} (rust/c): {R2.why}"
    ]


def test_what_else_fails_in_the_cell_fails_it() -> None:
    (found,) = judge(make_result(RUST, "failed", "failed"))
    assert found.outcome == Outcome.FAILED
    assert [test.outcome for test in found.tests] == [Outcome.FAILED, Outcome.DIFFERED]
    assert outcomes.count_totals((found,)) == {"passed": 0, "failed": 1, "skipped": 1}


def test_another_module_may_not_differ() -> None:
    found = judge(make_result(C, "passed", "failed"), make_result(RUST, "passed", "failed"))
    assert [result.outcome for result in found] == [Outcome.FAILED, Outcome.PASSED]


def test_a_problem_of_the_cell_is_not_declared() -> None:
    stuck = replace(make_result(RUST, "passed", "failed"), problems=("did not unload",))
    assert judge(stuck)[0].outcome == Outcome.FAILED


@pytest.mark.parametrize("end", ["crashed", "timeout", "lost"])
def test_a_test_that_its_vm_died_in_has_not_differed(end: str) -> None:
    result = make_result(RUST, "passed", end, outcome=end)
    assert judge(result) == (result,)


def test_a_difference_that_does_not_occur_fails_the_run_with_one_line() -> None:
    found = judge(
        make_result(C, "passed", "passed"),
        make_result(RUST, "passed", "passed"),
        make_result(OTHER, "passed", "passed"),
    )
    assert [result.problems for result in found] == [
        (),
        (),
        (
            (
                "the declared difference of rust, rule 'R2', does not occur in rust/c, rust/rust: "
                "it rounds up"
            ),
        ),
    ]
    assert [result.outcome for result in found] == [Outcome.PASSED, Outcome.PASSED, Outcome.FAILED]
    assert outcomes.count_totals(found) == {"passed": 6, "failed": 1, "skipped": 0}
    assert differences.plan_entries(found, (R2,)) == ()


def test_a_difference_occurs_in_each_cell_of_its_module() -> None:
    found = judge(make_result(RUST, "passed", "failed"), make_result(OTHER, "passed", "passed"))
    assert "does not occur in rust/rust: it rounds up" in found[1].problems[0]


def test_one_test_of_several_is_enough() -> None:
    every = replace(NAMED, pattern="*")
    assert judge(make_result(RUST, "passed", "failed"), declared=(every,))[0].problems == ()


@pytest.mark.parametrize("declared", [R2, NAMED])
def test_where_its_tests_were_skipped_or_did_not_end_nothing_is_known(
    declared: DifferenceSpec,
) -> None:
    for result in (make_result(RUST, "passed", "skipped"), make_result(RUST, outcome="lost")):
        assert judge(result, declared=(declared,)) == (result,)
    assert judge(make_result(C, "passed"), declared=(declared,)) == (make_result(C, "passed"),)


def test_a_pattern_that_no_test_matches_is_a_problem_of_a_whole_run_alone() -> None:
    misspelt = replace(NAMED, pattern="test_z*")
    (found,) = judge(make_result(RUST, "passed", "passed"), declared=(misspelt,))
    assert found.problems == ("the declared difference of rust, test 'test_z*', matches no test",)
    assert found.outcome == Outcome.FAILED
    (narrowed,) = judge(make_result(RUST, "passed"), declared=(misspelt,), whole=False)
    assert narrowed.problems == ()


def test_the_cell_of_the_differential_is_let_be() -> None:
    result = CellResult(cell=DifferentialCell(package="adding"), outcome=Outcome.PASSED)
    step = replace(R2, subject=Subject.STEP, pattern="*")
    assert judge(result, declared=(R2, step)) == (result,)


def test_a_rule_that_the_contract_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "DEVICE.md").write_text("## R1 One\n\n## R12 Twelve\n")
    table = {
        "modules": {"c": {"name": "toy", "sources": "c"}},
        "contract": "DEVICE.md",
        "differences": [{"module": "c", "rule": "r12", "why": "it"}],
    }
    made = project_config.make_config({"drivers": {"toy": table}}, tmp_path)
    with pytest.raises(ConfigError, match="number 1, has the rule 'r12', which") as caught:
        project_rules.read_rules(made)
    assert caught.value.facts == (("nearest", "R12"),)
    assert caught.value.exit_code == ExitCode.USAGE
