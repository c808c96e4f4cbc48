"""Signals that ask the process to leave: recorded at once, obeyed after a step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any
from weakref import WeakSet

from ckptfmt._core.system.forks import release_in_children
from ckptfmt._core.training.notices import stderr_descriptor
from ckptfmt.errors import UsageError

__all__ = ["LEAVE_SIGNALS", "LeaveSignals"]

LEAVE_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class LeaveSignals:
    """Records the first of some signals. Further ones change nothing: a running save must finish.

    This applies only to the process that calls `install`. A forked child handles SIGTERM as it would without this
    class, so that `Process.terminate()` ends it. The other signals, often sent to all processes of a job, do not kill
    it: the last step may need the child, for instance a `DataLoader` worker.

    Args:
        signals: The signals.
    """

    def __init__(self, signals: Iterable[signal.Signals | int]) -> None:
        try:
            self._signals = tuple(signal.Signals(number) for number in signals)
        except (TypeError, ValueError):
            raise UsageError("signals: not signals; pass members of signal.Signals, or ()") from None
        self._previous: dict[signal.Signals, Any] = {}
        self._inherited: dict[signal.Signals, Any] = {}
        self._received: signal.Signals | None = None
        self._process = os.getpid()
        _all.add(self)
        release_in_children(self)

    @property
    def installed(self) -> frozenset[signal.Signals]:
        """The signals with a handler of this object."""
        return frozenset(self._previous)

    @property
    def received(self) -> signal.Signals | None:
        """The received signal; None if none was received."""
        return self._received

    def install(self) -> None:
        """Install the handlers. Only the main thread can; other threads do nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for number in self._signals:
            if number not in self._previous:
                self._previous[number] = signal.signal(number, self._note)

    def remove(self) -> None:
        """Restore the previous handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._previous.items():
            # None: not set from Python, so it cannot be restored.
            if handler is not None and signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        self._previous.clear()

    def release_in_child(self) -> None:
        """Restore the previous handlers in a forked child, whose only thread is the main one."""
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
            # Not through sys.stderr: the signal may have interrupted a write to it.
            with contextlib.suppress(OSError):  # stderr may have no reader
                text = f"ckptfmt: {self._received.name}: saving after this step, then exiting\n"
                os.write(stderr_descriptor(), text.encode())

    def _pass_on(self, number: signal.Signals, frame: FrameType | None) -> None:
        """Call the previous handler in a forked child, for a later handler that calls this one."""
        handler = self._inherited.get(number)
        if callable(handler):
            handler(number, frame)
        elif number == signal.SIGTERM and handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_all: WeakSet[LeaveSignals] = WeakSet()
_mask = threading.local()


def _hold_signals() -> None:
    """Block the handled signals: Python drops those that reach a child before `release_in_child`."""
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, frozenset().union(*(it.installed for it in list(_all))))


def _deliver_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


# After the import of `release_in_children`: its fork hooks must run first.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_deliver_signals, after_in_child=_deliver_signals)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Ignore a signal. Unlike SIG_IGN, this resets to the default in a program that the child executes."""
