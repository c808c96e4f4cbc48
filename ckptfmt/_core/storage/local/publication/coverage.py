"""Which bytes of a file have been written, so that none is written twice and none is forgotten."""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["Coverage"]


class Coverage:
    """A set of bytes, kept as the ranges that they make.

    Files are written nearly from front to back, so there are few ranges at any time.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.nbytes = 0
        """Number of bytes in the set."""

    def add(self, start: int, end: int) -> None:
        """Add the bytes from `start` to before `end`.

        Raises:
            OSError: One of them is there already.
        """
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        number = bisect_right(starts, start)
        overlaps_before = number > 0 and ends[number - 1] > start
        overlaps_behind = number < len(starts) and starts[number] < end
        if overlaps_before or overlaps_behind:
            raise OSError(
                f"one of the bytes {start:,} to {end - 1:,} is written a second time; nothing is published, and this "
                "is a fault in ckptfmt: report it"
            )
        joins_before = number > 0 and ends[number - 1] == start
        joins_behind = number < len(starts) and starts[number] == end
        if joins_before and joins_behind:
            ends[number - 1] = ends.pop(number)
            starts.pop(number)
        elif joins_before:
            ends[number - 1] = end
        elif joins_behind:
            starts[number] = start
        else:
            starts.insert(number, start)
            ends.insert(number, end)
        self.nbytes += end - start
