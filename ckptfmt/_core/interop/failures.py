"""Errors about files of other formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckptfmt._core.pth.failures import LegacyFileError
from ckptfmt.errors import CkptfmtError

__all__ = ["ForeignFileError", "PackError", "TooLargeError", "named_as"]


class ForeignFileError(CkptfmtError, ValueError):
    """A file of another format is damaged, or holds something that cannot be read safely.

    Args:
        path: The file.
        form: What it seems to be, such as `.npz`.
        found: What is wrong with it, and what to do.
    """

    _verdict = "not a valid {form} file"

    def __init__(self, path: str, form: str, found: str) -> None:
        self.path = path
        super().__init__(f"{path}: {self._verdict.format(form=form)}: {found}")


class TooLargeError(ForeignFileError):
    """A file of another format may be valid, but it would take more memory or time than is given to any.

    `found` says what is too large, what the limit is, and what to do.
    """

    _verdict = "a {form} file beyond what is read"


@contextmanager
def named_as(path: str, form: str) -> Iterator[None]:
    """Name the file, and what it seems to be, in errors that leave."""
    try:
        yield
    except LegacyFileError as error:
        raise ForeignFileError(path, form, error.matter) from error


class PackError(CkptfmtError, ValueError):
    """The files of a directory make no checkpoint."""
