# SPDX-License-Identifier: GPL-2.0-only
"""What a VM said becomes outcomes: every way in which it can stop saying it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.cells import model
from twinmod.cells import outcomes as cells_outcomes
from twinmod.cells import transcript as cells_transcript
from twinmod.cells.model import Cell, CellResult
from twinmod.cells.transcript import End
from twinmod.errors import VmLostError
from twinmod.guest import protocol
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Outcome
from twinmod.project import rules as project_rules

DATA = Path(__file__).parent / "data"

C = Cell(module="mdriver_c", label="c", tester="c")
RUST = Cell(module="mdriver_rust", label="rust", tester="c")
CELLS = (C, RUST)

OOPS = KernelFault(kind="oops", lines=("BUG: unable to handle page fault", "#PF: supervisor"))


def say(event: str, **values: object) -> str:
    return json.dumps({"event": event, "at_s": 1.0, **values})


BOOT = say("boot", release="7.3.4+deb13-amd64", python="3.13.5")
ALIVE = say("alive")
END = say("end")


def begin(cell: str) -> str:
    return say("cell", cell=cell)


def run_test(name: str, outcome: str = "passed", rules: tuple[str, ...] = ("R1",)) -> list[str]:
    result = say("result", id=name, rules=rules, outcome=outcome, duration_s=0.5, message="why")
    return [say("test", id=name, rules=rules), result]


def end_cell(outcome: str = "passed", *problems: str) -> str:
    return say("cell_end", outcome=outcome, problems=problems)


def read(
    lines: list[str], end: End = End.EXITED, faults: tuple[KernelFault, ...] = ()
) -> tuple[CellResult, ...]:
    """Return what comes of a VM that said these lines and ended so."""
    return cells_outcomes.classify(read_transcript(lines), end, faults)


def read_transcript(lines: list[str]) -> cells_transcript.Transcript:
    return cells_transcript.parse_transcript(cells_transcript.parse_events(lines), CELLS)


def test_a_vms_time_is_told_by_phase() -> None:
    def end(at_s: float) -> protocol.CellEnded:
        return protocol.CellEnded(at_s=at_s, outcome=Outcome.PASSED, problems=())

    events: list[protocol.Event] = [
        protocol.Booted(at_s=4, release="7.3.4", python="3.13.5"),
        protocol.CellBegan(at_s=6, cell="c/c"),
        protocol.Alive(at_s=7),
        protocol.TestBegan(at_s=7.5, id="a", rules=()),
        protocol.TestEnded(
            at_s=8, id="a", rules=(), outcome=Outcome.PASSED, duration_s=0.5, message=""
        ),
        protocol.TestBegan(at_s=9, id="b", rules=()),
        end(10),
        protocol.CellBegan(at_s=10.5, cell="differential"),
        protocol.Ready(at_s=11),
        end(15),
        protocol.Ended(at_s=15),
    ]
    assert cells_transcript.parse_phases(events) == (
        ("boot", 4.0),
        ("imports", 2.0),
        ("c/c preparation", 1.5),
        ("c/c", 2.5),
        ("differential preparation", 0.5),
        ("differential", 4.0),
    )
    assert cells_transcript.parse_phases(events[:3]) == (("boot", 4.0), ("imports", 2.0))


def find_outcomes(found: tuple[CellResult, ...]) -> list[tuple[str, str]]:
    return [(result.cell.name, result.outcome) for result in found]


WHOLE = [
    BOOT,
    begin("c/c"),
    *run_test("a"),
    ALIVE,
    *run_test("b", "skipped"),
    end_cell(),
    begin("rust/c"),
    *run_test("a"),
    *run_test("b", "failed"),
    end_cell("failed"),
    END,
]


# -- lines ------------------------------------------------------------------------------------


def test_a_vm_that_said_all_is_read_as_it_said_it() -> None:
    transcript = read_transcript(WHOLE)
    assert transcript.booted
    assert transcript.release == "7.3.4+deb13-amd64"
    assert transcript.running is None
    assert find_outcomes(transcript.cells) == [("c/c", "passed"), ("rust/c", "failed")]
    test = transcript.cells[1].tests[1]
    assert test == model.TestResult(
        id="b", rules=("R1",), outcome=Outcome.FAILED, duration_s=0.5, message="why"
    )


@pytest.mark.parametrize(
    "line", ["", "{", '{"event": "te', "null", "[]", "3", '"x"', '{"event": 3}', "{}", "\x00\xff"]
)
def test_a_line_that_is_no_event_is_passed_over(line: str) -> None:
    events = cells_transcript.parse_events([BOOT, line, END])
    assert [event.KIND for event in events] == ["boot", "end"]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (say("weather", fine=True), "unknown event"),
        (say("cell", name="c/c"), "CellBegan has unknown 'name', no 'cell'"),
        (say("cell_end", outcome="pased", problems=[]), "CellEnded.outcome cannot be 'pased'"),
    ],
)
def test_an_agent_with_another_protocol_is_refused(event: str, why: str) -> None:
    with pytest.raises(VmLostError, match="not of this version") as error:
        read_transcript([*WHOLE[:3], event, *WHOLE[3:]])
    assert why in error.value.facts[0][1]


def test_what_a_cell_counted_is_kept() -> None:
    values = {"target": 300, "actual": 300, "real_s": 1.5, "user_s": 0.5, "system_s": 0.1}
    (result,) = read([BOOT, begin("c/c"), say("count", values=values), end_cell(), END])
    assert result.count == protocol.Count(
        target=300, actual=300, real_s=1.5, user_s=0.5, system_s=0.1
    )


# -- how a VM can end -------------------------------------------------------------------------


def test_a_whole_run_is_what_the_agent_said() -> None:
    assert find_outcomes(read(WHOLE)) == [("c/c", "passed"), ("rust/c", "failed")]


@pytest.mark.parametrize(
    ("end", "faults", "outcome"),
    [
        (End.EXITED, (), "lost"),
        (End.SILENT, (), "timeout"),
        (End.EXITED, (OOPS,), "crashed"),
        (End.SILENT, (OOPS,), "crashed"),
    ],
)
def test_a_test_that_the_vm_died_in_shares_the_end_of_its_cell(
    end: End, faults: tuple[KernelFault, ...], outcome: str
) -> None:
    lines = [BOOT, begin("c/c"), *run_test("a"), say("test", id="b", rules=["R2"])]
    (result,) = read(lines, end, faults)
    assert result.outcome == outcome
    assert [(t.id, t.outcome) for t in result.tests] == [("a", "passed"), ("b", outcome)]
    assert result.tests[1].rules == ("R2",)
    assert result.tests[1].message
    assert [(f.lines, f.test) for f in result.kernel_faults] == [(f.lines, "b") for f in faults]
    assert result.problems


def test_a_line_that_was_cut_off_is_a_test_that_did_not_end() -> None:
    lines = [BOOT, begin("c/c"), *run_test("a")]
    (result,) = read([*lines[:-1], lines[-1][:-7]])
    assert [(t.id, t.outcome) for t in result.tests] == [("a", "lost")]


@pytest.mark.parametrize(
    ("end", "faults", "outcome"),
    [(End.EXITED, (), "lost"), (End.SILENT, (), "timeout"), (End.EXITED, (OOPS,), "crashed")],
)
def test_a_vm_that_died_between_tests_blames_no_test(
    end: End, faults: tuple[KernelFault, ...], outcome: str
) -> None:
    (result,) = read([BOOT, begin("c/c"), *run_test("a")], end, faults)
    assert result.outcome == outcome
    assert [t.outcome for t in result.tests] == ["passed"]
    assert len(result.problems) == 1


def test_a_crash_says_what_the_kernel_said_first() -> None:
    (result,) = read([BOOT, begin("c/c")], End.EXITED, (OOPS,))
    assert result.problems == ("the kernel complained: BUG: unable to handle page fault",)


def test_a_crash_that_the_agent_told_of_too_is_one_problem() -> None:
    why = "the kernel complained: BUG: unable to handle page fault"
    lines = [BOOT, begin("c/c"), say("test", id="a", rules=["R1"]), end_cell("crashed", why)]
    (result,) = read(lines, End.EXITED, (OOPS,))
    assert (result.outcome, result.problems) == ("crashed", (why,))
    assert [(test.outcome, test.message) for test in result.tests] == [("crashed", why)]


def test_what_a_vm_says_is_kept_so_that_every_report_can_hold_it() -> None:
    result_event = say(
        "result",
        id="a\udcff",
        rules=["R1"],
        outcome="failed",
        duration_s=0.1,
        message="x\x1b[2J\ud800\n\u2603",
    )
    lines = [
        BOOT,
        begin("c/c"),
        say("test", id="a\udcff", rules=["R1"]),
        result_event,
        end_cell("failed", "did not unload: \x00"),
    ]
    (result,) = read(lines)
    (test,) = result.tests
    assert (test.id, test.message) == (r"a\udcff", "x\\x1b[2J\\ud800\n\u2603")
    assert result.problems == (r"did not unload: \x00",)


def test_only_the_cell_that_the_vm_died_in_is_blamed() -> None:
    lines = [BOOT, begin("c/c"), *run_test("a"), end_cell(), begin("rust/c")]
    assert find_outcomes(read(lines)) == [("c/c", "passed"), ("rust/c", "lost")]


def test_a_cell_that_did_not_begin_has_no_outcome_yet() -> None:
    assert find_outcomes(read([BOOT, begin("c/c"), *run_test("a"), end_cell()])) == [
        ("c/c", "passed")
    ]


@pytest.mark.parametrize("lines", [[], [BOOT], ["SeaBIOS", "{"], [BOOT, ALIVE]])
def test_a_vm_that_came_as_far_as_no_cell_has_no_results(lines: list[str]) -> None:
    assert read(lines) == ()


def test_a_timeout_that_the_agent_saw_names_its_test() -> None:
    lines = [
        BOOT,
        begin("c/c"),
        *run_test("a"),
        say("test", id="b", rules=["R2"]),
        ALIVE,
        end_cell("timeout", "no step within 15 s"),
    ]
    (result,) = read(lines)
    assert result.outcome == "timeout"
    assert result.problems == ("no step within 15 s",)
    test = result.tests[1]
    assert (test.id, test.outcome, test.message) == ("b", "timeout", "no step within 15 s")


def test_what_the_agent_said_of_a_cell_is_kept() -> None:
    (result,) = read([BOOT, begin("c/c"), end_cell("failed", "did not load: EINVAL"), END])
    assert (result.outcome, result.problems) == ("failed", ("did not load: EINVAL",))


@given(
    st.integers(0, len(WHOLE)),
    st.sampled_from(End),
    st.booleans(),
    st.integers(0, 9),
)
def test_no_cell_passes_before_the_vm_has_said_so(
    length: int, end: End, crashed: bool, cut: int
) -> None:
    # However early a VM dies, and wherever in a line.
    said = WHOLE[:length]
    lines = [*said, WHOLE[length][:cut]] if length < len(WHOLE) else said
    found = read(lines, end, (OOPS,) if crashed else ())
    ended = sum('"cell_end"' in line for line in said)
    assert all(result.outcome for result in found)
    assert sum(result.outcome == "passed" for result in found) <= min(1, ended)
    blamed = "crashed" if crashed else "timeout" if end == End.SILENT else "lost"
    assert all(result.outcome == blamed for result in found[ended:])


# -- coverage ---------------------------------------------------------------------------------


def cell_result(
    cell: Cell, *tests: tuple[str, str, tuple[str, ...]], outcome: str = "passed"
) -> CellResult:
    return CellResult(
        cell=cell,
        outcome=Outcome(outcome),
        tests=tuple(
            model.TestResult(id=name, rules=rules, outcome=Outcome(end), duration_s=0.1)
            for name, end, rules in tests
        ),
    )


RULES = ("R1", "R2")

FULL = (("a", "passed", ("R1",)), ("b", "failed", ("R2",)))


def check(
    *found: CellResult, expected: tuple[str, ...] = RULES, rules: tuple[str, ...] = RULES
) -> tuple[CellResult, ...]:
    return cells_outcomes.compare_coverage(found, expected, rules)


def test_a_cell_in_which_every_rule_has_an_outcome_stays_as_it_is() -> None:
    passed = cell_result(C, ("a", "passed", ("R1", "R2")))
    failed = cell_result(RUST, ("a", "failed", ("R1", "R2")), outcome="failed")
    assert check(passed, failed) == (passed, failed)


def test_a_rule_without_a_test_fails_the_cell() -> None:
    (result,) = check(cell_result(C, ("a", "passed", ("R1",))))
    assert (result.outcome, result.problems) == ("failed", ("R2 has no outcome",))


def test_a_rule_whose_tests_were_skipped_has_no_outcome() -> None:
    (result,) = check(cell_result(C, ("a", "passed", ("R1",)), ("b", "skipped", ("R2",))))
    assert result.problems == ("R2 has no outcome",)


def test_a_rule_that_one_test_skipped_and_another_answered_has_an_outcome() -> None:
    tests = (("a", "passed", ("R1",)), ("b", "skipped", ("R2",)), ("c", "passed", ("R2",)))
    (result,) = check(cell_result(C, *tests))
    assert result.outcome == "passed"


def test_a_test_that_is_missing_in_one_cell_is_a_problem_of_that_cell() -> None:
    whole, holed = check(
        cell_result(C, ("a", "passed", RULES), ("b", "passed", ("R2",))),
        cell_result(RUST, ("a", "passed", RULES)),
    )
    assert whole.problems == ()
    assert (holed.outcome, holed.problems) == ("failed", ("b did not run",))


def test_a_rule_that_the_contract_does_not_have_is_a_problem() -> None:
    (result,) = check(cell_result(C, ("a", "passed", (*RULES, "R99"))))
    assert result.problems == ("R99 is tested and is not in the contract",)


def test_a_cell_in_which_nothing_ran_has_not_passed() -> None:
    (result,) = check(cell_result(C), expected=())
    assert (result.outcome, result.problems) == ("failed", ("no test ran",))


def test_a_cell_that_did_not_load_keeps_its_own_reason() -> None:
    bare = replace(cell_result(C, outcome="failed"), problems=("did not load: EINVAL",))
    (result,) = check(bare, expected=())
    assert result.problems == ("did not load: EINVAL",)


def test_a_narrowed_run_owes_no_rule() -> None:
    (result,) = check(cell_result(C, ("a", "passed", ("R1",))), expected=())
    assert result.outcome == "passed"


@pytest.mark.parametrize("outcome", ["crashed", "timeout", "lost"])
def test_what_a_dead_vm_did_not_answer_is_not_counted_again(outcome: str) -> None:
    dead = cell_result(C, ("a", outcome, ("R1",)), outcome=outcome)
    assert check(dead) == (dead,)


def test_a_cell_that_died_still_shows_what_the_others_lack() -> None:
    _, other = check(
        cell_result(C, ("a", "passed", RULES), ("b", "crashed", ("R1",)), outcome="crashed"),
        cell_result(RUST, ("a", "passed", RULES)),
    )
    assert other.problems == ("b did not run",)


@pytest.mark.parametrize(
    ("outcomes", "rule"),
    [
        (("passed",), "passed"),
        (("passed", "failed"), "failed"),
        (("passed", "skipped"), "passed"),
        (("skipped",), "skipped"),
        (("failed", "crashed", "passed"), "crashed"),
        (("failed", "timeout"), "timeout"),
        (("lost", "failed"), "lost"),
        ((), "missing"),
    ],
)
def test_a_rule_is_as_good_as_its_worst_test(outcomes: tuple[str, ...], rule: str) -> None:
    tests = tuple((str(number), end, ("R1",)) for number, end in enumerate(outcomes))
    result = cell_result(C, *tests, ("other", "crashed", ("R2",)))
    assert cells_outcomes.compare_rule(result, "R1") == rule


# -- totals -----------------------------------------------------------------------------------


def count(*found: CellResult) -> tuple[int, int, int]:
    totals = cells_outcomes.count_totals(found)
    return totals["passed"], totals["failed"], totals["skipped"]


def test_totals_count_tests_over_all_cells() -> None:
    tests = (*FULL, ("c", "skipped", ("R1",)))
    assert count(cell_result(C, *tests, outcome="failed"), cell_result(RUST, FULL[0])) == (2, 1, 1)


def test_nothing_is_counted_where_nothing_ran() -> None:
    assert count() == (0, 0, 0)


@pytest.mark.parametrize("outcome", ["crashed", "timeout", "lost"])
def test_a_test_that_the_vm_died_in_has_failed(outcome: str) -> None:
    assert count(cell_result(C, ("a", outcome, ("R1",)), outcome=outcome)) == (0, 1, 0)


@pytest.mark.parametrize("outcome", ["failed", "crashed", "timeout", "lost"])
def test_a_cell_that_no_test_is_to_blame_for_counts_as_failed(outcome: str) -> None:
    assert count(cell_result(C, FULL[0], outcome=outcome)) == (1, 1, 0)


def test_each_hole_in_a_cell_counts_as_failed() -> None:
    holed = check(cell_result(C, ("a", "passed", ("R1",))), expected=("R1", "R2", "R3"))
    assert count(*holed) == (1, 2, 0)


@given(st.lists(st.sampled_from(("passed", "failed", "skipped", "crashed"))))
def test_every_test_is_counted_exactly_once(outcomes: list[str]) -> None:
    tests = tuple((str(number), end, ("R1",)) for number, end in enumerate(outcomes))
    assert sum(count(cell_result(C, *tests))) == len(outcomes)


# -- the contract -----------------------------------------------------------------------------


def test_the_rules_of_a_contract_are_its_numbered_headings() -> None:
    text = "# The device\n\n## R1 One device\n\ntext R3\n\n## R12 Read, and write\n### R2 No\n"
    assert project_rules.parse_rules(text) == (("R1", "One device"), ("R12", "Read, and write"))


@pytest.mark.parametrize("text", ["", "# R1 x\n", "R1 x\n", "## Differences\n", "## R1\n"])
def test_what_is_no_numbered_heading_is_no_rule(text: str) -> None:
    assert project_rules.parse_rules(text) == ()


# -- the kernel's log -------------------------------------------------------------------------

LOGS = sorted(DATA.glob("*.log"))


def test_there_are_logs_to_look_at() -> None:
    assert {"clean", "oops-null"} <= {path.stem for path in LOGS}
    assert {path.stem for path in LOGS} == {path.stem for path in DATA.glob("*.json")}


def test_a_fault_fails_a_cell_that_the_agent_said_passed() -> None:
    lines = [BOOT, begin("c/c"), *run_test("a"), end_cell()]
    (result,) = read(lines, End.EXITED, (OOPS,))
    assert result.outcome == "crashed"
    assert result.kernel_faults == (OOPS,)
    assert [test.outcome for test in result.tests] == ["passed"]


def plan_transcript(*began_s: float) -> cells_transcript.Transcript:
    names = ("c", "rust", "x", "y")[: len(began_s)]
    cells = tuple(
        CellResult(
            cell=Cell(module="m", label=name, tester="c"),
            outcome=Outcome.PASSED,
        )
        for name in names
    )
    return cells_transcript.Transcript(
        booted=True, release="7", cells=cells, running=None, began_s=began_s
    )


def test_a_fault_belongs_to_the_cell_that_ran_when_the_kernel_told_of_it() -> None:
    transcript = plan_transcript(5.0, 9.0)
    faults = tuple(KernelFault(kind="oops", lines=("BUG: x",), at_s=at_s) for at_s in (6.5, 9.0))
    assert cells_outcomes.assign_faults(transcript, faults) == ((faults[0],), (faults[1],))


def test_a_fault_without_a_time_belongs_to_the_last_cell() -> None:
    fault = KernelFault(kind="oops", lines=("BUG: x",))
    assert cells_outcomes.assign_faults(plan_transcript(5.0, 9.0), (fault,)) == ((), (fault,))


def test_what_the_kernel_said_before_the_first_cell_is_no_modules_doing() -> None:
    fault = KernelFault(kind="warning", lines=("Spectre V2 : WARNING: x",), at_s=0.3)
    assert cells_outcomes.assign_faults(plan_transcript(5.0), (fault,)) == ((),)


def test_a_fault_belongs_to_the_test_that_ran_at_its_time() -> None:
    lines = [
        json.dumps({"event": name, "at_s": at_s, **values})
        for at_s, name, values in (
            (1.0, "boot", {"release": "7", "python": "3"}),
            (2.0, "cell", {"cell": "c/c"}),
            (3.0, "test", {"id": "a", "rules": []}),
            (
                4.0,
                "result",
                {"id": "a", "rules": [], "outcome": "passed", "duration_s": 1.0, "message": ""},
            ),
            (5.0, "test", {"id": "b", "rules": []}),
        )
    ]
    faults = tuple(
        KernelFault(kind="oops", lines=("BUG: x",), at_s=at_s) for at_s in (2.5, 3.5, 4.5, 5.5)
    )
    (result,) = read(lines, End.EXITED, faults)
    assert [fault.test for fault in result.kernel_faults] == ["", "a", "", "b"]


def test_a_problem_of_a_module_is_one_of_the_last_of_its_cells() -> None:
    passed = tuple(cell_result(cell, ("a", "passed", ("R1",))) for cell in (C, RUST, C))
    first, other, last = cells_outcomes.blame(passed, C.module, ("one place never failed",))
    assert (first, other) == passed[:2]
    assert (last.outcome, last.problems) == ("failed", ("one place never failed",))
    assert last.tests == passed[2].tests


@pytest.mark.parametrize("outcome", ["crashed", "timeout", "lost"])
def test_a_cell_that_did_not_come_so_far_is_not_blamed_once_more(outcome: str) -> None:
    found = (cell_result(C, outcome=outcome),)
    assert cells_outcomes.blame(found, C.module, ("one place never failed",)) == found


def test_without_a_problem_or_a_cell_of_the_module_nothing_is_changed() -> None:
    found = (cell_result(C, ("a", "passed", ("R1",))),)
    assert cells_outcomes.blame(found, C.module, ()) == found
    assert cells_outcomes.blame(found, "another", ("one place never failed",)) == found
