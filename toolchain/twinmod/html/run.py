# SPDX-License-Identifier: GPL-2.0-only
"""The verb `report`: one page and one summary of what earlier runs left."""

import time
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from twinmod.base import cache, commands, documents, templates
from twinmod.base.bugs import MALFORMED
from twinmod.base.documents import Document
from twinmod.bench import project as bench_project
from twinmod.bench.counter import CounterReport
from twinmod.bench.document import BenchReport
from twinmod.bench.project import Demonstration
from twinmod.errors import ConfigError
from twinmod.experiments.zoo import ZooReport
from twinmod.guest import visible
from twinmod.html import document as html_document
from twinmod.html.document import Reports
from twinmod.matrix.report import TestReport
from twinmod.project import rules as project_rules
from twinmod.project.config import Config
from twinmod.project.rules import Rules

#: The verbs whose reports a page is made of, as far as they are there.
REPORTS = tuple(field.name for field in fields(Reports))

D = TypeVar("D", bound=Document)


def find_report(config: Config, name: str) -> Path | None:
    """Return the report that a verb left; of a run on several kernels, the configured one's."""
    folder = config.out_dir / name
    paths = (folder / config.kernel.name / "report.json", folder / "report.json")
    return next((path for path in paths if path.exists()), None)


def read_reports(
    config: Config, rules: Rules, made: str, demonstration: Demonstration | None
) -> Reports:
    """Return what earlier runs left; a page can be made of each.

    Raises:
        ConfigError: One of them is not whole, or there is none.
    """
    found = Reports(
        test=_read_report(config, "test", TestReport),
        bench=_read_report(config, "bench", BenchReport),
        counter=_read_report(config, "counter", CounterReport),
        zoo=_read_report(config, "zoo", ZooReport),
    )
    for name, alone in found.parts:
        try:
            render_pages(alone, rules, made, demonstration)
        except MALFORMED as error:
            # Its values have their types, and may still contradict each other.
            path = find_report(config, name)
            assert path is not None, "it was read"
            raise documents.plan_refusal(path, *_name_report(name), error) from error
    if not found.parts:
        raise ConfigError(
            "there is nothing to report yet",
            facts=(("folder", str(config.out_dir)),),
            hint=f"{commands.render('test')}, then {commands.render('bench')}",
        )
    return found


def _name_report(name: str) -> tuple[str, str]:
    """Return how a person calls the report of a verb, and the command that makes it."""
    return f"the report of `{name}`", commands.render(name)


def _read_report(config: Config, name: str, kind: type[D]) -> D | None:
    """Return the report that a verb left, None where it left none."""
    path = find_report(config, name)
    return documents.read(path, kind, *_name_report(name)) if path else None


def render_pages(
    reports: Reports, rules: Rules, made: str, demonstration: Demonstration | None
) -> tuple[str, str]:
    """Return the page and the summary of some reports, as text that has a form in UTF-8."""
    page = html_document.plan_page(reports, rules, made, templates.read_version(), demonstration)
    text = templates.render_template("report.html.j2", page.values)
    return visible.make_visible(text), visible.make_visible(
        html_document.render_summary(reports, rules, made)
    )


def run_report(config: Config) -> str:
    """Write the page and the summary to out/report; return the summary."""
    rules = project_rules.read_rules(config)
    made = time.strftime("%Y-%m-%d")
    demonstration = bench_project.read_bench(config).demonstration
    reports = read_reports(config, rules, made, demonstration)
    text, summary = render_pages(reports, rules, made, demonstration)
    cache.write_atomically(config.out_dir / "report/index.html", text)
    cache.write_atomically(config.out_dir / "report/summary.md", summary)
    return summary
