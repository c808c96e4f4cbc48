"""Save schedule: by steps, by minutes, by share of the time, or before a deadline."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from statistics import median
from typing import Literal

from ckptfmt.errors import UsageError

__all__ = ["Deadline", "Due", "Schedule", "deadline_seconds"]

Deadline = datetime | float | Literal["slurm"] | None
"""A datetime with a time zone, seconds since 1970, `slurm` for the end time that Slurm sets, or None for no
deadline.
"""

_SLURM_END = "SLURM_JOB_END_TIME"  # seconds since 1970; set in the processes of a Slurm job

# Added to the measured times: for the job's exit and for clock skew.
_MARGIN_SECONDS = 30.0
_FIRST_STEPS = 2  # the first step is often atypical: fewer than two say nothing about their duration
# After a failed save: the pause before the next try doubles with each consecutive failure.
_FIRST_RETRY_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 600.0


class Due(Enum):
    """Action after a step; a larger one includes the smaller ones."""

    NOTHING = 0
    SAVE = 1
    SAVE_AND_LEAVE = 2


class Schedule:
    """Decides after each step whether a save is due, from its own measurements.

    With `max_overhead`, the interval follows from the cost of a save: the time for which it blocks the loop, plus the
    slowdown of steps while it is written. The interval makes this cost the given share of the time.

    After a failed save, the next one follows a pause of seconds, which grows with each consecutive failure, instead of
    at
    the regular interval.

    Args:
        steps: Save after every `steps` steps of the run; None to ignore steps.
        seconds: Save this many seconds after the last save; None to ignore the time.
        max_overhead: Share of the time that saves may take, such as 0.03; None to ignore the cost.
        deadline: When the process will be ended, in seconds since 1970; None if unknown.
    """

    def __init__(
        self, steps: int | None, seconds: float | None, max_overhead: float | None, deadline: float | None
    ) -> None:
        if steps is not None and steps < 1:
            raise UsageError(f"save_interval_steps is {steps}; pass a number of at least 1, or None")
        if seconds is not None and not 0 < seconds < math.inf:
            raise UsageError("save_interval_minutes is not above 0; pass a number of minutes, or None")
        if max_overhead is not None and not 0 < max_overhead < 1:
            raise UsageError(f"max_overhead is {max_overhead}; pass a share of the time such as 0.03, or None")
        if max_overhead is not None and (steps is not None or seconds is not None):
            raise UsageError("max_overhead cannot be combined with save_interval_*: it determines the interval")
        self._steps = steps
        self._seconds = seconds
        self._max_overhead = max_overhead
        self._deadline = deadline
        self._last_step: float | None = None
        self._last_save: float | None = None
        self._ordinary: deque[float] = deque(maxlen=32)
        self._held = 0.0
        self._held_since_step = 0.0
        self._disturbed: list[float] = []
        self._over = False
        self._cost: float | None = None
        self._longest_save = 0.0
        self._failures = 0
        self._retry_at = math.inf

    def begin(self, now: float) -> None:
        """Start measuring: the run starts or resumes."""
        self._last_save = now

    def pause(self) -> None:
        """Pause the measurement of steps during other work."""
        self._last_step = None
        self._held_since_step = 0.0

    def stepped(self, step: int, now: float, wall: float, *, saving: bool) -> Due:
        """Record a finished step, and return the action that is due.

        Args:
            step: Steps since the start of the run.
            now: Time of a monotonic clock in seconds.
            wall: Seconds since 1970.
            saving: Whether a save was running during the step.
        """
        if self._last_step is not None:
            (self._disturbed if saving else self._ordinary).append(now - self._last_step - self._held_since_step)
        self._last_step = now
        self._held_since_step = 0.0
        if self._over:
            slowed = sum(self._disturbed) - len(self._disturbed) * self._step_seconds()
            self._cost = self._held + max(0.0, slowed)
            self._over = False
        if self.must_leave(wall):
            return Due.SAVE_AND_LEAVE
        return Due.SAVE if self._save_is_due(step, now) else Due.NOTHING

    def must_leave(self, wall: float) -> bool:
        """Return whether it is time to save and leave before the deadline.

        Args:
            wall: Seconds since 1970.
        """
        return self._deadline is not None and wall + self._needed_to_leave() >= self._deadline

    def saved(self, now: float, held: float) -> None:
        """Record the start of a save, which blocked the loop for `held` seconds."""
        self._last_save = now
        self._held = held
        self._held_since_step += held
        self._disturbed = []
        self._cost = math.inf  # until it is known
        self._longest_save = max(self._longest_save, held)
        self._retry_at = math.inf

    def written(self, seconds: float) -> None:
        """Record the end of a save after `seconds` seconds. The next step determines its cost."""
        self._longest_save = max(self._longest_save, seconds)
        self._over = True

    def succeeded(self) -> None:
        """Record that the last save is durable."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Record that the save of the last `saved` call failed; a retry follows after a pause."""
        self._over = True
        self._retry_at = now + min(_FIRST_RETRY_SECONDS * 2 ** min(self._failures, 30), _LONGEST_RETRY_SECONDS)
        self._failures += 1

    def _save_is_due(self, step: int, now: float) -> bool:
        if now >= self._retry_at:
            return True
        if self._steps is not None and step % self._steps == 0:
            return True
        since = now - (self._last_save if self._last_save is not None else now)
        if self._seconds is not None and since >= self._seconds:
            return True
        if self._max_overhead is None:
            return False
        if self._cost is None:  # the first save measures the cost
            return len(self._ordinary) >= _FIRST_STEPS
        return (since + self._held) * self._max_overhead >= self._cost

    def _step_seconds(self) -> float:
        return median(self._ordinary) if self._ordinary else 0.0

    def _needed_to_leave(self) -> float:
        return _MARGIN_SECONDS + 2 * self._longest_save + 2 * max(self._ordinary, default=0.0)


def deadline_seconds(deadline: Deadline, environment: Mapping[str, str] = os.environ) -> float | None:
    """Return a deadline in seconds since 1970; None if there is none.

    Raises:
        UsageError: It is a datetime without a time zone, or not a time.
    """
    match deadline:
        case None:
            return None
        case "slurm":
            text = environment.get(_SLURM_END, "")
            return float(text) if text.isascii() and text.isdigit() else None
        case datetime():
            if deadline.tzinfo is None:
                raise UsageError("deadline is a datetime without a time zone; use datetime.now(timezone.utc) + ...")
            return deadline.timestamp()
        case int() | float() if math.isfinite(deadline):
            return float(deadline)
    raise UsageError(f"deadline is {deadline!r}; pass an aware datetime, seconds since 1970, 'slurm' or None")
