"""Requests to leave that come as signals: noted at once, met when a step is done."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any
from weakref import WeakSet

from ckptfmt._core.system.forks import let_go_in_children
from ckptfmt._core.training.notices import stderr_descriptor
from ckptfmt.errors import UsageError

__all__ = ["LEAVE_SIGNALS", "LeaveSignals"]

LEAVE_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class LeaveSignals:
    """Notes the first of some signals. Further ones change nothing: a save under way must come to its end.

    That is for the process that calls `install` alone. A child that it forks handles signals as it would without this,
    so that `Process.terminate()` ends it; only that signals other than SIGTERM do not kill it, which are often sent to
    all processes of a job: the step that is to be finished may need the child, a worker that loads data for instance.

    Args:
        signals: Which ones.
    """

    def __init__(self, signals: Iterable[signal.Signals | int]) -> None:
        try:
            self._signals = tuple(signal.Signals(number) for number in signals)
        except (TypeError, ValueError):
            raise UsageError("signals: give signals of the module signal, such as (signal.SIGTERM,), or ()") from None
        self._previous: dict[signal.Signals, Any] = {}
        self._inherited: dict[signal.Signals, Any] = {}
        self._received: signal.Signals | None = None
        self._process = os.getpid()
        _all.add(self)
        let_go_in_children(self)

    @property
    def installed(self) -> frozenset[signal.Signals]:
        """The signals that were taken over."""
        return frozenset(self._previous)

    @property
    def received(self) -> signal.Signals | None:
        """The signal that came; None if none did."""
        return self._received

    def install(self) -> None:
        """Take over the signals. Only the main thread can; elsewhere nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
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

    def let_go(self) -> None:
        """Give the signals back in a forked child, which has one thread, the main one."""
        self._inherited, self._previous = self._previous, {}
        self._received = None
        for number, handler in self._inherited.items():
            if signal.getsignal(number) == self._note:
                default = signal.SIG_DFL if number == signal.SIGTERM else _do_nothing
                signal.signal(number, default if handler in (signal.SIG_DFL, None) else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._pass_on(signal.Signals(number), frame)
            return
        if self._received is None:
            self._received = signal.Signals(number)
            # Not through sys.stderr: the signal may have come in the middle of a write to it.
            with contextlib.suppress(OSError):  # nobody is there to read it
                text = f"ckptfmt: {self._received.name}: saving after this step, then leaving\n"
                os.write(stderr_descriptor(), text.encode())

    def _pass_on(self, number: signal.Signals, frame: FrameType | None) -> None:
        """Do in a forked child, for a handler that was set later and calls this one, what was done before."""
        handler = self._inherited.get(number)
        if callable(handler):
            handler(number, frame)
        elif number == signal.SIGTERM and handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_all: WeakSet[LeaveSignals] = WeakSet()
_mask = threading.local()


def _hold_signals() -> None:
    """Hold the signals that were taken over: Python drops those that reach a child before `let_go`."""
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, frozenset().union(*(it.installed for it in list(_all))))


def _deliver_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


# After `let_go_in_children` was imported: what it registered comes first.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_deliver_signals, after_in_child=_deliver_signals)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal. A program that the child executes gets the default back, which it would not from SIG_IGN."""
