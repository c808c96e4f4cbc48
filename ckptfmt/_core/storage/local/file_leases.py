"""Leases that are files: which process saves the runs of a directory, and as which generation (spec, annex B).

Whoever resumes a run replaces its lease by one of the next generation, under the lock of the directory. Whoever saves
reads it again before each publication and each removal: if it holds another claim than one's own, the run is another's,
and nothing more may be published or removed.

Its holder keeps the file open and locked for as long as it lives, so that processes on the same machine know at once
whether it does. For other machines it touches the file now and then. Both are hints: what counts is the claim.
"""

from __future__ import annotations

import contextlib
import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ckptfmt._core.storage.leases import holders
from ckptfmt._core.storage.leases.hold import Hold
from ckptfmt._core.storage.leases.lease import (
    DamagedLeaseError,
    Lease,
    decode_lease,
    encode_lease,
    is_lease_name,
    lease_name,
)
from ckptfmt._core.storage.local import file_locks
from ckptfmt._core.storage.local.durability import flush_file
from ckptfmt._core.storage.local.file_locks import Lock, leads_to, try_lock
from ckptfmt._core.storage.local.lock import directory_lock
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt._core.storage.local.permissions import give_to_removers
from ckptfmt._core.storage.local.publication.leftovers import clean_leftovers
from ckptfmt._core.storage.local.publication.temporary import TemporaryFile
from ckptfmt._core.system.forks import OwnDescriptor
from ckptfmt.errors import LeaseError, StorageError

__all__ = [
    "FileHold",
    "FileLeases",
    "lease_path",
    "leases_in",
    "make_room_for_lease",
    "publish_lease",
    "read_lease",
    "seems_alive",
]

_MAX_BYTES = 1 << 16


class FileLeases:
    """The leases in a directory (see `leases.base.Leases`).

    Args:
        directory: Path of the directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def path(self, run_id: str) -> str:
        """Return the path of the lease of a run."""
        return str(lease_path(self._directory, run_id))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock of the directory."""
        return directory_lock(self._directory)

    def all(self) -> Sequence[Lease]:
        """Return the leases that can be understood."""
        try:
            return list(leases_in(self._directory))
        except OSError as error:
            raise storage_error(self._directory, "cannot be searched for other processes", error) from error

    def read(self, run_id: str) -> Lease | None:
        """Return the lease of a run; None if there is none."""
        return read_lease(self._directory, run_id)

    def make_room(self, run_id: str) -> bool:
        """Return whether what has the name of a lease holds no claim; an empty directory is removed."""
        return make_room_for_lease(self._directory, run_id)

    def publish(self, lease: Lease, before: Lease | None, *, durably: bool = True) -> Hold | None:  # noqa: ARG002 - the lock of the directory keeps it as it was read
        """Replace the lease of a run, and hold the new one."""
        return publish_lease(self._directory, lease, durably=durably)

    def seems_alive(self, lease: Lease, *, watch_seconds: float) -> bool:
        """Return whether the holder of a lease is alive, as far as can be told."""
        try:
            return seems_alive(self._directory, lease, watch_seconds=watch_seconds)
        except OSError as error:
            raise storage_error(self._directory, "cannot be searched for other processes", error) from error


def lease_path(directory: str | os.PathLike[str], run_id: str) -> Path:
    """Return the path of the lease of a run: hidden, and such as any file system takes, whatever the run is called."""
    return Path(directory, lease_name(run_id))


def leases_in(directory: str | os.PathLike[str]) -> Iterator[Lease]:
    """Yield the leases in a directory that can be understood, in no particular order.

    Raises:
        OSError: It cannot be listed, or one of them not be read.
    """
    for path in Path(directory).iterdir():
        if is_lease_name(path.name):
            with contextlib.suppress(DamagedLeaseError):
                lease = _read(path)
                if lease is not None and lease_path(directory, lease.run_id) == path:
                    yield lease


def read_lease(directory: str | os.PathLike[str], run_id: str) -> Lease | None:
    """Return the lease of a run; None if there is none.

    Raises:
        LeaseError: It cannot be understood.
        StorageError: It cannot be read.
    """
    path = lease_path(directory, run_id)
    try:
        lease = _read(path)
    except DamagedLeaseError as error:
        raise LeaseError(f"{path}: is not a lease ({error}); remove it if nobody saves the run") from error
    except OSError as error:
        raise storage_error(str(path), "cannot be read to learn who saves the run", error) from error
    if lease is not None and lease.run_id != run_id:
        raise LeaseError(f"{path}: is the lease of another run, {lease.run_id!r}; remove it if nobody saves here")
    return lease


def make_room_for_lease(directory: str | os.PathLike[str], run_id: str) -> bool:
    """Say whether what has the name of the lease of a run holds no claim, so that the run's own process may replace it.

    A directory is removed if it is empty. The directory of the run must be locked.
    """
    path = lease_path(directory, run_id)
    try:
        _read(path)
    except DamagedLeaseError as error:
        with contextlib.suppress(OSError):  # it is no directory, or not empty
            path.rmdir()
        return not error.of_a_later_program and not path.is_dir()
    except OSError:
        return False
    return False


def publish_lease(directory: str | os.PathLike[str], lease: Lease, *, durably: bool = True) -> FileHold:
    """Replace the lease of a run, as a whole or not at all, and hold the new one. The directory must be locked.

    Raises:
        StorageError: It was not replaced, or may not outlast a power cut.
    """
    path = lease_path(directory, lease.run_id)
    temporary = TemporaryFile(path)
    try:
        clean_leftovers(path.parent, path.name)
        descriptor = temporary.create()
        give_to_removers(descriptor, path.parent)
        _write_all(descriptor, encode_lease(lease))
        if durably:
            flush_file(descriptor)
        # The lock is that of the open file, and stays with the second descriptor. Windows renames no open file.
        hold = FileHold(path, OwnDescriptor(os.dup(descriptor)) if file_locks.HAVE_LOCKS else None)
        try:
            temporary.rename()
            if durably:
                temporary.flush_name()
        except BaseException:
            hold.close()
            raise
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(str(path), "the run cannot be claimed", error, hidden=True) from error
    finally:
        temporary.discard()
    return hold


class FileHold(Hold):
    """A lease that this process holds. As long as it is open, others see that its holder lives.

    Args:
        path: The lease.
        file: The open file, locked; it is closed with this object. None where there are no locks.
    """

    def __init__(self, path: Path, file: OwnDescriptor | None) -> None:
        super().__init__()
        self._path = path
        self._file = file
        if file is not None:
            weakref.finalize(self, file.close)

    def touch(self) -> bool:
        """Show that its holder lives, as far as the system lets it; say whether it is still the lease of the run."""
        if self._file is None or self._file.number is None or os.utime not in os.supports_fd:
            return True
        try:
            os.utime(self._file.number)
            return leads_to(self._path, self._file.number)
        except OSError:  # nobody knows, for the moment
            return True

    def close(self) -> None:
        """Hold it no more. A second call does nothing."""
        super().close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # nothing is lost with it
                self._file.close()


def seems_alive(
    directory: str | os.PathLike[str], lease: Lease, *, watch_seconds: float = holders.WATCH_SECONDS
) -> bool:
    """Return whether the holder of a lease is alive, as far as can be told.

    A holder keeps its lease locked. On its machine a lease that is not locked has no living holder; where the file
    system has no locks, the system is asked for the process. On network file systems a lock may be seen by one machine
    only, so another machine's lease is watched.

    Args:
        directory: Where the lease is.
        lease: The lease, as it was read.
        watch_seconds: How long to watch a lease of another machine.

    Raises:
        OSError: The lease cannot be looked at.
    """
    if lease.holder is None:
        return False
    path = lease_path(directory, lease.run_id)
    lock, touched = _look(path)
    if lock is Lock.HELD_BY_ANOTHER:
        return True
    if lock is Lock.TAKEN and not holders.may_live_elsewhere(lease.holder):
        return False
    running = holders.is_running(lease.holder)
    if running is not None:
        return running
    return holders.changes(lambda: _look(path)[1], touched, watch_seconds=watch_seconds)


def _look(path: Path) -> tuple[Lock, int | None]:
    """Return whether a file is locked and when it was touched; None if it is gone."""
    try:
        # To open it anew is what makes a network file system ask its server.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return Lock.TAKEN, None
    try:
        return try_lock(descriptor, shared=True), os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _read(path: Path) -> Lease | None:
    """Return what a lease says; None if there is none.

    Raises:
        DamagedLeaseError: It says nothing that this program understands.
        OSError: It cannot be read.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DamagedLeaseError("it is no regular file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    try:
        content = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    return decode_lease(content)
