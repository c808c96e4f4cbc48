"""Values as words: sizes, counts, ages, metrics; and the width of text on a terminal."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

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
    "shorten_alike",
    "size",
    "timestamp",
]

_LISTED = 5  # JSON names them all
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_NARROW = re.compile("[ -~\xa1-\u02ff\u2026\u2581-\u2588\u2591]*")
"""ASCII, Latin, and what we draw with: one column each."""
_BOUNDARY = re.compile("[._/-]")
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
    """Return a number with its noun: `1 file`, `12,000 files`, `2 directories`."""
    if number_of != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{number_of:,} {noun}"


def number(value: int | None) -> str:
    """Return an integer, or `-` for None."""
    return "-" if value is None else str(value)


def metric(value: float) -> str:
    """Return a measured value with five significant digits."""
    return f"{value:.5g}"


def listed(items: Iterable[str], separator: str) -> str:
    """Return the first few items in one line, and the number of the others."""
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
    """Return how long ago `moment` was, for a sentence: `3 h ago`, `in 3 h`."""
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
    if _NARROW.fullmatch(text):
        return len(text)
    from wcwidth import wcswidth  # its tables take 20 ms to load, and few names need them

    return max(wcswidth(text), 0)


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """Return an escaped text in at most `width` columns, shortened in the middle."""
    if cells(text) <= width:
        return text
    room = width - len(ellipsis)
    if room <= 0:
        return ellipsis[:width]
    letters = list(text) if _NARROW.fullmatch(text) else _graphemes(text)
    head = "".join(_take(letters, (room + 1) // 2))
    tail = "".join(_take(letters[::-1], room - cells(head))[::-1])
    return f"{head}{ellipsis}{tail}"


def shorten_alike(texts: Sequence[str], width: int, ellipsis: str = "…") -> list[str]:
    """Return escaped texts in at most `width` columns, shortened where they are all the same: at their beginning.

    They are cut at the end of a word where that is enough. Only what is still too long is shortened in the middle.
    """
    excess = max(map(cells, texts), default=0) - width
    names = {text for text in texts if text}
    prefix = _common_prefix(names) if len(names) > 1 and all(map(_NARROW.fullmatch, names)) else ""
    if excess > 0 and len(prefix) > len(ellipsis):
        least = min(len(prefix), excess + len(ellipsis))
        cut = next((found.end() for found in _BOUNDARY.finditer(prefix) if found.end() >= least), least)
        texts = [ellipsis + text[cut:] if text else text for text in texts]
    return [shorten(text, width, ellipsis) for text in texts]


def _common_prefix(texts: Collection[str]) -> str:
    first, last = min(texts), max(texts)
    pairs = zip(first, last, strict=False)
    return first[: next((at for at, (one, other) in enumerate(pairs) if one != other), len(first))]


def _graphemes(text: str) -> list[str]:
    from wcwidth import iter_graphemes  # see `cells`

    return list(iter_graphemes(text))


def _take(letters: Sequence[str], width: int) -> Sequence[str]:
    """Return as many of the first letters as fit into `width` columns."""
    used = 0
    for position, letter in enumerate(letters):
        used += cells(letter)
        if used > width:
            return letters[:position]
    return letters
