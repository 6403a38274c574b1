# SPDX-License-Identifier: GPL-2.0-only
"""What a run makes of what its cells found."""

from pathlib import Path
from typing import Any

import pytest

from twinmod import flow
from twinmod.errors import MissingToolError
from twinmod.specs import Cell, CellResult

PASSED = tuple(
    CellResult(cell=Cell(module=f"mdriver_{letter}", language=letter, tester=tester),
               outcome="passed")
    for letter in ("c", "rust") for tester in ("c", "rust")
)  # fmt: skip


def plan_injected(*hits: str) -> dict[str, Any]:
    return {"paths": [], "sites": [
        {"module": "mdriver_c", "place": f"mdriver_c.c:{line}", "function": "mdriver_init",
         "address": f".text+{line:#x}", "hit_by": hit}
        for line, hit in enumerate(hits, start=1)
    ]}  # fmt: skip


def test_a_place_that_never_failed_fails_the_last_cell_of_its_module() -> None:
    blamed = flow.blame_missed(PASSED, plan_injected("load", "", ""))
    assert [result.outcome for result in blamed] == ["passed", "failed", "passed", "passed"]
    assert blamed[1].problems == (
        "mdriver_c.c:2 asks for memory and was never made to fail",
        "mdriver_c.c:3 asks for memory and was never made to fail",
    )


def test_a_run_in_which_every_place_failed_is_left_as_it_is() -> None:
    assert flow.blame_missed(PASSED, plan_injected("load", "write")) == PASSED


def test_a_folder_of_results_that_cannot_be_is_named(tmp_path: Path) -> None:
    flow.ensure_out_dir(tmp_path / "here/out")
    assert (tmp_path / "here/out").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingToolError, match="results cannot be written: Not a dir") as caught:
        flow.ensure_out_dir(tmp_path / "file/out")
    assert caught.value.facts == (("folder", str(tmp_path / "file/out")),)
