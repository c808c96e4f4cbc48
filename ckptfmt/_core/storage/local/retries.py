"""Reading again what could not be read: an error of the system may pass, and says nothing about the file."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TypeVar

from ckptfmt.errors import ChangedError, ReadError, StorageError

__all__ = ["Patience", "Trouble", "trouble_of"]

T = TypeVar("T")

_PAUSES_SECONDS = (0.05, 0.15, 0.3, 0.5)
_ALL_PAUSES_SECONDS = 5.0
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST})


class Trouble(Enum):
    """What an error of the system says of a file."""

    ABSENT = auto()
    """There is no such file, or what is there is no file."""
    CHANGED = auto()
    """It was changed or replaced meanwhile."""
    DEVICE = auto()
    """The device failed to give the same bytes of it several times."""
    UNKNOWN = auto()
    """Nothing: the file may be sound."""


def trouble_of(error: StorageError) -> Trouble:
    """Return what an error of the system says of a file."""
    if isinstance(error, ChangedError):
        return Trouble.CHANGED
    if error.errno is None or error.errno in _ABSENT:
        return Trouble.ABSENT
    return Trouble.DEVICE if isinstance(error, ReadError) and error.repeated else Trouble.UNKNOWN


class Patience:
    """Tries again what failed by an error that may pass: a few times, with pauses of a second together.

    Args:
        tell: Called with each error that is waited for.
        pauses: Pauses in seconds, one before each further try.
    """

    def __init__(
        self, tell: Callable[[StorageError], None] = lambda _: None, pauses: Sequence[float] = _PAUSES_SECONDS
    ) -> None:
        self._tell = tell
        self._pauses = tuple(pauses)
        # Over all that is tried, so that a server that is down is not waited for file by file.
        self._left = _ALL_PAUSES_SECONDS

    def __call__(self, act: Callable[[], T], path: str) -> T:
        """Return what `act` returns.

        Args:
            act: What is tried.
            path: The file concerned, for the message when memory is short.

        Raises:
            StorageError: What `act` raised in the last try; one with errno ENOMEM in place of a MemoryError.
        """
        failed_at: list[int] = []
        for pause in (*self._pauses, None):
            try:
                return act()
            except MemoryError:
                error = _out_of_memory(path)
            except StorageError as caught:
                error = caught
            if isinstance(error, ReadError) and error.errno == errno.EIO:
                error.repeated = error.offset in failed_at
                failed_at.append(error.offset)
            if pause is None or trouble_of(error) in (Trouble.ABSENT, Trouble.CHANGED):
                raise error
            self._tell(error)
            self._pause(pause)
        raise AssertionError("the last try returns or raises")

    def _pause(self, seconds: float) -> None:
        seconds = min(seconds, self._left)
        self._left -= seconds
        time.sleep(seconds)


def _out_of_memory(path: str) -> StorageError:
    error = StorageError(f"{path}: cannot be read: there is not enough memory; free some")
    error.errno = errno.ENOMEM
    return error
