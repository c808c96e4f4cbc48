"""What the stream that we write to can show: how wide it is, in colour or not, beyond ASCII or not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TextIO

__all__ = ["PLAIN", "Style", "Terminal"]

Style = Literal["plain", "bold", "dim", "good", "warn", "bad"]

_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "good": "32", "warn": "33", "bad": "1;31"}
_DEFAULT_WIDTH, _ABSURD_WIDTH = 80, 100_000


@dataclass(frozen=True)
class Terminal:
    """A place for text.

    Attributes:
        width: Columns. 80 where there is no terminal; the variable `COLUMNS` overrides either.
        colour: Whether styles are shown.
        unicode: Whether characters beyond ASCII arrive.
    """

    width: int = _DEFAULT_WIDTH
    colour: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO) -> Terminal:
        """Return what `stream` can show. Colour needs a terminal, and neither `NO_COLOR` nor `TERM=dumb`."""
        interactive = stream.isatty()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(_width(stream, interactive), interactive and not plain, _speaks_unicode(stream))

    @property
    def ellipsis(self) -> str:
        """What stands for left-out text."""
        return "…" if self.unicode else "..."

    def paint(self, text: str, style: Style) -> str:
        """Return `text` in a style, if styles are shown."""
        if not self.colour or style == "plain" or not text:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


PLAIN = Terminal()
"""A file or a pipe: 80 columns, no colour."""


def _width(stream: TextIO, interactive: bool) -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and 0 < int(columns) < _ABSURD_WIDTH:
        return int(columns)
    try:
        return (os.get_terminal_size(stream.fileno()).columns if interactive else 0) or _DEFAULT_WIDTH
    except (OSError, ValueError):
        return _DEFAULT_WIDTH


def _speaks_unicode(stream: TextIO) -> bool:
    try:
        "…".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
