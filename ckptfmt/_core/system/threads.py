"""Threads that begin or say that they cannot, even when no memory is left.

`threading.Thread.start` waits until the new thread says that it has begun. In Python 3.11 to 3.13, a thread that has no
memory for its first call ends without a word, and `start` never returns (python/cpython#140746).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["Thread"]


class _NotWaitedFor(threading.Event):
    """What `threading.Thread.start` would wait for."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as the method it overrides
        return True


class Thread(threading.Thread):
    """A thread whose `start` always returns or raises, and whose end can be waited for whatever interrupts come.

    What it needs for that is made beforehand: the thread itself only releases locks, which takes no memory.

    Args:
        target: What it does.
        args: What that is called with.
        name: Its name.
        daemon: Whether the interpreter may end while it runs.
    """

    def __init__(self, target: Callable[..., object], args: tuple[Any, ...] = (), *, name: str, daemon: bool) -> None:
        super().__init__(target=target, args=args, name=name, daemon=daemon)
        self._started = _NotWaitedFor()
        self._process = os.getpid()
        self._asked = self._begun = False
        self._decided = threading.Lock()  # held until it has begun, or has ended without that
        self._decided.acquire()
        self._over = threading.Lock()  # held until its target is done
        self._over.acquire()
        self._end: weakref.ref[Callable[[], None]] | None = None

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: The system has none, or the interpreter is shutting down. Its target is never called.
            MemoryError: There is no memory for it, or it ended before it began. Its target is never called.
        """
        try:
            self._ask()
        except Exception:
            if not self._has_begun():
                raise
        if not self._has_begun():
            # Where `threading` keeps those that are about to begin; it would hold the thread and its target for good.
            getattr(threading, "_limbo", {}).pop(self, None)
            raise MemoryError("the thread ended before it began")

    def _ask(self) -> None:
        """Ask the system for it. If this raises, there may be one all the same, for instance if an interrupt comes."""
        try:
            super().start()
        finally:
            if not self._asked and self._decided.locked():
                self._decided.release()

    def _has_begun(self) -> bool:
        """Return whether its target was called; wait until that is decided."""
        with self._decided:
            return self._begun

    @property
    def under_way(self) -> bool:
        """Whether its target is not done, in this process: in a forked child, no thread is."""
        if self._process != os.getpid():
            return False
        return self._decided.locked() or (self._begun and self._over.locked())

    def wait(self) -> None:
        """Wait until its target is done. It must have been started, in this process.

        `join` is no means for that: in Python 3.11 and 3.12, one that is interrupted takes a thread for ended that
        goes on.
        """
        if self._has_begun():
            with self._over:
                pass

    def run(self) -> None:
        """Call the target."""
        self._begun = True
        self._end = None
        self._decided.release()
        try:
            super().run()
        finally:
            self._over.release()

    @property
    def _bootstrap(self) -> Callable[[], None]:
        """What the new thread calls first. Nobody else keeps it, so when it goes, the thread is at its end.

        If not even one call is possible there, functions in C alone see to it that this is noticed: the `__exit__` of
        a lock releases it, whatever it is called with.
        """
        first = partial(self._begin)
        self._end = weakref.ref(first, self._decided.__exit__)  # type: ignore[arg-type]  # it takes anything
        self._asked = True
        return first

    def _begin(self) -> None:
        try:
            super()._bootstrap()  # type: ignore[misc]  # private, as what it overrides
        finally:
            if self._end is not None:  # `run` was not reached, and whoever tells of the error may keep what was called
                self._end = None
                self._decided.release()
