"""What can go wrong with a Checkpointer beyond the files themselves."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfmt.errors import CkptfmtError
from ckptfmt.torch.report import SkippedFile

__all__ = ["ResumeError", "UsageError"]


class UsageError(CkptfmtError, RuntimeError):
    """The methods of a Checkpointer were called with arguments or in an order that makes no sense."""


class ResumeError(CkptfmtError, RuntimeError):
    """There is nothing to resume from that can be used, although there should be.

    Attributes:
        skipped: Each checkpoint that cannot be used, and why; empty if there is none at all.
    """

    def __init__(self, message: str, skipped: Sequence[SkippedFile] = ()) -> None:
        self.skipped = tuple(skipped)
        super().__init__("\n  ".join([message, *(f"{file.path}: {file.reason}" for file in self.skipped)]))
