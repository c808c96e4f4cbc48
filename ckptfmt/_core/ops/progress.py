"""How far a long piece of work is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Meter", "Progress", "Report", "Stopped", "Tally"]


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
        """Count bytes as done."""
        self._done = min(
            self._done + nbytes, self._total
        )  # a compressed file has more bytes to work off than it is long
        if self._report is not None:
            self._report(Progress(self._path, self._done, self._total))


class Stopped(Exception):  # noqa: N818 - not an error: nobody waits for the result any more
    """The work is not wanted any more."""


class Tally:
    """Counts the bytes that several threads work off together, and ends their work when it is not wanted any more.

    Args:
        total_bytes: Bytes that there are to work off.
        report: Takes each progress, from one thread at a time; None: nobody wants to know.
    """

    def __init__(self, total_bytes: int, report: Report | None) -> None:
        self._total = total_bytes
        self._report = report
        self._done = 0
        self._stopped = False
        self._lock = threading.Lock()

    def add(self, path: str, nbytes: int) -> None:
        """Count bytes of a file as done.

        Raises:
            Stopped: It was all in vain.
        """
        if self._stopped:
            raise Stopped
        with self._lock:
            self._done += nbytes
            if self._report is not None:
                self._report(Progress(path, self._done, self._total))

    def stop(self) -> None:
        """Make all work end at its next step."""
        self._stopped = True
