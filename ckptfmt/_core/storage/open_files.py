"""Binary files that the caller has opened, such as `io.BytesIO`: read and written from their current position."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.storage.local.os_errors import storage_error
from ckptfmt.errors import ChangedError, StorageError, UsageError

if TYPE_CHECKING:
    from typing_extensions import TypeIs  # type checkers bring it

__all__ = ["OpenedSink", "OpenedSource", "is_open_file"]


def is_open_file(value: object) -> TypeIs[BinaryIO]:
    """Return whether a value is an open file, and not a path.

    Raises:
        UsageError: The file is open in text mode, or closed.
    """
    named = isinstance(value, str | bytes | os.PathLike)  # some kinds of paths have methods to read and write
    if named or not (hasattr(value, "read") or hasattr(value, "write")):
        return False
    if isinstance(value, io.TextIOBase):
        raise UsageError(f"{_name(value)}: is open in text mode; open it with 'rb' to load, 'wb' to save")
    if getattr(value, "closed", False):
        raise UsageError(f"{_name(value)}: is closed; load or save before it is closed")
    return True


class OpenedSource:
    """The rest of an open file, from its current position to its end (see `base.Source`).

    The caller closes the file. After `close`, the position is at the end.

    Args:
        file: The file. It must be seekable.

    Attributes:
        path: Name of the file, for messages.
        size: Length of the rest in bytes.

    Raises:
        UsageError: The file is not readable, or not seekable.
        StorageError: The file cannot be read.
    """

    connections = 1  # all threads move one position

    def __init__(self, file: BinaryIO) -> None:
        self.path = _name(file)
        self._lock = threading.Lock()
        try:
            self._start = file.tell()
            end = file.seek(0, io.SEEK_END)
            file.read(0)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and not _is_unsuitable(error):
                raise storage_error(self.path, "cannot be read", error) from error
            advice = "load needs a seekable file opened with 'rb'; read a stream into io.BytesIO first"
            raise UsageError(f"{self.path}: not readable at any position; {advice}") from error
        self.size = max(0, end - self._start)
        self._file: BinaryIO | None = file
        if not self.size and end:
            raise UsageError(f"{self.path}: the position is at the end of the file; call seek(0) before loading")

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`."""
        buffer = bytearray(nbytes)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` with the bytes from `offset`.

        Raises:
            StorageError: The file is shorter than before, or cannot be read.
            ValueError: The range is not inside `size`, or the source is closed.
        """
        rest = buffer.cast("B")
        if offset < 0 or offset + rest.nbytes > self.size:
            raise ValueError(f"{self.path}: {rest.nbytes} bytes at offset {offset} are not inside its {self.size}")
        with self._lock:
            if self._file is None:
                raise ValueError(f"{self.path}: closed")
            try:
                self._file.seek(self._start + offset)
                while rest.nbytes:
                    data = self._file.read(rest.nbytes)
                    if not data:
                        raise ChangedError(f"{self.path}: shrank while being read; something else is changing it")
                    rest[: len(data)] = data
                    rest = rest[len(data) :]
            except StorageError:
                raise
            except OSError as error:
                raise storage_error(self.path, "cannot be read", error) from error

    def read_cached(self, offset: int, buffer: memoryview) -> int:  # noqa: ARG002 - see `base.Source`
        """Return 0: whether a file is in memory is not known."""
        return 0

    def view(self, offset: int, nbytes: int) -> None:
        """Return None: the file is not mapped."""

    def private_view(self, offset: int, nbytes: int) -> None:
        """Return None: the file is not mapped."""

    def close(self) -> None:
        """Move the position to the end; a second call does nothing."""
        file, self._file = self._file, None
        if file is not None and not file.closed:
            file.seek(self._start + self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OpenedSink:
    """Writes to an open file from its current position, front to back: a pipe will do.

    Bytes wait in memory until all bytes before them are written. What is written is neither atomic nor durable: both
    are up to the caller, who closes the file.

    Args:
        file: The file.

    Attributes:
        path: Name of the file, for messages.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.path = _name(file)
        self._write: Callable[[memoryview], int | None] = file.write  # only raw files write less, and say how much
        self._flush: Callable[[], object] = getattr(file, "flush", lambda: None)
        self._lock = threading.Lock()
        self._waiting: dict[int, bytes] = {}
        self._written = 0

    def write_at(self, offset: int, buffer: BytesLike) -> None:
        """Write all bytes of a buffer at an offset from the first position, from any thread, each byte once.

        Raises:
            UsageError: The file is not writable.
            StorageError: The bytes cannot be written.
        """
        data = bytes(buffer)
        with self._lock:
            if data:
                self._waiting[offset] = data
            while self._written in self._waiting:
                self._send(self._waiting[self._written])
                self._written += len(self._waiting.pop(self._written))

    def finish(self) -> None:
        """Let the file write what it buffers.

        Raises:
            StorageError: The bytes cannot be written.
        """
        try:
            self._flush()
        except OSError as error:
            raise storage_error(self.path, "cannot be written", error) from error

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest.nbytes:
                count = self._write(rest)
                rest = rest[rest.nbytes if count is None else count :]
        except io.UnsupportedOperation as error:
            raise UsageError(f"{self.path}: not writable; open it with 'wb'") from error
        except OSError as error:
            raise storage_error(self.path, "cannot be written", error) from error


def _is_unsuitable(error: OSError) -> bool:
    """Return whether a file refuses to be read or moved in because of what it is."""
    return isinstance(error, io.UnsupportedOperation) or error.errno == errno.ESPIPE


def _name(file: object) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else f"<{type(file).__name__}>"
