"""Errors about files of other formats."""

from __future__ import annotations

from ckptfmt.errors import CkptfmtError

__all__ = ["ForeignFileError", "PackError"]


class ForeignFileError(CkptfmtError, ValueError):
    """A file of another format is damaged, or holds something that cannot be read safely.

    Args:
        path: The file.
        form: What it seems to be, such as `.npz`.
        found: What is wrong with it, and what to do.
    """

    def __init__(self, path: str, form: str, found: str) -> None:
        self.path = path
        super().__init__(f"{path}: not a valid {form} file: {found}")


class PackError(CkptfmtError, ValueError):
    """The files of a directory make no checkpoint."""
