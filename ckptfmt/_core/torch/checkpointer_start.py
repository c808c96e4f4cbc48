"""How a run begins: resumed, new, or from the weights of an earlier one."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping

from ckptfmt._core.storage.local.paths import absolute_path
from ckptfmt._core.torch.checkpointer_properties import RunFacts
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.resume.resuming import resume_run
from ckptfmt._core.torch.run.components import Run
from ckptfmt._core.torch.run.loop import Loop
from ckptfmt._core.torch.warm_start.fit import Names, Rename
from ckptfmt._core.torch.warm_start.plan import Mapped, Request, WarmStartReport, render_warm_start, warm_start_run
from ckptfmt._core.training.notices import show
from ckptfmt._core.training.preemption import LeaveSignals
from ckptfmt._core.training.report import ResumeReport, render_report
from ckptfmt._core.training.saving.run_saves import RunSaves
from ckptfmt._core.training.saving.save_schedule import Schedule
from ckptfmt._core.training.watchdog import HangTimer

__all__ = ["RunStart"]


class RunStart(RunFacts):
    """Begins a run, and from then on listens to signals, watches for hangs and measures.

    Args:
        run: The run.
        loop: Its loop.
        saves: Its saves.
        schedule: When they are due.
        signals: The signals on which the process leaves.
        hang: The timer that ends a run that is stuck.
    """

    def __init__(
        self, run: Run, loop: Loop, saves: RunSaves, schedule: Schedule, signals: LeaveSignals, hang: HangTimer
    ) -> None:
        super().__init__(run, loop, saves)
        self._schedule = schedule
        self._signals = signals
        self._hang = hang

    def resume(
        self,
        resume: str | os.PathLike[str] = "auto",
        *,
        allow_mismatch: Collection[str] = (),
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
            allow_mismatch: Components, `rng` and `progress` among them, that take what fits; the report tells the rest.
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
            RestoreError: A component raised; `component` names it, `changed` says what is no longer as it was.
            StorageError: The directory or the path is none, or the system cannot read the chosen checkpoint to its end
                any more (ReadError).
            UsageError: It was called before.
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
        """Let the new run begin with the weights of an earlier one, or of a published model.

        ```python
        if not ckpt.resume().resumed:
            ckpt.warm_start("runs/old/ckpt-00090000-e0012.ckptfmt")
        ```

        Each module takes its weights from the component of the same name; if there is one module only, from the only
        component that can be a model's. Everything else starts anew, unless it is in `also_restore`. Every checkpoint
        that follows says where the run came from: `parent`, and the whole line in the user metadata. All ranks call it.

        Args:
            path: A `.ckptfmt`, `.safetensors`, or `.pth`, `.pt`, `.bin`, `.ckpt` file.
            source: Which component of the file has the weights: `"ema"` for the only module, `{"net": "ema"}` by the
                names of modules.
            rename: As in `ckptfmt.torch.warm_start`; so are the next three.
            strip_prefix: What saved names begin with that the model's do not.
            partial: Tensors that may be left out.
            resize: Tensors of which the common part is to be taken.
            also_restore: Names of other components to be restored too: `["optimizer", "scheduler", "rng"]`.
            keep_counters: Count steps and epochs on from those of the file, not from 0.
            inert: As in `resume`.
            quiet: Do not print the report to stderr.

        Raises:
            MismatchError: Something does not fit; lists every reason. Nothing was changed.
            RestoreError: A component raised, as in `resume`.
            UsageError: The run is not new, or `resume()` was not called.
            CkptfmtError: The file cannot be read, is damaged, or asks for code to be run.
        """
        mapped = Mapped(rename, strip_prefix, partial, resize)
        request = Request(absolute_path(path), mapped, source, also_restore, keep_counters, inert)
        report = warm_start_run(self._run, self._loop, request)
        if not quiet and ranks.world().rank == 0:
            show(render_warm_start(report))
        return report

    def _attend(self) -> None:
        """Begin to listen to signals, to watch for hangs, and to measure."""
        self._signals.install()
        self._hang.reset()
        self._schedule.begin(time.monotonic())
