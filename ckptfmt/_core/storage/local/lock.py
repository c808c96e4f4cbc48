"""One at a time in a directory: locks that the operating system drops however their holders end.

There are two. The *lock* is held for moments by whoever publishes a checkpoint of a run, removes one, pins one or
claims a run, from the last look to the deed. The *prune lock* is held by a retention for as long as it works, which
may be long: it reads what stays. Whoever needs both takes the prune lock first.

Each is held on a file that stays in the directory for ever. To remove it would be the one way to break it: a second
process could hold the lock on the removed file while a third one takes it on a new file of the same name.

Only those who may remove files from the directory may open it (see `permissions`): whoever can read a file can lock it,
and a lock that is never given back would be the end of all saves.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.file_locks import Lock, try_lock, unlock
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.permissions import give_to_removers, lock_mode
from ckptfmt._core.system.forks import OwnDescriptor, release_in_children
from ckptfmt.errors import LockedError

__all__ = ["LOCK_NAME", "PRUNE_LOCK_NAME", "directory_lock", "prune_lock"]

LOCK_NAME = ".ckptfmt.lock"
PRUNE_LOCK_NAME = ".ckptfmt.prune.lock"

_PERIOD_SECONDS = 0.01
# Its holders need moments, on a slow file server seconds.
_PATIENCE_SECONDS = 60.0


class _Held(threading.local):
    """The directories the lock of which this thread holds."""

    def __init__(self) -> None:
        self._files: set[tuple[int, int]] = set()
        release_in_children(self)

    def has(self, path: Path) -> bool:
        return bool(self._files) and _file_of(path) in self._files

    @contextmanager
    def noted(self, path: Path) -> Iterator[None]:
        file = _file_of(path)
        if file is None:  # there are no locks, or it was removed in this moment
            yield
            return
        self._files.add(file)
        try:
            yield
        finally:
            self._files.discard(file)

    def release_in_child(self) -> None:
        """Forget them in a forked child, which holds none."""
        self._files.clear()


_held = _Held()


def _file_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def directory_lock(directory: str | os.PathLike[str], *, wait_seconds: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock of a directory, for a moment.

    Where the system or the file system has no locks, nothing is held. What is decided under it must then be decided
    as late as possible. A thread that holds it may take it again.

    Args:
        directory: The directory.
        wait_seconds: How long to wait for another process.

    Raises:
        LockedError: Another process holds it.
        StorageError: The file of the lock cannot be made.
    """
    path = Path(directory, LOCK_NAME)
    with ExitStack() as stack:
        if not _held.has(path):
            busy = f"{path}: another process has held this lock for {wait_seconds:g} s; end it"
            stack.enter_context(_lock(path, busy, wait_seconds))
            stack.enter_context(_held.noted(path))
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
    if not file_locks.HAVE_LOCKS:
        yield
        return
    try:
        file = OwnDescriptor(_open(path))
    except OSError as error:
        raise storage_error(str(path), "cannot be opened to lock the directory", error, hidden=True) from error
    try:
        _take(file.opened, busy, time.monotonic() + wait_seconds)
        yield
    finally:
        try:
            if file.number is not None:  # not in a child that was forked meanwhile
                unlock(file.number)
        finally:
            with contextlib.suppress(OSError):  # nothing was written
                file.close()


def _open(path: Path) -> int:
    """Open the file of a lock for those who may remove files from its directory, and for nobody else.

    In a sticky directory everybody may remove only what is theirs: there, whoever cannot open the file of another user
    takes one of their own.
    """
    try:
        return _open_for(path)
    except PermissionError:
        if not path.parent.stat().st_mode & stat.S_ISVTX:
            raise
    return _open_for(path.with_name(f"{path.name}.{os.geteuid()}"))


def _open_for(path: Path) -> int:
    # For writing: network file systems give an exclusive lock to nobody else.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, lock_mode(path.parent))
    try:
        give_to_removers(descriptor, path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _take(descriptor: int, busy: str, deadline: float) -> None:
    while True:
        if try_lock(descriptor) is not Lock.HELD_BY_ANOTHER:
            return  # it is ours, or this file system has no locks
        if time.monotonic() >= deadline:
            raise LockedError(busy)
        time.sleep(_PERIOD_SECONDS)
