"""Space that is there before it is needed, and data that stays when the power goes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    HAVE_FCNTL = False
else:
    HAVE_FCNTL = True

__all__ = ["flush_directory", "flush_file", "reserve_space"]

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_OFFERED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EBADF})


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


def flush_directory(directory: Path) -> None:
    """Wait until a directory's entries are on stable storage, where the system offers that.

    Raises:
        OSError: They may not be.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # one may create files in a directory and yet not open it
    try:
        flush_file(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
    finally:
        os.close(descriptor)
