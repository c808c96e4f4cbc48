"""What a training loop is told about itself: each notice at most once, on the first rank."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.ranks import Ranks

__all__ = ["LoopNotices"]


class LoopNotices:
    """Notices of a loop.

    Args:
        ranks: The ranks of the job.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._given: set[str] = set()

    def look_ahead(self) -> None:
        """The loop takes batches ahead of its steps."""
        self._give(
            "look_ahead",
            "step() called after the next batch was taken: a checkpoint counts that batch as done, and a resume "
            "skips it unless ckpt.variables() carries it; call step() before next(), or let the loader prefetch",
        )

    def missed_steps(self, epoch: int, batches: int) -> None:
        """An epoch had batches, and no step."""
        self._give(
            "missed_steps",
            f"epoch {epoch} had {batches} batches but no step(), so checkpoints are saved only "
            "at the end of each epoch, and steps are not counted; call step() after each batch",
        )

    def steps_without_batches(self) -> None:
        """Steps are counted in an epoch that does not use `batches()`."""
        self._give(
            "steps_without_batches",
            "step() called in an epoch without batches(): steps are counted, but the run is saved, and leaves on a "
            "signal, at the end of the epoch; loop over ckpt.batches(loader) or ckpt.steps(n) to save at each step",
            logging.INFO,
        )

    def finished(self, kind: str, done: int, n: int | None, *, stopped: bool) -> None:
        """Nothing is left to train."""
        of = "" if n is None else f" of {n}"
        how = f", where stop() ended the run; ask for more {kind} to continue" if stopped else ""
        self._give("finished", f"nothing left to train: {done}{of} {kind} done{how}", logging.INFO)

    def unused_cycles(self, count: int) -> None:
        """The checkpoint has positions of cycles that the loop does not create."""
        if count > 0:
            self._give(
                "unused_cycles", f"the checkpoint has the places of {count} more cycle(), which this loop does not use"
            )

    def drew_after_save(self) -> None:
        """Random numbers were drawn between a save and the next iteration."""
        self._give(
            "drew_after_save",
            "random numbers were drawn after step() or end_epoch() had saved: a run resumed from there does not draw "
            "them, and differs; make these calls the last ones of their loops",
        )

    def broke_after_save(self) -> None:
        """The loop over the batches was left right after a step that was saved."""
        self._give(
            "broke_after_save",
            "the loop over batches() was left by a break after step() had saved: a run resumed from there takes the "
            "next batch instead; break before the work on a batch, or cut the loader: batches(islice(loader, n))",
        )

    def restarted_companions(self, done: int, companions: Sequence[str]) -> None:
        """Iterators beside the batches begin anew in a resumed epoch."""
        if companions:
            self._give(
                "restarted_companions",
                f"{' and '.join(sorted(set(companions)))} over batches() begins anew, although {done} batches of this "
                "epoch are done: what depends on it differs from an uninterrupted run; number the batches by "
                "ckpt.enumerate(loader), and take other data from ckpt.cycle()",
            )

    def _give(self, name: str, message: str, level: int = logging.WARNING) -> None:
        if name not in self._given:
            self._given.add(name)
            if self._ranks.world().rank == 0:
                notify(message, level)
