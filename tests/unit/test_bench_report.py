# SPDX-License-Identifier: GPL-2.0-only
"""A benchmark as data, as a gate and as text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from twinmod.base import documents
from twinmod.bench import compare, counter, report
from twinmod.bench import text as bench_text
from twinmod.bench.compare import Compared
from twinmod.bench.document import BenchReport, ExactRun, Mode, WallRun
from twinmod.bench.figures import Figure
from twinmod.bench.project import Goals, Limit
from twinmod.builds.product import Product
from twinmod.cells.model import Cell, CellResult, Loop, YardsticksCell
from twinmod.errors import ConfigError, ExitCode
from twinmod.guest.protocol import TMPFS_FILE, BufferKind, Count, Operation, Outcome, Timing, Turns
from twinmod.kernels import model
from twinmod.kernels.model import KernelEntry, KernelTree
from twinmod.project.model import Language

READ = Timing(operation=Operation.PREAD, size_bytes=1)
LARGE = Timing(operation=Operation.PREAD, size_bytes=512 * 1024)
COLD = replace(LARGE, buffers=BufferKind.FRESH)
ZERO = replace(READ, path="/dev/zero")
TMPFS = replace(LARGE, path=TMPFS_FILE)


def figure(cell: str, timing: Timing, kernel: float, faults: float = 0.0) -> Figure:
    function = "mdriver_read_iter [mdriver_c]" if cell[0] == "c" else "read_iter [mdriver_rust]"
    return Figure(
        timing=timing,
        cell=cell,
        load=1,
        user=100,
        kernel=kernel,
        minor_faults=faults,
        functions=((function, kernel - 500), ("vfs_read", 500.0)),
    )


FIGURES = (
    figure("c/c", READ, 1000),
    figure("c/c", READ, 1001),
    figure("rust/c", READ, 1050),
    figure("c/c", LARGE, 70000),
    figure("rust/c", LARGE, 70000),
    figure("c/c", COLD, 210100, 128),
    figure("rust/c", COLD, 210100, 128),
    figure(YardsticksCell.name, ZERO, 700),
    figure(YardsticksCell.name, TMPFS, 60000),
)

TURNS = tuple(
    Turns(timing=READ, module=module, tester="c", calls=9, latency_ns=latency_ns, minor_faults=0)
    for module, latency_ns in (
        ("mdriver_c", (100.0, 102.0, 99.0)),
        ("mdriver_rust", (120.0, 121.0, 119.0)),
    )
)


KERNEL = KernelEntry(release="7.3.4", origin="stock", suite="", rustc="1.85", version="7.3.4-1")

LOOPS = (
    Loop(
        cell="c/c",
        size_bytes=512,
        buffers=BufferKind.FRESH,
        read_ns=(900, 300),
        write_ns=(200, 200),
        read_faults=(128, 0),
        write_faults=(0, 0),
    ),
)


GOALS = Goals(
    copy=Limit(at_most=1.03, from_bytes=65536),
    tmpfs=Limit(at_most=1.0),
    zero=Limit(at_most=1.25, to_bytes=1),
    rust=Limit(at_most=1.0),
    threads=Limit(at_most=0.6),
)


def plan(
    product: Product, figures: tuple[Figure, ...] = FIGURES, goals: Goals = GOALS
) -> BenchReport:
    products = (
        replace(product, module="mdriver_c", language=Language.C),
        replace(product, module="mdriver_rust", label="rust", language=Language.RUST),
    )
    exact = ExactRun(vms=1, loads=1, rounds=7, qemu="QEMU 10", spread=0.0)
    return report.plan_report(
        report.Subject(kernel=KERNEL, products=products),
        report.Scope(mode=Mode.BOTH, quick=True, goals=goals),
        report.Counts(run=exact, figures=figures, loops=LOOPS),
        report.Times(run=WallRun(accelerator="tcg", turns=3), turns=TURNS),
    )


def dump(product: Product) -> dict[str, Any]:
    """Return a report as a reader has it from its file."""
    return documents.to_json(plan(product))


def select(product: Product, figures: tuple[Figure, ...] = FIGURES) -> Compared:
    """Return what a comparison uses of a report."""
    return compare.select_compared(plan(product, figures))


def find(entries: list[dict[str, Any]], **values: object) -> dict[str, Any]:
    (found,) = [e for e in entries if all(e[key] == value for key, value in values.items())]
    return found


def test_an_entry_says_what_was_called_by_whom_and_what_it_took(product: Product) -> None:
    document = dump(product)
    assert document["schema"] == "twinmod.bench/1"
    entry = find(document["results"], mode="exact", module="mdriver_c", size_bytes=1)
    assert (entry["operation"], entry["tester"], entry["buffers"]) == ("pread", "c", "reused")
    assert (entry["instructions_per_call"], entry["samples"]) == (1100.0, [1100.0, 1101.0])
    assert entry["ns_per_call"] is None
    entry = find(document["results"], mode="wall", module="mdriver_c")
    assert (entry["ns_per_call"], entry["instructions_per_call"]) == (100.0, None)
    assert {entry["path"] for entry in document["yardsticks"]} == {"/dev/zero", TMPFS_FILE}


def test_what_a_cold_call_takes_more_is_its_faults(product: Product) -> None:
    (first, _) = dump(product)["explanations"]["cold"]
    assert (first["cold"], first["warm"], first["minor_faults"]) == (210200.0, 70100.0, 128.0)
    assert first["fault_share"] == pytest.approx(140100 / 210200, abs=1e-4)
    assert first["instructions_per_fault"] == pytest.approx(140100 / 128, abs=0.1)


def test_a_first_benchmark_takes_page_faults_for_a_slow_read(product: Product) -> None:
    (loop,) = dump(product)["explanations"]["loops"]
    assert (loop["ratio"], loop["faults_per_read"]) == (3.0, 64.0)


def test_the_rows_of_a_difference_add_up_to_it(product: Product) -> None:
    found = dump(product)["explanations"]["differences"]
    for entry in found:
        assert sum(row["difference"] for row in entry["rows"]) == entry["difference"]
    assert find(found, size_bytes=1)["difference"] == 50.0


def test_a_goal_is_met_or_not(product: Product) -> None:
    goals = {(g["goal"], g["module"]): g for g in dump(product)["goals"]}
    zero = goals["pread of 1 B: share of /dev/zero's", "c"]
    assert (zero["reached"], zero["limit"], zero["met"]) == (1.375, 1.25, False)
    assert goals["pread of 512 KiB: Rust's share of C's", "rust"]["met"]
    assert not goals["pread of 512 KiB: share of tmpfs's", "c"]["met"]
    above = goals["pread of 512 KiB: instructions above 1 B, per n/8", "c"]
    assert above["reached"] == pytest.approx(69000 / 65536, abs=1e-4)


@pytest.mark.parametrize(
    ("goals", "told"),
    [
        (Goals(), ()),
        (
            Goals(rust=Limit(at_most=2)),
            ("1 B: Rust's share of C's", "512 KiB: Rust's share of C's"),
        ),
        (Goals(rust=Limit(at_most=2, from_bytes=2)), ("512 KiB: Rust's share of C's",)),
        (Goals(rust=Limit(at_most=2, to_bytes=1)), ("1 B: Rust's share of C's",)),
        (Goals(rust=Limit(at_most=2, from_bytes=2, to_bytes=3)), ()),
        (Goals(tmpfs=Limit(at_most=2)), ("512 KiB: share of tmpfs's",)),
        (Goals(zero=Limit(at_most=2)), ("1 B: share of /dev/zero's",)),
        (Goals(copy=Limit(at_most=2)), ("512 KiB: instructions above 1 B, per n/8",)),
    ],
)
def test_what_a_project_does_not_want_is_no_goal(
    goals: Goals, told: tuple[str, ...], product: Product
) -> None:
    entries = plan(product, goals=goals).goals
    assert {entry.goal.removeprefix("pread of ") for entry in entries} == set(told)
    assert {entry.limit for entry in entries} <= {2.0}
    text = bench_text.render_report(plan(product, goals=goals), "out/bench")
    assert bool(told) == ("goal" in text)


def test_rust_and_c_are_compared_by_a_clock_in_words(product: Product) -> None:
    (entry,) = dump(product)["comparisons"]
    assert entry["verdict"] == "Rust slower"
    assert entry["interval"][0] <= entry["ratio"] <= entry["interval"][1]


def slower(product: Product) -> Compared:
    """Return a report in which one function of the C module takes 50 instructions more."""
    changed = tuple(
        replace(
            f,
            kernel=f.kernel + 50,
            functions=((f.functions[0][0], f.functions[0][1] + 50), *f.functions[1:]),
        )
        if (f.cell, f.timing) == ("c/c", READ)
        else f
        for f in FIGURES
    )
    return select(product, changed)


def test_a_slowdown_is_caught_and_named(product: Product) -> None:
    changes, compared = compare.compare_reports(select(product), slower(product))
    assert compared == 4, "neither the yardsticks nor cold calls are compared"
    (change,) = changes
    assert change.share == pytest.approx(50 / 1100)
    assert change.functions == (("mdriver_read_iter [mdriver_c]", 50.0),)
    text = bench_text.render_changes(changes, compared, 0.01)
    assert "mdriver_c c pread 1 B" in text
    assert "TOO MUCH" in text
    assert "+50  mdriver_read_iter [mdriver_c]" in text
    assert compare.compare_changes(changes, compared, 0.01) == ExitCode.TESTS_FAILED
    assert compare.compare_changes(changes, compared, 0.05) == ExitCode.PASSED


def test_what_a_load_costs_is_the_kernels_and_not_held(product: Product) -> None:
    load = figure("c/c", Timing(operation=Operation.LOAD), 90000)
    before = select(product, (*FIGURES, load))
    after = select(product, (*FIGURES, replace(load, kernel=95000.0)))
    assert compare.compare_reports(before, after) == ((), 4)


def test_on_another_kernel_a_growth_proves_nothing(product: Product) -> None:
    before = select(product)
    kernel = structs.replace(before.kernel, version="7.3.3-1")
    before = structs.replace(before, kernel=kernel)
    changes, compared = compare.compare_reports(before, slower(product))
    other = compare.find_other_ground(before, slower(product))
    assert other == "kernel '7.3.3-1' then, '7.3.4-1' now"
    assert compare.compare_changes(changes, compared, 0.01, other) == ExitCode.PASSED
    assert "not held" in bench_text.render_changes(changes, compared, 0.01, other)


def test_a_baseline_is_all_that_a_comparison_needs_a_line_for_each_entry(product: Product) -> None:
    text = compare.render_baseline(compare.plan_baseline(plan(product)))
    before = compare.parse_report(text, "baseline.json")
    assert compare.compare_reports(before, select(product)) == ((), 4)
    (change,), _ = compare.compare_reports(before, slower(product))
    assert change.functions == (("mdriver_read_iter [mdriver_c]", 50.0),)
    assert sum(line.startswith('{"module"') for line in text.splitlines()) == 4


def test_a_run_that_counts_less_than_before_is_no_success(product: Product) -> None:
    before, now = select(product), select(product, FIGURES[2:])
    assert compare.find_lost(before, now) == ("mdriver_c c pread 1 B",)
    changes, compared = compare.compare_reports(before, now)
    lost = compare.find_lost(before, now)
    assert compare.compare_changes(changes, compared, 0.01, lost=lost) == ExitCode.TESTS_FAILED
    assert "not counted any more: mdriver_c c pread 1 B" in bench_text.render_changes(
        changes, compared, 0.01, lost=lost
    )
    assert compare.find_lost(structs.replace(before, quick=False), now) == ()


def test_what_became_cheaper_is_no_failure(product: Product) -> None:
    changes, compared = compare.compare_reports(slower(product), select(product))
    assert len(changes) == 1
    assert compare.compare_changes(changes, compared, 0.0) == ExitCode.PASSED


def test_a_comparison_of_nothing_is_no_success() -> None:
    assert compare.compare_changes((), 0, 0.01) == ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "twinmod.test/1"}', '{"schema": "twinmod.bench/1"}']
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no report of a benchmark"):
        compare.parse_report(text, "old.json")


def test_a_report_is_read_back(product: Product) -> None:
    document = plan(product)
    text = documents.render(document)
    assert documents.parse(text, BenchReport) == document
    read = compare.parse_report(text, "old.json")
    assert read.counts == compare.select_compared(document).counts


@pytest.mark.parametrize("key", ["quick", "kernel", "parameters", "exact", "results"])
def test_a_report_without_what_a_comparison_uses_is_refused(product: Product, key: str) -> None:
    values = dump(product)
    del values[key]
    with pytest.raises(ConfigError, match="no report of a benchmark"):
        compare.parse_report(json.dumps(values), "old.json")


@pytest.mark.parametrize("key", ["operation", "mode", "instructions_per_call"])
def test_a_count_without_what_a_comparison_uses_is_refused(product: Product, key: str) -> None:
    values = dump(product)
    del values["results"][0][key]
    with pytest.raises(ConfigError, match="no report of a benchmark"):
        compare.parse_report(json.dumps(values), "old.json")


def test_the_baseline_of_the_project_is_one() -> None:
    path = Path(__file__).resolve().parents[1] / "bench/baseline.json"
    text = path.read_text()
    assert compare.render_baseline(compare.parse_report(text, str(path))) == text


def test_a_count_that_did_not_settle_is_marked_and_fails_the_run(product: Product) -> None:
    document = plan(product, (replace(FIGURES[0], settled=False), *FIGURES[2:]))
    assert compare.compare_settled(document) == ExitCode.TESTS_FAILED
    text = bench_text.render_report(document, "out/bench")
    assert "1100?" in text
    assert "did not settle: mdriver_c c pread 1 B" in text
    assert compare.compare_settled(plan(product)) == ExitCode.PASSED


@pytest.mark.parametrize(
    ("vms", "loads", "said"),
    [
        (1, 1, "one sample of each call: no spread"),
        (2, 1, "largest spread 0.100%"),
        (1, 2, "largest spread 0.100%"),
    ],
)
def test_one_sample_has_no_spread_that_could_be_told(vms: int, loads: int, said: str) -> None:
    exact = ExactRun(vms=vms, loads=loads, rounds=7, qemu="QEMU 10", spread=0.001)
    how = f"boots: {vms}, loads after each: {loads}; QEMU 10"
    assert bench_text.render_counting(exact) == [how, said]


def test_the_text_says_that_emulation_is_not_time(product: Product) -> None:
    text = bench_text.render_report(plan(product), "out/bench")
    assert "tcg: emulation, not time" in text
    assert "out/bench/report.json" in text


def count(language: str, real_s: float, actual: int = 169) -> CellResult:
    cell = Cell(module=f"mdriver_{language}", label=language, tester="c")
    taken = Count(target=169, actual=actual, real_s=real_s, user_s=0.1, system_s=0.2)
    return CellResult(
        cell=cell, outcome=Outcome.PASSED if actual == 169 else Outcome.FAILED, count=taken
    )


def test_a_counter_that_was_repeated_has_an_interval_and_a_verdict(tree: KernelTree) -> None:
    results = tuple(
        count(language, factor * seconds)
        for seconds in (1.0, 2.0, 1.5)
        for language, factor in (("c", 1.0), ("rust", 0.9))
    )
    counting = counter.Counting(threads=2, increments=50, method="lock", repeats=3, limit_s=60)
    document = counter.plan_counter_report(results, model.plan_kernel(tree), "kvm", counting)
    c, rust = document.cells
    assert c.interval_s is not None
    assert rust.interval_s is not None
    assert (c.real_s, c.interval_s.median) == ((1.0, 2.0, 1.5), 1.5)
    assert rust.interval_s.low <= 1.35 <= rust.interval_s.high
    (comparison,) = document.comparisons
    assert comparison.verdict == "Rust faster"
    assert "kvm: time" in counter.render_counter(document)


def test_what_a_counter_lost_is_shown(tree: KernelTree) -> None:
    counting = counter.Counting(threads=2, increments=50, method="racy", repeats=2, limit_s=60)
    counts = (count("c", 1.0, actual=160), count("c", 1.0))
    document = counter.plan_counter_report(counts, model.plan_kernel(tree), "tcg", counting)
    row = counter.render_counter(document).splitlines()[1].split()
    assert row[:3] == ["c/c", "169", "9"]
