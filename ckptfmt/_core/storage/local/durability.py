"""Space that is there before it is needed, and data that stays when the power goes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    HAVE_FCNTL = False
else:
    HAVE_FCNTL = True

__all__ = ["flush_directory", "flush_file", "flush_published", "reserve_space"]

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_OFFERED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EBADF})
_NOT_TO_BE_OPENED = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE})


def reserve_space(descriptor: int, nbytes: int) -> None:
    """Reserve the first `nbytes` bytes of an empty file where the file system can do that, else do nothing.

    The file may be up to `nbytes` bytes long afterwards.

    Raises:
        OSError: There is not enough space (ENOSPC, EDQUOT) or the file would be too large (EFBIG).
    """
    if nbytes == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        # Where the file system can't reserve, the C library writes a zero into every block instead, which is
        # as slow as the save itself. The two differ in this: reserved space counts as a hole, zeros do not.
        os.posix_fallocate(descriptor, 0, 1)
        if _starts_with_hole(descriptor):
            os.posix_fallocate(descriptor, 0, nbytes)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise


def _starts_with_hole(descriptor: int) -> bool:
    try:
        os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        return error.errno == errno.ENXIO  # no data anywhere
    return False


def flush_file(descriptor: int) -> None:
    """Wait until a file's content and length are on stable storage.

    Raises:
        OSError: They may not be. A second attempt proves nothing: the system may have dropped what it could
            not write.
    """
    full_flush = getattr(fcntl, "F_FULLFSYNC", None) if HAVE_FCNTL else None
    if full_flush is not None:  # on macOS, fsync does not empty the disk's own cache
        try:
            fcntl.fcntl(descriptor, full_flush)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
        else:
            return
    os.fsync(descriptor)


def flush_directory(directory: Path, inside: int | None = None) -> None:
    """Wait until a directory's entries are on stable storage, where the system offers that.

    One may make files in a directory and yet not open it, and a process may have all the files open that it may. Then
    all of its file system is flushed.

    Args:
        directory: The directory.
        inside: Descriptor of something in it, by which its file system is found if it cannot be opened itself.

    Raises:
        OSError: They may not be.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_OPENED or inside is None or not _flush_file_system(inside):
            raise
        return
    try:
        flush_file(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        with contextlib.suppress(OSError):  # it was only read
            os.close(descriptor)


def flush_published(path: Path) -> None:
    """Wait until a file that somebody has published, and its name, are on stable storage.

    Raises:
        OSError: They may not be.
    """
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | getattr(os, "O_CLOEXEC", 0))
    try:
        flush_file(descriptor)
        flush_directory(path.parent, descriptor)
    finally:
        os.close(descriptor)


def _flush_file_system(descriptor: int) -> bool:
    """Flush the whole file system of an open file; say whether the system offers that (Linux).

    Raises:
        OSError: Something in it could not be written.
    """
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError):
        return False
    if syncfs(ctypes.c_int(descriptor)) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code))
