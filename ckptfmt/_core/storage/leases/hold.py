"""Leases that this process holds, and shows to be alive."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable

from ckptfmt._core.system.threads import Thread

__all__ = ["BEAT_SECONDS", "Hold"]

BEAT_SECONDS = 10.0
"""Interval in which a holder shows that it is alive."""


class Hold(ABC):
    """A lease that this process holds. As long as it is open, others can see that its holder is alive."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread: Thread | None = None

    @abstractmethod
    def touch(self) -> bool:
        """Show that the holder is alive, as far as possible; return whether it is still the lease of the run."""

    def keep_alive(self, lost: Callable[[], object]) -> None:
        """Touch the lease now and then, until it is closed.

        A call while that goes on does nothing. Where no thread is to be had, each call touches the lease once.

        Args:
            lost: Called once, in a thread, if another lease takes its place. It must not refer to this object.
        """
        if self._ended.is_set() or (self._thread is not None and self._thread.under_way):
            return
        try:
            thread = Thread(_beat, (weakref.ref(self), self._ended, lost), name="ckptfmt-lease", daemon=True)
            thread.start()
            self._thread = thread
        except (RuntimeError, MemoryError):
            self.touch()

    def close(self) -> None:
        """Hold it no more. A second call does nothing."""
        self._ended.set()


def _beat(reference: weakref.ref[Hold], ended: threading.Event, lost: Callable[[], object]) -> None:
    while not ended.wait(BEAT_SECONDS):
        hold = reference()
        if hold is None:
            return
        if not hold.touch():
            lost()
            return
        del hold
