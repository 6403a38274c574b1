# SPDX-License-Identifier: GPL-2.0-only
"""The page says what a reader needs, also when not all of it is there."""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from twinmod.base import documents, templates
from twinmod.bench import counter as bench_counter
from twinmod.bench import report
from twinmod.bench import text as bench_text
from twinmod.bench.counter import CounterReport
from twinmod.bench.document import BenchReport, BuildEntry, ExactRun, Mode, WallRun
from twinmod.bench.figures import Figure
from twinmod.bench.project import Demonstration, Goals
from twinmod.builds.product import Product
from twinmod.cells.model import Cell, CellResult, Loop, YardsticksCell
from twinmod.errors import ConfigError
from twinmod.experiments.zoo import BugEntry, ExpectedEntry, Stop, VerdictEntry, ZooReport
from twinmod.guest.protocol import TMPFS_FILE, BufferKind, Count, Operation, Outcome, Timing, Turns
from twinmod.html import document as html_document
from twinmod.html import run
from twinmod.html.document import Reports
from twinmod.kernels import model
from twinmod.kernels.model import KernelEntry, KernelTree
from twinmod.matrix.report import TestReport, TestsReport
from twinmod.project import config as project_config
from twinmod.project import rules
from twinmod.project.config import Config
from twinmod.project.model import Language

DEMONSTRATION = Demonstration(
    size_bytes=9,
    passes=2,
    name="Slow & low",
    title="Why <it> is slow",
    cause="Pages are not there.",
    remark="They come & stay.",
)

#: The fixture of a verb's report, where it is not called as the verb is.
FIXTURES = {"test": "test_report"}

RULES = (("R1", "The device"), ("R2", "Its size & <limits>"))
KERNEL = KernelEntry(release="7.3.4", origin="stock", suite="", rustc="1.85", version="7.3.4-1")
EXACT = ExactRun(vms=2, loads=2, rounds=7, qemu="QEMU 10", machine="-icount", spread=0.0)
WALL = WallRun(accelerator="tcg", turns=2, processors=2, reason="no KVM")

SIZES = (1, 4096, 65536, 524288)


def figures() -> tuple[Figure, ...]:
    found = []
    for operation in (Operation.PREAD, Operation.PWRITE):
        for size in SIZES:
            timing = Timing(operation=operation, size_bytes=size)
            for cell, kernel in (("c/c", 1000 + size), ("rust/c", 1050 + size)):
                functions = ((f"{operation} [{cell}]", float(kernel)),)
                found += [
                    Figure(
                        timing=made,
                        cell=cell,
                        load=1,
                        user=96,
                        kernel=kernel * factor,
                        minor_faults=faults,
                        functions=functions,
                    )
                    for made, factor, faults in (
                        (timing, 1, 0),
                        (replace(timing, buffers=BufferKind.FRESH), 10, 3),
                    )
                ]
            floor = "/dev/zero" if operation == "pread" else "/dev/null"
            found += [
                Figure(
                    timing=replace(timing, path=path),
                    cell=YardsticksCell.name,
                    load=1,
                    user=96,
                    kernel=700,
                    minor_faults=0,
                )
                for path in (floor, TMPFS_FILE)
            ]
    return tuple(found)


@pytest.fixture
def bench(product: Product) -> BenchReport:
    products = (
        replace(product, module="mdriver_c", language=Language.C),
        replace(product, module="mdriver_rust", label="rust", language=Language.RUST),
    )
    turns = tuple(
        Turns(
            timing=Timing(operation=Operation.PREAD, size_bytes=1),
            module=name,
            tester="c",
            calls=9,
            latency_ns=ns,
            minor_faults=0,
        )
        for name, ns in (("mdriver_c", (100.0, 101.0)), ("mdriver_rust", (120.0, 119.0)))
    )
    loops = tuple(
        Loop(
            cell=f"{language}/{language}",
            size_bytes=524288,
            buffers=buffers,
            read_ns=read_ns,
            write_ns=(90, 90),
            read_faults=faults,
            write_faults=(0, 0),
        )
        for language in ("c", "rust")
        for buffers, read_ns, faults in (
            (BufferKind.FRESH, (450, 90), (128, 0)),
            (BufferKind.REUSED, (90, 90), (0, 0)),
        )
    )
    return report.plan_report(
        report.Subject(kernel=KERNEL, products=products),
        report.Scope(mode=Mode.BOTH, quick=False, goals=Goals()),
        report.Counts(run=EXACT, figures=figures(), loops=loops),
        report.Times(run=WALL, turns=turns),
        builds=(
            BuildEntry(
                module="mdriver_c",
                language="c",
                cold_s=1.2,
                changed_s=1.1,
                unchanged_s=0.0,
                size_bytes=10,
                stripped_bytes=9,
                text_bytes=8,
                symbols=7,
                lines=6,
            ),
        ),
    )


@pytest.fixture
def counter(tree: KernelTree) -> CounterReport:
    cells = tuple(
        CellResult(
            cell=Cell(module=f"mdriver_{label}", label=label, tester="c"),
            outcome=Outcome.PASSED if count else Outcome.LOST,
            count=count,
        )
        for label, count in (
            ("c", Count(target=9, actual=9, real_s=1.0, user_s=0.1, system_s=0.2)),
            ("rust", Count(target=9, actual=9, real_s=2.0, user_s=0.1, system_s=0.2)),
            ("go", None),
        )
    )
    counting = bench_counter.Counting(threads=3, increments=3, method="lock", limit_s=60)
    return bench_counter.plan_counter_report(cells, model.plan_kernel(tree), "tcg", counting)


def stop(stopped_by: Stop, by: str) -> VerdictEntry:
    expected = ExpectedEntry(stopped_by=stopped_by, by=by)
    return VerdictEntry(
        stopped_by=stopped_by, by=by, evidence=("its words",), expected=expected, as_expected=True
    )


@pytest.fixture
def zoo() -> ZooReport:
    entry = BugEntry(
        name="double_free",
        kind="double free",
        why="it is often made",
        reference="CVE-2017-6074",
        kernel="kasan",
        c=stop(Stop.SANITIZER, "kasan"),
        rust=stop(Stop.COMPILE, "E0382"),
        more={"rust_unsafe": stop(Stop.SANITIZER, "kasan")},
    )
    return ZooReport(
        kernels={}, entries=(entry,), mismatches=(), absent=(), failed={}, seconds=1.0, boots=1
    )


class Text(HTMLParser):
    """The text of a page, and its tags, which must be closed as they were opened."""

    VOID = ("meta", "rect", "line", "circle", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def render(documents: dict[str, Any], demonstration: Demonstration | None = DEMONSTRATION) -> Text:
    page = html_document.plan_page(
        Reports(**documents), RULES, "2026-11-26", "0.1.0", demonstration
    )
    text = Text()
    html = templates.render_template("report.html.j2", page.values)
    text.feed(html)
    assert not text.open
    assert not re.search(r'(?:src|href)="https?:', html), "the page works without a network"
    return text


def read(text: Text) -> str:
    return " ".join(" ".join(text.parts).split())


def test_the_page_has_all_that_was_measured(
    test_report: TestReport, bench: BenchReport, zoo: ZooReport
) -> None:
    found = render({"test": test_report, "bench": bench, "zoo": zoo})
    text = read(found)
    assert "script" not in found.tags
    for needed in (
        "Its size & <limits>",
        "R2",
        "FAIL",
        "BUG: KASAN: use-after-free",
        "5571 random steps",
        "Instructions of a pread by its size",
        "512 KiB",
        "1.046",
        "emulation, not time",
        "Rust slower",
        "double free",
        "compile (E0382)",
        "CVE-2017-6074",
        "… unsafe",
        "Slow & low",
        "Why <it> is slow Pages are not there. With such a loop and 512 KiB",
        "C 3.0, Rust 3.0. They come & stay.",
        "3.0 times",
        "1.0 times",
        "64.0 faults per read",
        "Not there: counter",
    ):
        assert needed in text, needed


def test_a_project_without_a_demonstration_has_the_cold_calls_alone(bench: BenchReport) -> None:
    text = read(render({"bench": bench}, None))
    assert "With such a loop" not in text
    assert "A call whose buffer was never touched" in text


def test_every_plot_has_its_data_beside_it(bench: BenchReport) -> None:
    html = templates.render_template(
        "report.html.j2",
        html_document.plan_page(
            Reports(bench=bench), RULES, "2026-11-26", "0.1.0", DEMONSTRATION
        ).values,
    )
    figures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)
    assert len(figures) == 5
    for figure in figures:
        assert "<svg" in figure
        assert "<table>" in figure


@pytest.mark.parametrize("name", ["test", "zoo", "bench"])
def test_a_page_of_one_report_says_what_is_not_there(
    name: str, request: pytest.FixtureRequest
) -> None:
    text = read(render({name: request.getfixturevalue(FIXTURES.get(name, name))}))
    missing = [other for other in ("test", "bench", "counter", "zoo") if other != name]
    assert f"Not there: {', '.join(missing)}" in text


def test_a_part_of_a_benchmark_is_a_page_too(product: Product, bench: BenchReport) -> None:
    assert "By a clock" not in read(render({"bench": structs.replace(bench, mode=Mode.EXACT)}))
    assert "What a call costs" not in read(
        render({"bench": structs.replace(bench, mode=Mode.WALL)})
    )


def test_the_summary_fits_on_a_screen(
    test_report: TestReport, bench: BenchReport, zoo: ZooReport
) -> None:
    text = html_document.render_summary(
        Reports(test=test_report, bench=bench, zoo=zoo), RULES, "2026-11-26"
    )
    assert len(text.splitlines()) <= 24
    assert "**2 rules, 1 cells: 2 passed, 1 failed, 0 skipped** on 7.3.4." in text
    assert "| pread 1 B | 1097 | 1147 | 1.046 |" in text
    assert "The Rust compiler refused 1 of 1 kinds of bugs" in text


# -- reports of less than everything -----------------------------------------------------------


def plan_bench(
    languages: tuple[str, ...],
    mode: Mode,
    counted: tuple[Figure, ...] = (),
    timed: tuple[Turns, ...] = (),
) -> BenchReport:
    products = tuple(
        Product(
            module=f"mdriver_{name}",
            label=name,
            language=Language(name),
            path=Path("x.ko"),
            size_bytes=1,
            sha256="ab",
            vermagic="x",
            seconds=0.0,
            command="",
            up_to_date=True,
        )
        for name in languages
    )
    kernel = KernelEntry(release="6.12", origin="stock", suite="", rustc="", version="1")
    return report.plan_report(
        report.Subject(kernel=kernel, products=products),
        report.Scope(mode=mode, quick=True, goals=Goals()),
        report.Counts(run=ExactRun(spread=0.0) if mode == Mode.WALL else EXACT, figures=counted),
        report.Times(run=WallRun() if mode == Mode.EXACT else WALL, turns=timed),
    )


def take(language: str, tester: str, *latency_ns: float) -> Turns:
    return Turns(
        timing=Timing(operation=Operation.PREAD, size_bytes=1),
        module=f"mdriver_{language}",
        tester=tester,
        calls=9,
        latency_ns=latency_ns,
        minor_faults=0,
    )


def count(cell: str, timing: Timing) -> Figure:
    return Figure(timing=timing, cell=cell, load=1, user=9, kernel=99, minor_faults=1)


ONE = Timing(operation=Operation.PREAD, size_bytes=1)

#: What a benchmark can come to beside all of it.
PARTIAL = {
    "nothing at all": plan_bench(("c", "rust"), Mode.BOTH),
    "nothing by a clock": plan_bench(("c", "rust"), Mode.WALL),
    "one module": plan_bench(("c",), Mode.BOTH, (count("c/c", ONE),), (take("c", "c", 9.0),)),
    "the other module": plan_bench(
        ("rust",), Mode.BOTH, (count("rust/c", ONE),), (take("rust", "c", 9.0),)
    ),
    "the other tester": plan_bench(
        ("c", "rust"),
        Mode.BOTH,
        (count("c/rust", ONE),),
        (take("c", "rust", 9.0), take("rust", "rust", 9.0)),
    ),
    "one module timed": plan_bench(("c", "rust"), Mode.WALL, (), (take("c", "c", 9.0, 8.0),)),
    "no time that a clock tells": plan_bench(
        ("c", "rust"), Mode.WALL, (), (take("c", "c", 0.0), take("rust", "c", 0.0))
    ),
    "fresh pages alone": plan_bench(
        ("c", "rust"), Mode.EXACT, (count("c/c", replace(ONE, buffers=BufferKind.FRESH)),)
    ),
    "an operation of its own": plan_bench(
        ("c", "rust"), Mode.EXACT, (count("c/c", Timing(operation=Operation.OPEN)),)
    ),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_benchmark_of_less_than_everything_is_shown(name: str) -> None:
    document = PARTIAL[name]
    assert "out/bench/report.json" in bench_text.render_report(document, "out/bench")
    assert "6.12" in read(render({"bench": document}))
    assert html_document.render_summary(Reports(bench=document), RULES, "2026-11-26").endswith(
        "machine.\n"
    )


def test_a_module_without_a_twin_is_shown_alone() -> None:
    document = PARTIAL["one module"]
    text = bench_text.render_report(document, "out/bench")
    assert re.search(r"^ns of a call, tester c +C$", text, re.MULTILINE)
    assert re.search(r"^pread 1 B +9$", text, re.MULTILINE)
    page = render({"bench": document})
    assert "pread 1 B 9" in read(page)
    assert "One driver, in C" in read(page)
    assert "Rust / C" not in read(page)
    summary = html_document.render_summary(Reports(bench=document), RULES, "2026-11-26")
    assert "| instructions of a call | C |\n|---|---:|\n| pread 1 B | 108 |" in summary


def test_what_was_not_measured_is_said() -> None:
    text = bench_text.render_report(PARTIAL["nothing at all"], "out/bench")
    assert "no call was counted" in text
    assert "no call was timed" in text


def test_times_of_nothing_are_not_compared() -> None:
    assert PARTIAL["no time that a clock tells"].comparisons == ()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    checkout = Path(__file__).resolve().parents[2]
    for name in ("pyproject.toml", "DEVICE.md", "tests/bench/bench.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((checkout / name).read_bytes())
    return project_config.read_config(tmp_path)


def test_a_report_of_nothing_says_what_to_run(config: Config) -> None:
    with pytest.raises(ConfigError, match="nothing to report yet"):
        run.run_report(config)


@pytest.mark.parametrize("text", ["{", '{"schema": "twinmod.zoo/1"}', "[]"])
def test_a_report_that_is_not_whole_is_named(config: Config, text: str) -> None:
    path = config.out_dir / "test/report.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match="the report of `test` is not whole"):
        run.run_report(config)


def test_the_page_says_what_the_project_says_of_a_loop(config: Config, bench: BenchReport) -> None:
    documents.write(config.out_dir / "bench/report.json", bench)
    run.run_report(config)
    shown = (config.out_dir / "report/index.html").read_text()
    assert "<h2>Why a first benchmark sees slow reads</h2>" in shown
    run.run_report(structs.replace(config, bench_path=None))
    shown = (config.out_dir / "report/index.html").read_text()
    assert "slow reads" not in shown.lower()


def test_the_page_and_the_summary_are_written(config: Config, zoo: ZooReport) -> None:
    documents.write(config.out_dir / "zoo/report.json", zoo)
    summary = run.run_report(config)
    assert (config.out_dir / "report/summary.md").read_text() == summary
    assert "double free" in (config.out_dir / "report/index.html").read_text()


def test_of_a_run_on_several_kernels_the_configured_one_is_shown(
    config: Config, test_report: TestReport
) -> None:
    several = TestsReport(kernels=(), runs=(test_report,), totals=test_report.totals)
    for name, document in (("", several), (config.kernel.name, test_report)):
        documents.write(config.out_dir / "test" / name / "report.json", document)
    assert "1 cells: 2 passed, 1 failed" in run.run_report(config)


# -- damaged reports ---------------------------------------------------------------------------

#: What a part of a report may be instead of what it is; ... takes it out.
WRONG: tuple[object, ...] = (..., None, "x", {}, 0)


def iterate_damaged(document: Any, wrong: object) -> Iterator[tuple[str, Any]]:
    """Yield (where, a copy in which a part is wrong) for each part, of equal ones the first."""

    def walk(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value[:1])
        for key, inner in pairs:
            yield (*path, key)
            if isinstance(inner, dict | list):
                yield from walk(inner, (*path, key))

    for path in walk(document, ()):
        damaged = copy.deepcopy(document)
        inner = damaged
        for key in path[:-1]:
            inner = inner[key]
        if wrong is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = wrong
        yield "/".join(map(str, path)), damaged


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("name", ["test", "bench", "counter", "zoo"])
def test_a_damaged_report_is_shown_or_refused_in_one_error(
    name: str, wrong: object, config: Config, request: pytest.FixtureRequest
) -> None:
    path = config.out_dir / name / "report.json"
    path.parent.mkdir(parents=True)
    whole = documents.to_json(request.getfixturevalue(FIXTURES.get(name, name)))
    refused = []
    for where, damaged in iterate_damaged(whole, wrong):
        path.write_text(json.dumps(damaged))
        try:
            run.run_report(config)
        except ConfigError as error:
            refused.append((where, error.message, error.hint))
    assert "schema" in [where for where, _, _ in refused]
    said = f"the report of `{name}` is not whole, or of another version of twinmod"
    assert {(message, hint) for _, message, hint in refused} == {(said, f"twinmod {name}")}


def test_a_report_whose_values_contradict_each_other_is_named(
    config: Config, bench: BenchReport
) -> None:
    parts = tuple(structs.replace(one, parts={}) for one in bench.explanations.parts)
    explanations = structs.replace(bench.explanations, parts=parts)
    contradicting = structs.replace(bench, explanations=explanations)
    documents.write(config.out_dir / "bench/report.json", contradicting)
    with pytest.raises(ConfigError, match="the report of `bench` is not whole"):
        run.run_report(config)


def test_a_report_with_another_key_is_named_with_it(config: Config, zoo: ZooReport) -> None:
    path = config.out_dir / "zoo/report.json"
    documents.write(path, zoo)
    path.write_text(path.read_text().replace('"stopped_by"', '"stopped"'))
    with pytest.raises(ConfigError) as caught:
        run.run_report(config)
    why = dict(caught.value.facts)["why"]
    assert "`stopped`" in why
    assert "$.entries[0]" in why


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"[" * 100_000, b'{"schema": "twinmod.test/1", "cells": NaN}'],
    ids=["no text", "too deep", "not a number"],
)
def test_a_report_that_cannot_be_read_is_named(config: Config, content: bytes) -> None:
    path = config.out_dir / "test/report.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="the report of `test` is not whole"):
        run.run_report(config)


def test_a_contract_that_is_no_text_is_named(config: Config) -> None:
    assert config.contract_path is not None
    config.contract_path.write_bytes(b"## R1 \xff")
    with pytest.raises(ConfigError, match="the contract cannot be read"):
        rules.read_rules(config)


def test_a_message_that_is_no_text_is_in_the_page(config: Config, test_report: TestReport) -> None:
    narrowed = structs.replace(test_report, narrowed="-k '\udcff'")
    documents.write(config.out_dir / "test/report.json", narrowed)
    run.run_report(config)
    assert "\\udcff" in (config.out_dir / "report/index.html").read_text()


def test_what_is_made_is_the_same_however_it_is_run(
    config: Config, zoo: ZooReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents.write(config.out_dir / "zoo/report.json", zoo)
    made = []
    for session in ("", "report"):
        if session:
            monkeypatch.setenv("NOX_CURRENT_SESSION", session)
        run.run_report(config)
        files = sorted((config.out_dir / "report").iterdir())
        made.append([(file.name, file.read_bytes()) for file in files])
    assert made[0] == made[1]
