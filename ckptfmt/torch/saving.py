"""A run's saves: copied while the loop waits, written while it goes on, reported when they are over."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ckptfmt.errors import CkptfmtError
from ckptfmt.format.index import Metadata
from ckptfmt.planning import SavePlan
from ckptfmt.runs import EXTENSION
from ckptfmt.torch.background import FinishedSave, Saver, Written
from ckptfmt.torch.failures import UsageError
from ckptfmt.torch.staging import Staging
from ckptfmt.writer import SaveReport, write_plan

__all__ = ["FailedSave", "RunSaves", "SaveOptions", "SaveWarning", "WhenBusy"]

WhenBusy = Literal["wait", "skip"]
FailedSave = Literal["warn", "raise"]


class SaveWarning(UserWarning):
    """A save failed and training goes on without it, or older checkpoints could not be removed."""


@dataclass(frozen=True)
class SaveOptions:
    """How a run saves.

    Attributes:
        background: Write while training goes on, from a copy of the state.
        when_busy: What a save that is due does while another one is under way.
        on_failed_save: What a failed save does when it is found out.
        afterwards: Called with the path of each new checkpoint, once it is durable, in the thread that wrote it.
            Returns what went wrong.
    """

    background: bool = True
    when_busy: WhenBusy = "wait"
    on_failed_save: FailedSave = "warn"
    afterwards: Callable[[Path], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if self.when_busy not in ("wait", "skip"):
            raise UsageError(f"when_busy is {self.when_busy!r}: give 'wait' or 'skip'")
        if self.on_failed_save not in ("warn", "raise"):
            raise UsageError(f"on_failed_save is {self.on_failed_save!r}: give 'warn' or 'raise'")


class RunSaves:
    """The saves of one run, one at a time.

    Args:
        directory: Where to.
        options: How.
    """

    def __init__(self, directory: str, options: SaveOptions) -> None:
        self._directory = directory
        self._options = options
        self._staging = Staging()
        self._saver = Saver()
        self.last: SaveReport | None = None
        """The last checkpoint that was written."""

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._saver.busy

    def may_begin(self, *, urgent: bool) -> bool:
        """Say whether a save may begin now: always if it is urgent, else as the options have it."""
        return urgent or self._options.when_busy == "wait" or not self._saver.busy

    def save(self, plan: SavePlan) -> None:
        """Save what is planned: in the background, once it is copied, or here and now. Nothing is ever replaced.

        The save before must be settled, and this one is to be.

        Raises:
            StateError: A tensor does not give the bytes that its dtype and shape make.
        """
        plan = self._staging.copy(plan) if self._options.background else plan

        def write() -> Written:
            report = write_plan(Path(self._directory, _name(plan.metadata)), plan, replace=False)
            afterwards = self._options.afterwards
            return Written(report, tuple(afterwards(Path(report.path))) if afterwards is not None else ())

        (self._saver.start if self._options.background else self._saver.run)(plan.metadata.step or 0, write)

    def settle(self, *, wait: bool, must_succeed: bool = False) -> FinishedSave | None:
        """Take note of a save that is over, and report it if it failed.

        Args:
            wait: Wait for one that is under way.
            must_succeed: Raise if it failed, whatever the options say.

        Raises:
            CkptfmtError: It failed, and failed saves are to be raised.
        """
        finished = self._saver.take(wait=wait)
        if finished is None:
            return None
        if finished.written is not None:
            self.last = finished.written.report
            for complaint in finished.written.complaints:
                _warn(complaint)
        elif isinstance(finished.error, CkptfmtError) and not must_succeed and self._options.on_failed_save == "warn":
            last = f"the last good one is {self.last.path}" if self.last else "this process has written none so far"
            message = f"SAVE FAILED at step {finished.step}, training goes on without it ({last}): {finished.error}"
            _warn(message)
        elif finished.error is not None:
            raise finished.error
        return finished


def _warn(message: str) -> None:
    """Warn at the line of the user's that has called us, however deep down this is."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("ckptfmt."):
        frame = frame.f_back
        level += 1
    warnings.warn(message, SaveWarning, stacklevel=level)


def _name(metadata: Metadata) -> str:
    """Return the name of a checkpoint. It is for people: what decides stands inside (spec 14.5)."""
    return f"ckpt-{metadata.step or 0:08d}-e{metadata.epoch or 0:04d}{EXTENSION}"
