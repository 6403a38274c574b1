# SPDX-License-Identifier: GPL-2.0-only
"""The matrix against its contract, without a VM: what is collected, and under which rules."""

import json
import re
import sys
from pathlib import Path

import pytest

from twinmod.base import process, templates
from twinmod.base.process import Command
from twinmod.guest.collection import PLUGIN
from twinmod.project import rules as project_rules

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ROOT / "tests/matrix"
#: As in a VM, the matrix finds the guest's modules where the agent has them.
PACKAGES = templates.PACKAGE_DIR.parent

#: Collects the matrix once for each choice, in one process: the imports take most of the time.
LISTER = """\
import json, sys
import pytest

class Lister:
    def pytest_collection_finish(self, session):
        self.rules = {
            item.nodeid: [rule for marker in item.iter_markers("rule") for rule in marker.args]
            for item in session.items
        }

fixed, choices = map(json.loads, sys.argv[1:])
for choice in choices:
    lister = Lister()
    assert pytest.main([*fixed, *choice], plugins=[lister]) == 0
    print("\\nCHOICE", json.dumps(lister.rules))
"""

#: What narrows the matrix; nothing does, first.
CHOICES = (
    (),
    ("-k", "R14"),
    ("--rule=R1",),
    ("--rule=R2",),
    ("--rule=R1", "--rule=R20"),
    ("--rule=R4", "-k", "read"),
)

#: By what narrows the matrix: the rules of every test that is left.
Collected = dict[tuple[str, ...], dict[str, list[str]]]


@pytest.fixture(scope="module")
def collected() -> Collected:
    fixed = (
        str(MATRIX),
        "--rootdir",
        str(MATRIX),
        "-c",
        "/dev/null",
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "--collect-only",
        "-q",
        "--module",
        "none",
        "--module-path",
        "none",
    )
    command = Command(
        argv=(sys.executable, "-c", LISTER, json.dumps(fixed), json.dumps(CHOICES)),
        purpose="the matrix was not collected",
        timeout_s=60,
        environment=(("PYTHONPATH", str(PACKAGES)), ("PYTHONDONTWRITEBYTECODE", "1")),
    )
    found = re.findall(r"^CHOICE (.+)$", process.run(command), re.MULTILINE)
    return dict(zip(CHOICES, map(json.loads, found), strict=True))


LONG = """\
def test_steps(long_run, mark_step):
    assert long_run
    mark_step()
    mark_step()
"""


def test_a_long_test_has_its_heartbeat_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(LONG)
    beats_path = tmp_path / "beats"
    argv = (
        "sh",
        "-c",
        'exec "$@" 3>"$0"',
        str(beats_path),
        sys.executable,
        "-m",
        "pytest",
        str(tmp_path),
        "--rootdir",
        str(tmp_path),
        "-c",
        "/dev/null",
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "-q",
        "--long",
        "--marks",
        "3",
    )
    command = Command(
        argv=argv,
        purpose="the long test did not pass",
        timeout_s=60,
        environment=(("PYTHONPATH", str(PACKAGES)), ("PYTHONDONTWRITEBYTECODE", "1")),
    )
    process.run(command)
    assert beats_path.read_bytes() == b".."


@pytest.fixture
def everything(collected: Collected) -> dict[str, list[str]]:
    return collected[()]


def test_every_rule_has_a_test_and_every_test_a_rule(everything: dict[str, list[str]]) -> None:
    rules = {number for number, _ in project_rules.parse_rules((ROOT / "DEVICE.md").read_text())}
    assert {rule for named in everything.values() for rule in named} == rules
    assert [test for test, named in everything.items() if not named] == []


def test_a_rules_number_selects_its_tests(
    collected: Collected, everything: dict[str, list[str]]
) -> None:
    selected = collected["-k", "R14"]
    assert selected == {test: named for test, named in everything.items() if "R14" in named}


@pytest.mark.parametrize("rules", [("R1",), ("R2",), ("R1", "R20")])
def test_a_rule_selects_its_tests_and_no_other_whose_number_begins_so(
    rules: tuple[str, ...], collected: Collected, everything: dict[str, list[str]]
) -> None:
    selected = collected[tuple(f"--rule={rule}" for rule in rules)]
    assert selected == {
        test: named for test, named in everything.items() if set(rules) & set(named)
    }
    assert len(selected) < len(everything) / 2


def test_a_rule_and_a_keyword_leave_what_both_leave(
    collected: Collected, everything: dict[str, list[str]]
) -> None:
    selected = collected["--rule=R4", "-k", "read"]
    own = {test for test, named in everything.items() if "R4" in named}
    assert set(selected) < own
    assert selected
