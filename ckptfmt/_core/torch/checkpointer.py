"""Training-loop helper: saves on schedule, and resumes exactly where a killed run stopped."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Never, NoReturn, Self, SupportsFloat, TypeVar

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.runs.retention import Mode, RetentionPolicy
from ckptfmt._core.torch.checkpointer_start import RunStart
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.live_objects.components import refuse_keywords
from ckptfmt._core.torch.run.components import Run
from ckptfmt._core.torch.run.loop import Loop
from ckptfmt._core.torch.run.progress import Moment
from ckptfmt._core.torch.saving.change_marks import mark
from ckptfmt._core.torch.saving.staging import DeviceStaging
from ckptfmt._core.training.preemption import LEAVE_SIGNALS, LeaveSignals
from ckptfmt._core.training.saving.last_step import LastStep
from ckptfmt._core.training.saving.leaving import leave
from ckptfmt._core.training.saving.outcomes import FailedSave, Outcomes
from ckptfmt._core.training.saving.run_saves import Place, Plan, RunSaves
from ckptfmt._core.training.saving.run_writer import SaveOptions, WhenBusy
from ckptfmt._core.training.saving.save_schedule import Deadline, Due, Schedule, deadline_seconds
from ckptfmt._core.training.saving.tidying import Tidying
from ckptfmt._core.training.watchdog import HangTimer
from ckptfmt.errors import CkptfmtError, SupersededError, UsageError

__all__ = ["Checkpointer"]

T = TypeVar("T")


class Checkpointer(RunStart):
    """Saves a training run and resumes it, so that it ends bit-identical to one that was never interrupted.

    ```python
    ckpt = Checkpointer(train_url, {"net": net, "optimizer": optimizer}, save_interval_steps=500)
    ckpt.resume()
    for epoch in ckpt.epochs(args.epochs):
        for images, labels in ckpt.batches(train_loader):
            ...
            optimizer.step()
            ckpt.step(loss=loss)
        ckpt.end_epoch(val_loss=evaluate())
    ```

    **Resuming.** `resume()` restores the newest checkpoint of the run in `train_url` that passes verification. Which
    one is newest is decided by what the checkpoints contain, not by their names. The same command starts a run and
    continues it, because every checkpoint contains the id of its run.

    **What is saved**: the components, the random states of Python, NumPy (the global generator) and PyTorch (CPU and
    CUDA), and the place in the data. Make `step()` the last call in the inner loop and `end_epoch()` the last call in
    the outer loop: a resumed run does not repeat what comes after them.

    **Saving.** Saves run in the background. The loop waits only while the state is copied, into memory that the next
    save reuses. A checkpoint is the state after exactly one step. The last save finishes before the loop over
    `epochs()` ends, and before the process exits.

    **Failed saves.** A failed save never ends training, and leaves existing checkpoints alone. It is reported on
    stderr, to the logger `ckptfmt` and in `last_error`, and retried after 5, 10, 20 seconds and so on, up to 10
    minutes. Training ends only if `on_failed_save` or `max_failed_saves` asks for it, or if another process has taken
    over the run (`SupersededError`, exit code 73: do not restart it).

    **Preemption.** On one of the `signals`, or shortly before the deadline, the current step is finished and saved,
    and the process exits with code 75: run the same command again, and no step is lost.

    **Several processes** (`torch.distributed`, DDP). Make the same calls on all ranks, after `init_process_group`. Rank
    0 writes; each rank gets its own random states and place in the data back. If one rank is slow or fails, all ranks
    skip the save, wait for it or fail together.

    State that differs between ranks is saved per rank, such as buffers that are not broadcast. At each save, the ranks
    compare digests of buffers and of everything that is not a tensor; they compare parameters and optimizer state at
    the first save of a process, and a sample of them at later ones. Buffers that DDP overwrites with those of rank 0
    are not compared, so pass the DDP module itself. A save fails if more than 256 MiB differ. A different number of
    ranks cannot resume the run, unless `allow_mismatch` names the components: all ranks then take the values of rank 0.
    Modules and optimizers that are sharded over ranks (FSDP, ZeRO, DTensor) are refused.

    Args:
        train_url: Directory of the run's checkpoints; created if missing. Relative paths and symbolic links are
            resolved at construction: the run stays in that directory. Or the URL of a store, such as
            `memory://NAME/PREFIX`.
        components: Objects to save and restore, by name: anything with `state_dict()` and `load_state_dict()` (modules,
            optimizers, schedulers, scalers, averages, your own objects), and random generators of Python, NumPy and
            PyTorch. They are restored in this order. Names consist of ASCII letters, digits and `_ . -`; `rng` and
            `progress` are reserved.
        save_interval_steps: Save every N steps.
        save_interval_minutes: Save when N minutes have passed since the last save.
        save_interval_epochs: Save at the end of every N-th epoch; None: not at the end of epochs.
        max_overhead: Share of the time that saves may take, such as 0.03, instead of an interval in steps or minutes.
            The interval follows from the measured cost of a save.
        signals: Signals on which to save and exit; () for none. They are handled from `resume()` to the end of
            `epochs()`, and in the main thread only.
        deadline: When the process will be ended: an aware datetime, or seconds since 1970; `slurm`: the end of the
            Slurm job (SLURM_JOB_END_TIME), if there is one; None: no deadline. The run is saved and the process exits
            30 seconds, plus twice the duration of the longest save, before it.
        save_on_exception: Save when an exception leaves the `with` block of this object, if the state is still that of
            a finished step. To detect that, all tensors are examined after each step. Has no effect with several ranks:
            an exception may have reached only one of them.
        background: Write while training continues. False: wait for each save.
        when_busy: What to do when a save is due and another one is still being written: `wait` or `skip`. Saves at the
            ends of epochs, by `save()` and before exiting always wait.
        on_failed_save: `warn` and continue, or `raise` at the next step, on all ranks.
        max_failed_saves: Raise after N failed saves in a row; None: never.
        keep_last: Keep the N newest checkpoints of the run. Without any `keep_*` option, all are kept.
        keep_every_steps: Keep one checkpoint of every N steps.
        keep_best: Keep the best checkpoints by a metric given to `step`, `end_epoch` or `save`: `("val_loss", "min")`
            for one, `("val_loss", "min", 3)` for three. Others are removed once a newer one is durable. Never removed:
            the newest one, pinned ones (`ckptfmt pin`), those of other runs, and those that cannot be read.
        hang_timeout: If no step or epoch ends for N seconds, the stacks of all threads are written to stderr and the
            process exits with code 1. Choose more than the longest evaluation takes.
        run_id: Id of the run. None: the run in `train_url` with the latest checkpoint, or else a new one. Give each run
            a directory of its own; runs that share one need an id each.
        codec: `none`, `zstd`, or a mapping of component names to these.
        unknown: Not for use; it lets an unknown keyword end in a clear error.

    Raises:
        UsageError: An argument makes no sense, or a component cannot be saved.
    """

    def __init__(
        self,
        train_url: str | os.PathLike[str],
        components: Mapping[str, object] | None = None,
        *,
        save_interval_steps: int | None = None,
        save_interval_minutes: float | None = None,
        save_interval_epochs: int | None = 1,
        max_overhead: float | None = None,
        signals: Iterable[int] = LEAVE_SIGNALS,
        deadline: Deadline = "slurm",
        save_on_exception: bool = False,
        background: bool = True,
        when_busy: WhenBusy = "wait",
        on_failed_save: FailedSave = "warn",
        max_failed_saves: int | None = None,
        keep_last: int | None = None,
        keep_every_steps: int | None = None,
        keep_best: tuple[str, Mode] | tuple[str, Mode, int] | None = None,
        hang_timeout: float | None = None,
        run_id: str | None = None,
        codec: str | Mapping[str, str] = "none",
        **unknown: Never,
    ) -> None:
        refuse_keywords("Checkpointer(train_url", _options(), components, unknown)
        if save_interval_epochs is not None and save_interval_epochs < 1:
            raise UsageError(f"save_interval_epochs is {save_interval_epochs}; pass a number of at least 1, or None")
        seconds = None if save_interval_minutes is None else 60 * save_interval_minutes
        schedule = Schedule(save_interval_steps, seconds, max_overhead, deadline_seconds(deadline))
        self._interval_epochs = save_interval_epochs
        run = Run(train_url, run_id, components, codec)
        policy = RetentionPolicy(keep_last=keep_last, keep_every_steps=keep_every_steps, keep_best=keep_best)
        options = SaveOptions(background, when_busy, Tidying(run, policy))
        outcomes = Outcomes(on_failed_save, max_failed_saves)
        saves = RunSaves(run.claim, schedule, options, outcomes, ranks=ranks, staging=DeviceStaging())
        super().__init__(run, Loop(), saves, schedule, LeaveSignals(signals), HangTimer(hang_timeout))
        self._last_step = LastStep(partial(mark, run.components), run.gather, ranks) if save_on_exception else None

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

    def save(self, **metrics: SupportsFloat) -> None:
        """Save now. Like every save it runs in the background; `wait()` returns when it is done.

        If nothing has changed since the last save of this process, metrics included, no second file is written.

        Args:
            metrics: Values to record in the checkpoint.

        Raises:
            UsageError: The run could not resume exactly from here; call it right after `step()` or between epochs.
            CkptfmtError: As in `step()`.
        """
        self._save(metrics)

    def wait(self) -> SaveReport | None:
        """Wait for the save in progress. With several ranks, all of them call it.

        Returns:
            The last checkpoint written, as `last_saved`. If it is not the expected one, see `last_error`.

        Raises:
            CkptfmtError: As in `step()`.
        """
        self._saves.settle()
        return self._saves.last

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._saves.settle()
            elif self._last_step is not None and not isinstance(error, SystemExit):
                self._last_step.save(self._saves)
            self.close()
        except CkptfmtError as failure:
            self.close()
            # The failed save is already reported; the error that ended the block matters more.
            if error is None or isinstance(failure, SupersededError):
                raise

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


def _options() -> list[str]:
    kinds = inspect.signature(Checkpointer).parameters.values()
    return [parameter.name for parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY]
