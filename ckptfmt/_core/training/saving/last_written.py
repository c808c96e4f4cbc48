"""A save of what is saved already, such as one by hand after one that was due: it needs no second file."""

from __future__ import annotations

from dataclasses import replace

from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.index import Index, encode_index
from ckptfmt.errors import CkptfmtError

__all__ = ["LastWritten"]


class LastWritten:
    """The last checkpoint that this process wrote, and whether another one would be the same."""

    def __init__(self) -> None:
        self._content: bytes | None = None
        self._latest: bytes | None = None
        self._report: SaveReport | None = None

    def same(self, index: Index) -> SaveReport | None:
        """Return the report of the last checkpoint if it is there and differs from a new one in the time alone.

        It does if all digests are equal, of random states and of the place in the data, too, and all facts, such as
        metrics.

        Args:
            index: What the index of the new one says.
        """
        self._latest = digest(encode_index(replace(index, metadata=replace(index.metadata, created=None))))
        last = self._report
        return last if last is not None and self._latest == self._content and _is_there(last) else None

    def note(self, report: SaveReport) -> None:
        """Note that the one that `same` was last asked about is durable, or was not needed."""
        self._content, self._report = self._latest, report


def _is_there(report: SaveReport) -> bool:
    try:
        with Checkpoint.open(report.path) as checkpoint:
            return checkpoint.identity == report.identity
    except CkptfmtError:
        return False
