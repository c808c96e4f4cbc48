"""Saves of the last finished step after an exception, if its state is unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ckptfmt._core.system.forks import release_in_children
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.ranks import Ranks
from ckptfmt._core.training.saving.run_saves import Plan, RunSaves
from ckptfmt._escaping import describe_error

__all__ = ["LastStep"]

M = TypeVar("M")


class LastStep(Generic[M]):
    """Record of the last step.

    Args:
        mark: Returns a fingerprint of the live state. Two are equal only if nothing in the state changed in between.
        gather: Gathers the live state as of a recorded moment; see `saving.Gather`.
        ranks: The job.
    """

    def __init__(
        self, mark: Callable[[], object], gather: Callable[[Callable[[], M]], Plan | None], ranks: Ranks
    ) -> None:
        self._mark = mark
        self._gather = gather
        self._ranks = ranks
        self._noted: tuple[int, M, object] | None = None
        release_in_children(self)

    def release_in_child(self) -> None:
        """Forget the step in a forked child: its exceptions do not concern training."""
        self._noted = None

    def note(self, step: int, moment: Callable[[], M]) -> None:
        """Record the current state after a step. Never raises."""
        try:
            self._noted = (step, moment(), self._mark())
        except Exception:  # noqa: BLE001 - training continues: the record matters only if it fails
            self._noted = None

    def save(self, saves: RunSaves) -> None:
        """Save the last step if its state is unchanged; otherwise report why not.

        Raises:
            CkptfmtError: The save failed, and failures raise.
        """
        if self._ranks.world().size > 1:
            notify("the last step is not saved: the other ranks may not have raised an exception")
            return
        try:
            mark = self._mark()
        except Exception as error:  # noqa: BLE001 - another exception is already propagating
            notify(f"the last step is not saved: its state cannot be read: {describe_error(error)}")
            return
        if self._noted is None or self._noted[2] != mark:
            notify("the last step is not saved: the state has changed since")
            return
        step, moment, _ = self._noted
        saves.save(step, lambda: self._gather(lambda: moment), {})
