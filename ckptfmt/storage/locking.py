"""One at a time in a directory: a lock that the operating system drops however its holder ends.

It is held on a file that stays in the directory for ever. To remove it would be the one way to break it: a second
process could hold the lock on the removed file while a third one takes it on a new file of the same name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptfmt.errors import StorageError
from ckptfmt.storage.failures import storage_error

try:
    import fcntl
except ImportError:  # Windows
    HAVE_LOCKS = False
else:
    HAVE_LOCKS = True

__all__ = ["LOCK_NAME", "LockedError", "directory_lock"]

LOCK_NAME = ".ckptfmt.lock"
_PERIOD_SECONDS = 0.05


class LockedError(StorageError):
    """Another process holds the lock."""


@contextmanager
def directory_lock(directory: str | os.PathLike[str], *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a directory.

    Where the system or the file system has no locks, nothing is held: whoever calls this must be safe without, and
    uses the lock to spare people the sight of two programs that disagree.

    Args:
        directory: The directory.
        wait_seconds: How long to wait for another process.

    Raises:
        LockedError: Another process holds it.
        StorageError: The file of the lock cannot be made.
    """
    if not HAVE_LOCKS:
        yield
        return
    path = Path(directory, LOCK_NAME)
    try:
        # For writing: network file systems give an exclusive lock to nobody else.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage_error(str(path), "cannot be opened to lock the directory", error) from error
    try:
        _take(descriptor, os.fspath(directory), time.monotonic() + wait_seconds)
        yield
    finally:
        os.close(descriptor)  # which drops the lock


def _take(descriptor: int, directory: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockedError(
                    f"{directory}: another process is removing checkpoints here; try again when it has ended"
                ) from None
            time.sleep(_PERIOD_SECONDS)
        except OSError:
            return  # this file system has no locks
        else:
            return
