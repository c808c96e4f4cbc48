"""Endless rounds over a loader, for loops that count steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from ckptfmt._core.training.loop.look_ahead import LookAhead
from ckptfmt._core.training.loop.progress import CycleProgress
from ckptfmt._core.training.loop.tracking import Generators, Tracker
from ckptfmt.errors import UsageError

__all__ = ["Cycle", "Rounds"]

T = TypeVar("T")


class Rounds(Generic[T]):
    """Endless rounds over a loader.

    Each round is a pass with a known start. A resumed run therefore loads only the batches of the current round again.

    Args:
        loader: The loader.
        set_epoch: Called with the number of each round before it begins, counted from 0.
        tracker: Tracks the passes over the loader.
        generators: The global random generators.
        require_step: Raises an error where the loop may not take a batch.
        warn_of_look_ahead: Called once if the loop proves to take batches ahead of its steps.
        resumed: The progress to continue from; None to begin.

    Attributes:
        finished: Number of rounds finished.
    """

    def __init__(
        self,
        loader: Iterable[T],
        set_epoch: Callable[[int], object] | None,
        *,
        tracker: Tracker[Any, Any],
        generators: Generators,
        require_step: Callable[[], object],
        warn_of_look_ahead: Callable[[], object],
        resumed: CycleProgress[Any, Any] | None,
    ) -> None:
        self._loader = loader
        self._set_epoch = set_epoch
        self._tracker = tracker
        self._generators = generators
        self._require_step = require_step
        self._warn_of_look_ahead = warn_of_look_ahead
        self._resumed = resumed
        self._iterator: Iterator[T] | None = None
        self._consumed = 0
        self._look_ahead = LookAhead()
        self.finished = 0 if resumed is None else resumed.rounds

    def next_batch(self) -> T:
        """Return the next batch; the first one of a new round after the last one of a round."""
        self._require_step()
        if self._iterator is None:
            self._iterator = self._open()
        try:
            batch = next(self._iterator)
        except StopIteration:
            self._tracker.end()
            self.finished += 1
            self._iterator = self._begin()
            try:
                batch = next(self._iterator)
            except StopIteration:
                raise UsageError(
                    f"cycle(): round {self.finished} of the loader has no batches; pass a loader that can be iterated "
                    "again, not an iterator"
                ) from None
        self._consumed += 1
        if self._look_ahead.took_batch():
            self._warn_of_look_ahead()
        return batch

    def stepped(self) -> None:
        """Count a step."""
        self._look_ahead.stepped()

    def finish(self) -> None:
        """Note that the loop is over."""
        self._tracker.finish()

    def progress(self) -> CycleProgress[Any, Any]:
        """Return the progress now."""
        loader = self._tracker.state()
        if loader is None:
            return self._resumed or CycleProgress()
        return CycleProgress(self.finished, loader, self._tracker.position({}, self._consumed))

    def _open(self) -> Iterator[T]:
        """Begin the first round or, after a resume, return to the position in the checkpoint."""
        resumed, self._resumed = self._resumed, None
        if resumed is None or resumed.position is None:
            return self._begin()
        if self._set_epoch is not None:
            self._set_epoch(self.finished)
        random = self._generators.capture()
        iterator, self._consumed = self._tracker.resume(self._loader, resumed.position, resumed.loader)
        self._generators.restore(random)
        return iterator

    def _begin(self) -> Iterator[T]:
        self._consumed = 0
        if self._set_epoch is not None:
            self._set_epoch(self.finished)
        return self._tracker.begin(self._loader)


class Cycle(Iterator[T]):
    """The batches of a loader, round after round, from `Checkpointer.cycle`."""

    def __init__(self, rounds: Rounds[T]) -> None:
        self._rounds = rounds

    def __next__(self) -> T:
        return self._rounds.next_batch()

    @property
    def rounds(self) -> int:
        """Number of rounds finished since the start of the run."""
        return self._rounds.finished
