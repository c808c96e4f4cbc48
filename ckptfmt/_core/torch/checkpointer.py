"""The helper for the training loop: saves when due, and goes on exactly where a killed run stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import NoReturn, Self, SupportsFloat, TypeVar

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.runs.retention import Mode, RetentionPolicy
from ckptfmt._core.storage.local.paths import local_path
from ckptfmt._core.torch.checkpointer_properties import RunFacts
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.resume.resuming import resume_run
from ckptfmt._core.torch.run.components import Run
from ckptfmt._core.torch.run.loop_state import Loop
from ckptfmt._core.torch.run.progress import Moment
from ckptfmt._core.torch.saving.change_marks import mark
from ckptfmt._core.torch.saving.staging import DeviceStaging
from ckptfmt._core.torch.saving.tidying import Tidying
from ckptfmt._core.torch.warm_start.fit import Names, Rename
from ckptfmt._core.torch.warm_start.plan import Mapped, Request, WarmStartReport, render_warm_start, warm_start_run
from ckptfmt._core.training.failures import SupersededError, UsageError
from ckptfmt._core.training.notices import show
from ckptfmt._core.training.preemption import LEAVE_SIGNALS, LeaveSignals
from ckptfmt._core.training.report import ResumeReport, render_report
from ckptfmt._core.training.saving.last_step import LastStep
from ckptfmt._core.training.saving.leaving import leave
from ckptfmt._core.training.saving.outcomes import FailedSave, Outcomes
from ckptfmt._core.training.saving.run_saves import Place, Plan, RunSaves
from ckptfmt._core.training.saving.run_writer import SaveOptions, WhenBusy
from ckptfmt._core.training.saving.save_schedule import Deadline, Due, Schedule, deadline_seconds
from ckptfmt._core.training.stateful import Stateful
from ckptfmt._core.training.watchdog import HangTimer
from ckptfmt.errors import CkptfmtError

__all__ = ["Checkpointer"]

T = TypeVar("T")


class Checkpointer(RunFacts):
    """Saves a training run, and resumes it so that it ends bit-identical to one that was never interrupted.

    ```python
    ckpt = Checkpointer(train_url, net=net, optimizer=optimizer, scheduler=scheduler, save_interval_steps=500)
    ckpt.resume()
    for epoch in ckpt.epochs(args.epochs):
        for images, labels in ckpt.batches(train_loader):
            ...
            optimizer.step()
            ckpt.step(loss=loss)
        scheduler.step()
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
    fail the save. A resume by another number of ranks is refused; for a component in `waive`, all ranks take rank 0's
    values. Modules and optimizers that are sharded over ranks (FSDP, ZeRO, DTensor) are refused.

    Args:
        train_url: Directory of the run's checkpoints; made if it is not there.
        save_interval_steps: Save after every so many steps.
        save_interval_minutes: Save when so many minutes have passed since the last save.
        save_interval_epochs: Save at the end of every so many epochs; None: at no epoch's end.
        max_overhead: Instead of an interval in steps or minutes: the share of the time that saves may take, such as
            0.03. The interval follows from what a save is measured to cost.
        signals: On which signals to save and leave; () for none. They are taken over from `resume()` to the end of
            `epochs()`, in the main thread only.
        deadline: When the process will be ended: an aware datetime or seconds since 1970. `environment`: what Slurm
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
        components: Everything that has `state_dict()` and `load_state_dict()`: modules, optimizers, schedulers,
            scalers, averages, your own objects; and random generators of Python, NumPy and PyTorch. They are
            restored in the given order.

    Raises:
        UsageError: An argument makes no sense; `PolicyError` for what to keep.
    """

    def __init__(
        self,
        train_url: str | os.PathLike[str],
        /,
        *,
        save_interval_steps: int | None = None,
        save_interval_minutes: float | None = None,
        save_interval_epochs: int | None = 1,
        max_overhead: float | None = None,
        signals: Iterable[int] = LEAVE_SIGNALS,
        deadline: Deadline = "environment",
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
        **components: Stateful,
    ) -> None:
        if save_interval_epochs is not None and save_interval_epochs < 1:
            raise UsageError(f"save_interval_epochs is {save_interval_epochs}: give a number from 1 on, or None")
        seconds = None if save_interval_minutes is None else 60 * save_interval_minutes
        self._schedule = Schedule(save_interval_steps, seconds, max_overhead, deadline_seconds(deadline))
        self._interval_epochs = save_interval_epochs
        self._signals = LeaveSignals(signals)
        self._hang = HangTimer(hang_timeout)
        run = Run(local_path(train_url), run_id, components, codec)
        policy = RetentionPolicy(keep_last=keep_last, keep_every_steps=keep_every_steps, keep_best=keep_best)
        options = SaveOptions(background, when_busy, Tidying(run, policy))
        outcomes = Outcomes(on_failed_save, max_failed_saves)
        saves = RunSaves(run.claim, self._schedule, options, outcomes, ranks=ranks, staging=DeviceStaging())
        super().__init__(run, Loop(), saves)
        self._last_step = LastStep(partial(mark, run.components), run.gather, ranks) if save_on_exception else None

    def resume(
        self,
        resume: str | os.PathLike[str] = "auto",
        *,
        waive: Collection[str] = (),
        takeover: bool = False,
        inert: Collection[str] = (),
        quiet: bool = False,
    ) -> ResumeReport:
        """Go on with the run in `train_url`, or start one if there is no checkpoint of it.

        The newest checkpoint is restored, once every byte of it is verified. A damaged one is set aside (renamed, never
        removed) and reported; one that may be sound is never passed over. Files `*.pth` of the documented PyTorch loop
        count, too. Call it once, when all components are built and before the loop.

        What would make the resumed run another one is an error that lists all of it: a component or random state that
        the checkpoint lacks, tensors that are missing, too many, or of other shapes, values that differ between another
        number of ranks than there are. If it fails on one rank, it fails on all of them.

        Args:
            resume: `auto`: resume if there is a checkpoint, else start. `must`: resume, or fail. `never`: start anew.
                Anything else is a path: of the checkpoint to resume from, or of a directory of them.
            waive: Components, `rng` and `progress` among them, that take what fits; the report tells the rest.
            takeover: Save the run from now on even if a living process of another job saves it, or of none. Without
                it, only a run of a dead process, of the same job or of one without its launcher is taken over.
            inert: Names for which a `.pth` file is not refused, as its error shows them. Nothing is run for them.
            quiet: Do not print the report to stderr.

        Raises:
            MismatchError: The checkpoint does not fit the components; lists every reason. Nothing was changed.
            ResumeError: There are checkpoints, and none of them can be used; or there is none, and there must be.
            UndecidedError: A checkpoint that may be the newest cannot be judged. Nothing was changed. Uncaught, it ends
                the process with exit code 78: do not start it again before somebody has looked.
            HeldError: Another process is saving the run (exit code 78).
            StorageError: The directory or the path is none.
            UsageError: It was called before.
        """
        report = resume_run(self._run, self._loop, resume, waive, inert, takeover=takeover)
        self._saves.begin(report.path, report.step)
        if not quiet and ranks.world().rank == 0:
            show(render_report(report))
        self._attend()
        return report

    def warm_start(
        self,
        path: str | os.PathLike[str],
        *,
        sources: Mapping[str, str] | None = None,
        rename: Rename | None = None,
        strip_prefix: str = "",
        partial: Names = False,
        resize: Names = False,
        take: Collection[str] = (),
        go_on: bool = False,
        inert: Collection[str] = (),
        quiet: bool = False,
    ) -> WarmStartReport:
        """Let the new run begin with the weights of an earlier one, or of a published model.

        ```python
        if not ckpt.resume().resumed:
            ckpt.warm_start("runs/old/ckpt-00090000-e0012.ckptfmt")
        ```

        Each module takes its weights from the component of the same name; if there is one module only, from the only
        component that can be a model's. Everything else starts anew, unless it is in `take`. Every checkpoint that
        follows says where the run came from: `parent`, and the whole line in the user metadata. All ranks call it.

        Args:
            path: A `.ckptfmt`, `.safetensors`, or `.pth`, `.pt`, `.bin`, `.ckpt` file.
            sources: For modules: which component of the file has their weights, such as `{"net": "ema"}`.
            rename: As in `ckptfmt.torch.warm_start`; so are the next three.
            strip_prefix: What saved names begin with that the model's do not.
            partial: Tensors that may be left out.
            resize: Tensors of which the common part is to be taken.
            take: Names of other components to be restored too: `["optimizer", "scheduler", "rng"]`.
            go_on: Count steps and epochs on from those of the file, not from 0.
            inert: As in `resume`.
            quiet: Do not print the report to stderr.

        Raises:
            MismatchError: Something does not fit; lists every reason. Nothing was changed.
            UsageError: The run is not new, or `resume()` was not called.
            CkptfmtError: The file cannot be read, is damaged, or asks for code to be run.
        """
        mapped = Mapped(rename, strip_prefix, partial, resize)
        request = Request(path, mapped, sources=sources, take=take, go_on=go_on, inert=inert)
        report = warm_start_run(self._run, self._loop, request)
        if not quiet and ranks.world().rank == 0:
            show(render_warm_start(report))
        return report

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
        loading time. One of them is compared with what it was. A loader with a usable `state_dict()` goes on at once.

        A run that was saved after the last batch of an epoch goes on behind the loop over them: what comes there must
        not need a variable that only the body of the loop sets.

        Set what belongs to an epoch, such as `set_epoch()`, before this call. Two things are beyond it, and told where
        they show: persistent workers begin anew, and so does what they draw at random; and a data set or sampler that
        is iterated in this process and draws from the global generators as it goes along must not depend on what it
        drew before.

        Args:
            loader: A DataLoader or any other iterable that gives the same batches for the same random states.

        Raises:
            UsageError: It is used outside `epochs()`, or twice in an epoch.
            MismatchError: The loader is another one than that of the checkpoint, or gives other batches, and
                `resume(waive=["progress"])` did not allow that.
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

    def _attend(self) -> None:
        """Begin to listen to signals, to watch for hangs, and to measure."""
        self._signals.install()
        self._hang.reset()
        self._schedule.begin(time.monotonic())

    def _save(self, metrics: Mapping[str, SupportsFloat]) -> None:
        self._loop.require_place()
        self._saves.save(self.global_step, self._gather, metrics)

    def _leave(self) -> NoReturn:
        try:
            leave(self._saves, self.global_step, self._gather, self._signals.received, ranks)
        finally:
            self.close()
