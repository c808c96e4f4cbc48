"""Zip archives written front to back, uncompressed, with aligned members: readers can map them into memory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.layout import align

__all__ = ["ALIGNMENT", "ZipWriter"]

ALIGNMENT = 64
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_VERSION, _VERSION64, _UTF8 = 20, 45, 0x800
_DATE = (1980 - 1980) << 9 | 1 << 5 | 1  # the first day that zip knows, so that equal content gives equal bytes
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64 = 1
_PADDING = 0x4246  # "FB", as PyTorch pads


class Output(Protocol):
    """What an archive is written to; what is left out is zero."""

    def write_at(self, offset: int, buffer: BytesLike, /) -> object:
        """Take all of `buffer` at its place."""


@dataclass(frozen=True)
class _Entry:
    name: bytes
    nbytes: int
    crc: int
    offset: int


class ZipWriter:
    """Writes an archive. Each member's header is written behind its data, when their checksum is known.

    Args:
        output: Where it goes.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._position = 0
        self._entries: list[_Entry] = []

    def add(self, name: str, nbytes: int, pieces: Iterable[BytesLike]) -> None:
        """Write a member.

        Args:
            name: Its name.
            nbytes: Its length in bytes.
            pieces: Its content, of this length together.
        """
        raw = name.encode()
        offset = self._position
        wide = nbytes >= _FULL32
        extra64 = struct.pack("<HHQQ", _ZIP64, 16, nbytes, nbytes) if wide else b""
        begin = align(offset + _LOCAL.size + len(raw) + len(extra64) + 4, ALIGNMENT)
        padding = begin - offset - _LOCAL.size - len(raw) - len(extra64)
        extra = extra64 + struct.pack("<HH", _PADDING, padding - 4) + bytes(padding - 4)
        crc, position = 0, begin
        for piece in pieces:
            self._output.write_at(position, piece)
            crc = zlib.crc32(piece, crc)
            position += memoryview(piece).nbytes
            assert position <= begin + nbytes  # the caller knows the length
        told = _FULL32 if wide else nbytes
        version = _VERSION64 if wide else _VERSION
        fields = (b"PK\x03\x04", version, _flags(raw), 0, 0, _DATE, crc, told, told, len(raw), len(extra))
        self._output.write_at(offset, _LOCAL.pack(*fields) + raw + extra)
        self._entries.append(_Entry(raw, nbytes, crc, offset))
        self._position = position

    def finish(self) -> int:
        """Write the directory; return the length of the archive."""
        directory = b"".join(map(_central, self._entries))
        start, count = self._position, len(self._entries)
        tail = directory
        if start >= _FULL32 or len(directory) >= _FULL32 or count >= _FULL16:
            end64 = start + len(directory)
            tail += _END64.pack(b"PK\x06\x06", _END64.size - 12, _VERSION64, _VERSION64, 0, 0, count, count,
                                len(directory), start)  # fmt: skip
            tail += _LOCATOR.pack(b"PK\x06\x07", 0, end64, 1)
        short = min(count, _FULL16)
        nbytes, place = min(len(directory), _FULL32), min(start, _FULL32)
        tail += _END.pack(b"PK\x05\x06", 0, 0, short, short, nbytes, place, 0)
        self._output.write_at(start, tail)
        return start + len(tail)


def _central(entry: _Entry) -> bytes:
    wide = [value for value in (entry.nbytes, entry.nbytes, entry.offset) if value >= _FULL32]
    extra = struct.pack(f"<HH{len(wide)}Q", _ZIP64, 8 * len(wide), *wide) if wide else b""
    version = _VERSION64 if wide else _VERSION
    told, offset = min(entry.nbytes, _FULL32), min(entry.offset, _FULL32)
    fields = (b"PK\x01\x02", version, version, _flags(entry.name), 0, 0, _DATE, entry.crc, told, told,
              len(entry.name), len(extra), 0, 0, 0, 0, offset)  # fmt: skip
    return _CENTRAL.pack(*fields) + entry.name + extra


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else _UTF8
