"""The bytes behind the tensors: read by ranges, decompressed as they are read, and compared with their checksum."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from typing import Protocol

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.pth.data.archive import STORED, Member
from ckptfmt._core.pth.data.inflation import Inflation, Inflations
from ckptfmt._core.storage import Source
from ckptfmt.errors import ForeignFileError, UnsupportedFileError

__all__ = ["FORM", "MemberData", "MemoryData", "RangeData", "Rework", "StorageData", "read_member"]

FORM = "PyTorch"
"""What the errors call the format."""

_BLOCK_BYTES = 1 << 20
_KEPT_ON_THE_WAY = 16
_MIN_STEP_BYTES = 4 << 20


class StorageData(Protocol):
    """The bytes of one storage."""

    @property
    def nbytes(self) -> int:
        """Their number."""

    def read(self, start: int, nbytes: int) -> BytesLike:
        """Return a range of them. Raises ForeignFileError if they are not what their checksum says."""

    def private_map(self) -> memoryview | None:
        """Return all of them, checked, as memory that the system reads from the file when it is touched.

        It may be written; the file stays as it is. None if they do not lie in a file as they are. Raises
        ForeignFileError.
        """

    def finish(self) -> None:
        """Check what has not been checked by reading. Raises ForeignFileError."""


def _fetch(source: Source, offset: int, nbytes: int) -> bytearray:
    """Return bytes of a source, copied once."""
    data = bytearray(nbytes)
    source.read_into(offset, memoryview(data))
    return data


class RangeData:
    """Bytes that lie in a file as they are, without a checksum."""

    def __init__(self, source: Source, offset: int, nbytes: int) -> None:
        self._source = source
        self._offset = offset
        self.nbytes = nbytes

    def read(self, start: int, nbytes: int) -> BytesLike:
        """See `StorageData.read`."""
        return _fetch(self._source, self._offset + start, nbytes)

    def part(self, start: int, nbytes: int) -> RangeData:
        """Return a range of them as bytes of their own."""
        return RangeData(self._source, self._offset + start, nbytes)

    def private_map(self) -> memoryview | None:
        """See `StorageData.private_map`."""
        return self._source.private_view(self._offset, self.nbytes)

    def finish(self) -> None:
        """Nothing to do: there is no checksum."""


class MemoryData:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.nbytes = len(data)

    def read(self, start: int, nbytes: int) -> BytesLike:
        """See `StorageData.read`."""
        return self._data[start : start + nbytes]

    def private_map(self) -> None:
        """Return None: they lie in no file."""

    def finish(self) -> None:
        """Nothing to do: there is no checksum."""


@dataclass
class Rework:
    """How many bytes of compressed members may be decompressed beside those that are asked for.

    Attributes:
        left: How many are left.
    """

    left: int

    def spend(self, nbytes: int, name: str) -> None:
        """Take some.

        Raises:
            ForeignFileError: There are not so many left.
        """
        self.left -= nbytes
        if self.left < 0:
            raise UnsupportedFileError(
                "its tensors lie in compressed data in such an order that these would be decompressed over and over; "
                "store it without compression first"
            ).inside(name)


class MemberData:
    """The content of a member of a zip archive.

    It is cheapest to read it once and in order: then each byte is read, decompressed and checked once. A read that
    goes back first checks the whole member. A compressed one is then decompressed up to there, from the nearest of some
    positions that are kept.

    Args:
        source: The archive.
        member: The member.
        rework: How many bytes may be decompressed beside those that are asked for; None: any number.
        form: What the errors call the format of the file.
    """

    def __init__(self, source: Source, member: Member, rework: Rework | None = None, form: str = FORM) -> None:
        self._source = source
        self._member = member
        self._rework = rework
        self._form = form
        self._verified = False
        self._lock = threading.RLock()  # tensors that share a storage are read by several threads
        self._position = self._crc = 0
        """What was checked so far: bytes from the beginning."""
        is_stored = member.method == STORED
        self._inflation = None if is_stored else Inflation(source, member)
        self._kept = None if is_stored else Inflations(source, member)

    @property
    def nbytes(self) -> int:
        """See `StorageData.nbytes`."""
        return self._member.nbytes

    def read(self, start: int, nbytes: int) -> BytesLike:
        """See `StorageData.read`; its errors name the file."""
        try:
            return self._read(start, nbytes)
        except ForeignFileError as error:
            raise error.at(self._source.path, self._form) from error

    def _read(self, start: int, nbytes: int) -> BytesLike:
        if not (self._verified and self._member.method == STORED):
            with self._lock:
                return self._read_in_order(start, nbytes)
        return _fetch(self._source, self._member.offset + start, nbytes)

    def _read_in_order(self, start: int, nbytes: int) -> BytesLike:
        if start < self._position or (start > self._position and self._kept is None):
            self.finish()
        if self._verified:
            if self._kept is not None:
                return self._read_anywhere(self._kept, start, nbytes)
            return _fetch(self._source, self._member.offset + start, nbytes)
        if start > self._position:
            self._keep()
            self._spend(start - self._position)
            self._skip(start - self._position)
        return self._take(nbytes)

    def _read_anywhere(self, kept: Inflations, start: int, nbytes: int) -> bytes:
        inflation = kept.before(start)
        self._spend(start - inflation.position)
        inflation.skip(start - inflation.position)
        data = inflation.take(nbytes)
        kept.keep(inflation)
        return data

    def _spend(self, nbytes: int) -> None:
        if self._rework is not None:
            self._rework.spend(nbytes, self._name)

    def private_map(self) -> memoryview | None:
        """See `StorageData.private_map`."""
        if self._member.method != STORED:
            return None
        try:
            self.finish()
        except ForeignFileError as error:
            raise error.at(self._source.path, self._form) from error
        return self._source.private_view(self._member.offset, self.nbytes)

    def finish(self) -> None:
        """Check the content, if that was not done by reading all of it.

        Raises:
            ForeignFileError: Its CRC-32 is not the one in the directory.
        """
        with self._lock:
            if not self._verified:
                self._skip(self.nbytes - self._position)

    def _skip(self, nbytes: int) -> None:
        step = max(self.nbytes // _KEPT_ON_THE_WAY, _MIN_STEP_BYTES)
        while nbytes:
            begun = self._position // step
            nbytes -= len(self._take(min(nbytes, _BLOCK_BYTES)))
            if self._position // step > begun:
                self._keep()
        if not self.nbytes:
            self._take(0)

    def _keep(self) -> None:
        """Keep the present position for reads that go back."""
        if self._kept is not None and self._inflation is not None:
            self._kept.keep(self._inflation.copy())

    def _take(self, nbytes: int) -> BytesLike:
        """Return the next bytes, and compare the checksum with the last of them."""
        data: BytesLike
        if self._inflation is None:
            data = _fetch(self._source, self._member.offset + self._position, nbytes)
        else:
            data = self._inflation.take(nbytes)
        self._position += nbytes
        self._crc = zlib.crc32(data, self._crc)
        if self._position == self.nbytes:
            self._check_end()
        return data

    def _check_end(self) -> None:
        if self._inflation is not None:
            self._inflation.require_end()
        if self._crc != self._member.crc:
            raise ForeignFileError("its content is damaged: the CRC-32 does not match").inside(self._name)
        self._verified = True
        self._inflation = None

    @property
    def _name(self) -> str:
        return f"member {self._member.name!a}"


def read_member(source: Source, member: Member, limit: int) -> bytes:
    """Return the whole checked content of a member.

    Raises:
        ForeignFileError: It is damaged, or longer than `limit`.
    """
    if member.nbytes > limit:
        found = f"it has {member.nbytes} bytes, the limit is {limit}"
        raise UnsupportedFileError(found).inside(f"member {member.name!a}")
    data = MemberData(source, member)
    content = data.read(0, member.nbytes)
    data.finish()
    return bytes(content)
