"""Properties of a Checkpointer that describe its run."""

from __future__ import annotations

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.torch.run.components import Run
from ckptfmt._core.torch.run.loop import Loop
from ckptfmt._core.training.saving.run_saves import RunSaves
from ckptfmt.errors import CkptfmtError

__all__ = ["RunFacts"]


class RunFacts:
    """Properties of a run in progress.

    Args:
        run: The run.
        loop: Its loop.
        saves: Its saves.
    """

    def __init__(self, run: Run, loop: Loop, saves: RunSaves) -> None:
        self._run = run
        self._loop = loop
        self._saves = saves

    @property
    def train_url(self) -> str:
        """Directory of the run's checkpoints, absolute and without symbolic links; or the URL of their store."""
        return self._run.directory

    @property
    def run_id(self) -> str | None:
        """Id of the run; None before `resume()`, unless it was given."""
        return self._run.id

    @property
    def is_started(self) -> bool:
        """Whether `resume()` was called, so that the position in the run is known."""
        return self._loop.resumed

    @property
    def parent(self) -> str | None:
        """Identity of the checkpoint that the run started from, 64 hex digits; None without one."""
        return self._run.parent

    @property
    def global_step(self) -> int:
        """Optimizer steps done since the start of the run.

        These are the calls of `step()` after which no gradients wait for an optimizer step, however many optimizers
        stepped; in a loop over `steps()`, the steps of that loop.
        """
        return self._loop.step

    @property
    def epoch(self) -> int:
        """Epochs finished, which is the number of the current epoch, counted from 0."""
        return self._loop.epoch

    @property
    def is_resumed_epoch(self) -> bool:
        """Whether an earlier process began the current epoch, and trained on batches of it.

        What is set up for each epoch, such as sums, must then stay as it was restored.
        """
        return self._loop.is_resumed_epoch

    @property
    def last_saved(self) -> SaveReport | None:
        """The last durable checkpoint written since `resume()`; None if there is none.

        It is the same on all ranks, and changes only in methods that all ranks call.
        """
        return self._saves.last

    @property
    def last_error(self) -> CkptfmtError | None:
        """Why the last save failed, or what else went wrong; None if nothing did.

        It is set on all ranks, as `last_saved` is.
        """
        return self._saves.last_error
