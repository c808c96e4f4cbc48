"""State of the training loop: epoch, batch, step, and which calls may follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum, auto
from typing import Generic, TypeVar

from ckptfmt._core.training.look_ahead import LookAhead
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.progress import P, Progress, RandomState, S
from ckptfmt._core.training.ranks import Ranks
from ckptfmt._core.training.tracking import Generators, TrackerFactory
from ckptfmt.errors import UsageError

__all__ = ["LoopState"]

T = TypeVar("T")


class Phase(Enum):
    """Phase of the loop."""

    UNRESUMED = auto()
    """`resume()` was not called."""
    BETWEEN = auto()
    """Between two epochs, or before the first."""
    EPOCH = auto()
    """In an epoch, before its pass over the data."""
    BATCH = auto()
    """The loop is working on a batch."""
    STEPPED = auto()
    """The batch is done: `step()` was called."""
    PASSED = auto()
    """In an epoch, after its pass over the data."""


class LoopState(Generic[S, P]):
    """Counts steps and epochs, yields batches, and continues where another process stopped.

    Args:
        generators: The global random generators.
        make_tracker: Makes the tracker of the passes over the loader.
        ranks: The ranks of the job.

    Attributes:
        step: Optimizer steps done since the start of the run.
        epoch: Number of epochs finished.
    """

    def __init__(self, generators: Generators, make_tracker: TrackerFactory[S, P], ranks: Ranks) -> None:
        self._generators = generators
        self._make_tracker = make_tracker
        self._ranks = ranks
        self.step = 0
        self.epoch = 0
        self._phase = Phase.UNRESUMED
        self._consumed = 0
        # What this process has done in the current epoch.
        self._epoch_batches = 0
        self._epoch_steps = 0
        self._look_ahead = LookAhead()
        self._missed_steps = False
        self._epoch_random: RandomState = {}
        self._tracker = make_tracker(allow_mismatch=False)
        # What a resumed run has yet to restore, until the loop has reached its position.
        self._pending: Progress[S, P] | None = None
        self._pending_random: RandomState | None = None

    @property
    def resumed(self) -> bool:
        """Whether `begin` was called."""
        return self._phase is not Phase.UNRESUMED

    @property
    def new(self) -> bool:
        """Whether the run is new, without a step or an epoch."""
        return self._phase is Phase.BETWEEN and self._pending == Progress() and self._pending_random is None

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch is open."""
        return self._phase in (Phase.UNRESUMED, Phase.BETWEEN)

    def begin(self, progress: Progress[S, P], random: RandomState | None, *, allow_mismatch: bool = False) -> None:
        """Set the position from which the loop continues, and the states of the global generators there.

        Args:
            progress: The position.
            random: The states of the generators.
            allow_mismatch: Whether to continue with a loader that does not fit the position.
        """
        self.step = progress.step
        self.epoch = progress.epoch
        self._pending = progress
        self._pending_random = random
        self._tracker = self._make_tracker(allow_mismatch=allow_mismatch)
        self._phase = Phase.BETWEEN
        if random is not None:
            self._generators.restore(random)

    def require_place(self) -> None:
        """Check that the run can be resumed from the current position.

        Raises:
            UsageError: It cannot: a batch lacks its step, or the epoch lacks its `end_epoch`.
        """
        match self._phase:
            case Phase.UNRESUMED:
                raise UsageError("save() called before resume(); call resume() once, before the loop")
            case Phase.EPOCH | Phase.PASSED:
                raise UsageError(
                    "save() called in an epoch outside its batches, so a resume would repeat work; call it right after "
                    "step(), or let end_epoch() save"
                )
            case Phase.BATCH:
                raise UsageError(
                    "save() called between a batch and its step(), so a resume would skip the batch; call step() first"
                )

    def progress(self) -> Progress[S, P]:
        """Return the progress of the run, at a position from which it can be resumed."""
        self.require_place()
        loader = self._tracker.state()
        if loader is not None:
            stepped = self._phase is Phase.STEPPED
            position = self._tracker.position(self._epoch_random, self._consumed) if stepped else None
            return Progress(self.step, self.epoch, loader, position)
        waiting = self._pending or Progress()
        return Progress(self.step, self.epoch, waiting.loader, waiting.position)

    def epochs(self, n: int) -> Iterator[int]:
        """Yield the number of each epoch from the current one to n - 1. End each epoch before the next."""
        if self._phase is Phase.UNRESUMED:
            raise UsageError(
                "epochs() called before resume(); call resume() once: without a checkpoint it starts a run"
            )
        while self.epoch < n:
            if self._phase is not Phase.BETWEEN:
                raise UsageError(f"epochs() called while epoch {self.epoch} is open; call end_epoch() first")
            self._catch_up_epoch()
            self._epoch_random = self._generators.capture()
            self._consumed = self._epoch_batches = self._epoch_steps = 0
            self._look_ahead.begin_epoch()
            self._phase = Phase.EPOCH
            yield self.epoch

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """Yield the batches of the epoch's one pass over `loader`, from the current position on."""
        if self._phase is not Phase.EPOCH:
            raise UsageError(
                "batches() called outside the loop over epochs()"
                if self.between_epochs
                else "batches() may be called only once per epoch"
            )
        iterator = self._catch_up_pass(loader)
        epoch = self.epoch
        self._phase = Phase.PASSED
        for batch in iterator:
            self._consumed += 1
            self._epoch_batches += 1
            if self._look_ahead.took_batch():
                self._warn_of_look_ahead()
            self._phase = Phase.BATCH
            yield batch
            if self.epoch != epoch:
                raise UsageError("end_epoch() called inside the loop over batches(); call it after that loop")
            self._phase = Phase.PASSED

    def count_step(self) -> None:
        """Count one optimizer step: the batch is done."""
        if self._phase is Phase.STEPPED:
            raise UsageError("step() called twice for one batch; call it once, after all work on the batch")
        if self._phase is not Phase.BATCH:
            raise UsageError(
                "step() called outside the loop over batches(); call it for each batch before taking the next one"
            )
        self.step += 1
        self._epoch_steps += 1
        self._look_ahead.stepped()
        self._phase = Phase.STEPPED

    def end_epoch(self) -> None:
        """Count a finished epoch."""
        if self.between_epochs:
            raise UsageError("end_epoch() called outside the loop over epochs(), or twice in one epoch")
        if self._epoch_batches and not self._epoch_steps and not self._missed_steps:
            self._missed_steps = True
            self._warn_of_missed_steps()
        self._tracker.end()
        self.epoch += 1
        self._phase = Phase.BETWEEN
        self._pending_random = None
        if self._pending is not None:  # the epoch had no pass over the data
            self._pending = replace(self._pending, position=None)

    def _warn_of_missed_steps(self) -> None:
        if self._ranks.world().rank == 0:
            notify(
                f"epoch {self.epoch} had {self._epoch_batches} batches but no step(), so checkpoints are saved only "
                "at the end of each epoch, and steps are not counted; call step() after each batch"
            )

    def _warn_of_look_ahead(self) -> None:
        if self._ranks.world().rank == 0:
            notify(
                "step() called after the next batch was taken: a checkpoint counts that batch as done, and a resume "
                "skips it; call step() before next(), or let the loader prefetch"
            )

    def _catch_up_epoch(self) -> None:
        """Set the generators to their states at the start of this epoch: code before the loop may have drawn."""
        if self._pending is not None and self._pending.position is not None:
            self._generators.restore(self._pending.position.epoch_random)
        elif self._pending_random is not None:
            self._generators.restore(self._pending_random)

    def _catch_up_pass(self, loader: Iterable[T]) -> Iterator[T]:
        """Begin the pass or, in the epoch of the resume, continue at the position in the checkpoint."""
        resumed, self._pending = self._pending, None
        then = resumed.loader if resumed is not None else None
        position = resumed.position if resumed is not None else None
        if then is None or position is None:
            return self._tracker.begin(loader, then)
        self._epoch_random = position.epoch_random
        iterator, self._consumed = self._tracker.resume(loader, position, then)
        if self._pending_random is not None:
            self._generators.restore(self._pending_random)
        return iterator
