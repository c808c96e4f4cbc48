"""What the operating system refused, in words that say what to do about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TypeVar

from ckptfmt.errors import ReadError, StorageError

__all__ = ["free_bytes", "lacks_inodes", "read_error", "storage_error"]

# errno: what is the matter, and what to do. The operating system's own words serve for all others.
_PLAIN_WORDS: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("no such file or directory", "check the path"),
    errno.ENOTDIR: ("a part of the path is not a directory", "check the path"),
    errno.EISDIR: ("it is a directory", "name a file in it"),
    errno.ELOOP: ("its symbolic links lead in a circle", "repair the links"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "choose a shorter one"),
    errno.EACCES: ("permission denied", "check owner and mode of the file and its directory"),
    errno.EPERM: ("not permitted", "check owner, mode and attributes of the file and its directory"),
    errno.EROFS: ("the file system is mounted read-only", "choose another directory"),
    errno.ENOSPC: ("the disk is full", "free some space or choose another disk"),
    errno.EDQUOT: ("the disk quota is used up", "remove some files or choose another disk"),
    errno.EFBIG: (
        "a file of this size is beyond the limit of the file system or the process",
        "choose another file system or raise the limit (ulimit -f)",
    ),
    errno.EIO: ("the device or network reports an I/O error", "check the disk and the system log"),
    errno.ESTALE: ("the file server no longer knows the file", "try again"),
    errno.EMFILE: ("the process has too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("the system has too many open files", "close some"),
}


_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST})
_NO_INODES = (
    "the file system can hold no more files: all of its inodes are in use",
    "remove some files, however small, or choose another disk",
)


_Kind = TypeVar("_Kind", bound=StorageError)


def storage_error(path: str, failed: str, error: OSError, detail: str = "", *, hidden: bool = False) -> StorageError:
    """Return the `StorageError` for a failed call, with the same `errno`.

    Args:
        path: The file concerned, as the user named it.
        failed: What could not be done, e.g. `cannot be opened`.
        error: What the operating system said.
        detail: Figures that help, e.g. how much space is needed and free.
        hidden: Whether the program chose the name, and not the user.

    A disk that has space and yet no room for another file is told apart from a full one.
    """
    return _describe(StorageError, path, failed, error, detail, hidden=hidden)


def read_error(path: str, offset: int, error: OSError) -> ReadError:
    """Return the error for a failed read at an offset of an open file."""
    result = _describe(ReadError, path, f"cannot be read at offset {offset}", error)
    result.offset = offset
    return result


def _describe(
    kind: type[_Kind], path: str, failed: str, error: OSError, detail: str = "", *, hidden: bool = False
) -> _Kind:
    said = error.strerror or str(error) or type(error).__name__
    matter, advice = _PLAIN_WORDS.get(error.errno or 0, (said, ""))
    if hidden and error.errno in _IN_THE_WAY:
        matter, advice = "a directory is in its place", "move that away"
    if error.errno == errno.ENOSPC and lacks_inodes(Path(path)):
        matter, advice, detail = *_NO_INODES, ""
    text = f"{path}: {failed}: {matter}"
    text += f" ({detail})" if detail else ""
    text += f"; {advice}" if advice else ""
    result = kind(text)
    result.errno = error.errno
    return result


def free_bytes(directory: Path) -> int | None:
    """Return how many bytes may still be written in a directory's file system, or None if that is unknown."""
    try:
        found = os.statvfs(directory)
    except (AttributeError, OSError):  # Windows has no statvfs
        return None
    return found.f_bavail * found.f_frsize


def lacks_inodes(path: Path) -> bool:
    """Say whether the file system of a path, or of the directory that it is to be in, has no inode left."""
    for place in (path, *path.absolute().parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue  # it is not there yet
        except (AttributeError, OSError, ValueError):  # Windows has no statvfs
            return False
        return found.f_files > 0 and found.f_favail == 0  # some file systems do not count them
    return False
