"""Saving the last finished step when an exception has come since, if its state is still there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ckptfmt._core.system.forks import let_go_in_children
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.ranks import Ranks
from ckptfmt._core.training.saving.run_saves import Plan, RunSaves
from ckptfmt._escaping import describe_error

__all__ = ["LastStep"]

M = TypeVar("M")


class LastStep(Generic[M]):
    """What was true after the last step.

    Args:
        mark: Looks at the live state and returns a value that is equal to that of another moment only if nothing in the
            state has changed in between.
        gather: Looks at the live state as that of a moment; see `saving.Gather`.
        ranks: The job.
    """

    def __init__(
        self, mark: Callable[[], object], gather: Callable[[Callable[[], M]], Plan | None], ranks: Ranks
    ) -> None:
        self._mark = mark
        self._gather = gather
        self._ranks = ranks
        self._noted: tuple[int, M, object] | None = None
        let_go_in_children(self)

    def let_go(self) -> None:
        """Forget the step in a forked child: its exceptions are not those of the training."""
        self._noted = None

    def note(self, step: int, moment: Callable[[], M]) -> None:
        """Note the present moment: a step is done. It never raises."""
        try:
            self._noted = (step, moment(), self._mark())
        except Exception:  # noqa: BLE001 - training goes on without what would be used only if it fails
            self._noted = None

    def save(self, saves: RunSaves) -> None:
        """Save the last step, if its state is still there; otherwise say why not.

        Raises:
            CkptfmtError: The save failed, and that is to be raised.
        """
        if self._ranks.world().size > 1:
            notify("the last step is not saved: the other ranks may not have raised an exception")
            return
        try:
            mark = self._mark()
        except Exception as error:  # noqa: BLE001 - an exception is on its way up already
            notify(f"the last step is not saved: its state cannot be read: {describe_error(error)}")
            return
        if self._noted is None or self._noted[2] != mark:
            notify("the last step is not saved: the state has changed since")
            return
        step, moment, _ = self._noted
        saves.save(step, lambda: self._gather(lambda: moment), {})
