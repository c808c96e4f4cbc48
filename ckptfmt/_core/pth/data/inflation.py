"""A compressed member of a zip archive, decompressed from front to back, from several positions at a time."""

from __future__ import annotations

import zlib

from ckptfmt._core.pth.data.archive import Member
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError

__all__ = ["Inflation", "Inflations"]

_BLOCK_BYTES = 1 << 20
_FED_BYTES = 16 << 10
_MAX_KEPT = 32
_MIN_BYTES = 1 << 20


class Inflation:
    """A position in a compressed member.

    Args:
        source: The archive.
        member: The member.

    Attributes:
        position: Number of bytes decompressed.
    """

    def __init__(self, source: Source, member: Member) -> None:
        self._source = source
        self._member = member
        self.position = 0
        self._fed = 0
        self._block = b""
        """Compressed data from `_block_start` on."""
        self._block_start = 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def copy(self) -> Inflation:
        """Return the same position, to continue from twice."""
        copied = Inflation(self._source, self._member)
        copied.position, copied._fed, copied._inflater = self.position, self._fed, self._inflater.copy()
        copied._block, copied._block_start = self._block, self._block_start
        return copied

    def let_go(self) -> None:
        """Hold no compressed data: read them again instead."""
        self._block = b""

    def take(self, nbytes: int) -> bytes:
        """Return the next bytes.

        Raises:
            ForeignFileError: The compressed data are damaged, or end before.
        """
        parts: list[bytes] = []
        missing = nbytes
        while missing:
            part = self._decompress(missing)
            if not part and (self._inflater.eof or self._fed == self._member.stored_bytes):
                raise self._damaged(f"end before byte {self._member.nbytes}")
            missing -= len(part)
            parts.append(part)
        self.position += nbytes
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, nbytes: int) -> None:
        """Drop the next bytes."""
        while nbytes:
            nbytes -= len(self.take(min(nbytes, _BLOCK_BYTES)))

    def require_end(self) -> None:
        """Check that nothing follows. Raises ForeignFileError."""
        more = b""
        while not (more or self._inflater.eof or self._fed == self._member.stored_bytes):
            more = self._decompress(1)
        if more or not self._inflater.eof or self._fed < self._member.stored_bytes:
            raise self._damaged(f"do not end at byte {self._member.nbytes}")

    def _decompress(self, limit: int) -> bytes:
        """Feed the inflater once, and return at most so many bytes; perhaps none, and none after its end."""
        if self._inflater.eof:
            return b""
        if not self._block_start <= self._fed < self._block_start + len(self._block):
            self._block_start = self._fed
            self._block = self._source.read(
                self._member.offset + self._fed, min(_BLOCK_BYTES, self._member.stored_bytes - self._fed)
            )
        begin = self._fed - self._block_start
        # The inflater holds what it does not consume.
        data = self._block[begin : begin + _FED_BYTES]
        try:
            part = self._inflater.decompress(data, limit)
        except zlib.error as error:
            raise self._damaged(f"are damaged ({error})") from error
        self._fed += len(data) - len(self._inflater.unconsumed_tail) - len(self._inflater.unused_data)
        return part

    def _damaged(self, found: str) -> ForeignFileError:
        return ForeignFileError(f"its compressed data {found}").inside(f"member {self._member.name!a}")


class Inflations:
    """Positions in a compressed member to continue from: those where reads ended, and some in between.

    Threads that read neighbouring tensors, each in order, thus need not begin at the start again and again. Each
    position takes 40 kB, so a short member has none.

    Args:
        source: The archive.
        member: The member.
    """

    def __init__(self, source: Source, member: Member) -> None:
        self._source = source
        self._member = member
        self._kept: list[Inflation] = []

    def keep(self, inflation: Inflation) -> None:
        """Keep a position; the one unused for the longest time is dropped."""
        if self._member.nbytes >= _MIN_BYTES:
            if self._kept:
                self._kept[-1].let_go()  # only the latest is likely to go on next
            self._kept = [*self._kept[-_MAX_KEPT + 1 :], inflation]

    def before(self, position: int) -> Inflation:
        """Return a position to continue from, the nearest one; one exactly there is kept no longer."""
        earlier = [inflation for inflation in self._kept if inflation.position <= position]
        if not earlier:
            return Inflation(self._source, self._member)
        best = max(earlier, key=lambda inflation: inflation.position)
        if best.position < position:
            return best.copy()
        self._kept.remove(best)
        return best
