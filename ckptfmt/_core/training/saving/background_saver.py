"""One save at a time, written while training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.system.forks import let_go_in_children

__all__ = ["FinishedSave", "Saver", "Written", "wait_for_all"]


@dataclass(frozen=True)
class Written:
    """A checkpoint that is durable.

    Attributes:
        report: What was written.
        complaints: What went wrong beside it: with metrics, or when older checkpoints were to be removed.
        superseded: Why this process may write nothing more after it; empty if it may.
    """

    report: SaveReport
    complaints: tuple[str, ...] = ()
    superseded: str = ""


@dataclass(frozen=True)
class FinishedSave:
    """A save that has come to its end, good or bad.

    Attributes:
        step: Optimizer steps of the state that was to be saved.
        written: What was written; None if it failed.
        error: Why it failed; None if it did not.
        seconds: How long the writing took.
    """

    step: int
    written: Written | None
    error: Exception | None
    seconds: float


class _SaveThread(threading.Thread):
    """A thread that does a save.

    Attributes:
        ended: Set when the save is over. It is waited for, and not the thread: in Python 3.11 and 3.12, a `join` that
            is interrupted takes a thread for ended that goes on, and the next save would overwrite what it is writing.
    """

    def __init__(self, step: int, save: Callable[[], None]) -> None:
        super().__init__(name=f"ckptfmt-save-{step}")
        self.ended = threading.Event()
        self._save = save

    @property
    def under_way(self) -> bool:
        """Whether the save is going on, in this process: in a forked child, no thread is."""
        return self.is_alive() and not self.ended.is_set()

    def run(self) -> None:
        """Do the save."""
        try:
            self._save()
        finally:
            self.ended.set()


_threads: WeakSet[_SaveThread] = WeakSet()


class Saver:
    """Runs saves, each in a thread of its own, one after the other.

    The thread is no daemon: when the interpreter ends, it waits for the save that is under way.
    """

    def __init__(self) -> None:
        self._thread: _SaveThread | None = None
        self._finished: FinishedSave | None = None
        let_go_in_children(self)

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._thread is not None and self._thread.under_way

    def start(self, step: int, write: Callable[[], Written]) -> None:
        """Begin a save. The last one must be over, and its result taken."""
        assert self._thread is None, "a save is under way"
        try:
            self._thread = _SaveThread(step, partial(self.run, step, write))
            self._thread.start()
        except (RuntimeError, MemoryError):  # no thread is to be had: the caller has to wait
            self._thread = None
            self.run(step, write)
        else:
            _threads.add(self._thread)

    def run(self, step: int, write: Callable[[], Written]) -> None:
        """Do a save here and now, as `start` does in the background; `take` returns its result."""
        begun = time.monotonic()
        written, error = None, None
        try:
            written = write()
        except Exception as caught:  # noqa: BLE001 - raised, if at all, by whoever takes the result
            error = caught
        self._finished = FinishedSave(step, written, error, time.monotonic() - begun)

    def give_up(self, step: int, error: Exception) -> None:
        """Note that a save failed before it could begin; `take` returns it as the result."""
        self._finished = FinishedSave(step, None, error, 0.0)

    def let_go(self) -> None:
        """Forget the save that is under way, in a forked child: it goes on in the parent."""
        self._thread = self._finished = None

    def take(self, *, wait: bool = False) -> FinishedSave | None:
        """Return the result of the save that is over, once; None if there is none.

        Args:
            wait: Wait for the one that is under way.
        """
        if self._thread is not None:
            if self._thread.under_way:
                if not wait:
                    return None
                self._thread.ended.wait()
            self._thread = None
        finished, self._finished = self._finished, None
        return finished


def wait_for_all() -> None:
    """Wait for the saves of all Savers of this process.

    A loop that was left by an exception, in a notebook for instance, may have one under way when the next loop asks
    which checkpoint is the newest.
    """
    for thread in list(_threads):
        if thread.under_way:
            thread.ended.wait()
