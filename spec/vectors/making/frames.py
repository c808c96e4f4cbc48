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
PANGRAM_CHECKSUM = bytes.fromhex("ea3bb6ff")  # the lower half of its XXH64, as a frame has it
# The same of its first bytes, as many as the key says: XXH64 treats ends of 8, 4 and 1 bytes differently.
CHECKSUMS = {3: "265f8b1f", 12: "272e8f85", 13: "a158371f", 29: "a500ae7a", 45: "ba989ee3", 63: "831df806"}

# 400 bytes for each of two planes, as libzstd 1.5 compressed them at level 19: two blocks each, with Huffman codes, and
# with sequences that reach back into the block before. The second frame has a checksum.
_WORDS = b"loss step epoch rate norm mean grad".split()
COMPRESSED_PLANES = [
    (
        b"".join(b"%s %d " % (_WORDS[i * i * (k + 1) % 7], i * (k + 3) % 10) for i in range(80))[:400],
        bytes.fromhex(frame),
    )
    for k, frame in enumerate(
        (
            "28b52ffd6090006c020052c30b11a0bb010892564555ed4496d97634a8fa1adc1a57f3460044e06ade08e044e0de14b5"
            "f87ac4547a7e71ebdfbbd50917a820bcfdefb095e4011012d76b0df3d50c5d6e89646d7a129b025d0100b07020313437"
            "30333235383134333639323534373033361bb8807c0c10c416074b5729e032c552ce006c0a",
            "28b52ffd6490004c0200f2020a0fc0b701b4226d4df8ffbb53b6eaba2700f3ca76dba94e652b771424b5e61dd33700cc"
            "2bd518140117a8907affcfb093e401101ab642070b073a37d3db136e091e890da26765bd000028323630343809e060b7"
            "3d0e01ca6d188681bc870168069baede09",
        )
    )
]


def block(kind: int, nbytes: int, body: bytes, last: bool = True) -> bytes:
    """Encode a block: `nbytes` is its Block_Size, `body` what follows its header."""
    return struct.pack("<I", nbytes << 3 | kind << 1 | last)[:3] + body


def repeated(byte: bytes, count: int) -> bytes:
    """Encode a compressed block, the last one, that is one byte again and again: RLE literals and no sequence."""
    body = (1 | 3 << 2 | count << 4).to_bytes(3, "little") + byte + b"\0"
    return block(COMPRESSED, len(body), body)


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


def sign_down(chunk: bytes, nbytes: int, exponent_bits: int) -> bytes:
    """Rotate sign and exponent of each float of `nbytes` bytes left by one bit (8.3)."""
    if not exponent_bits:
        return chunk
    below = 8 * nbytes - 1 - exponent_bits
    moved = bytearray()
    for start in range(0, len(chunk), nbytes):
        number = int.from_bytes(chunk[start : start + nbytes], "little")
        high, mantissa = number >> below, number & (1 << below) - 1
        high = high << 1 & (1 << exponent_bits + 1) - 1 | high >> exponent_bits
        moved += (high << below | mantissa).to_bytes(nbytes, "little")
    return bytes(moved)


def planes(chunk: bytes, count: int, exponent_bits: int = 0) -> bytes:
    """Encode a chunk: a frame for each byte plane (8.2, 8.3)."""
    moved = sign_down(chunk, count, exponent_bits)
    return b"".join(plane(moved[k::count]) for k in range(count))
