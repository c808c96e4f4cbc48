"""A run that is stuck ends itself, so that whoever restarts jobs can do so."""

from __future__ import annotations

import faulthandler
import sys
import time

from ckptfmt.torch.failures import UsageError

__all__ = ["HangTimer"]


class HangTimer:
    """Ends the process with exit code 1, after writing the stacks of all threads to stderr, unless reset in time.

    The timer runs outside the interpreter: it also goes off when a call into a library never gives it back.

    Args:
        seconds: The time; None: never.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise UsageError(f"hang_timeout is {seconds}: give a number of seconds above 0, or None")
        self._seconds = seconds
        self._set_at: float | None = None

    def reset(self) -> None:
        """Start the time anew."""
        if self._seconds is None:
            return
        now = time.monotonic()
        # To set the timer starts a thread. It may go off this much too late: never too early.
        if self._set_at is not None and now - self._set_at < self._seconds / 50:
            return
        self._set_at = now
        faulthandler.dump_traceback_later(self._seconds * 1.02, exit=True, file=sys.__stderr__ or 2)

    def stop(self) -> None:
        """Let it never go off."""
        if self._set_at is not None:
            faulthandler.cancel_dump_traceback_later()
            self._set_at = None
