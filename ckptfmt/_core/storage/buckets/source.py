"""An object of a bucket that is open for reading.

Small reads are joined: what lies close together comes with one request, and stays in memory for a while. Large ones are
one request each; the readers of checkpoints make several at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from ckptfmt._core.storage.buckets.base import Bucket, ConditionFailedError, StoredObject
from ckptfmt.errors import ChangedError

__all__ = ["TAIL_BYTES", "BucketSource", "changed"]

TAIL_BYTES = 64 << 10
"""Number of bytes at the end of an object that are read when it is opened: the index of most checkpoints."""

_BLOCK_BYTES = 1 << 20
_BLOCKS = 32  # at most so many in memory


def changed(path: str) -> ChangedError:
    """Return the error for an object that has another version, or is gone."""
    return ChangedError(f"{path}: the object has been replaced or removed; open it again")


class BucketSource:
    """An object that is open for reading (see `base.Source`).

    Args:
        path: URL of the object.
        bucket: The bucket.
        facts: The object. All reads are of this version.
        tail: The last bytes of the object.

    Attributes:
        path: URL of the object.
        size: Length in bytes.
        connections: Number of concurrent reads that are worthwhile.
    """

    def __init__(self, path: str, bucket: Bucket, facts: StoredObject, tail: bytes) -> None:
        self.path = path
        self.size = facts.nbytes
        self.connections = bucket.properties.connections
        self._bucket = bucket
        self._facts = facts
        self._tail = tail
        self._closed = False
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`."""
        if self._closed or offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise ValueError(f"{self.path}: {nbytes} bytes at offset {offset} are not inside its {self.size} bytes")
        start = self.size - len(self._tail)
        if offset >= start:
            return self._tail[offset - start : offset - start + nbytes]
        if not nbytes:
            return b""
        if nbytes >= _BLOCK_BYTES:
            return self._request(offset, nbytes)
        end = offset + nbytes
        pieces = []
        for number in range(offset // _BLOCK_BYTES, (end - 1) // _BLOCK_BYTES + 1):
            begin = number * _BLOCK_BYTES
            pieces.append(self._block(number)[max(0, offset - begin) : end - begin])
        return b"".join(pieces)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` with the bytes from `offset`."""
        view = buffer.cast("B")
        view[:] = self.read(offset, view.nbytes)

    def read_cached(self, offset: int, buffer: memoryview) -> int:  # noqa: ARG002 - see `base.Source`
        """Return 0: every read may need the network."""
        return 0

    def view(self, offset: int, nbytes: int) -> memoryview | None:  # noqa: ARG002 - see `base.Source`
        """Return None: objects are not mapped."""
        return None

    def private_view(self, offset: int, nbytes: int) -> memoryview | None:  # noqa: ARG002 - see `base.Source`
        """Return None: objects are not mapped."""
        return None

    def close(self) -> None:
        """Close the object; a second call does nothing."""
        self._closed = True
        self._blocks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _block(self, number: int) -> bytes:
        """Return a block; of several threads that need it, one reads it."""
        with self._lock:
            future = self._blocks.get(number)
            mine = future is None
            if future is None:
                future = self._blocks[number] = Future()
                while len(self._blocks) > _BLOCKS:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(number)
        if mine:
            begin = number * _BLOCK_BYTES
            try:
                future.set_result(self._request(begin, min(_BLOCK_BYTES, self.size - begin)))
            except BaseException as error:
                with self._lock:
                    self._blocks.pop(number, None)  # the next read tries again
                future.set_exception(error)
                raise
        return future.result()

    def _request(self, offset: int, nbytes: int) -> bytes:
        try:
            return self._bucket.read(self._facts.key, offset, nbytes, self._facts.version)
        except ConditionFailedError:
            raise changed(self.path) from None
