# SPDX-License-Identifier: GPL-2.0-only
"""Advice names the command that a person has."""

import pytest

from twinmod import wording


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hint: nox -s setup", "hint: twinmod setup"),
        ("nox -s test -- --record, then nox -s replay -- out/test/vm-1",
         "twinmod test --record, then twinmod replay out/test/vm-1"),
        ("not set up: nox -s setup -- --kernel sid", "not set up: twinmod setup --kernel sid"),
        ("nox -s lint-kernel\n--", "twinmod lint-kernel\n--"),
        ("nothing of the kind", "nothing of the kind"),
    ],
)  # fmt: skip
def test_without_nox_its_sessions_are_the_verbs_of_the_command(text: str, named: str) -> None:
    assert wording.name_commands(text) == named
