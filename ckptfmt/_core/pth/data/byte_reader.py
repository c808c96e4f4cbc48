"""Reading a source from front to back, in blocks, with a limit."""

from __future__ import annotations

from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["ByteReader"]

_BLOCK_BYTES = 256 << 10


class ByteReader:
    """Reads bytes in order, from memory or from a range of a source that is fetched block by block.

    Args:
        data: The bytes, or the first of them.
        source: Where the others are.
        start: Offset in the source of the first byte that is not in `data`.
        end: Offset in the source of the first byte that is not to be read.
    """

    def __init__(self, data: bytes = b"", source: Source | None = None, start: int = 0, end: int = 0) -> None:
        self._buffer = data
        self._at = 0
        self._dropped = 0  # bytes read and no longer in the buffer
        self._source = source
        self._next = start
        self._end = end

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._dropped + self._at

    @property
    def remaining(self) -> int:
        """How many bytes can still be read."""
        return len(self._buffer) - self._at + max(self._end - self._next, 0)

    def read(self, nbytes: int) -> bytes:
        """Return the next `nbytes` bytes.

        Raises:
            ForeignFileError: There are fewer.
        """
        stop = self._at + nbytes
        if stop > len(self._buffer):
            if nbytes > self.remaining:
                raise ForeignFileError(f"it ends at byte {self.position + self.remaining}, in the middle of a value")
            self._fetch(nbytes)
            stop = nbytes
        data = self._buffer[self._at : stop]
        self._at = stop
        return data

    def next_byte(self) -> int:
        """Return the next byte as a number.

        Raises:
            ForeignFileError: There is none.
        """
        at = self._at
        if at >= len(self._buffer):
            return self.read(1)[0]
        self._at = at + 1
        return self._buffer[at]

    def read_line(self, limit: int) -> bytes:
        """Return the next line without its end.

        Raises:
            ForeignFileError: The line has no end, or it is longer than `limit` bytes.
        """
        wanted = _BLOCK_BYTES
        while True:
            found = self._buffer.find(b"\n", self._at)
            if found >= 0:
                break
            missing = len(self._buffer) - self._at
            if missing >= min(self.remaining, limit + 1):
                raise ForeignFileError(f"a line at byte {self.position} has no end, or more than {limit} bytes")
            self._fetch(min(missing + wanted, self.remaining))
            wanted *= 2
        if found - self._at > limit:
            raise ForeignFileError(f"a line at byte {self.position} has more than {limit} bytes")
        line = self._buffer[self._at : found]
        self._at = found + 1
        return line

    def skip(self, nbytes: int) -> None:
        """Leave out bytes, which are there, without reading them."""
        buffered = min(nbytes, len(self._buffer) - self._at)
        self._at += buffered
        self._dropped += nbytes - buffered
        self._next += nbytes - buffered

    def _fetch(self, nbytes: int) -> None:
        """Bring at least `nbytes` bytes into the buffer, which are there to be had."""
        rest = self._buffer[self._at :]
        more = min(max(nbytes - len(rest), _BLOCK_BYTES), self._end - self._next)
        assert self._source is not None  # else nothing remains
        self._dropped += self._at
        self._buffer = rest + self._source.read(self._next, more)
        self._next += more
        self._at = 0
