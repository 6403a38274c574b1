# SPDX-License-Identifier: GPL-2.0-only
"""A run as data, as JUnit and as text: all of it says the same."""

import io
import xml.etree.ElementTree as ET
from dataclasses import replace

import junitparser
import pytest
from msgspec import structs
from rich.console import Console

from twinmod.base import documents, text
from twinmod.base.check import Check
from twinmod.bench import counter
from twinmod.builds import product as builds_product
from twinmod.builds.product import Product
from twinmod.cells import model
from twinmod.cells import report as cells_report
from twinmod.cells.model import AnyCell, Cell, CellResult, DifferentialCell, KernelCell
from twinmod.differential import report as differential_report
from twinmod.errors import ExitCode, VmLostError
from twinmod.guest import visible
from twinmod.guest.faults import KernelFault
from twinmod.guest.protocol import Count, Outcome
from twinmod.kernels.model import KernelTree
from twinmod.matrix import report
from twinmod.matrix.report import RunOutcome, TestReport
from twinmod.project.model import Language
from twinmod.ui import doctor
from twinmod.vm.machine import Accelerator, AcceleratorName
from twinmod.vm.session import Boots

C = Cell(module="mdriver_c", label="c", tester="c")
RUST = Cell(module="mdriver_rust", label="rust", tester="c")


def run_test(name: str, outcome: str, message: str = "") -> model.TestResult:
    return model.TestResult(
        id=name, rules=("R1", "R2"), outcome=Outcome(outcome), duration_s=0.25, message=message
    )


RESULTS = (
    CellResult(
        cell=C,
        outcome=Outcome.FAILED,
        tests=(
            run_test("a", "passed"),
            run_test("b", "failed", "t.py:3: 1 != 2 <&>"),
            run_test("c", "skipped", "no swap"),
        ),
    ),
    CellResult(
        cell=RUST,
        outcome=Outcome.CRASHED,
        tests=(run_test("a", "crashed", "the kernel died"),),
        kernel_faults=(
            KernelFault(
                kind="oops",
                lines=("BUG: x", "CR2: y"),
                test="a",
                log="vm-1/console.log",
                modules=("mdriver_rust",),
            ),
        ),
        problems=("the kernel died: BUG: x",),
    ),
)


# -- exit codes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("passed", "passed"), ExitCode.PASSED),
        (("passed", "failed"), ExitCode.TESTS_FAILED),
        (("lost",), ExitCode.VM_LOST),
        (("timeout",), ExitCode.VM_LOST),
        (("crashed",), ExitCode.KERNEL_FAULT),
        (("failed", "lost"), ExitCode.VM_LOST),
        (("failed", "timeout", "crashed"), ExitCode.KERNEL_FAULT),
        ((), ExitCode.PASSED),
    ],
)
def test_the_exit_code_is_that_of_the_worst_cell(outcomes: tuple[str, ...], code: ExitCode) -> None:
    cells = tuple(CellResult(cell=C, outcome=Outcome(outcome)) for outcome in outcomes)
    assert cells_report.compare_outcomes(cells) == code


# -- data -------------------------------------------------------------------------------------


@pytest.fixture
def made(tree: KernelTree, product: Product) -> TestReport:
    """The report of RESULTS."""
    accelerator = Accelerator(name=AcceleratorName.TCG, reason="no KVM")
    boots = Boots(total=2, stalled=1, phases=((1, "boot", 0.5), (2, "boot", 0.75)))
    return report.plan_test_report(
        report.Machine(tree=tree, accelerator=accelerator, memory_mib=256),
        (product,),
        report.Scope(long=True),
        report.Findings(results=RESULTS, totals=cells_report.Totals(passed=1, failed=2, skipped=1)),
        report.ResourceUsage(boots=boots, phases=(("VM", 1.2345),)),
    )


def test_the_test_report_is_json_with_a_schema(made: TestReport) -> None:
    assert documents.parse(documents.render(made), TestReport) == made
    document = documents.to_json(made)
    assert document["schema"] == "twinmod.test/1"
    assert set(document) == {
        "schema",
        "kernel",
        "accelerator",
        "accelerator_reason",
        "narrowed",
        "long",
        "memory_mib",
        "boots",
        "stalled_boots",
        "absent",
        "modules",
        "phases",
        "vm_phases",
        "cells",
        "differential",
        "injected",
        "differences",
        "totals",
    }
    assert (document["accelerator"], document["accelerator_reason"]) == ("tcg", "no KVM")
    assert (document["boots"], document["stalled_boots"]) == (2, 1)
    assert (document["long"], document["memory_mib"]) == (True, 256)
    assert document["totals"] == {"passed": 1, "failed": 2, "skipped": 1}


def test_the_test_report_says_what_ran_on_which_kernel(
    made: TestReport, tree: KernelTree, product: Product
) -> None:
    document = documents.to_json(made)
    assert document["kernel"] == {
        "release": tree.release,
        "origin": "stock",
        "suite": "trixie-backports",
        "rustc": tree.proof.rustc,
        "version": "7.3.4-1~bpo13+1",
    }
    assert document["modules"] == [
        {
            "module": "mdriver_c",
            "label": "c",
            "language": "c",
            "sha256": product.sha256,
            "watched_by": [],
            "not_seen_by": [],
            "parameters": [],
            "needed": [],
        }
    ]


def test_the_test_report_says_where_the_time_went(made: TestReport) -> None:
    document = documents.to_json(made)
    assert document["phases"] == [{"title": "VM", "seconds": 1.23}]
    assert document["vm_phases"] == [
        {"vm": 1, "title": "boot", "seconds": 0.5},
        {"vm": 2, "title": "boot", "seconds": 0.75},
    ]
    assert report.render_phases(made) == [
        "time: VM 1.2 s",
        "in VM 1: boot 0.5 s",
        "in VM 2: boot 0.8 s",
    ]


def test_the_test_report_has_every_cell_with_its_tests_and_faults(made: TestReport) -> None:
    first, second = documents.to_json(made)["cells"]
    assert set(first) == {"module", "tester", "outcome", "tests", "kernel_faults", "problems"}
    assert [cell["module"] for cell in (first, second)] == ["mdriver_c", "mdriver_rust"]
    assert first["tests"][1] == {
        "id": "b",
        "rule": "R1 R2",
        "outcome": "failed",
        "duration_s": 0.25,
        "message": "t.py:3: 1 != 2 <&>",
    }
    assert second["kernel_faults"] == [
        {
            "kind": "oops",
            "lines": ["BUG: x", "CR2: y"],
            "test": "a",
            "log": "vm-1/console.log",
            "modules": ["mdriver_rust"],
            "stacks": [],
        }
    ]


def test_a_test_report_with_a_word_that_is_not_one_of_ours_is_refused(made: TestReport) -> None:
    text = documents.render(made)
    for key, word in (
        ("outcome", "crashed"),
        ("outcome", "skipped"),
        ("accelerator", "tcg"),
        ("language", "c"),
    ):
        said = f'"{key}": "{word}"'
        assert said in text
        with pytest.raises(ValueError, match=key):
            documents.parse(text.replace(said, f'"{key}": "{word}x"'), TestReport)


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        (report.KernelRun(kernel="sid"), RunOutcome.ABSENT),
        (report.KernelRun(kernel="sid", error=VmLostError("gone")), RunOutcome.FAILED),
    ],
)
def test_a_kernel_without_a_report_is_absent_or_failed(
    run: report.KernelRun, outcome: RunOutcome, made: TestReport
) -> None:
    tested = report.KernelRun(kernel="trixie", document=made)
    runs = report.plan_runs_report((run, tested))
    assert [entry.outcome for entry in runs.kernels] == [outcome, RunOutcome.TESTED]
    text = documents.render(runs)
    assert documents.parse(text, report.TestsReport) == runs
    with pytest.raises(ValueError, match="outcome"):
        documents.parse(text.replace(f'"{outcome}"', '"passed"', 1), report.TestsReport)


def test_the_doctors_report_is_json_with_a_schema() -> None:
    checks = (Check(group="host", name="bwrap", found="yes", needed="yes", ok=True),)
    document = documents.to_json(doctor.plan_doctor_report(checks))
    assert document["schema"] == "twinmod.doctor/1"
    assert set(document["checks"][0]) == {
        "group",
        "name",
        "found",
        "needed",
        "ok",
        "required",
        "fix",
    }


@pytest.mark.parametrize(
    ("ok", "required", "ready"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_only_what_is_required_keeps_a_host_from_being_ready(
    ok: bool, required: bool, ready: bool
) -> None:
    check = Check(group="g", name="n", found="f", needed="x", ok=ok, required=required)
    assert doctor.plan_doctor_report((check,)).ready is ready


# -- JUnit ------------------------------------------------------------------------------------


def test_junit_reads_back_with_every_test_where_it_ran() -> None:
    document = junitparser.JUnitXml.fromstring(report.render_junit(RESULTS).encode())
    suites = {suite.name: list(suite) for suite in document}
    assert list(suites) == ["c/c", "rust/c"]
    passed, failed, skipped = suites["c/c"]
    assert [case.name for case in suites["c/c"]] == ["a", "b", "c"]
    assert passed.result == []
    assert isinstance(failed.result[0], junitparser.Failure)
    assert failed.result[0].message == "t.py:3: 1 != 2 <&>"
    assert isinstance(skipped.result[0], junitparser.Skipped)
    assert skipped.time == 0.25


def test_junit_has_an_error_for_what_no_test_is_to_blame_for() -> None:
    document = junitparser.JUnitXml.fromstring(report.render_junit(RESULTS).encode())
    crashed, itself = list(document)[1]
    for case in (crashed, itself):
        assert isinstance(case.result[0], junitparser.Error)
        assert case.result[0].type == "crashed"
    assert itself.result[0].message == "the kernel died: BUG: x"


UNSEEN = ["\x00", "\x01", "\x1b", "\x7f", "\x9b", "\r", "\ufffe", "\uffff", "\udcff", "\ud800"]


@pytest.mark.parametrize("unseen", UNSEEN, ids=ascii)
@pytest.mark.parametrize("outcome", ["skipped", "failed", "crashed"])
def test_whatever_a_test_says_junit_can_be_read(unseen: str, outcome: str) -> None:
    text = f"before {unseen} after <&>\n\u2603"
    cell = CellResult(
        cell=Cell(module="m", label="c", tester=text),
        outcome=Outcome(outcome),
        tests=(run_test(text, outcome, text),),
        problems=(text,),
    )
    root = ET.fromstring(report.render_junit((cell,)).encode())  # noqa: S314 - it is ours
    shown = visible.make_visible(text)
    assert unseen not in shown
    assert [case.get("name") for case in root.iter("testcase")] == [shown, "the cell itself"]
    told = [end.get("message") for case in root.iter("testcase") for end in case]
    assert told == [shown, shown]
    assert [suite.get("name") for suite in root.iter("testsuite")] == [f"c/{shown}"]


# -- text -------------------------------------------------------------------------------------


def render(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_table_has_a_row_for_each_rule_and_a_column_for_each_cell() -> None:
    outcomes = {
        ("R1", "c/c"): Outcome.PASSED,
        ("R1", "rust/c"): Outcome.FAILED,
        ("R12", "c/c"): Outcome.SKIPPED,
        ("R12", "rust/c"): Outcome.MISSING,
    }
    rules = (("R1", "One device"), ("R12", "Two [bold]"))
    head, one, two, _, ends = (
        line.split() for line in render(report.render_table(outcomes, rules, RESULTS))
    )
    assert head == ["rule", "c/c", "rust/c"]
    assert one == ["R1", "One", "device", "pass", "FAIL"]
    assert two[0] == "R12"
    assert two[-2:] == ["skip", "none"]
    assert ends == ["cell", "FAIL", "CRASH"]


def test_every_outcome_has_a_look_of_its_own() -> None:
    assert set(cells_report.LOOKS) == set(Outcome) - {Outcome.RUNNING}
    looks = [look for look, _ in cells_report.LOOKS.values()]
    assert len(set(looks)) == len(looks)
    assert all(looks)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_run_passes_with_no_outcome_but_one_that_says_so(outcome: Outcome) -> None:
    passed = cells_report.find_exit_code(outcome) == ExitCode.PASSED
    assert passed == (outcome in {Outcome.PASSED, Outcome.SKIPPED, Outcome.DIFFERED})


def test_a_run_in_which_all_passed_has_no_troubles() -> None:
    whole = CellResult(cell=C, outcome=Outcome.PASSED, tests=(run_test("a", "passed"),))
    assert cells_report.render_troubles((whole,)) == ""


def test_troubles_are_tests_problems_and_the_kernels_own_lines() -> None:
    assert cells_report.render_troubles(RESULTS).splitlines() == [
        "c/c failed: R1 R2 b",
        "    t.py:3: 1 != 2 <&>",
        "rust/c crashed: R1 R2 a",
        "    the kernel died",
        "rust/c crashed: the kernel died: BUG: x",
        "rust/c kernel fault during a:",
        "    oops: BUG: x",
        "      CR2: y",
        "      log: vm-1/console.log",
    ]


def test_a_problem_of_several_lines_is_an_indented_block() -> None:
    cell = Cell(module="mdriver_c", label="c", tester="c")
    broken = CellResult(
        cell=cell, outcome=Outcome.FAILED, problems=("status 4; log ends with\nERROR",)
    )
    assert (
        cells_report.render_troubles((broken,)) == "c/c failed: status 4; log ends with\n    ERROR"
    )


def test_a_kernel_that_is_not_there_is_shown_with_what_cures_that() -> None:
    cell = Cell(module="mdriver_c", label="c", tester="c")
    cells = tuple(
        KernelCell(kernel=name, release=release, cell=cell, reason=reason, fix=fix)
        for name, release, reason, fix in (
            ("one", "7.3", "", ""),
            ("two", "", "not set up", "twinmod setup --kernel two"),
            ("three", "6.12", "built without Rust", ""),
        )
    )
    assert report.render_matrix(cells).splitlines()[-2:] == [
        "two c/c: not set up; fix: twinmod setup --kernel two",
        "three c/c: built without Rust",
    ]
    shown = documents.render(report.plan_matrix_report(cells))
    assert "setup" not in shown, "a document names no command"


def test_a_table_of_the_matrix_has_a_row_for_each_kernel() -> None:
    cells = tuple(
        KernelCell(kernel=kernel, release=release, cell=cell, reason="", fix="")
        for kernel, release in (("one", "7.3.4+deb13-amd64"), ("long-name", ""))
        for cell in (C, RUST)
    )
    assert report.render_matrix(cells).splitlines() == [
        "kernel     release            c/c  rust/c",
        "one        7.3.4+deb13-amd64  yes  yes",
        "long-name  -                  yes  yes",
    ]


def test_columns_are_cut_nowhere_and_no_text_is_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert text.render_columns([("name", "ns"), ("[red]x[/]", "1" * 300), ("a: b", "")]) == [
        f"name       {'ns':>300}",
        f"[red]x[/]  {'1' * 300}",
        "a: b",
    ]


def test_a_differential_that_failed_is_shown_with_the_command_that_repeats_it() -> None:
    failure = differential_report.FailureEntry(
        outcome="failed", message="", again=True, steps=(), script="out/replays/ab.replay"
    )
    found = differential_report.DifferentialReport(
        outcome="failed",
        problems=(),
        kernel_faults=(),
        rounds=(),
        sequences=1,
        sequences_sha256="ab" * 32,
        steps=2,
        seconds=1.0,
        steps_per_s=2.0,
        carried_out={},
        refused={},
        failure=failure,
    )
    first, second = differential_report.render_differential(found).splitlines()
    assert first.startswith("differential: failed, ")
    assert second.endswith(": twinmod test --replay out/replays/ab.replay")
    assert "\n" not in differential_report.render_differential(structs.replace(found, failure=None))


def test_a_product_is_one_line(product: Product) -> None:
    assert builds_product.render_products((product,)) == (
        f"/checkout/out/mdriver_c.ko  415752 bytes  1.3 s  sha256:{'ab' * 32}"
    )


def test_the_last_line_is_the_totals_alone() -> None:
    totals = cells_report.Totals(skipped=3, passed=100, failed=0)
    assert cells_report.render_totals(totals) == "100 passed, 0 failed, 3 skipped"


def test_a_cell_that_counted_shows_target_actual_and_times() -> None:
    count = Count(target=3000069, actual=3000069, real_s=2.0, user_s=0.5, system_s=1.25)
    text = counter.render_counts((CellResult(cell=C, outcome=Outcome.PASSED, count=count),))
    assert "c/c  Target 3000069  Actual 3000069" in text
    assert "real 2.000 s  user 0.500 s  sys 1.250 s" in text
    assert "lost" not in text


def test_a_cell_that_lost_some_says_how_many() -> None:
    count = Count(target=69, actual=60, real_s=2.0, user_s=0.5, system_s=1.25)
    text = counter.render_counts((CellResult(cell=C, outcome=Outcome.PASSED, count=count),))
    assert "Target 69  Actual 60  9 lost" in text


def test_a_cell_that_did_not_come_to_count_says_how_it_ended() -> None:
    assert "lost" in counter.render_counts((CellResult(cell=C, outcome=Outcome.LOST),))


def test_the_doctor_shows_what_is_needed_and_a_fix_only_where_something_lacks() -> None:
    checks = (
        Check(group="host", name="bwrap", found="yes", needed="a bwrap", ok=True, fix=""),
        Check(group="host", name="keyring", found="no", needed="a key", ok=False, fix="apt x"),
        Check(group="VM", name="kvm", found="no", needed="kvm", ok=False, required=False),
    )
    assert doctor.render_checks(checks).splitlines() == [
        "host",
        "  ok   bwrap    found: yes",
        "  FAIL keyring  found: no",
        "                needed: a key",
        "                fix: apt x",
        "VM",
        "  --   kvm      found: no",
        "                needed: kvm",
    ]


def test_a_runs_notes_say_what_it_ran_on_and_how_it_differs_from_others(
    test_report: report.TestReport,
) -> None:
    module = cells_report.ModuleEntry(
        module="mdriver_rust",
        language=Language.RUST,
        sha256="",
        watched_by=("KASAN", "lockdep"),
        not_seen_by=("UBSAN",),
    )
    document = structs.replace(test_report, differential=None, modules=(module,))
    watched = (
        "mdriver_rust was watched by KASAN, lockdep\n"
        "mdriver_rust was not watched by UBSAN: no code in it calls it, so its "
        "silence says nothing of this module"
    )
    plain = f"kernel 7.3.4, tcg, 1024 MiB; out/test\ntime: VM 9.0 s\n{watched}"
    assert report.render_run_notes(document, "out/test") == plain
    lines = report.render_run_notes(
        structs.replace(document, narrowed="-k 'R2'", long=True), "out/test"
    )
    assert lines.splitlines() == [
        *plain.splitlines(),
        "narrowed to -k 'R2'",
        "long: many more rounds of what repeats itself",
    ]


# -- again ------------------------------------------------------------------------------------


def fail(cell: AnyCell, *rules: str) -> CellResult:
    """Return a cell in which a test of each rule failed."""
    tests = tuple(
        model.TestResult(id=f"test_{rule}", rules=(rule,), outcome=Outcome.FAILED, duration_s=0.1)
        for rule in rules
    )
    return CellResult(cell=cell, outcome=Outcome.FAILED, tests=tests)


@pytest.mark.parametrize(
    ("results", "options", "again"),
    [
        ((fail(C), fail(RUST)), (), ""),
        (
            (fail(C), fail(RUST, "R4", "R4")),
            (),
            "--rule R4 --module rust --tester c",
        ),
        (
            (fail(C, "R4"), fail(replace(RUST, tester="rust"), "R20")),
            ("--kernel", "my own"),
            "--rule R4 --rule R20 --kernel 'my own'",
        ),
        (
            (fail(C, "R1", "R2", "R3", "R4", "R5"), fail(RUST, "R6", "R7")),
            (),
            "--rule R1 --rule R2 --rule R3 --rule R4 --rule R5 --module c --tester c",
        ),
        ((fail(DifferentialCell(package="d"), "R1"),), (), ""),
    ],
)
def test_the_rules_that_failed_can_be_run_again(
    results: tuple[CellResult, ...], options: tuple[str, ...], again: str
) -> None:
    shown = f"run again: twinmod test {again}" if again else ""
    assert report.render_again(results, options) == shown
