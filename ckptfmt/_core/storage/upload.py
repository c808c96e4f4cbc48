"""Publication on stores that take the bytes of an object in their order, and show it when all of them are there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Protocol, Self

from ckptfmt._core.storage.base import Guard, Source
from ckptfmt.errors import StorageError

__all__ = ["Upload", "UploadedFile"]

PART_BYTES = 16 << 20
"""How much is sent at once. The stores in use take 10,000 parts, of 5 MiB or more."""


class Upload(Protocol):
    """An object on its way to a store. Nobody sees it before `complete`."""

    def append(self, part: bytes) -> None:
        """Send what comes next."""

    def complete(self) -> None:
        """Make the object visible as a whole.

        Raises:
            StorageError: It is not visible; with errno EEXIST if something else has its name.
        """

    def abort(self) -> None:
        """Give up what was sent."""


class UploadedFile:
    """An object that is written in any order, a little ahead of its turn, and sent front to back.

    What is written waits in memory until what comes before it is there.

    Args:
        path: What to call it.
        begin: Begins the upload.
        guard: Held while it is made visible.

    Attributes:
        path: The same.
        position: One more than the highest offset that has been written.
        waiting_bytes: How many bytes wait for their turn.
    """

    def __init__(self, path: str, begin: Callable[[], Upload], guard: Guard = nullcontext) -> None:
        self.path = path
        self.position = 0
        self.waiting_bytes = 0
        self._begin = begin
        self._guard = guard
        self._upload: Upload | None = None
        self._lock = threading.Lock()
        self._waiting: dict[int, bytes] = {}
        self._part = bytearray()
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
        """Write all bytes of a contiguous buffer at a place of its own, from any thread."""
        data = bytes(memoryview(buffer).cast("B"))
        with self._lock:
            self._opened()
            try:
                self._take(offset, data)
            except BaseException:
                self._failed = True
                raise

    def copy_from(self, source: Source, offset: int, nbytes: int) -> bool:  # noqa: ARG002 - see `base.Publication`
        """Say that nothing was copied: the bytes are to be written."""
        return False

    def commit(self, *, written_bytes: int | None = None) -> None:
        """Send what is left, and make the object visible."""
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
                upload.append(bytes(self._part))
            with self._guard():
                upload.complete()
        except BaseException:
            self.abort()
            raise
        self._upload = None

    def abort(self) -> None:
        """Give up what has been written, unless it is published. A second call does nothing."""
        upload, self._upload = self._upload, None
        self._failed = self._failed or upload is not None
        self._waiting.clear()
        if upload is not None:
            upload.abort()

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
        while len(self._part) >= PART_BYTES:
            self._opened().append(bytes(self._part[:PART_BYTES]))
            del self._part[:PART_BYTES]
