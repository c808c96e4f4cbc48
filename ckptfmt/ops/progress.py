"""How far a long piece of work is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Meter", "Progress", "Report"]


@dataclass(frozen=True)
class Progress:
    """How far a long piece of work is.

    Attributes:
        path: The file in work.
        done_bytes: Bytes worked off so far.
        total_bytes: Bytes that there are to work off.
    """

    path: str
    done_bytes: int
    total_bytes: int


Report = Callable[[Progress], None]
"""Takes each progress as it is made."""


class Meter:
    """Counts the bytes that are worked off, and reports each advance.

    Args:
        path: The file in work.
        total_bytes: Bytes that there are to work off.
        report: Takes each progress; None: nobody wants to know.
    """

    def __init__(self, path: str, total_bytes: int, report: Report | None) -> None:
        self._path = path
        self._total = total_bytes
        self._report = report
        self._done = 0

    def advance(self, nbytes: int) -> None:
        """Note that so many more bytes are worked off."""
        self._done = min(
            self._done + nbytes, self._total
        )  # a compressed file has more bytes to work off than it is long
        if self._report is not None:
            self._report(Progress(self._path, self._done, self._total))
