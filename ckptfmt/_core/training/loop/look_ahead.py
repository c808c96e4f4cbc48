"""Detection of loops that take the next batch before `step()` for the current one: a resume would skip that batch."""

from __future__ import annotations

__all__ = ["LookAhead"]


class LookAhead:
    """Recognizes a loop that takes batches ahead of its steps, from the order of both in an epoch.

    Such a loop takes two or more batches before the first step and one before each further step. A loop that
    accumulates gradients takes the same number of batches before each step, and perhaps fewer at the end of the epoch.
    """

    def __init__(self) -> None:
        self._found = False
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the batches and steps of the previous epoch."""
        self._taken: list[int] = [0]

    def stepped(self) -> None:
        """Count a step."""
        if len(self._taken) < 3:
            self._taken.append(0)

    def took_batch(self) -> bool:
        """Count a batch. Return True, once, when the loop proves to be ahead of its steps."""
        self._taken[-1] += 1
        # Only once another batch follows: the last step of an epoch may cover fewer batches.
        ahead = len(self._taken) == 3 and self._taken[0] > 1 and self._taken[1:] == [1, 1]
        new = ahead and not self._found
        self._found |= ahead
        return new
