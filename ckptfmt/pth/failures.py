"""The error of files in other formats."""

from __future__ import annotations

from ckptfmt.errors import CkptfmtError

__all__ = ["LegacyFileError"]


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

    def at(self, path: str) -> LegacyFileError:
        """Return the same error with the file named."""
        return LegacyFileError(self.matter, path)

    def inside(self, part: str) -> LegacyFileError:
        """Return the same error with a part of the file, such as a member of its archive, named."""
        return LegacyFileError(f"{part}: {self.matter}", self.path)
