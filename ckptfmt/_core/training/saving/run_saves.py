"""Saves of a run: started when all ranks agree that one is due, settled when they agree on its outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, SupportsFloat

from ckptfmt._core.container.planning import SavePlan
from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.system.forks import release_in_children
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
"""Gathers the live state. Returns the planner of the checkpoint on the rank that writes, None on the others. All ranks
call it; if it fails on one, it fails on all.
"""

# Pauses before the last tries of the final save: a transient error must not cost the run its end.
_LAST_TRIES_SECONDS = (0.5, 2.0)

# Ranks that wait for a save exchange messages now and then: process groups time out after minutes of silence.
_WORD_SECONDS = 10.0
_LOOK_SECONDS = 0.005


class Place(NamedTuple):
    """Position of the loop. Ranks with different positions do not make the same calls."""

    step: int
    epoch: int
    accumulating: bool = False
    """Whether gradients wait for an optimizer step: nothing may be saved."""


class _Attempt(NamedTuple):
    """A save at its start."""

    step: int
    metrics: Mapping[str, SupportsFloat]
    begun: float
    here: bool
    """Whether this process writes the checkpoint."""


class RunSaves:
    """The saves of one run, one at a time.

    All ranks make the same calls, except for `poll` and `close`. Rank 0 writes, and reports any failed save at once.
    The others learn of it at their next common decision or when they settle the save; then all ranks raise the error,
    or none does.

    Args:
        claim: The right to save the run.
        schedule: When to save.
        options: How to save.
        outcomes: Record of the outcomes.
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
        release_in_children(self)

    def release_in_child(self) -> None:
        """Forget the running save in a forked child: the parent settles it."""
        self._open = False

    @property
    def last(self) -> SaveReport | None:
        """Report of the last checkpoint that all ranks know to be durable; None without one."""
        finished = self._finished_alone()
        return finished.written.report if finished is not None and finished.written is not None else self._outcomes.last

    @property
    def last_error(self) -> CkptfmtError | None:
        """Error of the last save, as all ranks know it; None if it had none."""
        finished = self._finished_alone()
        if finished is None:
            return self._outcomes.last_error
        return as_ckptfmt_error(finished.error) if finished.error is not None else complaint(finished.written)

    def begin(self, path: str | None, step: int) -> None:
        """Record that the run starts or, with the path of a checkpoint, resumes."""
        self._outcomes.begin(path, step, time.monotonic())

    def stepped(self, place: Place, *, leave: bool) -> Due:
        """Record a finished step, and return what all ranks do now. Nothing, while gradients accumulate.

        Rank 0 decides when to save; any rank can ask to leave.

        Args:
            place: Position of the loop.
            leave: Whether this rank was asked to leave.

        Raises:
            UsageError: The ranks do not make the same calls.
            CkptfmtError: A save failed, and failures raise.
        """
        self.poll()
        saving = self._was_busy or self._writer.busy
        self._was_busy = self._writer.busy
        if place.accumulating:
            return self._agree(place, Due.NOTHING)
        due = self._schedule.stepped(place.step, time.monotonic(), time.time(), saving=saving)
        return self._agree(place, Due.SAVE_AND_LEAVE if leave else due)

    def ended_epoch(self, place: Place, *, leave: bool) -> bool:
        """Record a finished epoch, and return whether all ranks leave now. Otherwise like `stepped`."""
        self.poll()
        leave = leave or self._schedule.must_leave(time.time())
        return self._agree(place, Due.SAVE_AND_LEAVE if leave else Due.NOTHING) is Due.SAVE_AND_LEAVE

    def save(self, step: int, gather: Gather, metrics: Mapping[str, SupportsFloat]) -> None:
        """Start a save once the previous one is settled; without background saves, settle it too.

        Args:
            step: Optimizer steps done.
            gather: Gathers the live state.
            metrics: Values to record.

        Raises:
            CkptfmtError: This save or the previous one failed, and failures raise.
        """
        self.settle()
        world = self._ranks.world()
        attempt = _Attempt(step, metrics, time.monotonic(), here=world.rank == 0)
        self._attempt = attempt
        numbers, complaints = as_numbers(metrics)
        try:
            plan = gather()
        except Exception as error:  # noqa: BLE001 - it may come from a loader, which is arbitrary code
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
        """Wait for the running save, if any, and record its outcome on all ranks.

        Raises:
            CkptfmtError: The save failed, and failures raise.
        """
        attempt = self._attempt
        if not self._open or attempt is None:
            return
        if self._ranks.world().size == 1 and not attempt.here:  # the job has ended: no agreement is left
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
        """Settle the last save; if it failed, retry a few times now, because no later step can.

        Args:
            step: Optimizer steps done.
            gather: Gathers the live state.
            must_succeed: Whether to raise the error of the last try in any case.

        Raises:
            CkptfmtError: The save failed, and failures raise.
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
        """Check, on this rank alone, whether the save that it writes has ended.

        Args:
            wait: Wait for the save.
        """
        finished = self._writer.poll(wait=wait)
        if finished is not None:
            self._schedule.written(finished.seconds)

    def close(self) -> None:
        """Wait for the running save of this rank. The other ranks need not call it.

        Raises:
            CkptfmtError: The save failed, there is no other rank, and failures raise.
        """
        self.poll(wait=True)
        if self._ranks.world().size == 1:
            self.settle()

    def _agree(self, place: Place, due: Due) -> Due:
        """Agree in one exchange on what all ranks do; settle a save that has ended."""
        busy = self._options.when_busy == "skip" and self._writer.busy
        world, over = self._ranks.world(), self._writer.finished is not None
        if due is Due.SAVE and (busy or world.rank != 0):
            due = Due.NOTHING
        if world.size > 1:
            due, over = self._agree_with_others(place, due, over=over)
        if over:
            self.settle()
        return due

    def _agree_with_others(self, place: Place, due: Due, *, over: bool) -> tuple[Due, bool]:
        here = [number for part in place for number in (int(part), -int(part))]
        most, any_over, *places = self._ranks.largest(due.value, int(over), *here)
        if places[:4] != here[:4]:
            raise UsageError(
                f"ranks do not make the same calls: some are at step {-places[1]} after {-places[3]} epochs, "
                f"others at step {places[0]} after {places[2]}; give each rank the same number of batches"
            )
        if places != here:
            raise UsageError(
                "ranks do not make the same calls: gradients wait for an optimizer step on some ranks only; let the "
                "optimizers of all ranks step at the same time"
            )
        return Due(most), bool(any_over)

    def _finished_alone(self) -> FinishedSave | None:
        """Return the save that has ended and is not settled, in a job of one process."""
        if self._ranks.world().size > 1:
            return None
        self.poll()
        return self._writer.finished

    def _is_busy_for_long(self) -> bool:
        """Wait a while for the save that this rank writes, and return whether it is still running."""
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
        """Record for how long a save has blocked the loop."""
        now = time.monotonic()
        self._schedule.saved(now, now - attempt.begun)
        self._was_busy = True
