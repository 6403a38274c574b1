# SPDX-License-Identifier: GPL-2.0-only
"""What a run makes of what its cells found."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from twinmod.base.progress import Progress
from twinmod.cells import selection as cells_selection
from twinmod.cells.injection import InjectionReport, SiteEntry
from twinmod.cells.model import Cell, CellResult, TestResult
from twinmod.differential import run as differential_run
from twinmod.differential import scripts as differential_scripts
from twinmod.errors import ConfigError, MissingToolError
from twinmod.guest.protocol import Outcome
from twinmod.matrix import run
from twinmod.project import config as project_config
from twinmod.project.config import Config
from twinmod.workspace import Workspace

CHECKOUT = Path(__file__).resolve().parents[2]

PASSED = tuple(
    CellResult(
        cell=Cell(module=f"mdriver_{letter}", label=letter, tester=tester),
        outcome=Outcome.PASSED,
    )
    for letter in ("c", "rust")
    for tester in ("c", "rust")
)


def plan_injected(*hits: str) -> InjectionReport:
    return InjectionReport(
        paths=(),
        sites=tuple(
            SiteEntry(
                module="mdriver_c",
                place=f"mdriver_c.c:{line}",
                function="mdriver_init",
                address=f".text+{line:#x}",
                hit_by=hit,
            )
            for line, hit in enumerate(hits, start=1)
        ),
    )


def test_a_place_that_never_failed_fails_the_last_cell_of_its_module() -> None:
    blamed = run.blame_missed(PASSED, plan_injected("load", "", ""))
    assert [result.outcome for result in blamed] == ["passed", "failed", "passed", "passed"]
    assert blamed[1].problems == (
        "mdriver_c.c:2 asks for memory and was never made to fail",
        "mdriver_c.c:3 asks for memory and was never made to fail",
    )


def test_a_run_in_which_every_place_failed_is_left_as_it_is() -> None:
    assert run.blame_missed(PASSED, plan_injected("load", "write")) == PASSED


@pytest.fixture
def config() -> Config:
    return project_config.read_config(CHECKOUT)


def test_a_folder_of_results_that_cannot_be_is_named(
    config: Config, progress: Progress, tmp_path: Path
) -> None:
    def hold(out_dir: Path) -> AbstractContextManager[None]:
        return Workspace(config=replace(config, out_dir=out_dir), progress=progress).hold()

    with hold(tmp_path / "here/out"):
        assert (tmp_path / "here/out").is_dir()
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MissingToolError, match="results cannot be written: Not a dir") as caught,
        hold(tmp_path / "file/out"),
    ):
        pass
    assert caught.value.facts == (("folder", str(tmp_path / "file/out")),)


def select(**values: Any) -> cells_selection.Selection:
    return cells_selection.Selection(**values)


def test_a_run_carries_out_the_scripts_of_the_project_and_nothing_else(config: Config) -> None:
    folder = CHECKOUT / "tests/matrix/differential/corpus"
    for testers in (("c", "rust"), ("rust",)):
        rounds = differential_run.read_rounds(config, select(testers=testers))
        assert {one.tester for one in rounds} == {*testers}
        scripts = [
            differential_scripts.render_script(
                differential_scripts.Sequence(size=one.size, tester="c", steps=steps)
            )
            for one in rounds
            for steps in one.corpus
        ]
        kept = [path.read_text() for path in folder.iterdir()]
        assert sorted(scripts) == sorted(kept * len(testers))


@pytest.mark.parametrize(
    "narrowed",
    [{"keyword": "R1"}, {"rules": ("R1",)}, {"record": True}],
)
def test_a_run_that_is_narrowed_carries_out_no_script(
    config: Config, narrowed: dict[str, Any]
) -> None:
    assert differential_run.read_rounds(config, select(**narrowed)) == ()


def test_a_differential_without_scripts_is_an_error_that_says_where_to_get_them(
    config: Config, tmp_path: Path
) -> None:
    assert differential_run.read_rounds(replace(config, differential=""), select()) == ()
    with pytest.raises(ConfigError, match="has no script for a device of 4096, ") as caught:
        differential_run.read_rounds(replace(config, matrix_dir=tmp_path), select())
    assert caught.value.facts == (("folder", str(tmp_path / "differential/corpus")),)
    assert "soak" in caught.value.hint


# -- a part of the matrix ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "arguments", "expected"),
    [
        (select(), (), ("R1", "R2", "R10")),
        (select(long=True), ("--long",), ("R1", "R2", "R10")),
        (select(rules=("R1",)), (), ("R1",)),
        (select(rules=("R1", "R10")), (), ("R1", "R10")),
        (select(keyword="R1"), ("-k", "R1"), ()),
        (
            select(rules=("R2",), keyword="fast", long=True),
            ("-k", "fast", "--long"),
            (),
        ),
    ],
)
def test_a_run_of_some_rules_owes_an_outcome_of_just_those(
    selection: cells_selection.Selection, arguments: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert selection.pytest_args == arguments
    assert selection.plan_expected(("R1", "R2", "R10")) == expected


RULES = (("R1", "Open"), ("R2", "Close"), ("R10", "Atomic"))


@pytest.mark.parametrize(
    ("selection", "shown"),
    [
        (select(), ["R1", "R2", "R10"]),
        # Its only test is one of R10's, too, of which most did not run.
        (select(rules=("R1",)), ["R1"]),
        (select(keyword="x"), ["R1", "R10"]),
    ],
)
def test_the_table_has_the_rules_that_were_asked_for(
    selection: cells_selection.Selection, shown: list[str]
) -> None:
    test = TestResult(id="test_x", rules=("R1", "R10"), outcome=Outcome.PASSED, duration_s=0.1)
    ran = (CellResult(cell=PASSED[0].cell, outcome=Outcome.PASSED, tests=(test,)),)
    assert [rule for rule, _ in run.plan_shown_rules(RULES, ran, selection)] == shown


def test_a_narrowed_run_says_what_it_left_out(config: Config) -> None:
    selection = select(rules=("R1", "R4"), keyword="one")
    assert selection.render(config) == "--rule R1, --rule R4, -k 'one'"
