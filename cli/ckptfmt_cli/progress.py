"""A line of progress on standard error for work that takes long enough to wonder.

It is one line that is written over and over, and nothing else: no thread and no state of the terminal that an
interrupt at the wrong moment could leave behind.
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

_PATIENCE_SECONDS = 0.5  # work that is done sooner shows no progress
_PERIOD_SECONDS = 0.1
_BAR_CELLS = 16
_SHORTEST_NAME = 8  # columns
_CLEAR_LINE = "\r\x1b[K"


def progress_text(progress: Progress, elapsed_seconds: float, terminal: Terminal) -> str:
    """Return how far the work is: share, bytes, rate, time left; a bar and the file in work where there is room."""
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
    room = terminal.width - 1 - len(text)  # some terminals break the line as soon as its last column is filled
    if room > _BAR_CELLS:
        full, empty = ("█", "░") if terminal.unicode else ("#", ".")
        filled = int(share * _BAR_CELLS)
        text = full * filled + empty * (_BAR_CELLS - filled) + text
        room -= _BAR_CELLS
    if room > _SHORTEST_NAME + 2:
        text += "  " + shorten(escape(Path(progress.path).name), room - 2, terminal.ellipsis)
    return shorten(text, terminal.width - 1, terminal.ellipsis)


_on_screen: set[int] = set()
"""Descriptors of the terminals that show a line."""


@contextmanager
def on_screen(stream: TextIO) -> Iterator[None]:
    """Let an interrupt take the last line of a terminal off the screen, such as a question."""
    descriptor = stream.fileno() if stream.isatty() else None
    if descriptor is not None:
        _on_screen.add(descriptor)
    try:
        yield
    finally:
        if descriptor is not None:
            _on_screen.discard(descriptor)


def clear() -> None:
    """Take every line off the screen, from a handler of signals: not through streams, which may be at work."""
    for descriptor in _on_screen:
        with suppress(OSError):
            os.write(descriptor, _CLEAR_LINE.encode())


class ProgressLine:
    """Shows the progress on a terminal, a few times a second.

    Args:
        stream: The terminal.
        clock: Seconds that pass.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._due = self._started + _PATIENCE_SECONDS
        self._shown = False

    def update(self, progress: Progress) -> None:
        """Show how far the work is, if it is time to."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + _PERIOD_SECONDS
        self._show(shown=True)
        text = progress_text(progress, now - self._started, Terminal.of(self._stream))
        self._stream.write(_CLEAR_LINE + text)
        self._stream.flush()

    def hide(self) -> None:
        """Take the line off the screen, so that something else can be written; the next update brings it back."""
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
    """Yield a line on standard error if that is a terminal where a line can be written over, else None."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    line = ProgressLine(sys.stderr)
    try:
        yield line
    finally:
        line.hide()
