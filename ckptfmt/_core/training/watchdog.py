"""Watchdog: a hung run ends itself, so that a scheduler can restart it."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable
from functools import partial
from weakref import WeakSet

from ckptfmt._core.training.notices import notify, stderr_descriptor
from ckptfmt.errors import UsageError

__all__ = ["HangTimer"]


class HangTimer:
    """Ends the process with exit code 1, after writing the stacks of all threads to stderr, unless reset in time.

    The timer runs outside the interpreter: it also fires while a library call blocks the interpreter.

    Args:
        seconds: Timeout in seconds; None for no timeout.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise UsageError(f"hang_timeout is {seconds}; pass a number of seconds above 0, or None")
        self._seconds = seconds
        self._set_at: float | None = None
        self._refused = False
        _timers.add(self)

    def reset(self) -> None:
        """Restart the timeout. If no thread can be started for the timer, report it and try again at the next reset."""
        if self._seconds is None:
            return
        now = time.monotonic()
        # Setting the timer starts a thread. It may fire this much too late, never too early.
        if self._set_at is not None and now - self._set_at < self._seconds / 50:
            return
        self._set_at = now
        self._arm(now)

    def stop(self) -> None:
        """Stop the timer for good."""
        if self._set_at is not None:
            faulthandler.cancel_dump_traceback_later()
            self._set_at = None

    def disarm(self) -> None:
        """Suspend the timer."""
        if self._set_at is not None:
            faulthandler.cancel_dump_traceback_later()

    def rearm(self) -> None:
        """Continue after `disarm`, for the rest of the timeout."""
        if self._set_at is not None:
            self._arm(self._set_at)

    def forget(self) -> None:
        """Forget that the timer was set."""
        self._set_at = None

    def _arm(self, begun: float) -> None:
        assert self._seconds is not None, "only a timer with a time is set"
        left = max(begun + self._seconds * 1.02 - time.monotonic(), 0.001)
        try:
            faulthandler.dump_traceback_later(left, exit=True, file=stderr_descriptor())
        except (RuntimeError, MemoryError):  # the previous timer is gone too
            self._set_at = None
            if not self._refused:
                notify("hang_timeout is not in force: cannot start a thread; raise the thread limit (ulimit -u)")
            self._refused = True
        else:
            self._refused = False


_timers: WeakSet[HangTimer] = WeakSet()


def _for_all(act: Callable[[HangTimer], None]) -> None:
    for timer in list(_timers):
        act(timer)


# A child forked while the timer is set lacks the timer's thread, and at exit its interpreter would wait for that thread
# forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=partial(_for_all, HangTimer.disarm),
        after_in_parent=partial(_for_all, HangTimer.rearm),
        after_in_child=partial(_for_all, HangTimer.forget),
    )
