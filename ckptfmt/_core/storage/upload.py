"""Publication on stores that accept the bytes of an object in order and show the object once it is complete."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Protocol, Self

from ckptfmt._core.storage.base import Guard, Source
from ckptfmt.errors import StorageError

__all__ = ["Upload", "UploadedFile", "part_bytes_for"]

_PART_BYTES = 16 << 20
_MOST_PARTS = 9000  # common object stores accept 10,000 parts of at least 5 MiB; a compressed state may turn out larger

_TAIL_BYTES = 64 << 10
"""Number of bytes at the end of an object that are read back: in a checkpoint, its trailer and most of its index."""


def part_bytes_for(expected_bytes: int | None) -> int:
    """Return the length of the parts of an upload.

    Args:
        expected_bytes: Expected length of the object; None if it is unknown.
    """
    return max(_PART_BYTES, -((expected_bytes or 0) // -_MOST_PARTS))


class Upload(Protocol):
    """An upload in parts. The object is invisible before `complete`."""

    def append(self, part: bytes) -> None:
        """Send the next part."""

    def complete(self) -> None:
        """Make the object visible.

        Raises:
            StorageError: The object is not visible; errno is EEXIST if its name is taken.
        """

    def read_back(self, nbytes: int) -> tuple[int, bytes]:
        """Return the length of the published object and its last `nbytes` bytes, as the store has them.

        Raises:
            StorageError: They cannot be read.
        """

    def abort(self) -> None:
        """Discard the parts."""


class UploadedFile:
    """A new object that is written in any order and sent front to back (see `base.Publication`).

    Bytes wait in memory until all bytes before them are written. A published object counts as durable once its length
    and its last bytes have been read back.

    Args:
        path: URL of the object.
        begin: Begins the upload.
        guard: Held while the object becomes visible.
        part_bytes: Length of the parts.

    Attributes:
        path: URL of the object.
        position: Highest offset written so far, plus one.
        waiting_bytes: Number of bytes that wait in memory.
    """

    def __init__(
        self,
        path: str,
        begin: Callable[[], Upload],
        guard: Guard = nullcontext,
        *,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self.path = path
        self.position = 0
        self.waiting_bytes = 0
        self._begin = begin
        self._guard = guard
        self._part_bytes = part_bytes
        self._upload: Upload | None = None
        self._lock = threading.Lock()
        self._waiting: dict[int, bytes] = {}
        self._part = bytearray()
        self._tail = b""
        self._sent = 0
        self._written_bytes = 0
        self._failed = False

    def __enter__(self) -> Self:
        if self._upload is not None:
            raise ValueError(f"{self.path}: is published once; create another object")
        self._upload = self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, buffer: bytes | bytearray | memoryview) -> None:
        """Append all bytes of a contiguous buffer."""
        self.write_at(self.position, buffer)

    def write_at(self, offset: int, buffer: bytes | bytearray | memoryview) -> None:
        """Write all bytes of a contiguous buffer at an offset, from any thread."""
        data = bytes(memoryview(buffer).cast("B"))
        with self._lock:
            self._opened()
            try:
                self._take(offset, data)
            except BaseException:
                self._failed = True
                raise

    def copy_from(self, source: Source, offset: int, nbytes: int) -> bool:  # noqa: ARG002 - see `base.Publication`
        """Return False: nothing was copied."""
        return False

    def commit(self, *, written_bytes: int | None = None) -> None:
        """Send the remaining bytes and make the object visible."""
        upload = self._opened()
        if self._failed:
            raise ValueError(f"{self.path}: not all of it could be written, and nothing is published")
        try:
            if written_bytes is not None and written_bytes != self._written_bytes:
                raise StorageError(
                    f"{self.path}: cannot be saved: {self._written_bytes:,} bytes were written instead of "
                    f"{written_bytes:,}; this is a bug, please report it"
                )
            for offset in sorted(self._waiting):
                self._fill_up_to(offset)
                self._send(self._waiting.pop(offset))
            if self._part:
                self._append(upload, bytes(self._part))
            with self._guard():
                upload.complete()
        except BaseException:
            self.abort()
            raise
        self._upload = None
        self._read_back(upload)

    def abort(self) -> None:
        """Discard the object unless it is published. A second call does nothing."""
        upload, self._upload = self._upload, None
        self._failed = self._failed or upload is not None
        self._waiting.clear()
        if upload is not None:
            upload.abort()

    def _read_back(self, upload: Upload) -> None:
        """Check that the store has what was sent.

        Raises:
            StorageError: It has something else, or cannot tell.
        """
        length, tail = upload.read_back(len(self._tail))
        if length != self._sent:
            raise StorageError(
                f"{self.path}: published, but not durable: {length:,} bytes are there, and {self._sent:,} were sent; "
                "check the store"
            )
        if tail != self._tail:
            raise StorageError(
                f"{self.path}: published, but not durable: its last {len(tail):,} bytes are not those that were sent; "
                "check the store"
            )

    def _append(self, upload: Upload, part: bytes) -> None:
        self._tail = (self._tail + part[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        upload.append(part)

    def _opened(self) -> Upload:
        if self._upload is None:
            raise ValueError(f"{self.path}: is not being saved: not begun yet, or ended")
        return self._upload

    def _take(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        waiting = self._waiting.items()
        if data and (offset < self._sent or any(it < end and offset < it + len(other) for it, other in waiting)):
            raise StorageError(
                f"{self.path}: cannot be saved: a byte was written twice; this is a bug, please report it"
            )
        self.position = max(self.position, end)
        self._written_bytes += len(data)
        if not data:
            return
        self._waiting[offset] = data
        self.waiting_bytes += len(data)
        while self._sent in self._waiting:
            self._send(self._waiting.pop(self._sent))

    def _fill_up_to(self, offset: int) -> None:
        self._part += bytes(offset - self._sent)
        self._sent = offset

    def _send(self, data: bytes) -> None:
        self.waiting_bytes -= len(data)
        self._sent += len(data)
        self._part += data
        while len(self._part) >= self._part_bytes:
            self._append(self._opened(), bytes(self._part[: self._part_bytes]))
            del self._part[: self._part_bytes]
