"""Requests to leave that come as signals: noted at once, met when a step is done."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

from ckptfmt.torch.failures import UsageError

__all__ = ["LEAVE_SIGNALS", "LeaveSignals"]

LEAVE_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class LeaveSignals:
    """Notes the first of some signals. Further ones change nothing: a save under way must come to its end.

    Args:
        signals: Which ones.
    """

    def __init__(self, signals: Iterable[signal.Signals | int]) -> None:
        try:
            self._signals = tuple(signal.Signals(number) for number in signals)
        except (TypeError, ValueError):
            raise UsageError("signals: give signals of the module signal, such as (signal.SIGTERM,), or ()") from None
        self._previous: dict[signal.Signals, Any] = {}
        self._received: signal.Signals | None = None

    @property
    def received(self) -> signal.Signals | None:
        """The signal that came; None if none did."""
        return self._received

    def install(self) -> None:
        """Take over the signals. Only the main thread can; elsewhere nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._signals:
            if number not in self._previous:
                self._previous[number] = signal.signal(number, self._note)

    def remove(self) -> None:
        """Give the signals back to whoever had them."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._previous.items():
            # None: it was not set from Python, and cannot be set again.
            if handler is not None and signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if self._received is None:
            self._received = signal.Signals(number)
            # Not through sys.stderr: the signal may have come in the middle of a write to it.
            _write_to_stderr(f"ckptfmt: {self._received.name}: saving after this step, then leaving\n")


def _write_to_stderr(text: str) -> None:
    try:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, text.encode())
    except (OSError, ValueError):
        return  # nobody is there to read it
