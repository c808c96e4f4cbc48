"""State of the training loop: epoch, batch, step, and which calls may follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ckptfmt._core.training.loop.batches import Batches, companions_of
from ckptfmt._core.training.loop.cycle import Cycle, Rounds
from ckptfmt._core.training.loop.look_ahead import LookAhead
from ckptfmt._core.training.loop.progress import CycleProgress, LoopKind, P, Progress, RandomState, S
from ckptfmt._core.training.loop.tracking import Generators, TrackerFactory
from ckptfmt._core.training.loop_notices import LoopNotices
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.phase import Phase
from ckptfmt._core.training.ranks import Ranks
from ckptfmt.errors import MismatchError, UsageError

__all__ = ["LoopState"]

T = TypeVar("T")


class LoopState(Generic[S, P]):
    """Counts steps and epochs, yields batches, and continues where another process stopped.

    Args:
        generators: The global random generators.
        make_tracker: Makes the tracker of the passes over the loader.
        ranks: The ranks of the job.

    Attributes:
        step: Optimizer steps done since the start of the run.
        epoch: Number of epochs finished.
        ends_accumulating: Whether gradients waited for an optimizer step when the loop over `steps()` ended.
    """

    def __init__(self, generators: Generators, make_tracker: TrackerFactory[S, P], ranks: Ranks) -> None:
        self._generators = generators
        self._make_tracker = make_tracker
        self._notices = LoopNotices(ranks)
        self.step = 0
        self.epoch = 0
        self._phase = Phase.UNRESUMED
        self._consumed = 0
        self._batches_done_before = 0
        # What this process has done in the current epoch.
        self._epoch_batches = 0
        self._epoch_steps = 0
        self._look_ahead = LookAhead()
        self._stopped = False
        self._saved_random: RandomState | None = None
        self._kind: LoopKind | None = None
        self._target: int | None = None
        self._has_trained = False
        self._has_cycled = False
        self.ends_accumulating = False
        self._rounds: list[Rounds[Any]] = []
        self._resumed_cycles: tuple[CycleProgress[S, P], ...] = ()
        self._epoch_random: RandomState = {}
        self._allow_mismatch = False
        self._tracker = make_tracker(allow_mismatch=False)
        # What a resumed run has yet to restore, until the loop has reached its position.
        self._pending: Progress[S, P] | None = None
        self._pending_random: RandomState | None = None

    @property
    def resumed(self) -> bool:
        """Whether `begin` was called."""
        return self._phase is not Phase.UNRESUMED

    @property
    def consumed(self) -> int:
        """Batches of the current epoch that were handed out, those before a resume included."""
        return self._consumed

    @property
    def new(self) -> bool:
        """Whether the run is new, without a step or an epoch."""
        return self._phase is Phase.BETWEEN and self._pending == Progress() and self._pending_random is None

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch is open."""
        return self._kind != "epochs" or self._phase in (Phase.UNRESUMED, Phase.BETWEEN)

    @property
    def is_resumed_epoch(self) -> bool:
        """Whether an earlier process began the current epoch, and trained on batches of it."""
        return self._phase is not Phase.BETWEEN and self._batches_done_before > 0

    @property
    def is_at_place(self) -> bool:
        """Whether the run can be resumed from here; see `require_place`."""
        return self._phase in (Phase.BETWEEN, Phase.STEPPED)

    @property
    def is_at_end(self) -> bool:
        """Whether the last step of `steps()` is done."""
        return self._kind == "steps" and self._phase is Phase.STEPPED and (self._stopped or self.step == self._target)

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
        self._kind = progress.loop
        self._stopped, self._target = progress.stopped, progress.target
        self._resumed_cycles = progress.cycles
        self._allow_mismatch = allow_mismatch
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
            case Phase.ACCUMULATING:
                raise UsageError(
                    "save() called while gradients wait for an optimizer step, so a resume would lose them; call it "
                    "after the optimizer's step"
                )
            case Phase.STEP:
                raise UsageError("save() called before the step is done; call it right after step()")
            case Phase.BATCH:
                raise UsageError(
                    "save() called between a batch and its step(), so a resume would skip the batch; call step() first"
                )

    def progress(self) -> Progress[S, P]:
        """Return the progress of the run, at a position from which it can be resumed."""
        self.require_place()
        waiting = self._pending or Progress()
        # A cycle that this process has not created yet stays where it was.
        cycles = (*(rounds.progress() for rounds in self._rounds), *self._resumed_cycles[len(self._rounds) :])
        place = Progress(self.step, self.epoch, waiting.loader, waiting.position, self._kind, cycles)
        now = replace(place, stopped=self._stopped, target=self._target if self._stopped else None)
        loader = self._tracker.state()
        if loader is None:
            return now
        stepped = self._phase is Phase.STEPPED
        position = self._tracker.position(self._epoch_random, self._consumed) if stepped else None
        return replace(now, loader=loader, position=position)

    def epochs(self, n: int) -> Iterator[int]:
        """Yield the number of each epoch from the current one to n - 1. End each epoch before the next."""
        self._enter("epochs", self.epoch, n)
        while self.epoch < n and not self._stopped:
            self._check_saved_random()
            if self._phase is not Phase.BETWEEN:
                raise UsageError(f"epochs() called while epoch {self.epoch} is open; call end_epoch() first")
            self._catch_up_epoch()
            self._epoch_random = self._generators.capture()
            self._batches_done_before = 0 if self._pending is None else self._pending.consumed
            self._consumed = self._epoch_batches = self._epoch_steps = 0
            self._has_cycled = False
            self._look_ahead.begin_epoch()
            self._phase = Phase.EPOCH
            yield self.epoch
        self._tracker.finish()

    def steps(self, n: int | None) -> Iterator[int]:
        """Yield the number of each step from the current one to n - 1, or without end. Count each before the next."""
        self._enter("steps", self.step, n)
        if self._pending_random is not None:  # code before the loop may have drawn
            self._generators.restore(self._pending_random)
        while (n is None or self.step < n) and not self._stopped:
            self._check_saved_random()
            if self._phase not in (Phase.BETWEEN, Phase.STEPPED, Phase.ACCUMULATING):
                raise UsageError(f"steps() called while step {self.step} is open; loop over steps() once at a time")
            self._phase = Phase.STEP
            yield self.step
        self.ends_accumulating = self._phase is Phase.ACCUMULATING
        self._phase = Phase.BETWEEN
        for rounds in self._rounds:
            rounds.finish()

    def cycle(self, loader: Iterable[T], set_epoch: Callable[[int], object] | None = None) -> Cycle[T]:
        """Return an endless iterator over the rounds of a loader."""
        if self._phase is Phase.UNRESUMED:
            raise UsageError("cycle() called before resume(); call resume() once, before cycle()")
        number = len(self._rounds)
        resumed = self._resumed_cycles[number] if number < len(self._resumed_cycles) else None
        tracker = self._make_tracker(allow_mismatch=self._allow_mismatch)
        rounds = Rounds(
            loader,
            set_epoch,
            tracker=tracker,
            generators=self._generators,
            require_step=self._require_step,
            warn_of_look_ahead=self._notices.look_ahead,
            resumed=resumed,
        )
        self._rounds.append(rounds)
        return Cycle(rounds)

    def batches(self, loader: Iterable[T], through: Callable[[Iterator[T]], Iterator[T]] | None = None) -> Batches[T]:
        """Return the batches of the epoch's one pass over `loader`, from the current position on.

        Args:
            loader: The loader.
            through: Takes the batches and returns those to hand out; None: all.
        """
        self._require_epoch()

        def begin(batches: Batches[T]) -> tuple[Iterator[T], int]:
            self._require_epoch()
            iterator = self._catch_up_pass(loader)
            if self._consumed:
                self._notices.restarted_companions(self._consumed, companions_of(batches))
            counted = self._counted(iterator)
            return counted if through is None else through(counted), self._consumed

        return Batches(loader, self._batches_done_before, begin)

    def _counted(self, iterator: Iterator[T]) -> Iterator[T]:
        epoch = self.epoch
        self._phase = Phase.PASSED
        for batch in iterator:
            self._consumed += 1
            self._epoch_batches += 1
            if self._look_ahead.took_batch():
                self._notices.look_ahead()
            self._phase = Phase.BATCH
            yield batch
            self._check_saved_random()
            if self.epoch != epoch:
                raise UsageError("end_epoch() called inside the loop over batches(); call it after that loop")
            self._phase = Phase.PASSED

    def count_step(self, *, accumulating: bool = False) -> None:
        """Note that a batch or a step of `steps()` is done, and count the optimizer step.

        Args:
            accumulating: Whether its gradients wait for an optimizer step: then the batch is not counted as one.
        """
        if self._phase in (Phase.STEPPED, Phase.ACCUMULATING):
            raise UsageError("step() called twice for one batch; call it once, after all work on the batch")
        if self._phase is Phase.EPOCH and (self._pending is None or self._pending.position is None):
            self._count_in_epoch(accumulating=accumulating)
            return
        if self._phase not in (Phase.BATCH, Phase.STEP):
            raise UsageError(
                "step() called outside the loops over batches() and steps(); call it for each batch before taking the "
                "next one, or loop over steps()"
            )
        if not self._has_trained:
            self._notices.unused_cycles(len(self._resumed_cycles) - len(self._rounds))
        if self._kind == "steps" or not accumulating:
            self.step += 1
        self._epoch_steps += 1
        self._has_trained = True
        self._look_ahead.stepped()
        for rounds in self._rounds:
            rounds.stepped()
        if self._kind == "steps":
            self._pending_random = None
        self._phase = Phase.ACCUMULATING if accumulating else Phase.STEPPED

    def _count_in_epoch(self, *, accumulating: bool) -> None:
        """Count a step in an epoch without `batches()`: only the end of the epoch can be resumed from."""
        self.step += not accumulating
        self._epoch_steps += 1
        self._has_trained = True
        self._notices.steps_without_batches()

    def end_epoch(self) -> None:
        """Count a finished epoch."""
        if self.between_epochs:
            raise UsageError("end_epoch() called outside the loop over epochs(), or twice in one epoch")
        if self._phase is Phase.STEPPED and self._saved_random is not None:
            self._notices.broke_after_save()
        if self._epoch_batches and not self._epoch_steps:
            self._notices.missed_steps(self.epoch, self._epoch_batches)
        self._tracker.end()
        self.epoch += 1
        self._has_trained = True
        self._phase = Phase.BETWEEN
        self._pending_random = None
        if self._pending is not None:  # the epoch had no pass over the data
            self._pending = replace(self._pending, position=None)

    def stop(self) -> None:
        """End the loop over `epochs()` or `steps()` before its next iteration."""
        if self._kind is None:
            raise UsageError("stop() called before the loop over epochs() or steps()")
        self._stopped = True

    def note_save(self) -> None:
        """Note that the run is saved now: a resumed run repeats nothing until the next iteration."""
        self._saved_random = self._captured()

    def _check_saved_random(self) -> None:
        """Report random numbers that were drawn between a save and the next iteration."""
        saved, self._saved_random = self._saved_random, None
        now = None if saved is None else self._captured()
        if saved is not None and now is not None and not self._generators.same(saved, now):
            self._notices.drew_after_save()

    def _captured(self) -> RandomState | None:
        try:
            return self._generators.capture()
        except Exception:  # noqa: BLE001 - the save reports it, and fails without ending the training
            return None

    def _enter(self, kind: LoopKind, done: int, n: int | None) -> None:
        """Begin a loop of one kind.

        Args:
            kind: The kind.
            done: Number of its iterations that are done.
            n: Number of iterations to do; None: any number.

        Raises:
            UsageError: `resume()` was not called.
            MismatchError: The run was trained in a loop of another kind.
        """
        if self._phase is Phase.UNRESUMED:
            raise UsageError(
                f"{kind}() called before resume(); call resume() once: without a checkpoint it starts a run"
            )
        if self._kind not in (None, kind):
            found = f"progress: trained in a loop over {self._kind}() so far, in one over {kind}() now"
            if not self._allow_mismatch:
                advice = "use the same kind of loop, or resume with allow_mismatch=['progress']"
                raise MismatchError("the place in the run cannot be restored", [f"{found}; {advice}"])
            notify(found)
            self._pending = Progress(self.step, self.epoch)
        self._kind = kind
        asks_for_more = n != self._target and (n is None or self._target is None or n > self._target)
        self._stopped = self._stopped and not asks_for_more
        self._target = n
        if not self._has_trained and done and (self._stopped or (n is not None and done >= n)):
            self._notices.finished(kind, done, n, stopped=self._stopped)

    def _require_epoch(self) -> None:
        if self._phase is not Phase.EPOCH:
            raise UsageError(
                "batches() called outside the loop over epochs(); in a loop over steps(), use cycle()"
                if self.between_epochs
                else "batches() may be called only once per epoch"
            )
        if self._has_cycled or self._epoch_steps:
            what = "a batch of cycle() was taken" if self._has_cycled else "step() was called"
            raise UsageError(f"{what} before batches() in this epoch; move it into the loop over batches()")

    def _require_step(self) -> None:
        """Check that a batch of a cycle may be taken now, so that a resume takes it again in the same place."""
        match self._phase:
            case Phase.EPOCH:
                self._has_cycled = True
            case Phase.STEPPED | Phase.ACCUMULATING:
                raise UsageError(
                    "a batch of cycle() was taken after step(), so a resume would skip it; take it before step()"
                )
            case Phase.UNRESUMED | Phase.BETWEEN:
                raise UsageError(
                    "a batch of cycle() was taken outside the loop over steps(), so a resume would skip it; call "
                    "next() inside the loop, and iterate steps() first in a zip()"
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
