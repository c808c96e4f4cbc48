"""Training-loop helper: saves on schedule, and resumes exactly where a killed run stopped."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Never, Self, SupportsFloat

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.runs.retention import Mode, RetentionPolicy, best_first
from ckptfmt._core.runs.scan import scan
from ckptfmt._core.storage.resolve import use_store_options
from ckptfmt._core.torch.checkpointer_loop import RunLoop
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects.components import refuse_keywords
from ckptfmt._core.torch.run.components import Run
from ckptfmt._core.torch.run.loop import Loop
from ckptfmt._core.torch.saving.change_marks import mark
from ckptfmt._core.torch.saving.staging import DeviceStaging
from ckptfmt._core.training.preemption import LEAVE_SIGNALS, LeaveSignals
from ckptfmt._core.training.rehearsal.plan import current_plan
from ckptfmt._core.training.saving.last_step import LastStep
from ckptfmt._core.training.saving.outcomes import FailedSave, Outcomes
from ckptfmt._core.training.saving.run_saves import RunSaves
from ckptfmt._core.training.saving.run_writer import SaveOptions, WhenBusy
from ckptfmt._core.training.saving.save_schedule import Deadline, Schedule, deadline_seconds
from ckptfmt._core.training.saving.tidying import Tidying
from ckptfmt._core.training.watchdog import HangTimer
from ckptfmt.errors import CkptfmtError, SupersededError, UsageError

__all__ = ["Checkpointer"]


class Checkpointer(RunLoop):
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

    **Other loops.** `steps()` takes the place of `epochs()` in programs that count steps. Their data comes from a
    function or from `cycle()`. `variables()` holds what the loop carries from one iteration to the next. `stop()` ends
    it early.

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
            `s3://BUCKET/PREFIX` (extra `ckptfmt[remote]`).
        components: Objects to save and restore, by name: anything with `state_dict()` and `load_state_dict()` (modules,
            optimizers, schedulers, scalers, averages, your own objects), random generators of Python, NumPy and
            PyTorch, and dicts and dataclass instances of plain values and tensors, which are restored in place. None is
            left out. They are restored in this order. Names consist of ASCII letters, digits and `_ . -`; `rng` and
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
        store_options: How to reach the store of a URL, for everything in its bucket and this process: arguments of
            obstore's `from_url` (`region`, `endpoint`, `client_options` and so on), or of the file system of fsspec.
            None: as the environment says.
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
        store_options: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> None:
        refuse_keywords("Checkpointer(train_url", _options(), components, unknown)
        if save_interval_epochs is not None and save_interval_epochs < 1:
            raise UsageError(f"save_interval_epochs is {save_interval_epochs}; pass a number of at least 1, or None")
        rehearsal = current_plan()
        if rehearsal is not None:
            if ranks.world().size > 1:
                raise UsageError("ckptfmt doctor rehearses one process; run the command without a launcher of several")
            # Only the plan decides where, when and how to save.
            train_url, run_id, signals, deadline, hang_timeout = rehearsal.scratch, None, (), None, None
            save_interval_steps = save_interval_minutes = save_interval_epochs = max_overhead = None
            keep_last = keep_every_steps = keep_best = None
            background, save_on_exception = False, False
        seconds = None if save_interval_minutes is None else 60 * save_interval_minutes
        schedule = Schedule(save_interval_steps, seconds, max_overhead, deadline_seconds(deadline))
        if store_options is not None:
            use_store_options(train_url, store_options)
        run = Run(train_url, run_id, components, codec, _options())
        policy = RetentionPolicy(keep_last=keep_last, keep_every_steps=keep_every_steps, keep_best=keep_best)
        run.judged_by = None if policy.best is None else policy.best[:2]
        options = SaveOptions(background, when_busy, Tidying(run, policy))
        outcomes = Outcomes(on_failed_save, max_failed_saves)
        saves = RunSaves(run.claim, schedule, options, outcomes, ranks=ranks, staging=DeviceStaging())
        last_step = LastStep(partial(mark, run.components), run.gather, ranks) if save_on_exception else None
        start = (run, Loop(), saves, schedule, LeaveSignals(signals), HangTimer(hang_timeout))
        super().__init__(*start, interval_epochs=save_interval_epochs, last_step=last_step, rehearsal=rehearsal)

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

    def best_metric(self) -> float | None:
        """Return the best value of the metric of `keep_best` in the checkpoints of this run; None without one.

        It waits for the save in progress. With several ranks, all of them call it.

        Raises:
            UsageError: `keep_best` was not given.
            CkptfmtError: As in `step()`, or the directory cannot be read.
        """
        judged_by = self._run.judged_by
        if judged_by is None:
            raise UsageError('best_metric() needs a metric; pass keep_best=("val_loss", "min") or the like')
        metric, mode = judged_by
        self.wait()

        def find() -> float | None:
            ours = [file for file in scan(self._run.directory) if file.usable and file.run_id == self._run.id]
            best = best_first(ours, metric, mode)
            return (best[0].metadata.metrics or {})[metric] if best else None

        return ranks.on_rank_0(find)

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


def _options() -> list[str]:
    kinds = inspect.signature(Checkpointer).parameters.values()
    return [parameter.name for parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY]
