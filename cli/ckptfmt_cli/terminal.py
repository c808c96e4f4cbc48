"""What a stream can show: its width, and whether colour and characters beyond ASCII arrive."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TextIO

import click

__all__ = ["PLAIN", "Style", "Terminal"]

Style = Literal["plain", "bold", "dim", "good", "warn", "bad"]

_STYLES: MappingProxyType[Style, dict[str, Any]] = MappingProxyType(
    {
        "plain": {},
        "bold": {"bold": True},
        "dim": {"dim": True},
        "good": {"fg": "green"},
        "warn": {"fg": "yellow"},
        "bad": {"fg": "red", "bold": True},
    }
)
_DEFAULT_WIDTH, _ABSURD_WIDTH = 80, 100_000


@dataclass(frozen=True)
class Terminal:
    """A destination for text.

    Attributes:
        width: Columns. 80 without a terminal; the variable `COLUMNS` overrides both.
        colour: Whether styles are shown.
        unicode: Whether characters beyond ASCII arrive.
    """

    width: int = _DEFAULT_WIDTH
    colour: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO) -> Terminal:
        """Return what `stream` can show. Colour needs a terminal without `NO_COLOR` and `TERM=dumb`."""
        interactive = stream.isatty()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(_width(stream, interactive), interactive and not plain, _speaks_unicode(stream))

    @property
    def ellipsis(self) -> str:
        """The mark for omitted text."""
        return "…" if self.unicode else "..."

    def paint(self, text: str, style: Style) -> str:
        """Return `text` in a style, if styles are shown."""
        if not self.colour or style == "plain" or not text:
            return text
        return click.style(text, **_STYLES[style])


PLAIN = Terminal()
"""A file or pipe: 80 columns, no colour."""


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
