# SPDX-License-Identifier: GPL-2.0-only
"""An error is what, why, facts, and one hint; several exit codes become one."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod import errors
from twinmod.errors import (
    BuildError,
    ConfigError,
    ExitCode,
    MissingToolError,
    TwinmodError,
    VmLostError,
)

#: As 02-architecture and README promise it: the first that applies wins.
ORDER = (130, 141, 70, 2, 3, 4, 6, 5, 1)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ORDER, 2)))
def test_of_two_exit_codes_the_graver_one_is_reported(first: int, second: int) -> None:
    for pair in itertools.permutations((ExitCode(first), ExitCode(second))):
        assert errors.compare_exit_codes(pair) == first


@given(st.lists(st.sampled_from(ExitCode)))
def test_success_is_reported_only_when_nothing_else_was(codes: list[ExitCode]) -> None:
    found = errors.compare_exit_codes(tuple(codes))
    assert (found == ExitCode.PASSED) == (set(codes) <= {ExitCode.PASSED})
    assert found in (*codes, ExitCode.PASSED)


def test_every_code_but_success_has_its_place_in_the_order() -> None:
    assert {*ORDER, 0} == {int(code) for code in ExitCode}


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (MissingToolError, 3), (BuildError, 4), (VmLostError, 5)],
)
def test_each_error_has_its_documented_exit_code(error: type[TwinmodError], code: int) -> None:
    assert error("x").exit_code == code


def test_an_error_shows_what_then_facts_then_one_hint() -> None:
    error = BuildError(
        "rust module did not build: make exited with status 2",
        facts=(("command", "make -C /x modules"), ("log", "out/build.log")),
        hint="nox -s build-rust",
    )
    assert errors.render_error(error) == (
        "error: rust module did not build: make exited with status 2\n"
        "  command: make -C /x modules\n"
        "  log:     out/build.log\n"
        "  hint:    nox -s build-rust"
    )


def test_a_fact_of_several_lines_is_an_indented_block() -> None:
    error = BuildError("no", facts=(("output", "(its last lines)\na.c:1: error\n  ^~~"),))
    assert errors.render_error(error) == (
        "error: no\n  output: (its last lines)\n    a.c:1: error\n      ^~~"
    )


def test_what_a_terminal_would_obey_is_shown_as_its_escape() -> None:
    error = ConfigError("no \udcff", facts=(("log", "\x1b[2J\r\nx\x00"),))
    assert errors.render_error(error) == "error: no \\udcff\n  log: \\x1b[2J\n    x\\x00"


def test_a_fact_without_text_still_has_its_line() -> None:
    assert errors.render_error(ConfigError("no", facts=(("log", ""),))) == "error: no\n  log: "


def test_an_error_without_facts_and_hint_is_one_line() -> None:
    assert errors.render_error(ConfigError("no such kernel")) == "error: no such kernel"
