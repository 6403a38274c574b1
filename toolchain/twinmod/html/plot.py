# SPDX-License-Identifier: GPL-2.0-only
"""Plots as SVG that needs no script and takes its colours from the page around it. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 640, 360

#: Room for the axes, and for what is written at the end of a line.
LEFT, RIGHT, TOP, BOTTOM = 66, 100, 14, 40

ROW = 26
LABEL = 170
BAR_RIGHT = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a plot."""

    name: str
    # The class that gives it its colour.
    style: str
    # Both above 0.
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of a plot."""

    label: str
    # How a value on it is written.
    render: Callable[[float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of a bar plot."""

    label: str
    # (class, what it is, how much), side by side.
    parts: tuple[tuple[str, str, float], ...]
    # Written behind it.
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A row of a plot of intervals."""

    label: str
    low: float
    middle: float
    high: float


def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _frame(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'
    )


def plan_decades(low: float, high: float) -> tuple[float, ...]:
    """Return the powers of ten from the last one not above a range to the first one not below."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return tuple(10.0**power for power in range(first, max(last, first + 1) + 1))


def spread_labels(positions: Sequence[float], distance: float) -> list[float]:
    """Return where labels stand that want to be at some positions and may not touch each other."""
    ordered = sorted(range(len(positions)), key=lambda number: positions[number])
    found = list(positions)
    for before, number in pairwise(ordered):
        found[number] = max(found[number], found[before] + distance)
    return found


def render_lines(lines: Sequence[Line], title: str, x_axis: Axis, y_axis: Axis) -> str:
    """Return a plot with two logarithmic axes; a position on the first for each value there is.

    Args:
        lines: At least one, with a point at least.
        title: What a reader hears who does not see it.
        x_axis: The one below.
        y_axis: The one on the left.
    """
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    ticks = plan_decades(min(ys), max(ys))
    x_span = math.log10(xs[-1] / xs[0]) or 1.0
    y_span = math.log10(ticks[-1] / ticks[0])
    inner, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(x: float) -> float:
        return LEFT + inner * math.log10(x / xs[0]) / x_span

    def y_of(y: float) -> float:
        return TOP + tall * (1 - math.log10(y / ticks[0]) / y_span)

    parts = [_rule(LEFT, y_of(tick), LEFT + inner, y_of(tick), "grid") for tick in ticks]
    parts += [_text(LEFT - 6, y_of(tick) + 4, y_axis.render(tick), "end") for tick in ticks]
    parts += [_text(x_of(x), HEIGHT - BOTTOM + 16, x_axis.render(x), "middle") for x in xs]
    parts.append(_text(LEFT + inner / 2, HEIGHT - 6, x_axis.label, "middle", "axis"))
    parts.append(_text(LEFT, 10, y_axis.label, "start", "axis"))
    for line in lines:
        where = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{where}" class="line {line.style}"/>')
        parts += [
            f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" class="dot {line.style}"/>'
            for x, y in line.points
        ]
    ends = [y_of(line.points[-1][1]) for line in lines]
    for line, y in zip(lines, spread_labels(ends, 15), strict=True):
        parts.append(
            _text(x_of(line.points[-1][0]) + 8, y + 4, line.name, "start", f"name {line.style}")
        )
    return _frame(WIDTH, HEIGHT, title, parts)


def render_bars(bars: Sequence[Bar], title: str) -> str:
    """Return rows of bars, at least one, whose parts stand side by side; the longest fills its row.

    None is longer than nothing where all are 0.
    """
    longest = max(sum(amount for *_, amount in bar.parts) for bar in bars) or 1.0
    inner = WIDTH - LABEL - BAR_RIGHT
    parts = []
    for number, bar in enumerate(bars):
        y = number * ROW + 4
        parts.append(_text(LABEL - 8, y + 14, bar.label, "end"))
        x = float(LABEL)
        for style, what, amount in bar.parts:
            width = inner * amount / longest
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 8}" '
                f'class="bar {style}"><title>{escape(what)}</title></rect>'
            )
            x += width
        parts.append(_text(x + 6, y + 14, bar.note))
    return _frame(WIDTH, len(bars) * ROW + 8, title, parts)


def render_ranges(ranges: Sequence[Range], title: str, reference: float) -> str:
    """Return rows of intervals, at least one, on one axis, with a line at a reference."""
    low = min(*(r.low for r in ranges), reference)
    high = max(*(r.high for r in ranges), reference)
    margin = (high - low) * 0.05 or 0.01
    low, high = low - margin, high + margin
    inner, bottom = WIDTH - LABEL - 20, len(ranges) * ROW + 8

    def x_of(value: float) -> float:
        return LABEL + inner * (value - low) / (high - low)

    parts = [_rule(x_of(reference), 0, x_of(reference), bottom, "reference")]
    for number, row in enumerate(ranges):
        y = number * ROW + 16
        style = "above" if row.low > reference else "below" if row.high < reference else "level"
        parts.append(_text(LABEL - 8, y + 4, row.label, "end"))
        parts.append(_rule(x_of(row.low), y, x_of(row.high), y, f"range {style}"))
        parts.append(f'<circle cx="{x_of(row.middle):.1f}" cy="{y}" r="4" class="dot {style}"/>')
    ticks = (low + margin, reference, high - margin)
    parts += [_text(x_of(value), bottom + 14, f"{value:.2f}", "middle") for value in ticks]
    return _frame(WIDTH, bottom + 22, title, parts)
