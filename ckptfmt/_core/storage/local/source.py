"""Exact ranged reads from a local file into the caller's memory."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptfmt._core.storage.base import Version
from ckptfmt._core.storage.local.copying import copy_range
from ckptfmt._core.storage.local.os_errors import read_error, storage_error
from ckptfmt._core.storage.local.paths import local_path, require_regular_file
from ckptfmt.errors import ChangedError, StorageError

__all__ = ["LocalSource", "open_source", "version_of"]

# macOS refuses a read of 2 GiB or more, Linux cuts it short.
_LARGEST_READ_BYTES = 1 << 30

_ONLY_CACHED: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux


class LocalSource:
    """A local file opened by `open_source`. A context manager that closes it.

    Several threads may read at once. Close it only when no read is under way.

    Attributes:
        path: The path as given to `open_source`.
        size: Length in bytes when it was opened.
        version: Which version of the file it was then.
        connections: Number of concurrent reads that are worthwhile: the system reads ahead.
    """

    connections = 1

    def __init__(self, path: str, file: io.FileIO, found: os.stat_result) -> None:
        self.path = path
        self.size = found.st_size
        self.version = version_of(found)
        self._file = file
        self._position_lock = threading.Lock()
        self._map: mmap.mmap | None = None
        self._private_map: mmap.mmap | None = None
        # Windows can't read at a position: there the threads take turns at moving the file's own.
        self._positional = hasattr(os, "preadv")
        self._read_some: Callable[[int, memoryview], int] = self._read_at if self._positional else self._seek_and_read

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`.

        Raises:
            StorageError: The file has shrunk since it was opened, or could not be read.
            ValueError: The range is not inside `size`, or the source is closed.
        """
        self._require_inside(offset, nbytes)
        if self._positional and nbytes <= _LARGEST_READ_BYTES:
            try:
                data = os.pread(self._file.fileno(), nbytes, offset)
            except OSError as error:
                raise self._failure(offset, error) from error
            if len(data) == nbytes:
                return data
        buffer = bytearray(nbytes)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` (writable, contiguous) with the bytes from `offset`.

        Raises:
            StorageError: The file has shrunk since it was opened, or could not be read.
            ValueError: The range is not inside `size`, or the source is closed.
        """
        rest = buffer.cast("B")
        self._require_inside(offset, rest.nbytes)
        while rest.nbytes:
            try:
                count = self._read_some(offset, rest[:_LARGEST_READ_BYTES])
            except OSError as error:
                raise self._failure(offset, error) from error
            if not count:
                raise ChangedError(
                    f"{self.path}: shrank while being read: it had {self.size} bytes and now ends before "
                    f"offset {offset + rest.nbytes}; something else is changing it"
                )
            offset += count
            rest = rest[count:]

    def read_cached(self, offset: int, buffer: memoryview) -> int:
        """Fill the beginning of `buffer` with what the page cache has of the bytes from `offset`; return how many.

        0 if the first page is not there, or if the system cannot tell.

        Raises:
            ValueError: The range is not inside `size`, or the source is closed.
        """
        self._require_inside(offset, buffer.nbytes)
        if _ONLY_CACHED is None or not self._positional:
            return 0
        try:
            return os.preadv(self._file.fileno(), [buffer], offset, _ONLY_CACHED)
        except OSError:  # not there, or not on this file system; if it cannot be read at all, `read_into` says so
            return 0

    def view(self, offset: int, nbytes: int) -> memoryview | None:
        """Return these bytes in a map of the file, which stays as long as there are views of it; None without maps.

        Whoever looks at them when the file has been made shorter meanwhile is ended by the system: read them first.
        """
        self._require_inside(offset, nbytes)
        with self._position_lock:
            if self._map is None and not self._file.closed:
                self._map = _map(self._file, self.size)
        return None if self._map is None else memoryview(self._map)[offset : offset + nbytes]

    def private_view(self, offset: int, nbytes: int) -> memoryview | None:
        """As `view`, but writable: the system copies a page when it is written to, and the file stays as it is."""
        self._require_inside(offset, nbytes)
        with self._position_lock:
            if self._private_map is None and not self._file.closed:
                self._private_map = _map(self._file, self.size, mmap.ACCESS_COPY)
        return None if self._private_map is None else memoryview(self._private_map)[offset : offset + nbytes]

    def copy_into(self, offset: int, nbytes: int, descriptor: int) -> bool:
        """Let the system copy bytes to the beginning of another file; say whether it did (see `copy_range`).

        Raises:
            OSError: They could not be written.
            ValueError: The range is not inside `size`, or the source is closed.
        """
        self._require_inside(offset, nbytes)
        return copy_range(self._file.fileno(), offset, descriptor, nbytes)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._map = self._private_map = None
        _close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_inside(self, offset: int, nbytes: int) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise ValueError(f"{self.path}: {nbytes} bytes at offset {offset} are not inside its {self.size} bytes")

    def _failure(self, offset: int, error: OSError) -> StorageError:
        return read_error(self.path, offset, error)

    def _read_at(self, offset: int, buffer: memoryview) -> int:
        return os.preadv(self._file.fileno(), [buffer], offset)

    def _seek_and_read(self, offset: int, buffer: memoryview) -> int:
        with self._position_lock:
            self._file.seek(offset)
            return self._file.readinto(buffer) or 0


def open_source(path: str | os.PathLike[str]) -> LocalSource:
    """Open a regular file for ranged reads.

    Raises:
        StorageError: It does not exist, is not a regular file, may not be read, or is a URL.
    """
    text = local_path(path)
    try:
        # Merely to open a device can have an effect, so look at it first.
        require_regular_file(text, Path(text).stat().st_mode)
        file = io.FileIO(text, opener=_open_without_waiting)
        try:
            found = os.fstat(file.fileno())
            require_regular_file(text, found.st_mode)  # a pipe may have taken its place meanwhile
            return LocalSource(text, file, found)
        except BaseException:
            _close(file)
            raise
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(text, "cannot be opened", error) from error


def version_of(found: os.stat_result) -> Version:
    """Return the version of a file: by what the system tells that it is the same as before."""
    return Version(f"{found.st_dev:x}-{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}")


def _close(file: io.FileIO) -> None:
    """Close a file that was read: nothing is lost if the system complains, and the descriptor is free all the same."""
    with contextlib.suppress(OSError):
        file.close()


def _map(file: io.FileIO, nbytes: int, access: int = mmap.ACCESS_READ) -> mmap.mmap | None:
    if os.name == "nt":  # there a file that is mapped cannot be replaced
        return None
    try:
        return mmap.mmap(file.fileno(), nbytes, access=access)
    except (OSError, ValueError):  # not on this file system, or it is shorter now: reading tells more
        return None


def _open_without_waiting(path: str, flags: int) -> int:
    # To open a pipe would wait for a writer. A regular file does not know the difference.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
