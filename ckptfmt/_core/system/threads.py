"""Threads whose start succeeds or raises, even when no memory is left.

`threading.Thread.start` waits until the new thread signals its start. In Python 3.11 to 3.13, a thread without memory
for its first call ends silently, and `start` never returns (python/cpython#140746).
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
    """Replaces the event that `threading.Thread.start` waits for."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as the method it overrides
        return True


class Thread(threading.Thread):
    """A thread whose `start` always returns or raises, and that can be waited for despite interrupts.

    Everything it needs for that is allocated in advance: the thread itself only releases locks, which takes no memory.

    Args:
        target: Function to run.
        args: Arguments of `target`.
        name: Name of the thread.
        daemon: Whether the interpreter may exit while the thread runs.
    """

    def __init__(self, target: Callable[..., object], args: tuple[Any, ...] = (), *, name: str, daemon: bool) -> None:
        super().__init__(target=target, args=args, name=name, daemon=daemon)
        self._started = _NotWaitedFor()
        self._process = os.getpid()
        self._asked = self._begun = False
        self._decided = threading.Lock()  # held until the thread has started, or has ended without starting
        self._decided.acquire()
        self._over = threading.Lock()  # held until the target has returned
        self._over.acquire()
        self._end: weakref.ref[Callable[[], None]] | None = None

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: The system cannot create a thread, or the interpreter is shutting down. The target is never
                called.
            MemoryError: Not enough memory for the thread, or it ended before it started. The target is never called.
        """
        try:
            self._ask()
        except Exception:
            if not self._has_begun():
                raise
        if not self._has_begun():
            # `threading` lists threads about to start here; the entry would keep the thread and its target alive
            # forever.
            getattr(threading, "_limbo", {}).pop(self, None)
            raise MemoryError("the thread ended before it started")

    def _ask(self) -> None:
        """Ask the system for a thread. One may exist even if this raises, for instance after an interrupt."""
        try:
            super().start()
        finally:
            if not self._asked and self._decided.locked():
                self._decided.release()

    def _has_begun(self) -> bool:
        """Wait until the target is called or never will be, and return whether it was."""
        with self._decided:
            return self._begun

    @property
    def under_way(self) -> bool:
        """Whether the target is still running in this process; never in a forked child, which lacks the thread."""
        if self._process != os.getpid():
            return False
        return self._decided.locked() or (self._begun and self._over.locked())

    def wait(self) -> None:
        """Wait until the target has returned. The thread must have been started in this process.

        `join` cannot be used: in Python 3.11 and 3.12, an interrupted `join` marks a running thread as ended.
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
        """Return the function that the new thread calls first.

        Only the thread holds it, so its deletion marks the end of the thread.

        If the thread cannot make even one call, C functions alone signal it: the `__exit__` of a lock releases the lock
        with any arguments.
        """
        first = partial(self._begin)
        self._end = weakref.ref(first, self._decided.__exit__)  # type: ignore[arg-type]  # it accepts any arguments
        self._asked = True
        return first

    def _begin(self) -> None:
        try:
            super()._bootstrap()  # type: ignore[misc]  # private, as what it overrides
        finally:
            if self._end is not None:  # `run` was not reached, and the error's traceback may keep `first` alive
                self._end = None
                self._decided.release()
