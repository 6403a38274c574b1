# SPDX-License-Identifier: GPL-2.0-only
"""The report on the layouts: what was measured, what broke, and what that makes of the run."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from twinmod.base import documents
from twinmod.base.documents import Document
from twinmod.bench import run
from twinmod.bench.figures import Figure
from twinmod.builds.product import Product
from twinmod.cells import model
from twinmod.cells.model import AnyCell, Cell, CellResult, YardsticksCell
from twinmod.errors import ExitCode
from twinmod.guest.protocol import Operation, Outcome, Timing
from twinmod.kernels.model import KernelTree
from twinmod.vm import session

FOLDER = Path(__file__).resolve().parents[1] / "layouts"

TWIN = Cell(module="mdriver_c", label="mdriver_c", tester="c")
MUTEX = Cell(module="layout_mutex", label="mutex", tester="c")

READ = Timing(operation=Operation.PREAD, size_bytes=1)
WRITE = Timing(operation=Operation.PWRITE, size_bytes=1)
ZERO = Timing(operation=Operation.PREAD, size_bytes=1, path="/dev/zero")


@pytest.fixture(scope="module")
def layouts() -> Iterator[ModuleType]:
    """The script, which lies outside the package."""
    spec = importlib.util.spec_from_file_location("layouts", FOLDER / "layouts.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["layouts"] = script
    spec.loader.exec_module(script)
    yield script
    del sys.modules["layouts"]


def count(cell: AnyCell, timing: Timing, total: int, *, settled: bool = True) -> Figure:
    return Figure(
        timing=timing,
        cell=cell.name,
        load=1,
        user=90,
        kernel=total - 90,
        minor_faults=0,
        settled=settled,
    )


def hold(cell: Cell, rule: str, outcome: str) -> tuple[str, CellResult]:
    test = model.TestResult(
        id=f"{rule}.py::test", rules=(rule,), outcome=Outcome(outcome), duration_s=1.0
    )
    return rule, CellResult(cell=cell, outcome=Outcome(outcome), tests=(test,))


FIGURES = (
    count(TWIN, READ, 1000),
    count(TWIN, WRITE, 900),
    count(YardsticksCell(), ZERO, 700),
    count(MUTEX, READ, 800),
    count(MUTEX, WRITE, 800),
    count(TWIN, READ, 1000),
    count(TWIN, WRITE, 900),
    count(YardsticksCell(), ZERO, 700),
    count(MUTEX, READ, 808),
    count(MUTEX, WRITE, 800, settled=False),
)

HELD = (
    hold(TWIN, "R10", "passed"),
    hold(MUTEX, "R10", "failed"),
    hold(TWIN, "R11", "passed"),
    hold(MUTEX, "R11", "timeout"),
)


def end(*ended: CellResult, figures: tuple[Figure, ...] = ()) -> run.Measured:
    return run.Measured(results=ended, figures=figures, boots=())


def plan(layouts: ModuleType, tree: KernelTree, product: Product) -> Document:
    found = tuple(layouts.plan_result(cell, FIGURES, HELD) for cell in (TWIN, MUTEX))
    host = layouts.Host(tree=tree, accelerator="tcg", qemu="QEMU 10")
    boots = (session.Boots(total=2), session.Boots(total=4, stalled=1))
    document: Document = layouts.plan_report(host, found, FIGURES, (product,), boots)
    return document


def test_every_layout_is_a_module_of_the_folder(layouts: ModuleType) -> None:
    assert {f"layout_{name}.c" for name in layouts.LAYOUTS} == {
        path.name for path in FOLDER.glob("layout_*.c")
    }


def test_every_layout_has_its_lines_in_the_docs(layouts: ModuleType) -> None:
    page = (FOLDER.parents[1] / "docs/layout.md").read_text()
    assert [name for name in layouts.LAYOUTS if f"| `{name}` |" not in page] == []


def test_cells_differ_although_their_language_does_not(layouts: ModuleType) -> None:
    cells = layouts.plan_cells(layouts.plan_modules())
    assert len({cell.name for cell in cells}) == len(layouts.LAYOUTS)
    assert cells[0].name == "mutex/c"


def test_the_report_is_json_with_a_schema(
    layouts: ModuleType, tree: KernelTree, product: Product
) -> None:
    document = documents.to_json(plan(layouts, tree, product))
    assert document["schema"] == "twinmod.layouts/1"
    assert (document["boots"], document["stalled_boots"]) == (6, 1)


def test_a_cost_is_of_all_loads(layouts: ModuleType, tree: KernelTree, product: Product) -> None:
    document = documents.to_json(plan(layouts, tree, product))
    read, write = document["layouts"][1]["costs"]
    assert (read["operation"], read["instructions"]) == ("pread", 800)
    assert read["samples"] == [800, 808]
    assert read["spread"] == pytest.approx(0.01)
    assert not write["settled"]
    (zero,) = document["yardsticks"]
    assert (zero["path"], zero["instructions"]) == ("/dev/zero", 700)


def test_the_table_says_what_a_call_costs_and_what_breaks(
    layouts: ModuleType, tree: KernelTree, product: Product
) -> None:
    head, twin, mutex, zero, *notes = layouts.render_report(
        plan(layouts, tree, product)
    ).splitlines()
    assert head.split()[-1] == "breaks"
    assert twin.split() == ["mdriver_c", "1000", "/", "900", "-", "-", "-", "none"]
    assert mutex.split() == ["mutex", "800", "/", "800?", *"---", "R10", "R11", "(timeout)"]
    assert zero.split() == ["/dev/zero", "700", *"---"]
    assert any("1.00%" in note for note in notes)
    assert notes[-1] == "1 VM stalled at boot and was booted again"


@pytest.mark.parametrize(
    ("outcome", "shown"), [("timeout", "timeout"), ("lost", "lost"), ("passed", "missing")]
)
def test_a_rule_that_no_test_came_to_is_said_to_end_as_its_cell(
    layouts: ModuleType, outcome: str, shown: str
) -> None:
    assert layouts.compare_rule(CellResult(cell=MUTEX, outcome=Outcome(outcome)), "R10") == shown


@pytest.mark.parametrize(
    ("measured", "held", "code"),
    [
        ("passed", "passed", ExitCode.PASSED),
        ("failed", "passed", ExitCode.TESTS_FAILED),
        ("passed", "failed", ExitCode.TESTS_FAILED),
        ("crashed", "passed", ExitCode.KERNEL_FAULT),
        ("passed", "timeout", ExitCode.VM_LOST),
    ],
)
def test_counts_must_settle_and_the_twins_keep_the_rules(
    layouts: ModuleType, measured: str, held: str, code: ExitCode
) -> None:
    counted = end(CellResult(cell=MUTEX, outcome=Outcome(measured)))
    assert layouts.compare_outcomes(counted, (hold(TWIN, "R10", held),)) == code


def test_a_count_that_did_not_settle_fails_the_run(layouts: ModuleType) -> None:
    counted = end(figures=(count(MUTEX, READ, 8, settled=False),))
    assert layouts.compare_outcomes(counted, ()) == ExitCode.TESTS_FAILED


def test_a_layout_may_break_a_rule(layouts: ModuleType) -> None:
    counted = end(CellResult(cell=MUTEX, outcome=Outcome.PASSED))
    assert layouts.compare_outcomes(counted, (hold(MUTEX, "R10", "timeout"),)) == ExitCode.PASSED
