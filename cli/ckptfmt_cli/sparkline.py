"""A curve of values in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ckptfmt_cli.terminal import Terminal

__all__ = ["sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-~=+*#"
_NOTHING = " "


def sparkline(values: Sequence[float], width: int, terminal: Terminal) -> str:
    """Return the values as a curve of at most `width` characters; more values than that are averaged in groups.

    A value that is not finite leaves a gap. Values that are all equal make a flat line.
    """
    levels = _BLOCKS if terminal.unicode else _ASCII
    points = [_mean(group) for group in _groups(values, width)]
    finite = [point for point in points if point is not None]
    if not finite:
        return _NOTHING * len(points)
    low, high = min(finite), max(finite)
    return "".join(_NOTHING if point is None else levels[_level(point, low, high, len(levels))] for point in points)


def _groups(values: Sequence[float], width: int) -> list[Sequence[float]]:
    if len(values) <= width:
        return [values[position : position + 1] for position in range(len(values))]
    bounds = [position * len(values) // width for position in range(width + 1)]
    return [values[start:end] for start, end in pairwise(bounds)]


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(value / len(finite) for value in finite) if finite else None


def _level(point: float, low: float, high: float, levels: int) -> int:
    # Halves first: the span of two doubles can be more than a double holds.
    span = high / 2 - low / 2
    return min(levels - 1, int((point / 2 - low / 2) / span * levels)) if span > 0 else levels // 2
