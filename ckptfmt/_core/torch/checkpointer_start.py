"""Start of a run: resumed, new, or with the weights of an earlier one."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from typing import Any

from ckptfmt._core.storage.resolve import absolute
from ckptfmt._core.torch.checkpointer_properties import RunFacts
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects.live_values import Variables
from ckptfmt._core.torch.resume.resuming import resume_run
from ckptfmt._core.torch.run.components import Run
from ckptfmt._core.torch.run.loop import Loop
from ckptfmt._core.torch.warm_start.fit import Names, Rename
from ckptfmt._core.torch.warm_start.plan import Mapped, Request, WarmStartReport, render_warm_start, warm_start_run
from ckptfmt._core.training.notices import show
from ckptfmt._core.training.preemption import LeaveSignals
from ckptfmt._core.training.report import ResumeReport, render_report
from ckptfmt._core.training.resume.peek import Peek
from ckptfmt._core.training.saving.run_saves import RunSaves
from ckptfmt._core.training.saving.save_schedule import Schedule
from ckptfmt._core.training.watchdog import HangTimer
from ckptfmt.errors import UsageError

__all__ = ["RunStart"]


class RunStart(RunFacts):
    """Starts a run, then handles signals, watches for hangs and measures.

    Args:
        run: The run.
        loop: Its loop.
        saves: Its saves.
        schedule: When to save.
        signals: Signals on which to save and exit.
        hang: Timer that ends a hung run.
    """

    def __init__(
        self, run: Run, loop: Loop, saves: RunSaves, schedule: Schedule, signals: LeaveSignals, hang: HangTimer
    ) -> None:
        super().__init__(run, loop, saves)
        self._schedule = schedule
        self._signals = signals
        self._hang = hang

    def variables(self, **values: Any) -> Variables:
        """Return an object with these values as attributes, which is saved and restored with the run.

        ```python
        state = ckpt.variables(best=math.inf, patience=0, hidden=None)
        ckpt.resume()
        for epoch in ckpt.epochs(args.epochs):
            ...
            state.best = min(state.best, val_loss)
            ckpt.end_epoch(val_loss=val_loss)
        ```

        For what a loop carries from one iteration to the next: plain values, tensors and arrays, and lists, tuples and
        dicts of them. Tensors are saved without their graphs; a restored one is on the same kind of device. In the
        checkpoint it is the component `variables`.

        Args:
            values: The values of a new run, by name.

        Raises:
            UsageError: The call comes after `resume()` or a second time, or a value cannot be saved.
        """
        if self._loop.resumed:
            raise UsageError("variables() called after resume(), which restores them; call it before")
        made = Variables(**values)
        self._run.add_variables(made)
        return made

    def resume(
        self,
        resume: str | os.PathLike[str] | Peek = "auto",
        *,
        allow_mismatch: Collection[str] = (),
        takeover: bool = False,
        inert: Collection[str] = (),
        quiet: bool = False,
    ) -> ResumeReport:
        """Resume the run in `train_url`, or start one if it has no checkpoint.

        The newest checkpoint is restored once every byte of it is verified. A damaged one is quarantined (renamed,
        never removed) and reported; one that may be sound is never skipped. `*.pth` files of the documented PyTorch
        loop count, too. Call this once, after all components are built and before the loop.

        Anything that would change the run is an error, which lists everything at once: components or random states
        that are not in the checkpoint, tensors that are missing, unexpected or of another shape, per-rank values of
        another number of ranks. If one rank fails, all ranks fail.

        Args:
            resume: `auto`: resume if there is a checkpoint, else start. `must`: resume, or fail. `never`: start a new
                run. The result of `ckptfmt.torch.peek`: like `auto`, and fail if another checkpoint is the newest now.
                Anything else is a path: of the checkpoint to resume from, or of a directory of checkpoints.
            allow_mismatch: Components, `rng` and `progress` among them, of which only what fits is restored; the
                report lists the rest.
            takeover: Take the run over even if a live process of another job, or of no job, is saving it. Without it,
                only runs of dead processes, of the same job, and of processes that lost their launcher are taken over.
            inert: Names that do not cause a `.pth` file to be refused, spelled as in the error. Nothing is executed.
            quiet: Do not print the report to stderr.

        Raises:
            MismatchError: The checkpoint does not fit the components; lists every reason. Nothing was changed.
            ResumeError: No checkpoint is usable, or there is none and `must` was given.
            UndecidedError: A checkpoint that may be the newest cannot be judged. Nothing was changed. If uncaught, the
                process exits with code 78: examine the directory before a restart.
            HeldError: Another process is saving the run (exit code 78).
            StorageError: The directory or the path cannot be used.
            UsageError: The run was resumed before, or an argument makes no sense.
        """
        report = resume_run(self._run, self._loop, resume, allow_mismatch, inert, takeover=takeover)
        self._saves.begin(report.path, report.step)
        if not quiet and ranks.world().rank == 0:
            show(render_report(report))
        self._attend()
        return report

    def warm_start(
        self,
        path: str | os.PathLike[str],
        *,
        source: str | Mapping[str, str] | None = None,
        rename: Rename | None = None,
        strip_prefix: str = "",
        partial: Names = False,
        resize: Names = False,
        also_restore: Collection[str] = (),
        keep_counters: bool = False,
        inert: Collection[str] = (),
        quiet: bool = False,
    ) -> WarmStartReport:
        """Start a new run with the weights of an earlier one, or of a published model.

        ```python
        if not ckpt.resume().resumed:
            ckpt.warm_start("runs/old/ckpt-00090000-e0012.ckptfmt")
        ```

        Each module takes the weights of the component with its name. A single module takes those of the only component
        that can belong to a model. Everything else starts anew, except what `also_restore` names. All later checkpoints
        record where the run came from: as `parent`, and with all ancestors in the user metadata. All ranks call it.

        Args:
            path: A `.ckptfmt`, `.safetensors`, `.pth`, `.pt`, `.bin` or `.ckpt` file.
            source: Component of the file to take the weights from: `"ema"` for the only module, `{"net": "ema"}` by
                module.
            rename: As in `ckptfmt.torch.warm_start`, like the next three.
            strip_prefix: Prefix of saved names that the model's names do not have.
            partial: Tensors that may be missing.
            resize: Tensors of which only the common part is taken.
            also_restore: Other components to restore: `["optimizer", "scheduler", "rng"]`.
            keep_counters: Start with the step and epoch of the file instead of 0.
            inert: As in `resume`.
            quiet: Do not print the report to stderr.

        Raises:
            MismatchError: Something does not fit; lists every reason. Nothing was changed.
            UsageError: The run is not new, `resume()` was not called, or an argument makes no sense.
            CkptfmtError: The file cannot be read, is damaged, or is refused because of what it would run.
        """
        mapped = Mapped(rename, strip_prefix, partial, resize)
        request = Request(absolute(path), mapped, source, also_restore, keep_counters, inert)
        report = warm_start_run(self._run, self._loop, request)
        if not quiet and ranks.world().rank == 0:
            show(render_warm_start(report))
        return report

    def _attend(self) -> None:
        """Start to handle signals, watch for hangs, and measure."""
        self._signals.install()
        self._hang.reset()
        self._schedule.begin(time.monotonic())
