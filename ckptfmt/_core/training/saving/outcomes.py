"""Outcomes of a run's saves: what is durable, what has failed since, and when failures end training."""

from __future__ import annotations

from typing import Literal

from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.training.saving.background_saver import Written
from ckptfmt._escaping import describe_error
from ckptfmt.errors import CkptfmtError, SaveError, SupersededError, UsageError

__all__ = ["FailedSave", "Outcomes", "as_ckptfmt_error", "complaint"]

FailedSave = Literal["warn", "raise"]


class Outcomes:
    """The outcomes of a run's saves, the same on all ranks.

    Args:
        on_failed_save: Effect of a failed save: `warn` and continue, or `raise`.
        max_failed_saves: Number of consecutive failed saves that ends training even with `warn`; None for no limit.

    Attributes:
        last: Report of the last checkpoint of this process; None without one.
        last_error: Error of the last save; None if it had none.
    """

    def __init__(self, on_failed_save: FailedSave = "warn", max_failed_saves: int | None = None) -> None:
        if on_failed_save not in ("warn", "raise"):
            raise UsageError(f"on_failed_save is {on_failed_save!r}; pass 'warn' or 'raise'")
        if max_failed_saves is not None and max_failed_saves < 1:
            raise UsageError(f"max_failed_saves is {max_failed_saves}; pass a number of at least 1, or None")
        self._most = 1 if on_failed_save == "raise" else max_failed_saves
        self.last: SaveReport | None = None
        self.last_error: CkptfmtError | None = None
        self._failures = 0
        self._path: str | None = None
        self._step = 0
        self._moment = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last save failed."""
        return self._failures > 0

    def begin(self, path: str | None, step: int, now: float) -> None:
        """Record the start of the run.

        Args:
            path: Path of the checkpoint that it resumes from; None if the run is new.
            step: Optimizer steps done so far.
            now: Time of a monotonic clock in seconds.
        """
        self._path, self._step, self._moment = path, step, now

    def saved(self, written: Written, step: int, moment: float) -> None:
        """Record a durable checkpoint.

        Args:
            written: The checkpoint.
            step: Optimizer steps of its state.
            moment: Time at which the run had this state, of a monotonic clock in seconds.

        Raises:
            SupersededError: Another process has taken over the run.
        """
        self.last = written.report
        self._path, self._step, self._moment = written.report.path, step, moment
        self._failures = 0
        self.last_error = complaint(written)
        if written.superseded:
            raise SupersededError(written.superseded)

    def failed(self, error: Exception) -> None:
        """Record a failed save.

        Raises:
            CkptfmtError: The same error, if it ends training.
        """
        self.last_error = as_ckptfmt_error(error)
        self._failures += 1
        if isinstance(error, SupersededError) or (self._most is not None and self._failures >= self._most):
            raise self.last_error

    def describe_failure(self, error: Exception, step: int, now: float) -> str:
        """Return the message about a save that just failed.

        Args:
            error: Why it failed.
            step: Optimizer steps of the state.
            now: Time of a monotonic clock in seconds.
        """
        if isinstance(error, SupersededError):
            return f"{error}; this process writes nothing more and stops at its next step"
        last = self._most is not None and self._failures + 1 >= self._most
        then = "training ends" if last else "training continues, with another try soon"
        steps = step - self._step
        lost = f"{steps} step{'' if steps == 1 else 's'} and {_duration(now - self._moment)}"
        since = self._path or "the start of the run"
        return (
            f"SAVE FAILED at step {step}, nothing saved for {lost} (since {since}): {as_ckptfmt_error(error)}; {then}"
        )


def as_ckptfmt_error(error: Exception) -> CkptfmtError:
    """Return the error of a save as a CkptfmtError."""
    if isinstance(error, CkptfmtError):
        return error
    ours = SaveError(describe_error(error))
    ours.__cause__ = error
    return ours


def complaint(written: Written | None) -> CkptfmtError | None:
    """Return the problems other than the save itself as an error; None without any."""
    return SaveError("; ".join(written.complaints)) if written is not None and written.complaints else None


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
