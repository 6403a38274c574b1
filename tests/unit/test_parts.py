# SPDX-License-Identifier: GPL-2.0-only
"""Cells in parts: which tests each part has, what earlier runs tell, what the parts come to."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinmod.base import files
from twinmod.cells import history, parts
from twinmod.cells.history import History
from twinmod.cells.model import Cell, CellResult, DifferentialCell, TestResult
from twinmod.cells.parts import Ended, Part
from twinmod.guest.protocol import Outcome
from twinmod.project.model import VmSpec
from twinmod.vm import pool, proving

C = Cell(module="toy_c", label="c", tester="c")
RUST = Cell(module="toy_rust", label="rust", tester="c")
DIFFERENTIAL = DifferentialCell(package="adding")

TESTS: Mapping[str, tuple[str, ...]] = {
    "test_a.py::slow": ("R1",),
    "test_a.py::quick": ("R1", "R2"),
    "test_b.py::other": ("R2",),
    "test_b.py::last": ("R3",),
}
SECONDS = {
    "test_a.py::slow": 8.0,
    "test_a.py::quick": 0.5,
    "test_b.py::other": 1.0,
    "test_b.py::last": 4.0,
}


def end(
    name: str, outcome: Outcome = Outcome.PASSED, *rules: str, seconds: float = 1.0
) -> TestResult:
    return TestResult(id=name, rules=rules, outcome=outcome, duration_s=seconds)


# -- which tests each part has ----------------------------------------------------------------


@given(
    st.dictionaries(st.text(min_size=1), st.floats(0, 100), min_size=1),
    st.integers(min_value=1, max_value=9),
)
def test_parts_have_every_test_once_in_the_order_of_collection(
    seconds: dict[str, float], count: int
) -> None:
    names = tuple(seconds)
    found = parts.divide(names, seconds, count)
    assert sorted(name for part in found for name in part) == sorted(names)
    assert 1 <= len(found) <= count
    for part in found:
        assert part == tuple(sorted(part, key=names.index))
        assert part


@given(st.lists(st.floats(0.01, 100), min_size=1), st.integers(min_value=1, max_value=9))
def test_no_part_is_longer_than_its_share_by_more_than_a_test(
    durations: list[float], count: int
) -> None:
    seconds = {str(number): one for number, one in enumerate(durations)}
    share, longest = sum(durations) / count, max(durations)
    for part in parts.divide(tuple(seconds), seconds, count):
        assert sum(seconds[name] for name in part) <= share + longest + 1e-6


def test_the_quick_tests_are_in_the_first_part() -> None:
    names = tuple(TESTS)
    first, *_, last = parts.divide(names, SECONDS, 4)
    assert first == ("test_a.py::quick", "test_b.py::other")
    assert last == ("test_a.py::slow",)


def test_what_failed_last_time_begins_and_the_differential_comes_after_the_quick_tests() -> None:
    known = History(seconds=SECONDS, failed={"c/c": ("test_a.py::slow", "gone.py::x")})
    planned = parts.plan_parts((C, RUST, DIFFERENTIAL), TESTS, known, lanes=2)
    assert planned[0] == Part(cell=C, tests=("test_a.py::slow",))
    assert [part.cell for part in planned[1:4]] == [C, RUST, DIFFERENTIAL]
    assert "test_a.py::quick" in planned[1].tests
    for cell in (C, RUST):
        own = [name for part in planned if part.cell == cell for name in part.tests]
        assert sorted(own) == sorted(TESTS)


def test_what_takes_no_time_is_not_divided() -> None:
    quick = History(seconds=dict.fromkeys(TESTS, 0.1))
    assert parts.plan_parts((C,), TESTS, quick, lanes=4) == (Part(cell=C, tests=tuple(TESTS)),)
    assert len(parts.plan_parts((C,), TESTS, History(seconds=SECONDS), lanes=2)) > 1


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (C, tuple(TESTS)),
        (replace(C, rules=("R2",)), ("test_a.py::quick", "test_b.py::other")),
        (replace(C, files=("test_b.py",)), ("test_b.py::other", "test_b.py::last")),
        (replace(C, rules=("R2",), files=("test_b.py",)), ("test_b.py::other",)),
        (replace(C, rules=("R9",)), ()),
    ],
)
def test_a_cell_has_the_tests_of_its_rules_and_files(cell: Cell, names: tuple[str, ...]) -> None:
    assert parts.select_tests(cell, TESTS) == names


# -- what is left -----------------------------------------------------------------------------


def test_what_a_vm_did_not_survive_is_left_without_the_test_that_ended_it() -> None:
    part = Part(cell=C, tests=("a", "b", "c"))
    died = CellResult(cell=C, outcome=Outcome.LOST, tests=(end("a"), end("b", Outcome.LOST)))
    assert parts.plan_rest(part, died) == Part(cell=C, tests=("c",))
    for result, tests in (
        (CellResult(cell=C, outcome=Outcome.FAILED, tests=died.tests), part.tests),
        # Nothing is left; nobody knows what is; it ends a VM before its first test.
        (died, ("a", "b")),
        (died, ()),
        (CellResult(cell=C, outcome=Outcome.LOST), part.tests),
    ):
        assert parts.plan_rest(Part(cell=C, tests=tests), result) is None


def test_a_cell_is_given_up_after_so_many_vms() -> None:
    lost = Ended(part=Part(cell=C), result=CellResult(cell=C, outcome=Outcome.CRASHED))
    failed = Ended(part=Part(cell=C), result=CellResult(cell=C, outcome=Outcome.FAILED))
    assert not parts.find_exhausted((lost,) * (parts.BROKEN_MAX - 1) + (failed,) * 9)
    assert parts.find_exhausted((lost,) * parts.BROKEN_MAX) == {C}


def test_a_cell_is_the_worst_of_its_parts_and_has_all_their_tests() -> None:
    first = CellResult(cell=C, outcome=Outcome.PASSED, tests=(end("b"),), problems=("one",), vm=1)
    crash = CellResult(
        cell=C,
        outcome=Outcome.CRASHED,
        tests=(end("a", Outcome.CRASHED),),
        problems=("one", "two"),
        vm=2,
    )
    other = CellResult(cell=RUST, outcome=Outcome.PASSED)
    ended = tuple(Ended(part=Part(cell=one.cell), result=one) for one in (other, first, crash))
    merged = parts.merge((C, RUST, DIFFERENTIAL), ended)
    assert [(one.cell, one.outcome) for one in merged] == [
        (C, Outcome.CRASHED),
        (RUST, Outcome.PASSED),
    ]
    assert (merged[0].problems, merged[0].vm) == (("one", "two"), 2)
    ordered = parts.order_tests(merged, {"a": (), "b": ()})
    assert [test.id for test in ordered[0].tests] == ["a", "b"]


# -- what earlier runs tell -------------------------------------------------------------------


def test_what_a_run_did_not_try_is_known_as_before(tmp_path: Path) -> None:
    path = tmp_path / "history/toy.json"
    assert history.read_history(path) == History()
    tests = (end("a", Outcome.FAILED, seconds=2.0), end("b", seconds=3.0))
    history.write_history(
        path, History(), (CellResult(cell=C, outcome=Outcome.FAILED, tests=tests),)
    )
    known = history.read_history(path)
    assert known == History(seconds={"a": 2.0, "b": 3.0}, failed={"c/c": ("a",)})
    again = CellResult(cell=C, outcome=Outcome.PASSED, tests=(end("b", seconds=1.0),))
    assert history.add_results(known, (again,)).failed == {"c/c": ("a",)}
    mended = CellResult(cell=C, outcome=Outcome.PASSED, tests=(end("a"),))
    assert history.add_results(known, (mended,)).failed == {}
    path.write_text("{")
    assert history.read_history(path) == History()


def test_a_test_that_never_ran_takes_what_the_others_take() -> None:
    known = History(seconds={"a": 1.0, "b": 3.0})
    assert history.find_seconds(known, ("a", "new")) == {"a": 1.01, "new": 2.01}
    assert history.find_seconds(History(), ("new",)) == {"new": 0.11}


# -- how many at a time -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processors", "available_mib", "most", "lanes"),
    [(2, 16000, 0, 2), (8, 4500, 0, 4), (8, 16000, 1, 1), (2, 100, 0, 1), (1, 16000, 0, 1)],
)
def test_as_many_clones_run_as_the_host_has_room_for(
    processors: int, available_mib: int, most: int, lanes: int
) -> None:
    vm = VmSpec(
        memory_mib=1024,
        processors=2,
        boot_timeout_s=1.0,
        test_timeout_s=1.0,
        silence_timeout_s=1.0,
    )
    assert pool.plan_lanes(vm, processors, available_mib, most) == lanes


def test_the_hosts_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       24689764 kB\nMemAvailable:    2097152 kB\n")
    monkeypatch.setattr(pool, "MEMORY", path)
    assert pool.read_available_mib() == 2048


# -- the proof --------------------------------------------------------------------------------


def test_each_test_that_ended_otherwise_in_a_clone_is_a_difference() -> None:
    booted = CellResult(
        cell=C, outcome=Outcome.PASSED, tests=(end("a"), end("b", Outcome.SKIPPED), end("c"))
    )
    assert proving.find_differences(booted, booted) == ()
    cloned = CellResult(
        cell=C,
        outcome=Outcome.FAILED,
        tests=(end("a", Outcome.FAILED), end("b"), end("d")),
        problems=("it did not unload",),
    )
    assert proving.find_differences(booted, cloned) == (
        "a: passed in a VM that boots, failed in a clone",
        "b: skipped in a VM that boots, passed in a clone",
        "c: passed in a VM that boots, did not run in a clone",
        "d: did not run in a VM that boots, passed in a clone",
        "the cell: passed in a VM that boots, failed: it did not unload",
    )


# -- a copy with holes ------------------------------------------------------------------------


def test_a_copy_keeps_content_and_holes_and_is_its_owners_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "ram", tmp_path / "copy"
    with source.open("wb") as file:
        for place in (0, 5 << 20, 9 << 20):
            file.seek(place)
            file.write(b"twinmod" * 1000)
        file.truncate(64 << 20)
    files.copy_sparsely(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        files.copy_sparsely(source, target)


def test_an_empty_copy_is_empty(tmp_path: Path) -> None:
    (tmp_path / "ram").touch()
    files.copy_sparsely(tmp_path / "ram", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""
