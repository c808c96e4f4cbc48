"""The training loop's own state: which epoch, which batch, which step, and what may come next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from ckptfmt._core.training.look_ahead import LookAhead
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.progress import P, Progress, RandomState, S
from ckptfmt._core.training.ranks import Ranks
from ckptfmt.errors import UsageError

__all__ = ["Generators", "LoopState", "Tracker", "TrackerFactory"]

T = TypeVar("T")


class Generators(Protocol):
    """The global random generators that a training loop draws from."""

    def capture(self) -> RandomState:
        """Return their states."""

    def restore(self, state: RandomState) -> None:
        """Set them to states that `capture` returned.

        Raises:
            MismatchError: A state is none that its generator takes. No generator was changed.
        """


class Tracker(Protocol[S, P]):
    """Tracks the passes of a run over its loader, one after the other."""

    def begin(self, loader: Iterable[T], then: S | None = None) -> Iterator[T]:
        """Begin a pass and return its batches.

        Args:
            loader: The loader.
            then: State of the loader of the last pass, if another process did that.

        Raises:
            MismatchError: The loader is another one.
        """

    def resume(self, loader: Iterable[T], position: P, now: S) -> tuple[Iterator[T], int]:
        """Return the rest of the batches of a pass that another process began, and how many are done.

        The global generators are left anywhere: their states have to be set afterwards.

        Args:
            loader: The loader.
            position: The position in the pass.
            now: State of the loader at that position.

        Raises:
            MismatchError: The loader is another one.
        """

    def end(self) -> None:
        """Note that the epoch is over."""

    def state(self) -> S | None:
        """Return the state of the loader now; None if this process has begun no pass."""

    def position(self, epoch_random: RandomState, consumed: int) -> P | None:
        """Return the position in the pass that is under way. Call `state` first.

        Args:
            epoch_random: States of the global generators when the epoch began.
            consumed: How many batches of the pass are done.
        """


class TrackerFactory(Protocol[S, P]):
    """Makes a tracker."""

    def __call__(self, *, allow_mismatch: bool) -> Tracker[S, P]:
        """Return a tracker that reports and uses a loader that does not fit the checkpoint, or else raises."""


class Phase(Enum):
    """Where the loop stands."""

    UNRESUMED = auto()
    """`resume()` was not called."""
    BETWEEN = auto()
    """Between two epochs, or before the first."""
    EPOCH = auto()
    """In an epoch, no pass over the data begun."""
    BATCH = auto()
    """A batch is being worked on."""
    STEPPED = auto()
    """The batch is done: `step()` was called."""
    PASSED = auto()
    """In an epoch, the pass is over."""


class LoopState(Generic[S, P]):
    """Counts steps and epochs, hands out batches, and continues where another process stopped.

    Args:
        generators: The global random generators.
        make_tracker: Makes what tracks the passes over the loader.
        ranks: The job.

    Attributes:
        step: Optimizer steps done since the start of the run.
        epoch: Epochs finished.
    """

    def __init__(self, generators: Generators, make_tracker: TrackerFactory[S, P], ranks: Ranks) -> None:
        self._generators = generators
        self._make_tracker = make_tracker
        self._ranks = ranks
        self.step = 0
        self.epoch = 0
        self._phase = Phase.UNRESUMED
        self._consumed = 0
        # What this process has done in the present epoch.
        self._epoch_batches = 0
        self._epoch_steps = 0
        self._look_ahead = LookAhead()
        self._missed_steps = False
        self._epoch_random: RandomState = {}
        self._tracker = make_tracker(allow_mismatch=False)
        # What a resumed run has to catch up with, until the loop has come to that place.
        self._pending: Progress[S, P] | None = None
        self._pending_random: RandomState | None = None

    @property
    def resumed(self) -> bool:
        """Whether `begin` was called."""
        return self._phase is not Phase.UNRESUMED

    @property
    def new(self) -> bool:
        """Whether this is a run that nothing has happened in."""
        return self._phase is Phase.BETWEEN and self._pending == Progress() and self._pending_random is None

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch is open."""
        return self._phase in (Phase.UNRESUMED, Phase.BETWEEN)

    def begin(self, progress: Progress[S, P], random: RandomState | None, *, allow_mismatch: bool = False) -> None:
        """Set the place from which the loop continues, and the states of the global generators there.

        Args:
            progress: The place.
            random: The states.
            allow_mismatch: Whether the place may turn out to be another one with the loader that is there.
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
        """Make sure that the run can be resumed from the present place.

        Raises:
            UsageError: It does not: a batch was begun and not stepped, or the end of an epoch is not announced.
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
        """Return how far the run has come, at a place from which it can be resumed."""
        self.require_place()
        loader = self._tracker.state()
        if loader is not None:
            stepped = self._phase is Phase.STEPPED
            position = self._tracker.position(self._epoch_random, self._consumed) if stepped else None
            return Progress(self.step, self.epoch, loader, position)
        waiting = self._pending or Progress()
        return Progress(self.step, self.epoch, waiting.loader, waiting.position)

    def epochs(self, n: int) -> Iterator[int]:
        """Yield the number of each epoch from the present one to n - 1. Each must be ended before the next."""
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
        """Yield the batches of the epoch's one pass over `loader`, from the present place on."""
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
        """Count one optimizer step: the batch is worked off."""
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
        """Count one finished epoch."""
        if self.between_epochs:
            raise UsageError("end_epoch() called outside the loop over epochs(), or twice in one epoch")
        if self._epoch_batches and not self._epoch_steps and not self._missed_steps:
            self._missed_steps = True
            self._warn_of_missed_steps()
        self._tracker.end()
        self.epoch += 1
        self._phase = Phase.BETWEEN
        self._pending_random = None
        if self._pending is not None:  # the epoch went by without a pass over the data
            self._pending = replace(self._pending, position=None)

    def _warn_of_missed_steps(self) -> None:
        if self._ranks.world().rank == 0:
            notify(
                f"epoch {self.epoch} had {self._epoch_batches} batches and no step(): checkpoints are saved only "
                "at the ends of epochs, and steps are not counted; call step() after each batch"
            )

    def _warn_of_look_ahead(self) -> None:
        if self._ranks.world().rank == 0:
            notify(
                "step() called after the next batch was taken: a checkpoint counts that batch as done, and a resume "
                "skips it; call step() before next(), or let the loader prefetch"
            )

    def _catch_up_epoch(self) -> None:
        """Set the generators to what they were when this epoch began: code before the loop may have drawn."""
        if self._pending is not None and self._pending.position is not None:
            self._generators.restore(self._pending.position.epoch_random)
        elif self._pending_random is not None:
            self._generators.restore(self._pending_random)

    def _catch_up_pass(self, loader: Iterable[T]) -> Iterator[T]:
        """Begin the pass or, in the epoch in which the run was resumed, come to the place it had reached."""
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
