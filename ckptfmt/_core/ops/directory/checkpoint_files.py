"""Which files of a directory are checkpoints, published or not yet."""

from __future__ import annotations

import os
from pathlib import Path

from ckptfmt._core.runs.scan import EXTENSION, children, reason
from ckptfmt._core.storage.local.paths import is_directory
from ckptfmt._core.storage.local.publication.leftovers import Leftover, Writer, temporary_files

__all__ = ["Writer", "children", "is_checkpoint", "reason", "size_of", "unpublished"]


def is_checkpoint(path: Path) -> bool:
    """Say whether a directory entry is a checkpoint by its name; directories are not."""
    return path.name.endswith(EXTENSION) and not is_directory(path)


def unpublished(directory: str | os.PathLike[str]) -> tuple[Leftover, ...]:
    """Return the temporary files of checkpoints in a directory, by name.

    Where the name of the checkpoint was too long for the temporary one, its extension is not known and it counts.
    """
    return tuple(file for file in temporary_files(directory) if file.cut or file.stem.endswith(EXTENSION))


def size_of(path: str | Path) -> int | None:
    """Return the length of a file in bytes, or None if it cannot be known."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return None
