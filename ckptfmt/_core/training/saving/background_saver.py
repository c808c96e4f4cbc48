"""One save at a time, written while training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.system.forks import let_go_in_children
from ckptfmt._core.system.threads import Thread

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


class _Save:
    """A save, and what came of it. That is noted without making anything: there may be no memory.

    Args:
        step: Optimizer steps of the state.
        write: Does it.
    """

    def __init__(self, step: int, write: Callable[[], Written]) -> None:
        self._step = step
        self._write = write
        self._written: Written | None = None
        self._error: Exception | None = None
        self._seconds = 0.0

    def do(self) -> None:
        """Do it, and note what came of it."""
        begun = time.monotonic()
        try:
            self._written = self._write()
        except Exception as caught:  # noqa: BLE001 - raised, if at all, by whoever takes the result
            self._error = caught
        self._seconds = time.monotonic() - begun

    def finished(self) -> FinishedSave:
        """Return what came of it; it must be over. One whose thread came to an end before that has failed."""
        error = self._error
        if self._written is None and error is None:
            error = MemoryError("the thread that was to save has ended early")
        return FinishedSave(self._step, self._written, error, self._seconds)


_threads: WeakSet[Thread] = WeakSet()


class Saver:
    """Runs saves, each in a thread of its own, one after the other.

    The thread is no daemon: when the interpreter ends, it waits for the save that is under way.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._save: _Save | None = None
        self._failed: FinishedSave | None = None
        let_go_in_children(self)

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._thread is not None and self._thread.under_way

    def start(self, step: int, write: Callable[[], Written]) -> None:
        """Begin a save. The last one must be over, and its result taken."""
        assert self._thread is None, "a save is under way"
        save = _Save(step, write)
        try:
            thread = Thread(save.do, name=f"ckptfmt-save-{step}", daemon=False)
            _threads.add(thread)
            self._save, self._thread = save, thread
            thread.start()
        except (RuntimeError, MemoryError):  # no thread is to be had: the caller has to wait
            self._thread = self._save = None
            self.run(step, write)

    def run(self, step: int, write: Callable[[], Written]) -> None:
        """Do a save here and now, as `start` does in the background; `take` returns its result."""
        save = _Save(step, write)
        save.do()
        self._save = save

    def give_up(self, step: int, error: Exception) -> None:
        """Note that a save failed before it could begin; `take` returns it as the result."""
        self._failed = FinishedSave(step, None, error, 0.0)

    def let_go(self) -> None:
        """Forget the save that is under way, in a forked child: it goes on in the parent."""
        self._thread = self._save = self._failed = None

    def take(self, *, wait: bool = False) -> FinishedSave | None:
        """Return the result of the save that is over, once; None if there is none.

        Args:
            wait: Wait for the one that is under way.
        """
        if self._thread is not None:
            if self._thread.under_way:
                if not wait:
                    return None
                self._thread.wait()
            self._thread = None
        failed, self._failed = self._failed, None
        save, self._save = self._save, None
        return failed if save is None else save.finished()


def wait_for_all() -> None:
    """Wait for the saves of all Savers of this process.

    A loop that was left by an exception, in a notebook for instance, may have one under way when the next loop asks
    which checkpoint is the newest.
    """
    for thread in list(_threads):
        if thread.under_way:
            thread.wait()
