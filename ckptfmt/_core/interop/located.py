"""Errors about files of other formats, with the file named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckptfmt.errors import ForeignFileError

__all__ = ["located"]


@contextmanager
def located(path: str, form: str | None = None) -> Iterator[None]:
    """Name the file, and the format that it seems to have, in each `ForeignFileError` that names none yet."""
    try:
        yield
    except ForeignFileError as error:
        if error.path is not None:
            raise
        raise error.at(path, form) from error
