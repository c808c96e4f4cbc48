"""Background saves, one at a time, while training continues."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.system.forks import release_in_children
from ckptfmt._core.system.threads import Thread

__all__ = ["FinishedSave", "Saver", "Written", "wait_for_all"]


@dataclass(frozen=True)
class Written:
    """A durable checkpoint.

    Attributes:
        report: Report of the save.
        complaints: Problems other than the save itself: with metrics, or with the removal of older checkpoints.
        superseded: Why this process may not write anything after it; empty if it may.
    """

    report: SaveReport
    complaints: tuple[str, ...] = ()
    superseded: str = ""


@dataclass(frozen=True)
class FinishedSave:
    """A finished save, successful or not.

    Attributes:
        step: Optimizer steps of the state.
        written: The checkpoint; None if the save failed.
        error: Why the save failed; None if it succeeded.
        seconds: Duration of the write in seconds.
    """

    step: int
    written: Written | None
    error: Exception | None
    seconds: float


class _Save:
    """A save and its outcome, recorded without an allocation: memory may be short.

    Args:
        step: Optimizer steps of the state.
        write: Writes the checkpoint.
    """

    def __init__(self, step: int, write: Callable[[], Written]) -> None:
        self._step = step
        self._write = write
        self._written: Written | None = None
        self._error: Exception | None = None
        self._seconds = 0.0

    def do(self) -> None:
        """Run the save and record its outcome."""
        begun = time.monotonic()
        try:
            self._written = self._write()
        except Exception as caught:  # noqa: BLE001 - the consumer of the result decides whether to raise it
            self._error = caught
        self._seconds = time.monotonic() - begun

    def finished(self) -> FinishedSave:
        """Return the outcome; the save must have ended. If its thread ended early, the save failed."""
        error = self._error
        if self._written is None and error is None:
            error = MemoryError("the saving thread ended early")
        return FinishedSave(self._step, self._written, error, self._seconds)


_threads: WeakSet[Thread] = WeakSet()


class Saver:
    """Runs saves one after the other, each in its own thread.

    The thread is not a daemon: at exit, the interpreter waits for the save to finish.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._save: _Save | None = None
        self._failed: FinishedSave | None = None
        release_in_children(self)

    @property
    def busy(self) -> bool:
        """Whether a save is running."""
        return self._thread is not None and self._thread.under_way

    def start(self, step: int, write: Callable[[], Written]) -> None:
        """Start a save. The previous one must have ended, and its result been taken."""
        assert self._thread is None, "a save is running"
        save = _Save(step, write)
        try:
            thread = Thread(save.do, name=f"ckptfmt-save-{step}", daemon=False)
            _threads.add(thread)
            self._save, self._thread = save, thread
            thread.start()
        except (RuntimeError, MemoryError):  # no thread available: the caller must wait
            self._thread = self._save = None
            self.run(step, write)

    def run(self, step: int, write: Callable[[], Written]) -> None:
        """Run a save synchronously, as `start` does in the background; `take` returns its result."""
        save = _Save(step, write)
        save.do()
        self._save = save

    def give_up(self, step: int, error: Exception) -> None:
        """Record a save that failed before it could start; `take` returns it as the result."""
        self._failed = FinishedSave(step, None, error, 0.0)

    def release_in_child(self) -> None:
        """Forget the running save in a forked child: it continues in the parent."""
        self._thread = self._save = self._failed = None

    def take(self, *, wait: bool = False) -> FinishedSave | None:
        """Return the result of the finished save, once; None if there is none.

        Args:
            wait: Wait for a running save.
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

    A loop that ended with an exception, for instance in a notebook, may still have a running save when the next loop
    looks for the newest checkpoint.
    """
    for thread in list(_threads):
        if thread.under_way:
            thread.wait()
