"""The training loop: its epochs, batches and steps, and the saves that are due in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, SupportsFloat, TypeVar

from ckptfmt._core.torch.checkpointer_start import RunStart
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.run.progress import Moment
from ckptfmt._core.training.saving.last_step import LastStep
from ckptfmt._core.training.saving.leaving import leave
from ckptfmt._core.training.saving.run_saves import Place, Plan
from ckptfmt._core.training.saving.save_schedule import Due

__all__ = ["RunLoop"]

T = TypeVar("T")


class RunLoop(RunStart):
    """Counts epochs and steps, yields batches, and saves when due.

    Args:
        start: Arguments of `RunStart`.
        interval_epochs: Save at the end of every N-th epoch; None: not at the end of epochs.
        last_step: Record of the last step, to save it after an exception; None: not saved.
    """

    def __init__(self, *start: Any, interval_epochs: int | None, last_step: LastStep[Moment] | None) -> None:
        super().__init__(*start)
        self._interval_epochs = interval_epochs
        self._last_step = last_step

    def epochs(self, n: int) -> Iterator[int]:
        """Yield the numbers of the epochs to train, up to n - 1; after a resume, beginning with the unfinished one.

        If the body does not call `end_epoch()`, the epoch ends without metrics. After the last epoch, the save in
        progress is finished, and retried at once if it fails.

        Raises:
            UsageError: `resume()` was not called, or an epoch is open.
        """
        self._attend()
        try:
            for epoch in self._loop.epochs(n):
                yield epoch
                if self.epoch == epoch:
                    self.end_epoch()
        finally:
            # After a break, the program may take any time.
            self._hang.stop()
        self._saves.finish(self.global_step, self._gather)
        self.close()

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """Yield the batches of one pass over `loader`; in a resumed epoch, those not trained on yet.

        The batches and their order are those of an uninterrupted run: for shuffling loaders, any number of workers,
        loaders with a `generator=`, and samplers and data sets that count their passes. After a resume, the pass starts
        again, and the batches already trained on are loaded and dropped, which takes their loading time. The last few
        of them are compared with their recorded fingerprints. A loader with a usable `state_dict()` continues at once:
        a batch that comes again is refused; samples that come again, and a pass of another length, are reported. If its
        state restores another order, and no recorded sample comes again in the next batches, nothing can show that.

        The state that determines the order is restored if it is in attributes (slots and class attributes included), in
        variables that the code of samplers, data sets and collate functions refers to, or in the global generators. If
        the epochs of the run differed, an epoch that repeats an earlier one after a resume is refused. If only one
        epoch was finished before the resume, a repetition is detected, and reported, when the next epoch begins.

        Code after the loop must not use variables set only in its body: after a resume the loop may run zero times.

        Call `set_epoch()` and the like before this method. Two cases are not exact, and are reported. Persistent
        workers restart with new random states. And a data set or sampler that is iterated in this process and draws
        from the global generators must not depend on its earlier draws, as a shuffle buffer does: give it a generator
        of its own, or the resume may be refused.

        Args:
            loader: A DataLoader, or any other iterable that yields the same batches for the same random states.

        Raises:
            UsageError: The call is outside `epochs()`, or the second one in an epoch.
            MismatchError: The loader differs from that of the checkpoint or yields other batches, and
                `resume(allow_mismatch=["progress"])` did not allow it.
        """
        return self._loop.batches(loader)

    def step(self, **metrics: SupportsFloat) -> None:
        """Count a step, and save if a save is due. Call it once per batch, after all work on the batch.

        Args:
            metrics: Values to record in the checkpoint, read only if one is saved.

        Raises:
            SystemExit: A signal or the deadline asked to exit, and everything is saved; with code 75.
            UsageError: The call is outside `batches()`, or the second one for a batch.
            CkptfmtError: A save failed, and `on_failed_save` or `max_failed_saves` asks for an error; always
                SupersededError.
        """
        self._loop.count_step()
        self._hang.reset()
        due = self._saves.stepped(self._place, leave=self._signals.received is not None)
        if due is not Due.NOTHING:
            self._save(metrics)
        if due is Due.SAVE_AND_LEAVE:
            self._leave()
        if self._last_step is not None:
            self._last_step.note(self.global_step, self._moment)

    def end_epoch(self, **metrics: SupportsFloat) -> None:
        """Count a finished epoch, and save.

        Args:
            metrics: Values to record in the checkpoint, such as `val_loss=0.31`.

        Raises:
            SystemExit: As in `step()`.
            UsageError: No epoch is open.
            CkptfmtError: As in `step()`.
        """
        self._loop.end_epoch()
        self._hang.reset()
        leave = self._saves.ended_epoch(self._place, leave=self._signals.received is not None)
        if leave or (self._interval_epochs is not None and self.epoch % self._interval_epochs == 0):
            self._save(metrics)
        self._schedule.pause()
        if leave:
            self._leave()

    def close(self) -> None:
        """Finish the save of this process, restore the signal handlers, and stop watching for hangs.

        The end of the loop over `epochs()` does the same; a second call does nothing. Safe in `finally`: unlike
        `wait()`, it does not wait for other ranks.

        Raises:
            CkptfmtError: As in `step()`.
        """
        self._hang.stop()
        try:
            self._saves.close()
        finally:
            self._run.claim.release()
            self._signals.remove()

    @property
    def _place(self) -> Place:
        return Place(self.global_step, self.epoch)

    def _moment(self) -> Moment:
        return Moment(self._loop.progress(), rng.capture())

    def _gather(self) -> Plan | None:
        return self._run.gather(self._moment)

    def _save(self, metrics: Mapping[str, SupportsFloat]) -> None:
        self._loop.require_place()
        self._saves.save(self.global_step, self._gather, metrics)

    def _leave(self) -> NoReturn:
        try:
            leave(self._saves, self.global_step, self._gather, self._signals.received, ranks)
        finally:
            self.close()
