"""The training loop: its epochs, batches and steps, and the saves that are due in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, SupportsFloat, TypeVar

from ckptfmt._core.torch.checkpointer_start import RunStart
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.rehearsal.rehearsal import Rehearsal
from ckptfmt._core.torch.run.accumulation import Accumulation
from ckptfmt._core.torch.run.progress import Moment
from ckptfmt._core.training.loop.batches import Batches
from ckptfmt._core.training.loop.cycle import Cycle
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.rehearsal.journal import Done
from ckptfmt._core.training.rehearsal.plan import RehearsalPlan
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
        rehearsal: Plan of the rehearsal that this process takes part in; None: it trains.
    """

    def __init__(
        self,
        *start: Any,
        interval_epochs: int | None,
        last_step: LastStep[Moment] | None,
        rehearsal: RehearsalPlan | None = None,
    ) -> None:
        super().__init__(*start)
        self._accumulation = Accumulation(self._run.components)
        self._has_reported_gradients = False
        self._has_unsaved_stop = False
        self._interval_epochs = interval_epochs
        self._last_step = last_step
        self._rehearsal = None
        if rehearsal is not None:
            self._rehearsal = Rehearsal(rehearsal, self._run.components, self._done, self._save_now)

    def epochs(self, n: int) -> Iterator[int]:
        """Yield the numbers of the epochs to train, up to n - 1; after a resume, beginning with the unfinished one.

        If the body does not call `end_epoch()`, the epoch ends without metrics. After the last epoch, the save in
        progress is finished, and retried at once if it fails.

        Raises:
            UsageError: `resume()` was not called, or an epoch is open.
        """
        with self._attended():
            for epoch in self._loop.epochs(n):
                yield epoch
                if self.epoch == epoch:
                    self.end_epoch()
            self._finish()

    def steps(self, n: int | None = None) -> Iterator[int]:
        """Yield the numbers of the steps to train, up to n - 1; after a resume, beginning with the next one.

        ```python
        for step in ckpt.steps(max_steps):
            x, y = get_batch()
            ...
            optimizer.step()
            ckpt.step(loss=loss)
        ```

        It takes the place of `range(max_steps)` or of a `while` loop in a program without epochs. A larger `n` in a
        later process continues the run. If the body does not call `step()`, the step ends without metrics when the body
        does. The last step is saved.

        Data may come from a function that draws from the global generators, from generators among the components, or
        from `cycle()`. A run that is trained in epochs cannot continue in a loop over steps, nor the other way round.

        Args:
            n: Number of steps of the whole run; None: until a `break`.

        Raises:
            UsageError: `resume()` was not called, or a step is open.
            MismatchError: The run was trained in a loop over `epochs()`, and `resume(allow_mismatch=["progress"])` did
                not allow it.
        """
        with self._attended():
            for step in self._loop.steps(n):
                if self._rehearsal is not None:
                    self._rehearsal.handed()
                yield step
                if self.global_step == step:
                    self.step()
            if self._loop.ends_accumulating:
                self._note_waiting_gradients("the last step")
                self._save({})
            self._finish()

    def stop(self) -> None:
        """End training early: the loop over `epochs()` or `steps()` ends after the current iteration.

        ```python
        if state.patience == 0:
            ckpt.stop()
        ckpt.end_epoch(val_loss=val_loss)
        ```

        The end is saved: the same command started again has nothing left to train. More epochs or steps than were asked
        for this time continue the run. Let the loop end by itself; a `break` would leave the stop unsaved.

        Raises:
            UsageError: No loop was begun.
        """
        self._loop.stop()
        self._has_unsaved_stop = True

    def batches(self, loader: Iterable[T]) -> Batches[T]:
        """Return the batches of one pass over `loader`; in a resumed epoch, those not trained on yet.

        The result is an iterator with the length of the loader. Its `start` is the number of batches that earlier
        processes have trained on, for progress bars and schedules: `tqdm(batches, initial=batches.start)`. To number
        the batches, use `enumerate()` of this object.

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
        return self._loop.batches(loader, None if self._rehearsal is None else self._rehearsed)

    def enumerate(self, loader: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Yield the number of each batch in the epoch, and the batch; after a resume, the numbers continue, too.

        ```python
        for i, (images, labels) in ckpt.enumerate(train_loader):
        ```

        Args:
            loader: As for `batches`.

        Raises:
            CkptfmtError: As from `batches`.
        """
        batches = self.batches(loader)
        number = None
        for batch in batches:
            number = batches.start if number is None else number + 1
            yield number, batch

    def cycle(self, loader: Iterable[T], *, set_epoch: Callable[[int], object] | None = None) -> Cycle[T]:
        """Return an endless iterator over the batches of `loader`, for loops over `steps()`.

        ```python
        data = ckpt.cycle(train_loader)
        for step in ckpt.steps(max_steps):
            images, labels = next(data)
        ```

        When a round is over, the loader begins again, as in `while True: yield from loader`. A resumed run continues in
        the middle of the round, with the same batches, and loads only those of this round again; what `batches()` says
        of loaders holds here, too. Several cycles are told apart by the order in which they are created.

        Take batches only between the beginning of a step and its `step()`.

        Args:
            loader: A DataLoader, or any other iterable that can be iterated again.
            set_epoch: Called with the number of each round before it begins, counted from 0, such as the `set_epoch` of
                a `DistributedSampler`.

        Raises:
            UsageError: `resume()` was not called. From `next()`: a batch is taken outside a step, or the loader is
                empty.
            MismatchError: From `next()`, as from `batches()`.
        """
        return self._loop.cycle(loader, set_epoch)

    def step(self, *, accumulating: bool | None = None, **metrics: SupportsFloat) -> None:
        """Count a step, and save if a save is due. Call it once per batch or step, after all work on it.

        In an epoch without `batches()` it only counts: the run is saved at the end of the epoch.

        With gradient accumulation, call it for each micro-batch all the same. Steps of the optimizers among the
        components are noticed: while gradients wait for one, nothing is saved, signals and the deadline wait, too, and
        in a loop over batches the step is not counted.

        Args:
            accumulating: Whether gradients wait for an optimizer step. None: find out from the optimizers among the
                components; for loops without such optimizers, nothing waits.
            metrics: Values to record in the checkpoint, read only if one is saved.

        Raises:
            SystemExit: A signal or the deadline asked to exit, and everything is saved; with code 75.
            UsageError: The call is outside `batches()` and `steps()`, or the second one for a batch or step.
            CkptfmtError: A save failed, and `on_failed_save` or `max_failed_saves` asks for an error; always
                SupersededError.
        """
        waits = self._accumulation.waits()
        waits = waits if accumulating is None else accumulating
        self._loop.count_step(accumulating=waits)
        self._hang.reset()
        place = Place(self.global_step, self.epoch, not self._loop.is_at_place)
        due = self._saves.stepped(place, leave=self._signals.received is not None)
        if due is not Due.NOTHING or self._loop.is_at_end:
            self._save(metrics)
        if due is Due.SAVE_AND_LEAVE:
            self._leave()
        if self._last_step is not None and self._loop.is_at_place:
            self._last_step.note(self.global_step, self._moment)
        if self._rehearsal is not None and not waits:
            self._rehearsal.stepped()

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
        self._note_waiting_gradients("the epoch")
        leave = self._saves.ended_epoch(Place(self.global_step, self.epoch), leave=self._signals.received is not None)
        if leave or (self._interval_epochs is not None and self.epoch % self._interval_epochs == 0):
            self._save(metrics)
        self._schedule.pause()
        if leave:
            self._leave()
        if self._rehearsal is not None:
            self._rehearsal.ended_epoch()

    def close(self) -> None:
        """Finish the save of this process, restore the signal handlers, and stop watching for hangs.

        The end of the loop over `epochs()` does the same; a second call does nothing. Safe in `finally`: unlike
        `wait()`, it does not wait for other ranks.

        Raises:
            CkptfmtError: As in `step()`.
        """
        self._hang.stop()
        self._accumulation.close()
        try:
            self._saves.close()
        finally:
            self._run.claim.release()
            self._signals.remove()

    @contextmanager
    def _attended(self) -> Iterator[None]:
        self._attend()
        self._accumulation.watch()
        try:
            yield
        except GeneratorExit:
            if self._has_unsaved_stop:
                notify(
                    "the loop was left after stop(), which is not saved: a restart trains on; let the loop end itself"
                )
            raise
        finally:
            # After a break, the program may take any time.
            self._hang.stop()

    def _note_waiting_gradients(self, when: str) -> None:
        """Report, once, gradients that wait for an optimizer step where the run is saved all the same."""
        if self._has_reported_gradients or not self._accumulation.waits_at_end():
            return
        self._has_reported_gradients = True
        if ranks.world().rank == 0:
            notify(
                f"{when} ends with gradients that wait for an optimizer step, and a checkpoint has none: a resumed run "
                "differs if they are still used; call zero_grad() or step() before, or add ckptfmt.torch.Gradients(net)"
                " to the components"
            )

    def _finish(self) -> None:
        if self._has_unsaved_stop:
            self._save({})
        self._saves.finish(self.global_step, self._gather)
        self.close()

    def _moment(self) -> Moment:
        return Moment(self._loop.progress(), rng.capture())

    def _gather(self) -> Plan | None:
        return self._run.gather(self._moment)

    def _save(self, metrics: Mapping[str, SupportsFloat]) -> None:
        self._loop.require_place()
        self._loop.note_save()
        self._has_unsaved_stop = False
        self._saves.save(self.global_step, self._gather, metrics)

    def _rehearsed(self, batches: Iterator[T]) -> Iterator[T]:
        assert self._rehearsal is not None
        return self._rehearsal.batches(batches)

    def _done(self) -> Done:
        return Done(self.epoch, self.global_step, self._loop.consumed)

    def _save_now(self) -> None:
        self._save({})
        self._saves.settle()

    def _leave(self) -> NoReturn:
        try:
            leave(self._saves, self.global_step, self._gather, self._signals.received, ranks)
        finally:
            self.close()
