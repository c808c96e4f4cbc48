"""One at a time in a directory: locks that the operating system drops however their holders end.

There are two. The *lock* is held for moments by whoever publishes a checkpoint of a run, removes one, pins one or
claims a run, from the last look to the deed. The *prune lock* is held by a retention for as long as it works, which
may be long: it reads what stays. Whoever needs both takes the prune lock first.

Each is held on a file that stays in the directory for ever. To remove it would be the one way to break it: a second
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

__all__ = ["LOCK_NAME", "PRUNE_LOCK_NAME", "LockedError", "directory_lock", "prune_lock"]

LOCK_NAME = ".ckptfmt.lock"
PRUNE_LOCK_NAME = ".ckptfmt.prune.lock"

_PERIOD_SECONDS = 0.01
# Its holders need moments, on a slow file server seconds.
_PATIENCE_SECONDS = 60.0


class LockedError(StorageError):
    """Another process holds the lock."""


@contextmanager
def directory_lock(directory: str | os.PathLike[str], *, wait_seconds: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock of a directory, for a moment.

    Where the system or the file system has no locks, nothing is held. What is decided under it must then be decided
    as late as possible.

    Args:
        directory: The directory.
        wait_seconds: How long to wait for another process.

    Raises:
        LockedError: Another process holds it.
        StorageError: The file of the lock cannot be made.
    """
    path = Path(directory, LOCK_NAME)
    with _lock(path, f"{path}: another process has held this lock for {wait_seconds:g} s; end it", wait_seconds):
        yield


@contextmanager
def prune_lock(directory: str | os.PathLike[str], *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of those who apply a retention policy to a directory.

    Where the system or the file system has no locks, nothing is held: whoever calls this must be safe without, and
    uses the lock to spare people the sight of two programs that disagree.

    Args:
        directory: The directory.
        wait_seconds: How long to wait for another process.

    Raises:
        LockedError: Another process holds it.
        StorageError: The file of the lock cannot be made.
    """
    busy = f"{os.fspath(directory)}: another process is removing checkpoints here; try again when it has ended"
    with _lock(Path(directory, PRUNE_LOCK_NAME), busy, wait_seconds):
        yield


@contextmanager
def _lock(path: Path, busy: str, wait_seconds: float) -> Iterator[None]:
    if not HAVE_LOCKS:
        yield
        return
    try:
        # For writing: network file systems give an exclusive lock to nobody else.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage_error(str(path), "cannot be opened to lock the directory", error) from error
    try:
        _take(descriptor, busy, time.monotonic() + wait_seconds)
        yield
    finally:
        os.close(descriptor)  # which drops the lock


def _take(descriptor: int, busy: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockedError(busy) from None
            time.sleep(_PERIOD_SECONDS)
        except OSError:
            return  # this file system has no locks
        else:
            return
