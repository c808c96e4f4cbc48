"""When the next save is due: after so many steps or minutes, for so much of the time, or before a deadline."""

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
"""An aware datetime, seconds since 1970, `slurm`: what Slurm tells the job, or None: none."""

_SLURM_END = "SLURM_JOB_END_TIME"  # seconds since 1970; set for the processes of a Slurm job

# Beside the measured times: for what a job does before it is gone, and clocks that differ.
_MARGIN_SECONDS = 30.0
_FIRST_STEPS = 2  # the first step is often no ordinary one; before there are two, nothing is known of their length
# After a failed save: the pause before the next try doubles with each failure in a row.
_FIRST_RETRY_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 600.0


class Due(Enum):
    """What is to be done after a step; the larger, the more."""

    NOTHING = 0
    SAVE = 1
    SAVE_AND_LEAVE = 2


class Schedule:
    """Decides, step by step; measures what it decides by.

    With `max_overhead`, the interval follows from what a save costs: the time for which it holds the loop, and that
    by which steps take longer while it is written. Saves come so often that these make the wanted share of the time.

    After a save that failed the next one comes after a pause of seconds, which grows with each failure in a row, and
    not only when it would be due anyway.

    Args:
        steps: Save after every so many steps of the run; None: do not go by steps.
        seconds: Save when so much time has passed since the last save; None: do not go by time.
        max_overhead: Share of the time that saves may take, such as 0.03; None: do not go by cost.
        deadline: When the process will be ended, in seconds since 1970; None: not known to be.
    """

    def __init__(
        self, steps: int | None, seconds: float | None, max_overhead: float | None, deadline: float | None
    ) -> None:
        if steps is not None and steps < 1:
            raise UsageError(f"save_interval_steps is {steps}; pass a number of steps from 1 on, or None")
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
        """Begin to measure: the run starts or goes on."""
        self._last_save = now

    def pause(self) -> None:
        """Something other than steps comes now; the time that it takes is not theirs."""
        self._last_step = None
        self._held_since_step = 0.0

    def stepped(self, step: int, now: float, wall: float, *, saving: bool) -> Due:
        """Note that a step is done, and say what is due.

        Args:
            step: Steps since the start of the run.
            now: Time of a clock that does not jump, in seconds.
            wall: Seconds since 1970.
            saving: A save was under way during the step.
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
        """Say whether the deadline is so near that it is time to save and leave.

        Args:
            wall: Seconds since 1970.
        """
        return self._deadline is not None and wall + self._needed_to_leave() >= self._deadline

    def saved(self, now: float, held: float) -> None:
        """Note that a save was begun, for which the loop was held for so many seconds."""
        self._last_save = now
        self._held = held
        self._held_since_step += held
        self._disturbed = []
        self._cost = math.inf  # until it is known
        self._longest_save = max(self._longest_save, held)
        self._retry_at = math.inf

    def written(self, seconds: float) -> None:
        """Note that the save came to its end after so many seconds. With the next step, its cost is known."""
        self._longest_save = max(self._longest_save, seconds)
        self._over = True

    def succeeded(self) -> None:
        """Note that the last save is durable."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Note that the last save, which `saved` noted, failed: it is tried again after a pause."""
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
        if self._cost is None:  # the first save tells what one costs
            return len(self._ordinary) >= _FIRST_STEPS
        return (since + self._held) * self._max_overhead >= self._cost

    def _step_seconds(self) -> float:
        return median(self._ordinary) if self._ordinary else 0.0

    def _needed_to_leave(self) -> float:
        return _MARGIN_SECONDS + 2 * self._longest_save + 2 * max(self._ordinary, default=0.0)


def deadline_seconds(deadline: Deadline, environment: Mapping[str, str] = os.environ) -> float | None:
    """Return a deadline in seconds since 1970; None if there is none.

    Raises:
        UsageError: It is a datetime without a time zone, or no time at all.
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
