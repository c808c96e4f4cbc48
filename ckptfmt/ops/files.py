"""Which files of a directory are checkpoints, published or not yet."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from ckptfmt.errors import StorageError
from ckptfmt.storage.failures import storage_error

try:
    import fcntl
except ImportError:  # Windows
    _HAVE_LOCKS = False
else:
    _HAVE_LOCKS = True

__all__ = ["Writer", "children", "is_checkpoint", "is_temporary", "reason", "size_of", "writer_of"]

_EXTENSION = ".ckptfmt"  # spec section 17


class Writer(StrEnum):
    """Who writes a temporary file."""

    LIVING = "living"
    """A living process holds its lock."""
    NONE = "none"
    """No process that this machine can see holds its lock: its writer died."""
    UNKNOWN = "unknown"
    """There are no locks here, or the file may not be opened."""


def children(directory: str) -> list[Path]:
    """Return what is directly in a directory, by name.

    Raises:
        StorageError: It cannot be listed.
    """
    try:
        return sorted(Path(directory).iterdir())
    except OSError as error:
        raise storage_error(directory, "cannot be listed", error) from error


def is_checkpoint(path: Path) -> bool:
    """Say whether a directory entry is a checkpoint by its name; directories are not."""
    return path.name.endswith(_EXTENSION) and not path.is_dir()


def is_temporary(path: Path) -> bool:
    """Say whether a directory entry is the temporary file of a checkpoint (spec 15.3): `.NAME.ckptfmt.RANDOM.tmp`."""
    name = path.name
    return name.startswith(".") and name.endswith(".tmp") and f"{_EXTENSION}." in name and not path.is_dir()


def reason(error: StorageError, path: str) -> str:
    """Return why a file could not be read, without the path that the message begins with."""
    return str(error).removeprefix(f"{path}: ")


def size_of(path: str | Path) -> int | None:
    """Return the length of a file in bytes, or None if it cannot be known."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


def writer_of(path: Path) -> Writer:
    """Return who writes a temporary file.

    A writer holds an exclusive lock on it for as long as it lives. The shared lock that is tried here is given back
    at once; a writer that is just being born and meets it starts again with another name.
    """
    if not _HAVE_LOCKS:
        return Writer.UNKNOWN
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Writer.UNKNOWN
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Writer.LIVING
    except OSError:
        return Writer.UNKNOWN
    finally:
        os.close(descriptor)
    return Writer.NONE
