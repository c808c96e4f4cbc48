"""Values as words for people: sizes, counts, ages, metrics; and how wide text is."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache

__all__ = [
    "age",
    "ago",
    "cells",
    "count",
    "duration",
    "listed",
    "metric",
    "number",
    "shape",
    "shorten",
    "size",
    "timestamp",
]

_LISTED = 5  # JSON names them all
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3_600, 86_400, 365 * 86_400


def size(nbytes: int) -> str:
    """Return a length in bytes in readable units: `142 B`, `1.4 MiB`, `98 GiB`."""
    if nbytes < 1024:
        return f"{nbytes} B"
    power = 1
    while power < len(_UNITS) and round(nbytes / 1024**power) >= 1024:
        power += 1
    value, unit = nbytes / 1024**power, _UNITS[power - 1]
    return f"{value:.1f} {unit}" if round(value, 1) < 100 else f"{value:.0f} {unit}"


def count(number_of: int, noun: str) -> str:
    """Return a number with its noun: `1 file`, `12,000 files`."""
    return f"{number_of:,} {noun}" if number_of == 1 else f"{number_of:,} {noun}s"


def number(value: int | None) -> str:
    """Return an integer, or `-` for none."""
    return "-" if value is None else str(value)


def metric(value: float) -> str:
    """Return a measured value with five significant digits."""
    return f"{value:.5g}"


def listed(items: Iterable[str], separator: str) -> str:
    """Return the first few items in a line, and how many more there are."""
    every = list(items)
    rest = len(every) - _LISTED
    return separator.join(every[:_LISTED]) + (f" and {rest:,} more" if rest > 0 else "")


def shape(dimensions: Sequence[int]) -> str:
    """Return a shape as the field writes it: `[768, 3072]`."""
    return f"[{', '.join(map(str, dimensions))}]"


def timestamp(moment: datetime) -> str:
    """Return a UTC time to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def age(moment: datetime, now: datetime) -> str:
    """Return how long ago `moment` was, in its largest unit: `5 s`, `12 min`, `3 h`, `2 d`, `1.5 y`.

    A moment in the future, as clocks that disagree produce it, is `in 3 h`.
    """
    seconds = int((now - moment).total_seconds())
    if seconds < 0:
        return f"in {duration(-seconds)}"
    return duration(seconds)


def ago(moment: datetime, now: datetime) -> str:
    """Return how long ago `moment` was as part of a sentence: `3 h ago`, `in 3 h`."""
    text = age(moment, now)
    return text if text.startswith("in ") else f"{text} ago"


def duration(seconds: int) -> str:
    """Return a length of time in its largest unit."""
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR} h"
    if seconds < 2 * _YEAR:
        return f"{seconds // _DAY} d"
    return f"{seconds / _YEAR:.1f} y"


def cells(text: str) -> int:
    """Return how many columns of a terminal an escaped text takes."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """Return an escaped text in at most `width` columns, shortened in the middle."""
    if cells(text) <= width:
        return text
    room = width - len(ellipsis)
    if room <= 0:
        return ellipsis[:width]
    head = _take(text, (room + 1) // 2)
    tail = _take(text[::-1], room - cells(head))[::-1]
    return f"{head}{ellipsis}{tail}"


def _take(text: str, width: int) -> str:
    """Return the longest beginning of `text` that fits into `width` columns."""
    used = 0
    for position, char in enumerate(text):
        used += _cell(char)
        if used > width:
            return text[:position]
    return text


@lru_cache(4096)
def _cell(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
