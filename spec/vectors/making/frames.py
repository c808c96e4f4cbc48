"""Zstandard frames (RFC 8878) byte by byte, so that they do not depend on the version of a library."""

from __future__ import annotations

import struct

MAGIC = struct.pack("<I", 0xFD2FB528)
RAW, RLE, COMPRESSED, RESERVED = range(4)
MAX_BLOCK = 128 << 10

# 192 bytes, "the quick brown fox jumps over the lazy dog, " again and again, as libzstd 1.5 compressed them.
PANGRAM = (b"the quick brown fox jumps over the lazy dog, " * 5)[:192]
COMPRESSED_PANGRAM = bytes.fromhex(
    "28b52ffd20c0b50100d40274686520717569636b2062726f776e20666f78206a"
    "756d7073206f76657220746865206c617a7920646f672c20010085404a9501"
)


def block(kind: int, nbytes: int, body: bytes, last: bool = True) -> bytes:
    """Encode a block: `nbytes` is its Block_Size, `body` what follows its header."""
    return struct.pack("<I", nbytes << 3 | kind << 1 | last)[:3] + body


def header(size: int, *, width: int | None = None, window: int | None = None, flags: int = 0) -> bytes:
    """Encode a frame header that declares `size` bytes of content.

    Args:
        size: Content size.
        width: Bytes of the content size's field, the fewest if None; 0 leaves it out.
        window: Window descriptor; None makes the frame a single segment.
        flags: Further bits of the frame header descriptor.
    """
    single = window is None
    if width is None:
        width = 1 if size < 256 and single else 2 if 256 <= size < 65_792 else 4 if size < 1 << 32 else 8
    code = {0: 0, 1: 0, 2: 1, 4: 2, 8: 3}[width]
    field = (size - (256 if width == 2 else 0)).to_bytes(8, "little")[:width]
    return MAGIC + bytes([code << 6 | single << 5 | flags]) + (b"" if window is None else bytes([window])) + field


def raw(content: bytes) -> bytes:
    """Encode a frame of raw blocks."""
    pieces = [content[start : start + MAX_BLOCK] for start in range(0, len(content), MAX_BLOCK)] or [b""]
    blocks = [block(RAW, len(piece), piece, number == len(pieces) - 1) for number, piece in enumerate(pieces)]
    return header(len(content)) + b"".join(blocks)


def rle(byte: int, size: int) -> bytes:
    """Encode a frame of `size` equal bytes, in RLE blocks."""
    sizes = [min(MAX_BLOCK, size - start) for start in range(0, size, MAX_BLOCK)]
    blocks = [block(RLE, nbytes, bytes([byte]), number == len(sizes) - 1) for number, nbytes in enumerate(sizes)]
    return header(size) + b"".join(blocks)


def plane(content: bytes) -> bytes:
    """Encode a byte plane: RLE if all of its bytes are equal, raw otherwise."""
    return rle(content[0], len(content)) if len(set(content)) == 1 else raw(content)


def planes(chunk: bytes, count: int) -> bytes:
    """Encode a chunk: a frame for each byte plane (8.2)."""
    return b"".join(plane(chunk[k::count]) for k in range(count))
