"""A run that is stuck ends itself, so that whoever restarts jobs can do so."""

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

    The timer runs outside the interpreter: it also goes off when a call into a library never gives it back.

    Args:
        seconds: The time; None: never.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise UsageError(f"hang_timeout is {seconds}; pass a number of seconds above 0, or None")
        self._seconds = seconds
        self._set_at: float | None = None
        self._refused = False
        _timers.add(self)

    def reset(self) -> None:
        """Start the time anew. Without a thread for the timer, say so and try again next time."""
        if self._seconds is None:
            return
        now = time.monotonic()
        # To set the timer starts a thread. It may go off this much too late: never too early.
        if self._set_at is not None and now - self._set_at < self._seconds / 50:
            return
        self._set_at = now
        self._arm(now)

    def stop(self) -> None:
        """Let it never go off."""
        if self._set_at is not None:
            faulthandler.cancel_dump_traceback_later()
            self._set_at = None

    def disarm(self) -> None:
        """Hold it, for the moment."""
        if self._set_at is not None:
            faulthandler.cancel_dump_traceback_later()

    def rearm(self) -> None:
        """Let it go on after `disarm`, for the rest of its time."""
        if self._set_at is not None:
            self._arm(self._set_at)

    def forget(self) -> None:
        """Let it be one that was never set."""
        self._set_at = None

    def _arm(self, begun: float) -> None:
        assert self._seconds is not None, "only a timer with a time is set"
        left = max(begun + self._seconds * 1.02 - time.monotonic(), 0.001)
        try:
            faulthandler.dump_traceback_later(left, exit=True, file=stderr_descriptor())
        except (RuntimeError, MemoryError):  # the one that was set before is gone, too
            self._set_at = None
            if not self._refused:
                notify("hang_timeout is not in force: no thread can be started; raise the limit of threads (ulimit -u)")
            self._refused = True
        else:
            self._refused = False


_timers: WeakSet[HangTimer] = WeakSet()


def _for_all(act: Callable[[HangTimer], None]) -> None:
    for timer in list(_timers):
        act(timer)


# In a child that is forked while the timer is set, the timer's thread is missing, and at its end the interpreter waits
# for that thread: for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=partial(_for_all, HangTimer.disarm),
        after_in_parent=partial(_for_all, HangTimer.rearm),
        after_in_child=partial(_for_all, HangTimer.forget),
    )
