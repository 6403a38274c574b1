# SPDX-License-Identifier: GPL-2.0-only
"""What a program's output says in the Test Anything Protocol, and how the program is judged."""

import pytest

from twinmod.guest.testing import programs, tap

PLAIN = "loading\nok\ndone\n"

GOOD = """\
TAP version 13
1..4
# Starting 4 tests
ok 1 - opens
ok 2 reads # SKIP no such page
not ok 3 - seeks # TODO it cannot yet
ok 4
# Totals: pass:3 fail:0
"""


@pytest.mark.parametrize("output", ["", PLAIN, "okay 1\n", "not okay\n", "it is not ok\n"])
def test_what_a_program_says_of_itself_is_not_the_protocol(output: str) -> None:
    assert tap.parse(output) is None


def test_what_is_skipped_or_to_do_does_not_fail() -> None:
    report = tap.parse(GOOD)
    assert report is not None
    assert (report.planned, report.ended, report.skipped) == (4, 4, 1)
    assert (report.failed, report.problems, report.skip_reason) == ([], [], "")


@pytest.mark.parametrize(
    ("output", "failed"),
    [
        ("1..2\nok 1\nnot ok 2 - short # reads\n", ["not ok 2 - short # reads"]),
        ("1..1\nnot ok\n", ["not ok"]),
        (
            "1..1\nnot ok 1 - a \\# TODO is no directive\n",
            ["not ok 1 - a \\# TODO is no directive"],
        ),
        ("1..1\nnot ok 1 - # TODOs are kept\n", ["not ok 1 - # TODOs are kept"]),
        ("1..1\nnot ok 1 # todo\n", []),
        ("1..1\nnot ok 1 - slow # XFAIL known\n", []),
        # Those of a subtest are indented; its own line says how they ended.
        ("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 x\nok 1 outer\n", []),
    ],
)
def test_each_subtest_that_failed_is_named(output: str, failed: list[str]) -> None:
    report = tap.parse(output)
    assert report is not None
    assert (report.failed, report.problems) == (failed, [])


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("1..3\nok 1\nok 2\n", "1..3 were planned, and 2 ended"),
        ("1..1\nok 1\nok 2\n", "1..1 were planned, and 2 ended"),
        ("TAP version 14\n1..2\n", "1..2 were planned, and 0 ended"),
        ("TAP version 14\nok 1\n", "no plan (1..1), and 1 subtests ended"),
        ("ok 1\nok 2\n", "no plan (1..2), and 2 subtests ended"),
        ("1..2\nok 1\n1..2\nok 2\n", "a second plan: 1..2"),
        ("1..2\nok 1\nok 1\n", "number 2 was expected: ok 1"),
        ("1..2\nok 2\nok 1\n", "number 1 was expected: ok 2"),
        ("1..9\nok 1\nBail out! no device\n", "Bail out! no device"),
    ],
)
def test_a_plan_that_lies_is_a_problem(output: str, problem: str) -> None:
    report = tap.parse(output)
    assert report is not None
    assert report.problems[0] == problem
    failed, skipped = programs.judge(0, output)
    assert problem in failed
    assert not skipped


def test_a_plan_may_come_last() -> None:
    assert programs.judge(0, "ok 1\nok 2\n1..2\n") == ("", "")


@pytest.mark.parametrize(
    ("status", "output", "reason"),
    [
        (4, "", "it exited with status 4"),
        (4, "looking\nno such device\n\n", "no such device"),
        (4, "TAP version 13\n1..0 # SKIP no device\n", "no device"),
        # kselftest.h leaves a plan that it made before unfulfilled.
        (4, "TAP version 13\n1..3\nok 1 # SKIP no device\n", "every subtest was skipped"),
        (0, "1..0 # skipped: no device\n", "no device"),
        (0, "1..0\n", "an empty plan"),
        (0, "1..1\nok 1 # SKIP\n", "every subtest was skipped"),
    ],
)
def test_a_program_that_cannot_test_here_is_skipped(status: int, output: str, reason: str) -> None:
    assert programs.judge(status, output) == ("", reason)


@pytest.mark.parametrize(
    ("status", "output", "words"),
    [
        (1, "", "it exited with status 1"),
        (-11, "", "signal 11 ended it"),
        (1, "reading\nshort read\n", "its output ends with\n  reading\n  short read"),
        # A program that says that all is well, and dies.
        (-6, "1..1\nok 1\n", "signal 6 ended it"),
        (0, "1..2\nok 1\nnot ok 2 - x\n", "1 of 2 subtests failed\nnot ok 2 - x\n"),
        (4, "1..2\nok 1\nnot ok 2 - x\n", "1 of 2 subtests failed"),
    ],
)
def test_a_program_that_fails_says_why(status: int, output: str, words: str) -> None:
    failed, skipped = programs.judge(status, output)
    assert words in failed
    assert not skipped


def test_a_program_that_passes_says_nothing() -> None:
    assert programs.judge(0, PLAIN) == ("", "")
    assert programs.judge(0, GOOD) == ("", "")


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("#!/bin/sh\n# rule: R3\n", ("R3",)),
        ("// rule: R3, R4\n// rule: R3\n", ("R3", "R4")),
        ("/* rule: R3 */\n", ("R3",)),
        ("/*\n * rule: R1 R2\n */\n", ("R1", "R2")),
        ("\t#  rule: R5\n", ("R5",)),
        ('puts("rule: R3");\n# rules are good\n#rule of thumb\n', ()),
    ],
)
def test_a_comment_names_the_rules_of_a_program(source: str, rules: tuple[str, ...]) -> None:
    assert programs.parse_rules(source) == rules
