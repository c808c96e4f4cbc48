"""Detection of redundant saves, such as a manual one right after a scheduled one: no second file is needed."""

from __future__ import annotations

from dataclasses import replace

from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import SaveReport
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.index import Index, encode_index
from ckptfmt.errors import CkptfmtError

__all__ = ["LastWritten"]


class LastWritten:
    """The last checkpoint that this process wrote, to compare a new one with."""

    def __init__(self) -> None:
        self._content: bytes | None = None
        self._latest: bytes | None = None
        self._report: SaveReport | None = None

    def same(self, index: Index) -> SaveReport | None:
        """Return the report of the last checkpoint if it still exists and a new one would differ only in its time.

        This is so if all digests are equal, including those of random states and of the position in the data, and all
        metadata such as metrics.

        Args:
            index: Index of the new checkpoint.
        """
        self._latest = digest(encode_index(replace(index, metadata=replace(index.metadata, created=None))))
        last = self._report
        return last if last is not None and self._latest == self._content and _is_there(last) else None

    def note(self, report: SaveReport) -> None:
        """Record the checkpoint of the last call of `same`, now durable or not needed."""
        self._content, self._report = self._latest, report


def _is_there(report: SaveReport) -> bool:
    try:
        with Checkpoint.open(report.path) as checkpoint:
            return checkpoint.identity == report.identity
    except CkptfmtError:
        return False
