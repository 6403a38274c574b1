# SPDX-License-Identifier: GPL-2.0-only
"""A plot is SVG with every value in it, at its place."""

from xml.etree import ElementTree as ET

import pytest

from twinmod.html import plot
from twinmod.html.plot import Bar, Line, Range

LINES = (
    Line(name="C", style="c", points=((1, 1000), (1024, 2000), (1048576, 200000))),
    Line(name="<Rust>", style="rust", points=((1, 1100), (1024, 2000), (1048576, 210000))),
)


def read(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own


def find(root: ET.Element, tag: str, style: str) -> list[ET.Element]:
    return [element for element in root.iter(tag) if style in element.get("class", "").split()]


def draw() -> ET.Element:
    x_axis = plot.Axis(label="bytes", render=lambda x: f"{x:.0f}")
    y_axis = plot.Axis(label="count", render=str)
    return read(plot.render_lines(LINES, 'by "size"', x_axis, y_axis))


def test_a_line_has_a_dot_for_each_value_and_a_larger_one_stands_higher() -> None:
    dots = find(draw(), "circle", "c")
    assert len(dots) == 3
    heights = [float(dot.get("cy", "")) for dot in dots]
    assert heights == sorted(heights, reverse=True)
    positions = [float(dot.get("cx", "")) for dot in dots]
    # A factor of 1024 is as wide everywhere: the axis is logarithmic.
    assert positions[1] - positions[0] == pytest.approx(positions[2] - positions[1], abs=0.2)


def test_texts_are_text_and_no_markup() -> None:
    texts = [element.text for element in draw().iter("text")]
    assert "<Rust>" in texts
    assert draw().get("aria-label") == 'by "size"'


def test_names_at_the_ends_of_lines_do_not_touch() -> None:
    names = [e for e in draw().iter("text") if "name" in e.get("class", "").split()]
    first, second = sorted(float(name.get("y", "")) for name in names)
    assert second - first >= 15


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(700, 90000, (100, 1e3, 1e4, 1e5)), (10, 10, (10, 100)), (0.5, 2, (0.1, 1, 10))],
)
def test_an_axis_holds_all_that_is_on_it(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert plot.plan_decades(low, high) == pytest.approx(ticks)


def test_the_parts_of_a_bar_stand_side_by_side_and_the_longest_fills_its_row() -> None:
    bars = (
        Bar(label="C", parts=(("p0", "entry", 30.0), ("p1", "copy", 10.0)), note="40"),
        Bar(label="Rust", parts=(("p0", "entry", 10.0), ("p1", "copy", 10.0)), note="20"),
    )
    rows = list(read(plot.render_bars(bars, "parts")).iter("rect"))
    spans = [(float(r.get("x", "")), float(r.get("width", ""))) for r in rows]
    assert spans[1][0] == pytest.approx(spans[0][0] + spans[0][1], abs=0.2)
    assert spans[2][1] + spans[3][1] == pytest.approx((spans[0][1] + spans[1][1]) / 2, abs=0.2)


@pytest.mark.parametrize(
    ("low", "high", "style"), [(1.1, 1.3, "above"), (0.7, 0.9, "below"), (0.9, 1.1, "level")]
)
def test_an_interval_that_does_not_reach_the_reference_stands_out(
    low: float, high: float, style: str
) -> None:
    middle = (low + high) / 2
    svg = plot.render_ranges(
        (Range(label="pread", low=low, middle=middle, high=high),), "ratio", 1.0
    )
    assert len(find(read(svg), "line", style)) == 1
