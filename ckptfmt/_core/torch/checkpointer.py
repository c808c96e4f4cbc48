"""The helper for the training loop: saves when due, and goes on exactly where a killed run stopped."""

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
    """Saves a training run, and resumes it so that it ends bit-identical to one that was never interrupted.

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

    `resume()` takes the newest checkpoint of the run in `train_url` that verifies, by what is written inside. It is the
    same command that starts a run and goes on with it: the id of the run stands in every checkpoint.

    Saved and restored are the components, the generators of Python, NumPy (the global one) and PyTorch (CPU and
    CUDA), and the place in the data. What is done after `step()` in the body of the inner loop, or after
    `end_epoch()` in that of the outer one, is not done again after a resume: make these calls the last ones.

    Saves go on in the background: the loop waits while the state is copied, to memory that is used again for the next
    save, and no longer. A checkpoint is the state after one step exactly. When the loop over `epochs()` ends, and when
    the process does, the last save is waited for.

    A save that fails, for whatever reason, does not end the training and leaves the checkpoints that are there as they
    are. It is reported on stderr, to the logger `ckptfmt` and in `last_error`, and tried again after 5 seconds, 10, 20
    and so on, up to 10 minutes. Two things end the training all the same: what `on_failed_save` and `max_failed_saves`
    ask for, and another process that has taken over the run (`SupersededError`, exit code 73: do not start it again).

    On one of the `signals`, or shortly before the deadline, the step is finished and saved, and the process leaves
    with exit code 75: start it again by the same command, and no step is lost.

    In a job of several processes (`torch.distributed`, DDP), make the same calls in all of them, after
    `init_process_group`. Rank 0 writes; each rank gets back its own random states and its own place in the data. When
    one rank is slow or fails in a save, all of them skip it, wait for it or fail together.

    State that differs between ranks is saved per rank: buffers that are not broadcast, histories, whatever it is. At
    each save the ranks compare digests of buffers and of everything that is no tensor. Parameters, and what an
    optimizer keeps for them, are compared at the first save of a process, and then a sample of them at each. Buffers
    that DDP will overwrite with rank 0's are not compared, so give the DDP module itself. More than 256 MiB that differ
    fail the save. A resume by another number of ranks is refused; for a component in `allow_mismatch`, all ranks
    take rank 0's values. Modules and optimizers that are sharded over ranks (FSDP, ZeRO, DTensor) are refused.

    Args:
        train_url: Directory of the run's checkpoints; made if it is not there.
        components: By name, everything that has `state_dict()` and `load_state_dict()`: modules, optimizers,
            schedulers, scalers, averages, your own objects; and random generators of Python, NumPy and PyTorch. They
            are restored in the given order. Names are of letters, digits and `_ . -`, not `rng` or `progress`.
        save_interval_steps: Save after every so many steps.
        save_interval_minutes: Save when so many minutes have passed since the last save.
        save_interval_epochs: Save at the end of every so many epochs; None: at no epoch's end.
        max_overhead: Instead of an interval in steps or minutes: the share of the time that saves may take, such as
            0.03. The interval follows from what a save is measured to cost.
        signals: On which signals to save and leave; () for none. They are taken over from `resume()` to the end of
            `epochs()`, in the main thread only.
        deadline: When the process will be ended: an aware datetime or seconds since 1970. `slurm`: what Slurm
            tells the job (SLURM_JOB_END_TIME), if anything. Shortly before (30 seconds and twice the time of the
            longest save), the run is saved and the process leaves. None: do not.
        save_on_exception: Save when the `with` block of this object is left by an exception, provided that the
            state is still that of a finished step. To know that, all tensors are looked at after each step. With
            several ranks it does nothing: one of them may have met with an exception, and the others not.
        background: Write while training goes on. False: each save is waited for.
        when_busy: What a save that is due does while another one is written: `wait` for it, or `skip` this one.
            Saves at epoch ends, by `save()` and before leaving always wait.
        on_failed_save: `warn` and train on, or `raise` at the next step, on all ranks.
        max_failed_saves: After so many failed saves in a row, raise all the same. None: never.
        keep_last: Keep so many of the newest checkpoints of the run. With none of the three, all are kept.
        keep_every_steps: Keep one checkpoint of every so many steps.
        keep_best: Keep the best by a metric that is given to `step`, `end_epoch` or `save`: `("val_loss", "min")`, or
            several: `("val_loss", "min", 3)`. Old checkpoints are removed once a new one is durable. Never removed
            are the newest, those with a pin (`ckptfmt pin`), and what is not this run's or cannot be read.
        hang_timeout: Seconds. If no step or epoch ends for so long, the stacks of all threads are written to stderr
            and the process ends with exit code 1. Give more than the longest evaluation takes.
        run_id: Id of the run. None: the run in `train_url` whose checkpoint was created last, or else a new one.
            Directories are best not shared by runs; those that are need an id for each.
        codec: `none`, `zstd`, or a mapping of component name to one of them.
        unknown: No keyword: there are no other options.

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
            raise UsageError(f"save_interval_epochs is {save_interval_epochs}: give a number from 1 on, or None")
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
        """Yield the numbers of the epochs to be trained, up to n - 1; after a resume, from the unfinished one on.

        An epoch whose end was not announced by `end_epoch()` is ended, without metrics, before the next one begins.
        When the last one is over, the save that is under way is waited for, and tried again at once if it fails.

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
            # Whoever breaks out of the loop may take his time.
            self._hang.stop()
        self._saves.finish(self.global_step, self._gather)
        self.close()

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """Yield the batches of one pass over `loader`; in the epoch of a resume, those that are not done yet.

        The batches are those of the uninterrupted run, in its order: for shuffling loaders, for any number of workers,
        for loaders with a `generator=`, and for samplers and data sets that count their passes. To get there after a
        resume, the pass begins again and the batches that are done are loaded once more and dropped: that costs their
        loading time. The last few of them are compared with what they were. A loader with a usable `state_dict()` goes
        on at once.

        A run that was saved after the last batch of an epoch goes on behind the loop over them: what comes there must
        not need a variable that only the body of the loop sets.

        Set what belongs to an epoch, such as `set_epoch()`, before this call. Two things are beyond it, and told where
        they show: persistent workers begin anew, and so does what they draw at random; and a data set or sampler that
        is iterated in this process and draws from the global generators as it goes along must not depend on what it
        drew before, as a shuffle buffer does: give it a generator of its own, or the resume may be refused.

        Args:
            loader: A DataLoader or any other iterable that gives the same batches for the same random states.

        Raises:
            UsageError: It is used outside `epochs()`, or twice in an epoch.
            MismatchError: The loader is another one than that of the checkpoint, or gives other batches, and
                `resume(allow_mismatch=["progress"])` did not allow that.
        """
        return self._loop.batches(loader)

    def step(self, **metrics: SupportsFloat) -> None:
        """Count a step, and save if that is due. Call it once per batch, when all work on the batch is done.

        Args:
            metrics: Values to note in the checkpoint. They are looked at only when one is saved.

        Raises:
            SystemExit: With code 75, when a signal or the deadline asks to leave and everything is saved.
            UsageError: It is called outside `batches()`, or twice for one batch.
            CkptfmtError: A save failed, and `on_failed_save` or `max_failed_saves` says so; SupersededError at once.
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
            metrics: Values to note in the checkpoint, e.g. `val_loss=0.31`.

        Raises:
            SystemExit: With code 75, when a signal or the deadline asks to leave and everything is saved.
            UsageError: No epoch is open.
            CkptfmtError: A save failed, and `on_failed_save` or `max_failed_saves` says so; SupersededError at once.
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
        """Save now. In the background, as every save: `wait()` tells when it is done.

        If nothing at all has changed since the last save of this process, metrics included, its file stands for this
        one, too.

        Args:
            metrics: Values to note in the checkpoint.

        Raises:
            UsageError: The run could not go on exactly from here: call it right after `step()` or between epochs.
            CkptfmtError: A save failed, and `on_failed_save` or `max_failed_saves` says so; SupersededError at once.
        """
        self._save(metrics)

    def wait(self) -> SaveReport | None:
        """Wait for the save that is under way. With several ranks, all of them call it.

        Returns:
            The last checkpoint that was written, as `last_saved`; if it is not the one waited for, see `last_error`.

        Raises:
            CkptfmtError: The save failed, as in `save()`.
        """
        self._saves.settle()
        return self._saves.last

    def close(self) -> None:
        """Wait for the save that this process writes, give the signals back, and watch for hangs no more.

        The end of the loop over `epochs()` does the same. A second call does nothing. It is for `finally`, too: it
        waits for no other rank; `wait()` does.

        Raises:
            CkptfmtError: The save failed, as in `save()`.
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
            # A failed save was told already; what ended the block matters more.
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
