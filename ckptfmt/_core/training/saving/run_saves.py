"""A run's saves: begun when all ranks agree that one is due, and settled when all ranks agree what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, SupportsFloat

from ckptfmt._core.container.planning import SavePlan
from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.system.forks import let_go_in_children
from ckptfmt._core.training.claiming import RunClaim
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.ranks import Ranks
from ckptfmt._core.training.saving.background_saver import FinishedSave, Written
from ckptfmt._core.training.saving.metric_values import as_numbers
from ckptfmt._core.training.saving.outcomes import Outcomes, as_ckptfmt_error, complaint
from ckptfmt._core.training.saving.run_writer import RunWriter, SaveOptions
from ckptfmt._core.training.saving.save_schedule import Due, Schedule
from ckptfmt._core.training.saving.staging import Staging
from ckptfmt.errors import CkptfmtError, UsageError

__all__ = ["Gather", "Place", "Plan", "RunSaves"]

Plan = Callable[[Mapping[str, float]], SavePlan]
"""Returns the plan of a checkpoint with these metrics."""

Gather = Callable[[], Plan | None]
"""Looks at the live state. On the rank that writes, it returns what plans the checkpoint; on the others None. All ranks
call it, and it fails on all of them if it fails on one."""

# Pauses before the last tries of a save that no step follows: what fails for a moment must not cost the run its end.
_LAST_TRIES_SECONDS = (0.5, 2.0)

# Ranks that wait for a save exchange a word now and then: process groups give up an exchange that takes minutes.
_WORD_SECONDS = 10.0
_LOOK_SECONDS = 0.005


class Place(NamedTuple):
    """Where the loop stands. It is the same on all ranks, or they do not make the same calls."""

    step: int
    epoch: int


class _Attempt(NamedTuple):
    """A save, when it begins."""

    step: int
    metrics: Mapping[str, SupportsFloat]
    begun: float
    here: bool
    """This process writes it."""


class RunSaves:
    """The saves of one run, one at a time.

    All ranks make the same calls, except for `poll` and `close`. Rank 0 writes, and tells at once of a save that fails,
    for whatever reason. The others learn of it when all of them next decide something or settle the save; then it is
    raised on all ranks, or on none.

    Args:
        claim: The right to save the run.
        schedule: When it is saved.
        options: How it is saved.
        outcomes: Where to note what came of it.
        ranks: The job.
        staging: Copies the state, so that training can continue while it is written.
    """

    def __init__(
        self,
        claim: RunClaim,
        schedule: Schedule,
        options: SaveOptions,
        outcomes: Outcomes,
        *,
        ranks: Ranks,
        staging: Staging,
    ) -> None:
        self._ranks = ranks
        self._schedule = schedule
        self._options = options
        self._outcomes = outcomes
        self._writer = RunWriter(claim, options, outcomes, ranks, staging)
        self._attempt: _Attempt | None = None
        self._open = False
        self._was_busy = False
        let_go_in_children(self)

    def let_go(self) -> None:
        """Forget the save that is under way, in a forked child: it is the parent's to settle."""
        self._open = False

    @property
    def last(self) -> SaveReport | None:
        """The last checkpoint that is known, to all ranks, to be durable; None if there is none."""
        finished = self._finished_alone()
        return finished.written.report if finished is not None and finished.written is not None else self._outcomes.last

    @property
    def last_error(self) -> CkptfmtError | None:
        """What went wrong with the last save, as all ranks know it; None if nothing did."""
        finished = self._finished_alone()
        if finished is None:
            return self._outcomes.last_error
        return as_ckptfmt_error(finished.error) if finished.error is not None else complaint(finished.written)

    def begin(self, path: str | None, step: int) -> None:
        """Note that the run starts or, with the path of a checkpoint, resumes."""
        self._outcomes.begin(path, step, time.monotonic())

    def stepped(self, place: Place, *, leave: bool) -> Due:
        """Note that a step is done, and return what all ranks do now.

        Rank 0 says when to save, any rank when to leave.

        Args:
            place: Where the loop stands.
            leave: This rank was asked to leave.

        Raises:
            UsageError: The ranks do not make the same calls.
            CkptfmtError: A save failed, and that is to be raised.
        """
        self.poll()
        saving = self._was_busy or self._writer.busy
        self._was_busy = self._writer.busy
        due = self._schedule.stepped(place.step, time.monotonic(), time.time(), saving=saving)
        return self._agree(place, Due.SAVE_AND_LEAVE if leave else due)

    def ended_epoch(self, place: Place, *, leave: bool) -> bool:
        """Note that an epoch is over, and return whether all ranks leave now; otherwise as `stepped`."""
        self.poll()
        leave = leave or self._schedule.must_leave(time.time())
        return self._agree(place, Due.SAVE_AND_LEAVE if leave else Due.NOTHING) is Due.SAVE_AND_LEAVE

    def save(self, step: int, gather: Gather, metrics: Mapping[str, SupportsFloat]) -> None:
        """Begin a save, once the one before is settled; unless in the background, settle it too.

        Args:
            step: Optimizer steps done.
            gather: Looks at the live state.
            metrics: Values to note.

        Raises:
            CkptfmtError: A save failed, this one or the one before, and that is to be raised.
        """
        self.settle()
        world = self._ranks.world()
        attempt = _Attempt(step, metrics, time.monotonic(), here=world.rank == 0)
        self._attempt = attempt
        numbers, complaints = as_numbers(metrics)
        try:
            plan = gather()
        except Exception as error:  # noqa: BLE001 - it may come from a loader, which is anybody's code
            self._hold(attempt)
            if attempt.here:
                self._writer.report_failure(error, step)
            self._failed(error)
            return
        if plan is not None:
            self._writer.start(step, partial(plan, numbers), complaints)
            self.poll()
        self._open = True
        self._hold(attempt)
        if not self._options.background or (world.size == 1 and self._writer.finished):
            self.settle()

    def settle(self) -> None:
        """Wait for the save that is under way, if there is one, and note on all ranks what came of it.

        Raises:
            CkptfmtError: It failed, and that is to be raised.
        """
        attempt = self._attempt
        if not self._open or attempt is None:
            return
        if self._ranks.world().size == 1 and not attempt.here:  # the job is over, and so is what it agreed on
            self._open = False
            return
        while self._ranks.largest(int(self._is_busy_for_long()))[0]:
            pass
        try:
            written = self._ranks.on_rank_0(self._result)
        except Exception as error:  # noqa: BLE001 - a save may fail in any way
            self._failed(error)
            return
        self._open = False
        self._schedule.succeeded()
        self._outcomes.saved(written, attempt.step, attempt.begun)

    def finish(self, step: int, gather: Gather, *, must_succeed: bool = False) -> None:
        """Settle the last save; if it failed, try again a few times: no step follows at which that could be done.

        Args:
            step: Optimizer steps done.
            gather: Looks at the live state.
            must_succeed: Raise what the last try fails with, whatever failures do otherwise.

        Raises:
            CkptfmtError: It failed, and that is to be raised.
        """
        self.settle()
        for pause in _LAST_TRIES_SECONDS:
            if not self._outcomes.failing:
                return
            time.sleep(pause)
            last = self._attempt
            self.save(step, gather, last.metrics if last is not None and last.step == step else {})
            self.settle()
        error = self._outcomes.last_error
        if not self._outcomes.failing or error is None:
            return
        if must_succeed:
            raise error
        if self._ranks.world().rank == 0:
            notify(f"the run ends at step {step}, which is NOT SAVED: {error}", logging.ERROR)

    def poll(self, *, wait: bool = False) -> None:
        """See, on this rank alone, whether the save that it writes is over.

        Args:
            wait: Wait for it.
        """
        finished = self._writer.poll(wait=wait)
        if finished is not None:
            self._schedule.written(finished.seconds)

    def close(self) -> None:
        """Wait for the save that is under way on this rank. The other ranks need not call it.

        Raises:
            CkptfmtError: There is no other rank, it failed, and that is to be raised.
        """
        self.poll(wait=True)
        if self._ranks.world().size == 1:
            self.settle()

    def _agree(self, place: Place, due: Due) -> Due:
        """Return what all ranks do, by one exchange; if a save is over, settle it."""
        busy = self._options.when_busy == "skip" and self._writer.busy
        if due is Due.SAVE and (busy or self._ranks.world().rank != 0):
            due = Due.NOTHING
        most, over, *places = self._ranks.largest(
            due.value, int(self._writer.finished is not None), place.step, -place.step, place.epoch, -place.epoch
        )
        if places != [place.step, -place.step, place.epoch, -place.epoch]:
            raise UsageError(
                f"the ranks do not make the same calls: some are at step {-places[1]} after {-places[3]} epochs, "
                f"others at step {places[0]} after {places[2]}; give each rank the same number of batches"
            )
        if over:
            self.settle()
        return Due(most)

    def _finished_alone(self) -> FinishedSave | None:
        """Return the save that is over and not settled, if there is nobody to agree with."""
        if self._ranks.world().size > 1:
            return None
        self.poll()
        return self._writer.finished

    def _is_busy_for_long(self) -> bool:
        """Wait for the save that this rank writes; say whether it still goes on after a while."""
        if self._ranks.world().size == 1:
            return False
        latest = time.monotonic() + _WORD_SECONDS
        while self._writer.busy and time.monotonic() < latest:
            time.sleep(_LOOK_SECONDS)
        return self._writer.busy

    def _result(self) -> Written:
        self.poll(wait=True)
        return self._writer.result()

    def _failed(self, error: Exception) -> None:
        self._open = False
        self._schedule.failed(time.monotonic())
        self._outcomes.failed(error)

    def _hold(self, attempt: _Attempt) -> None:
        """Note for how long a save has held the loop."""
        now = time.monotonic()
        self._schedule.saved(now, now - attempt.begun)
        self._was_busy = True
