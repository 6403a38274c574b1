# SPDX-License-Identifier: GPL-2.0-only
"""The page says what a reader needs, also when not all of it is there."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from twinmod import costs, flow, page, resources
from twinmod.config import Config, read_config
from twinmod.errors import ConfigError
from twinmod.specs import (
    TMPFS_FILE,
    YARDSTICKS,
    Figure,
    Loop,
    Product,
    Timing,
    Turns,
)

RULES = (("R1", "The device"), ("R2", "Its size & <limits>"))
SIZES = (1, 4096, 65536, 524288)


def figures() -> tuple[Figure, ...]:
    found = []
    for operation in ("pread", "pwrite"):
        for size in SIZES:
            timing = Timing(operation=operation, size_bytes=size)
            for cell, kernel in (("c/c", 1000 + size), ("rust/c", 1050 + size)):
                functions = ((f"{operation} [{cell}]", float(kernel)),)
                found += [
                    Figure(timing=made, cell=cell, load=1, user=96, kernel=kernel * factor,
                           minor_faults=faults, functions=functions)
                    for made, factor, faults in (
                        (timing, 1, 0), (replace(timing, buffers="fresh"), 10, 3))
                ]  # fmt: skip
            floor = "/dev/zero" if operation == "pread" else "/dev/null"
            found += [
                Figure(timing=replace(timing, path=path), cell=YARDSTICKS.name, load=1, user=96,
                       kernel=700, minor_faults=0)
                for path in (floor, TMPFS_FILE)
            ]  # fmt: skip
    return tuple(found)


@pytest.fixture
def bench(product: Product) -> dict[str, Any]:
    products = (replace(product, module="mdriver_c", language="c"),
                replace(product, module="mdriver_rust", language="rust"))  # fmt: skip
    turns = tuple(
        Turns(timing=Timing(operation="pread", size_bytes=1), module=name, tester="c", calls=9,
              latency_ns=ns, minor_faults=0)
        for name, ns in (("mdriver_c", (100.0, 101.0)), ("mdriver_rust", (120.0, 119.0)))
    )  # fmt: skip
    loops = tuple(
        Loop(cell=f"{language}/{language}", size_bytes=524288, buffers=buffers, read_ns=read_ns,
             write_ns=(90, 90), read_faults=faults, write_faults=(0, 0))
        for language in ("c", "rust")
        for buffers, read_ns, faults in (("fresh", (450, 90), (128, 0)),
                                         ("reused", (90, 90), (0, 0)))
    )  # fmt: skip
    return costs.plan_report(
        kernel={"release": "7.3.4", "version": "7.3.4-1", "origin": "stock", "rustc": "1.85"},
        parameters="", mode="both", quick=False, products=products, figures=figures(),
        turns=turns, loops=loops, builds=({
            "module": "mdriver_c", "cold_s": 1.2, "changed_s": 1.1, "unchanged_s": 0.0,
            "stripped_bytes": 9, "text_bytes": 8, "symbols": 7, "lines": 6},),
        whole={"seconds": 60, "modules": 4043, "compiled": 77, "linked": 0, "finished": False},
        exact={"vms": 2, "loads": 2, "rounds": 7, "qemu": "QEMU 10", "machine": "-icount"},
        wall={"accelerator": "tcg", "turns": 2, "processors": 2, "reason": "no KVM"},
    )  # fmt: skip


@pytest.fixture
def test() -> dict[str, Any]:
    tests = [{"id": "a", "rule": "R1", "outcome": "passed"},
             {"id": "b", "rule": "R2", "outcome": "failed"},
             {"id": "c", "rule": "R1 R2", "outcome": "passed"}]  # fmt: skip
    cell = {"module": "mdriver_c", "tester": "c", "tests": tests, "kernel_faults": [
        {"lines": ["BUG: KASAN: use-after-free", "  at: mdriver_read"], "test": "b"}]}  # fmt: skip
    return {
        "schema": "twinmod.test/1", "modules": [{"module": "mdriver_c", "language": "c"}],
        "cells": [cell], "totals": {"passed": 2, "failed": 1, "skipped": 0},
        "kernel": {"release": "7.3.4"}, "accelerator": "tcg", "narrowed": "",
        "differential": {"steps": 5571, "outcome": "passed"},
    }  # fmt: skip


@pytest.fixture
def zoo() -> dict[str, Any]:
    stop = {"stopped_by": "sanitizer", "by": "kasan"}
    refused = {"stopped_by": "compile", "by": "E0382"}
    return {
        "schema": "twinmod.zoo/1", "mismatches": [], "seconds": 1.0, "kernels": {},
        "entries": [{"kind": "double free", "reference": "CVE-2017-6074", "c": stop,
                     "rust": refused, "more": {"rust_unsafe": stop}}],
    }  # fmt: skip


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


def render(documents: dict[str, Any]) -> Text:
    values = page.plan_page(documents, RULES, "2026-11-26", "0.1.0")
    text = Text()
    html = resources.render_template("report.html.j2", values)
    text.feed(html)
    assert not text.open
    assert not re.search(r'(?:src|href)="https?:', html), "the page works without a network"
    return text


def read(text: Text) -> str:
    return " ".join(" ".join(text.parts).split())


def test_the_page_has_all_that_was_measured(
    test: dict[str, Any], bench: dict[str, Any], zoo: dict[str, Any]
) -> None:
    found = render({"test": test, "bench": bench, "zoo": zoo})
    text = read(found)
    assert "script" not in found.tags
    for needed in (
        "Its size & <limits>", "R2", "FAIL", "BUG: KASAN: use-after-free", "5571 random steps",
        "Instructions of a pread by its size", "512 KiB", "1.046", "emulation, not time",
        "Rust slower", "0 of 4043 modules", "double free",
        "compile (E0382)", "CVE-2017-6074", "… unsafe",
        "3.0 times", "1.0 times", "64.0 faults per read", "C 3.0, Rust 3.0.", "Not there: counter",
    ):  # fmt: skip
        assert needed in text, needed


def test_every_plot_has_its_data_beside_it(bench: dict[str, Any]) -> None:
    html = resources.render_template(
        "report.html.j2", page.plan_page({"bench": bench}, RULES, "2026-11-26", "0.1.0")
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
    text = read(render({name: request.getfixturevalue(name)}))
    missing = [other for other in ("test", "bench", "counter", "zoo") if other != name]
    assert f"Not there: {', '.join(missing)}" in text


def test_a_part_of_a_benchmark_is_a_page_too(product: Product, bench: dict[str, Any]) -> None:
    assert "By a clock" not in read(render({"bench": {**bench, "mode": "exact"}}))
    assert "What a call costs" not in read(render({"bench": {**bench, "mode": "wall"}}))


def test_the_summary_fits_on_a_screen(
    test: dict[str, Any], bench: dict[str, Any], zoo: dict[str, Any]
) -> None:
    text = page.render_summary({"test": test, "bench": bench, "zoo": zoo}, RULES, "2026-11-26")
    assert len(text.splitlines()) <= 24
    assert "**2 rules, 1 cells: 2 passed, 1 failed, 0 skipped** on 7.3.4." in text
    assert "| pread 1 B | 1097 | 1147 | 1.046 |" in text
    assert "The Rust compiler refused 1 of 1 kinds of bugs" in text


@pytest.fixture
def config(tmp_path: Path) -> Config:
    checkout = Path(__file__).resolve().parents[2]
    for name in ("pyproject.toml", "DEVICE.md"):
        (tmp_path / name).write_bytes((checkout / name).read_bytes())
    return read_config(tmp_path)


def test_a_report_of_nothing_says_what_to_run(config: Config) -> None:
    with pytest.raises(ConfigError, match="nothing to report yet"):
        flow.run_report(config)


@pytest.mark.parametrize("text", ["{", '{"schema": "twinmod.zoo/1"}', "[]"])
def test_a_report_that_is_not_whole_is_named(config: Config, text: str) -> None:
    path = config.out_dir / "test/report.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match="the report of `test` is not whole"):
        flow.run_report(config)


def test_the_page_and_the_summary_are_written(config: Config, zoo: dict[str, Any]) -> None:
    path = config.out_dir / "zoo/report.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(zoo))
    summary = flow.run_report(config)
    assert (config.out_dir / "report/summary.md").read_text() == summary
    assert "double free" in (config.out_dir / "report/index.html").read_text()
