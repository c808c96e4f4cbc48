"""What can go wrong with a Checkpointer beyond the files themselves."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfmt._core.training.report import SkippedFile
from ckptfmt.errors import CkptfmtError

__all__ = [
    "SUPERSEDED_EXIT_CODE",
    "UNDECIDED_EXIT_CODE",
    "HeldError",
    "RankError",
    "ResumeError",
    "SaveError",
    "SupersededError",
    "UndecidedError",
    "UsageError",
]

SUPERSEDED_EXIT_CODE = 73
"""Exit code of a process whose run was taken over by another one: EX_CANTCREAT of sysexits.h. Not to be retried."""

UNDECIDED_EXIT_CODE = 78
"""Exit code when a person has to look before the run can go on: EX_CONFIG of sysexits.h. Not to be retried."""


class UsageError(CkptfmtError, RuntimeError):
    """The methods of a Checkpointer were called with arguments or in an order that makes no sense."""


class RankError(CkptfmtError, RuntimeError):
    """Another rank failed in what all ranks do together. The message names the rank and what it said."""


class SaveError(CkptfmtError, RuntimeError):
    """A save failed, with its `__cause__`, or something beside it went wrong."""


class ResumeError(CkptfmtError, RuntimeError):
    """There is nothing to resume from that can be used, although there should be.

    Attributes:
        skipped: Each checkpoint that cannot be used, and why; empty if there is none at all.
    """

    def __init__(self, message: str, skipped: Sequence[SkippedFile] = (), *, details: Sequence[str] = ()) -> None:
        self.skipped = tuple(skipped)
        super().__init__(message, *details, *(f"{file.path}: {file.reason}" for file in self.skipped))


class UndecidedError(ResumeError, SystemExit):
    """A checkpoint that may be the newest could not be judged: it is neither known to be sound nor to be damaged.

    Nothing was changed. Uncaught, it ends the process with `UNDECIDED_EXIT_CODE`, which tells restarters not to try
    again: a person has to look first.
    """

    def __init__(self, message: str, skipped: Sequence[SkippedFile] = (), *, details: Sequence[str] = ()) -> None:
        super().__init__(message, skipped, details=details)
        self.code = UNDECIDED_EXIT_CODE


class HeldError(UndecidedError):
    """Another process that is alive saves the run, so that this one must not. Nothing was changed.

    Attributes:
        host: Name of its machine.
        pid: Its number there.
    """

    def __init__(
        self, message: str, host: str | None = None, pid: int | None = None, *, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message, details=details)
        self.host = host
        self.pid = pid


class SupersededError(CkptfmtError, SystemExit):
    """Another process has taken over the run: this one publishes and removes nothing more.

    Uncaught, it ends the process with `SUPERSEDED_EXIT_CODE`, which tells restarters not to try again.
    """

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message, *details)
        self.code = SUPERSEDED_EXIT_CODE
