"""A progress line on standard error, for work that takes a while.

It is one line that is overwritten again and again: no thread, and no terminal state that an interrupt at the wrong
moment could leave behind.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ckptfmt._core.ops.progress import Progress
from ckptfmt._escaping import escape
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import duration, shorten, size

__all__ = ["ProgressLine", "clear", "on_screen", "progress_line", "progress_text"]

_PATIENCE_SECONDS = 0.5  # shorter work shows no progress
_PERIOD_SECONDS = 0.1
_BAR_CELLS = 16
_SHORTEST_NAME = 8  # columns
_CLEAR_LINE = "\r\x1b[K"


def progress_text(progress: Progress, elapsed_seconds: float, terminal: Terminal) -> str:
    """Return the progress as text: share, bytes, rate, time left; a bar and the current file if they fit."""
    share = progress.done_bytes / max(progress.total_bytes, 1)
    rate = progress.done_bytes / max(elapsed_seconds, 1e-9)
    left = (progress.total_bytes - progress.done_bytes) / rate if rate else 0.0
    facts = [
        f"{share:4.0%}",
        f"{size(progress.done_bytes)} of {size(progress.total_bytes)}",
        f"{size(int(rate))}/s",
        f"{duration(int(left))} left",
    ]
    text = "  ".join(facts)
    room = terminal.width - 1 - len(text)  # some terminals wrap as soon as the last column is filled
    if room > _BAR_CELLS:
        full, empty = ("█", "░") if terminal.unicode else ("#", ".")
        filled = int(share * _BAR_CELLS)
        text = full * filled + empty * (_BAR_CELLS - filled) + text
        room -= _BAR_CELLS
    if room > _SHORTEST_NAME + 2:
        text += "  " + shorten(escape(Path(progress.path).name), room - 2, terminal.ellipsis)
    return shorten(text, terminal.width - 1, terminal.ellipsis)


_on_screen: set[int] = set()
"""Descriptors of the terminals that show a progress line."""


@contextmanager
def on_screen(stream: TextIO) -> Iterator[None]:
    """Let an interrupt clear the last line of a terminal, such as a question."""
    descriptor = stream.fileno() if stream.isatty() else None
    if descriptor is not None:
        _on_screen.add(descriptor)
    try:
        yield
    finally:
        if descriptor is not None:
            _on_screen.discard(descriptor)


def clear() -> None:
    """Clear every line, from a signal handler: not through streams, which may be busy."""
    for descriptor in _on_screen:
        with suppress(OSError):
            os.write(descriptor, _CLEAR_LINE.encode())


class ProgressLine:
    """Shows the progress on a terminal, a few times a second.

    Args:
        stream: The terminal.
        clock: Returns the time in seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._due = self._started + _PATIENCE_SECONDS
        self._shown = False

    def update(self, progress: Progress) -> None:
        """Show the progress, unless the last update is too recent."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + _PERIOD_SECONDS
        self._show(shown=True)
        text = progress_text(progress, now - self._started, Terminal.of(self._stream))
        self._stream.write(_CLEAR_LINE + text)
        self._stream.flush()

    def hide(self) -> None:
        """Clear the line so that something else can be written; the next update brings it back."""
        if self._shown:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()
            self._show(shown=False)

    def _show(self, *, shown: bool) -> None:
        self._shown = shown
        if self._stream.isatty():
            change = _on_screen.add if shown else _on_screen.discard
            change(self._stream.fileno())


@contextmanager
def progress_line() -> Iterator[ProgressLine | None]:
    """Yield a progress line if standard error is a terminal that can overwrite a line, else None."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    line = ProgressLine(sys.stderr)
    try:
        yield line
    finally:
        line.hide()
