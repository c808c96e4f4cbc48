"""Advisory locks on open files (flock), which the operating system drops however their holder ends."""

from __future__ import annotations

import contextlib
import enum
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    HAVE_LOCKS = False
else:
    HAVE_LOCKS = True

__all__ = ["HAVE_LOCKS", "Lock", "leads_to", "try_lock", "unlock"]


class Lock(enum.Enum):
    """What came of an attempt to lock a file."""

    TAKEN = enum.auto()
    HELD_BY_ANOTHER = enum.auto()
    UNSUPPORTED = enum.auto()


def try_lock(descriptor: int, *, shared: bool = False) -> Lock:
    """Lock an open file, if that is possible without waiting.

    Args:
        descriptor: The file. Network file systems give an exclusive lock only on one that is open for writing.
        shared: Beside others that do the same; otherwise alone.
    """
    if not HAVE_LOCKS:
        return Lock.UNSUPPORTED
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.HELD_BY_ANOTHER
    except OSError:
        return Lock.UNSUPPORTED
    return Lock.TAKEN


def unlock(descriptor: int) -> None:
    """Drop the lock of an open file at once, even if a forked child has the file open, too."""
    if HAVE_LOCKS:
        with contextlib.suppress(OSError):  # then it is dropped with the last copy of the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def leads_to(path: Path, descriptor: int) -> bool:
    """Say whether a path is the name of an open file; what a symbolic link leads to does not count."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
