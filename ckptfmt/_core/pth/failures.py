"""The errors of files in other formats."""

from __future__ import annotations

from typing import Self

from ckptfmt.errors import CkptfmtError

__all__ = ["LegacyFileError", "UnsupportedLegacyError"]


class LegacyFileError(CkptfmtError, ValueError):
    """A file of another format is broken, cut, beyond a limit, or not what its name says.

    Attributes:
        matter: What was found, and where in the file.
        path: The file, once it is known.
    """

    def __init__(self, matter: str, path: str | None = None) -> None:
        self.matter = matter
        self.path = path
        super().__init__(f"{path}: {matter}" if path is not None else matter)

    def at(self, path: str) -> Self:
        """Return the same error with the file named."""
        return type(self)(self.matter, path)

    def inside(self, part: str) -> Self:
        """Return the same error with a part of the file, such as a member of its archive, named."""
        return type(self)(f"{part}: {self.matter}", self.path)


class UnsupportedLegacyError(LegacyFileError):
    """A file holds what this reader does not take: beyond a limit, or of an unknown kind.

    Its bytes may all be right, and PyTorch may load it.
    """
