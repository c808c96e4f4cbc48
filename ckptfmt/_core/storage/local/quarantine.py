"""Putting a damaged file out of the way without losing it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows
    HAVE_LEASES = False
else:
    HAVE_LEASES = hasattr(fcntl, "F_SETLEASE")  # Linux

__all__ = ["forget_cached", "is_being_written", "quarantine"]

_SUFFIX = ".damaged"
_ATTEMPTS = 1000


def quarantine(path: str) -> str:
    """Rename a file to `NAME.damaged`, or `NAME.damaged-2` and so on, and return the new path.

    Nothing is ever replaced: the new name is taken by an empty file first, which the rename then replaces. A kill
    in between leaves the empty file behind.

    Raises:
        StorageError: It cannot be renamed; it is where it was.
    """
    try:
        target = _free_name(path)
        try:
            Path(path).replace(target)
        except BaseException:
            target.unlink()
            raise
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(path, "cannot be set aside", error) from error
    return str(target)


def _free_name(path: str) -> Path:
    for number in range(1, _ATTEMPTS):
        target = Path(path + _SUFFIX + (f"-{number}" if number > 1 else ""))
        with contextlib.suppress(FileExistsError):
            target.touch(exist_ok=False)
            return target
    raise StorageError(f"{path}: cannot be set aside: {_ATTEMPTS - 1} damaged files have its name; remove some")


def is_being_written(path: str) -> bool:
    """Say whether a process of this machine has a file open for writing, where the system can tell (Linux).

    False also means that nobody knows: on other systems, on network file systems, for files of other users.
    """
    if not HAVE_LEASES:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # The kernel gives a read lease on a file only if nobody has it open for writing. Closing gives it back. Should
        # somebody open it in between, the kernel signals: SIGIO, which kills, unless told to send one that does not.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def forget_cached(path: str) -> None:
    """Ask the system to drop what it has in memory of a file, so that the next read comes from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
