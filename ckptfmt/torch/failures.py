"""What can go wrong with a Checkpointer beyond the files themselves."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfmt.errors import CkptfmtError
from ckptfmt.torch.report import SkippedFile

__all__ = ["ResumeError", "UsageError"]


class UsageError(CkptfmtError, RuntimeError):
    """The methods of a Checkpointer were called with arguments or in an order that makes no sense."""


class ResumeError(CkptfmtError, RuntimeError):
    """There are checkpoints to resume from, and none of them can be used.

    Attributes:
        skipped: Each of them, and why it cannot be used.
    """

    def __init__(self, directory: str, skipped: Sequence[SkippedFile]) -> None:
        self.skipped = tuple(skipped)
        lines = [
            f"{directory}: none of the checkpoints can be used, and starting from scratch beside them would waste "
            "what they hold; move them away to start anew, or pass the run_id= of another run:",
            *(f"{file.path}: {file.reason}" for file in self.skipped),
        ]
        super().__init__("\n  ".join(lines))
