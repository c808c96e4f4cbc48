"""Loops that take the next batch before `step()` for the present one: a resume would leave that batch out."""

from __future__ import annotations

__all__ = ["LookAhead"]


class LookAhead:
    """Recognizes, in the order of batches and steps of an epoch, a loop that is ahead of its steps.

    Such a loop takes two batches or more before the first step, and one before each that follows. One that
    accumulates gradients over several batches takes as many each time, and maybe fewer at the end of the epoch.
    """

    def __init__(self) -> None:
        self._found = False
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the batches and steps of the epoch before."""
        self._taken: list[int] = [0]

    def stepped(self) -> None:
        """Note a step."""
        if len(self._taken) < 3:
            self._taken.append(0)

    def took_batch(self) -> bool:
        """Note that a batch is taken. Returns, once, whether the loop has turned out to be ahead."""
        self._taken[-1] += 1
        # Only once another batch follows: the last step of an epoch may be for what is left.
        ahead = len(self._taken) == 3 and self._taken[0] > 1 and self._taken[1:] == [1, 1]
        new = ahead and not self._found
        self._found |= ahead
        return new
