"""Line charts as SVG, without a plotting library: a few lines, axes with round numbers, a legend."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptfmt._escaping import escape
from ckptfmt_cli.text import metric, shorten

__all__ = ["CHART_STYLE", "Line", "chart", "chart_height", "ticks"]

CHART_STYLE = """
.chart { font: 12px system-ui, "DejaVu Sans", sans-serif; }
.chart text { fill: #5d6770; }
.chart .title { fill: #1d2327; font-weight: 600; font-size: 14px; }
.chart .grid { stroke: #e3e7ea; }
.chart .axis { stroke: #9aa5ad; }
.chart .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.c0 { stroke: #0b63b0; fill: #0b63b0; } .c1 { stroke: #c2571a; fill: #c2571a; } .c2 { stroke: #1a7f37; fill: #1a7f37; }
.c3 { stroke: #8e3fa8; fill: #8e3fa8; } .c4 { stroke: #b3261e; fill: #b3261e; } .c5 { stroke: #7a6a10; fill: #7a6a10; }
.c6 { stroke: #0f7d80; fill: #0f7d80; } .c7 { stroke: #5b6670; fill: #5b6670; }
@media (prefers-color-scheme: dark) {
  .chart text { fill: #98a4ad; }
  .chart .title { fill: #e5e9ec; }
  .chart .grid { stroke: #2c353b; }
  .chart .axis { stroke: #5d6870; }
  .c0 { stroke: #7cb8ec; fill: #7cb8ec; } .c1 { stroke: #f0a26b; fill: #f0a26b; }
  .c2 { stroke: #6cc488; fill: #6cc488; } .c3 { stroke: #cf95e0; fill: #cf95e0; }
  .c4 { stroke: #f08b84; fill: #f08b84; } .c5 { stroke: #d6c45a; fill: #d6c45a; }
  .c6 { stroke: #5cc7c9; fill: #5cc7c9; } .c7 { stroke: #a9b4bc; fill: #a9b4bc; }
}
"""
"""Colours of charts, light and dark."""

_COLOURS = 8
_DASHES = ("", "5 3", "2 2")  # distinguish more lines than there are colours
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 40
_PLOT_HEIGHT = 190
_LEGEND_ROW, _LEGEND_COLUMN, _LEGEND_NAME = 18, 180, 24
_FAR_APART = 20
_LARGEST = 1e300  # beyond, the difference of two values can be more than a double holds
_MARKED = 60  # maximum number of points with a dot each


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: Its name in the legend.
        points: Its points, by ascending x; one whose value is not finite, or huge, leaves a gap.
    """

    name: str
    points: Sequence[tuple[float, float]]


def chart(title: str, x_title: str, lines: Sequence[Line], *, width: int, top: int = 0) -> str:
    """Return a chart as an SVG group whose upper edge is at `top`.

    Args:
        title: What it shows.
        x_title: What the x axis counts.
        lines: Its lines; a legend is drawn if there are several.
        width: Its width in pixels.
        top: Where it begins.
    """
    frame = _Frame.around(lines, width)
    parts = [
        f'<g class="chart" transform="translate(0 {top})">',
        f'<text class="title" x="{_LEFT}" y="18">{_text(title, 70)}</text>',
        *_axes(frame, x_title),
        *(_curve(line, number, frame) for number, line in enumerate(lines)),
        *(_legend(lines, width) if len(lines) > 1 else ()),
        "</g>",
    ]
    return "\n".join(parts)


def chart_height(lines: Sequence[Line], width: int) -> int:
    """Return the height of a chart in pixels."""
    rows = -(-len(lines) // _columns(width)) if len(lines) > 1 else 0
    return _TOP + _PLOT_HEIGHT + _BOTTOM + rows * _LEGEND_ROW


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers that divide a range, at most `most`."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most)) if span > 1e-300 else 0.0
    if step <= abs(low) * 1e-15:
        return [low]  # the numbers in between are all equal
    while span / step > most - 1:
        step *= 2.5 if math.isclose(step / 10 ** math.floor(math.log10(step)), 2) else 2
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True)
class _Frame:
    """The range of the values, and where in the picture they are."""

    left: float
    right: float
    low: float
    high: float
    width: int
    logarithmic: bool

    @classmethod
    def around(cls, lines: Sequence[Line], width: int) -> _Frame:
        points = [(x, y) for line in lines for x, y in line.points if _drawable(y)]
        xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
        left, right = _widened(min(xs), max(xs), 0.0)
        # Lines of very different heights would all be flat.
        logarithmic = len(lines) > 1 and min(ys) > 0 and max(ys) / min(ys) > _FAR_APART
        low, high = map(math.log10, (min(ys), max(ys))) if logarithmic else (min(ys), max(ys))
        return cls(left, right, *_widened(low, high, 0.05), width, logarithmic)

    def y_ticks(self) -> list[float]:
        """Return the values at which the y axis is marked."""
        if not self.logarithmic:
            return ticks(self.low, self.high)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1, 2, 5) if self.high - self.low < 3 else (1,)
        marks = [step * 10.0**power for power in powers for step in steps]
        return [mark for mark in marks if self.low <= math.log10(mark) <= self.high]

    def x(self, value: float) -> float:
        share = (value - self.left) / (self.right - self.left)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        value = math.log10(value) if self.logarithmic else value
        share = (value - self.low) / (self.high - self.low)
        return _TOP + _PLOT_HEIGHT * (1 - share)


def _widened(low: float, high: float, margin: float) -> tuple[float, float]:
    if low == high:
        room = abs(low) * 0.1 or 1.0
        return low - room, high + room
    wider = (high - low) * margin
    return low - wider, high + wider


def _drawable(value: float) -> bool:
    return abs(value) < _LARGEST


def _axes(frame: _Frame, x_title: str) -> Iterator[str]:
    bottom, right = _TOP + _PLOT_HEIGHT, frame.width - _RIGHT
    for value in frame.y_ticks():
        y = frame.y(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{metric(value)}</text>'
    for value in ticks(frame.left, frame.right, 8):
        if value != int(value):
            continue  # there is no half step
        yield f'<text x="{frame.x(value):.1f}" y="{bottom + 17}" text-anchor="middle">{int(value):,}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text x="{right}" y="{bottom + 33}" text-anchor="end">{_text(x_title, 30)}</text>'


def _curve(line: Line, number: int, frame: _Frame) -> str:
    colour, dash = _look(number)
    pieces: list[list[str]] = [[]]
    dots = []
    for x, y in line.points:
        if not _drawable(y):
            pieces.append([])
            continue
        place = f"{frame.x(x):.1f},{frame.y(y):.1f}"
        pieces[-1].append(place)
        dots.append(place.split(","))
    title = f"<title>{_text(line.name, 200)}</title>"
    curves = [f'<polyline class="curve {colour}"{dash} points="{" ".join(piece)}"/>' for piece in pieces if piece]
    if len(dots) <= _MARKED:
        curves += [f'<circle class="{colour}" cx="{x}" cy="{y}" r="2.2"/>' for x, y in dots]
    return f"<g>{title}{''.join(curves)}</g>"


def _look(number: int) -> tuple[str, str]:
    dash = _DASHES[number // _COLOURS % len(_DASHES)]
    return f"c{number % _COLOURS}", f' stroke-dasharray="{dash}"' if dash else ""


def _columns(width: int) -> int:
    return max(1, (width - _LEFT - _RIGHT) // _LEGEND_COLUMN)


def _legend(lines: Sequence[Line], width: int) -> Iterator[str]:
    columns = _columns(width)
    for number, line in enumerate(lines):
        x = _LEFT + number % columns * _LEGEND_COLUMN
        y = _TOP + _PLOT_HEIGHT + _BOTTOM + number // columns * _LEGEND_ROW + 4
        colour, dash = _look(number)
        yield f'<line class="curve {colour}"{dash} x1="{x}" x2="{x + 18}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{x + 24}" y="{y + 4}">{_text(line.name, _LEGEND_NAME)}</text>'


def _text(text: str, most: int) -> str:
    return html.escape(shorten(escape(text), most))
