"""Invalid vectors for section 8: codecs and Zstandard frames."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from spec.vectors.making import frames
from spec.vectors.making.container import BITS, File, Segment, Tensor, member, msgpack, opaque, safetensors
from spec.vectors.making.samples import floats
from spec.vectors.making.vector import Vector, invalid

TEXT = frames.PANGRAM
SIZE = len(TEXT)
RAW, RLE, RESERVED = frames.RAW, frames.RLE, frames.RESERVED


def all_zstd() -> Iterator[Vector]:
    """Every vector of this module."""
    for codec in ("lz4", "", "ZSTD", "zstd "):
        made = opaque("log", TEXT, codec="zstd").edited(codec=codec)
        slug = {"": "empty", "ZSTD": "upper-case", "zstd ": "space"}.get(codec, codec)
        yield invalid(f"8.1-{slug}", f"Codec {codec!r}", "codec-unknown", [made], member="log")
    yield from _frames()
    yield from _headers()
    yield from _planes()


def _log(slug: str, description: str, stored: bytes, clauses: str = "", also: str = "", data: bytes = TEXT) -> Vector:
    """Make a vector with one opaque member of one chunk, stored as it is given."""
    made = member("log", [Segment(data)], codec="zstd", encode=lambda *_: stored)
    return invalid(slug, description, "zstd-frame", File([made]), clauses=clauses, member="log", also=also)


def _frames() -> Iterator[Vector]:
    good = frames.raw(TEXT)
    head = frames.header(SIZE)
    yield _log("8.2-not-zstd", "The chunk as it is, without a frame", TEXT)
    yield _log("8.2-gzip", "A gzip member", bytes.fromhex("1f8b0800000000000203") + bytes(20))
    yield _log("8.2-old-magic", "The magic number of a frame of zstd 0.7", b"\x27" + good[1:])
    yield _log("8.2-next-magic", "A frame's magic number and one", b"\x29" + good[1:])
    yield _log("8.2-one-byte", "A stored chunk of one byte", good[:1])
    yield _log("8.2-only-magic", "A frame's magic number and nothing else", good[:4])
    yield _log("8.2-byte-behind", "A byte behind the frame", good + b"\0")
    yield _log("8.2-frame-behind", "An empty frame behind the frame", good + frames.raw(b""))
    yield _log("8.2-two-frames", "The content in two frames", frames.raw(TEXT[:92]) + frames.raw(TEXT[92:]))
    yield _log("8.2-ends-in-header", "The frame ends in its header", good[:5])
    yield _log("8.2-ends-in-block-header", "The frame ends in the header of a block", good[: len(head) + 2])
    yield _log("8.2-ends-in-block", "The frame ends in a block", good[:-1])
    unfinished = head + frames.block(RAW, SIZE, TEXT, last=False)
    yield _log("8.2-no-last-block", "No block is marked as the last", unfinished)
    yield _log("8.2-reserved-block", "A block of the reserved type", head + frames.block(RESERVED, SIZE, TEXT))
    flags = frames.header(SIZE, flags=8)
    yield _log("8.2-reserved-bit", "The reserved bit of the frame header is set", flags + frames.block(RAW, SIZE, TEXT))
    broken = head + frames.block(frames.COMPRESSED, 8, b"\xff" * 8)
    yield _log("8.2-broken-block", "A compressed block that cannot be decoded", broken)
    size = 200 << 10
    big = frames.header(size) + frames.block(RLE, size, b"\0")
    yield _log("8.2-block-too-large", "A block of more than 128 KiB", big, data=bytes(size))
    size = (128 << 10) + 1
    larger = frames.header(size) + frames.block(RLE, size, b"\0")
    yield _log("8.2-block-131073", "A block of a byte more than 128 KiB", larger, data=bytes(size))
    small = frames.header(2048, window=0) + frames.block(RLE, 2048, b"\0")
    yield _log("8.2-block-beyond-window", "A block larger than the window of 1 KiB", small, data=bytes(2048))

    too_much = frames.header(1025, window=0, width=4) + frames.repeated(b"A", 1025)
    description = "A compressed block of a byte more content than the window of 1 KiB"
    yield _log("8.4-block-regenerates-more", description, too_much, data=b"A" * 1025)


def _headers() -> Iterator[Vector]:
    body = frames.block(RAW, SIZE, TEXT)
    yield _log("8.4-no-content-size", "No content size", frames.header(SIZE, width=0, window=0) + body)
    for number in (SIZE - 1, SIZE + 1):
        yield _log(
            f"8.4-content-size-{number}", f"Content size {number} for {SIZE} bytes", frames.header(number) + body
        )
    for number, what in ((1 << 60, "2-60"), (1 << 63, "2-63"), ((1 << 64) - 1, "2-64-1")):
        yield _log(f"8.4-content-size-{what}", f"Content size {number}", frames.header(number) + body)
    for width, flag in ((1, 1), (2, 2), (4, 3)):
        header = frames.header(SIZE, flags=flag)
        named = header[:5] + (7).to_bytes(width, "little") + header[5:]
        yield _log(f"8.4-dictionary-{width}", f"The frame names a dictionary, in {width} bytes", named + body)
    header = frames.header(SIZE, flags=1)
    unnamed = header[:5] + b"\0" + header[5:]
    yield _log("8.4-dictionary-0", "Dictionary_ID_Flag is 1, and the dictionary's number 0: none", unnamed + body)
    unannounced = frames.header(SIZE, width=0, window=0) + bytes([SIZE]) + body
    description = "A content size that the header does not announce: it stands where the first block begins"
    yield _log("8.4-content-size-unannounced", description, unannounced)
    for flag in (1, 2, 3):
        header = frames.header(SIZE, flags=flag)
        yield _log(f"8.4-dictionary-flag-{flag}", f"Dictionary_ID_Flag is {flag}, and no ID follows", header + body)
    checked, checksum = frames.header(SIZE, flags=4), frames.PANGRAM_CHECKSUM
    yield _log("8.4-checksum", "A wrong checksum of the content", checked + body + bytes(4))
    yield _log("8.4-checksum-ones", "A checksum of ones", checked + body + b"\xff" * 4)
    yield _log("8.4-checksum-missing", "A frame that promises a checksum and has none", checked + body)
    yield _log("8.4-checksum-cut", "The checksum's last byte is missing", checked + body + checksum[:3])
    yield _log("8.4-checksum-not-promised", "A checksum that the header does not promise", frames.raw(TEXT) + checksum)
    description = "A wrong checksum behind compressed blocks"
    (low, frame), (high, other) = frames.COMPRESSED_PLANES
    pairs = bytes(byte for pair in zip(low, high, strict=True) for byte in pair)
    made = safetensors(
        "net.safetensors",
        [Tensor("w", "U16", [400], pairs)],
        codec="zstd",
        encode=lambda chunk, *split: frame + other[:-1] + b"\0" if chunk == pairs else frames.planes(chunk, *split),
    )
    where = {"member": "net.safetensors", "tensor": "w"}
    yield invalid("8.4-checksum-compressed", description, "zstd-frame", [made], **where)
    for exponent, what in ((14, "16-mib"), (31, "largest")):
        header = frames.header(SIZE, window=exponent << 3)
        yield _log(f"8.4-window-{what}", f"A window of 2^{10 + exponent} bytes", header + body)
    yield _log("8.4-window-more-than-8-mib", "A window of 9 MiB", frames.header(SIZE, window=13 << 3 | 1) + body)
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    yield _log(
        "8.4-skippable-before", "A skippable frame before the frame", skippable + frames.raw(TEXT), clauses="8.2"
    )
    yield _log("8.4-skippable-after", "A skippable frame behind the frame", frames.raw(TEXT) + skippable, clauses="8.2")
    half = frames.block(RAW, 92, TEXT[:92])
    yield _log("8.4-less-content", "Less content than declared", frames.header(SIZE) + half)
    more = frames.block(RAW, SIZE, TEXT, last=False) + frames.block(RAW, 1, b"!")
    yield _log("8.4-more-content", "More content than declared", frames.header(SIZE) + more)
    for number, what in ((SIZE - 1, "less"), (SIZE + 1, "more")):
        description = f"A compressed block of {number} bytes where {SIZE} are declared"
        block = frames.repeated(b"A", number)
        yield _log(f"8.4-{what}-content-compressed", description, frames.header(SIZE) + block, data=b"A" * SIZE)
    bomb = frames.header(SIZE, window=13 << 3) + frames.block(RLE, 128 << 10, b"\0", last=False) * 200
    bomb += frames.block(RLE, 128 << 10, b"\0")
    description = "RLE blocks of 25 MiB where 192 bytes are declared"
    yield _log("8.4-bomb", description, bomb, clauses="14.1")


def _planes() -> Iterator[Vector]:
    def weights(slug: str, description: str, stored: bytes, tensor: Tensor, **options: str) -> Vector:
        encode = lambda chunk, *split: stored if chunk == tensor.data else frames.planes(chunk, *split)  # noqa: E731  # short
        made = safetensors("net.safetensors", [tensor], codec="zstd", encode=encode)
        return invalid(slug, description, "zstd-frame", [made], member="net.safetensors", tensor="w", **options)

    tensor = floats("w", 1.0, 2.0, 3.0, 4.0)
    planes = [tensor.data[k::4] for k in range(4)]
    yield weights("8.3-one-frame", "An F32 tensor in one frame", frames.raw(tensor.data), tensor)
    yield weights(
        "8.3-three-frames",
        "An F32 tensor in three frames",
        b"".join(map(frames.raw, planes[:3])),
        tensor,
        clauses="8.2",
    )
    yield weights(
        "8.3-five-frames",
        "An F32 tensor in five frames",
        b"".join(map(frames.raw, [*planes, b"x"])),
        tensor,
        clauses="8.2",
    )
    samples = {"F32": tensor.data, "BF16": bytes(range(0x70, 0xF0)), "F64": struct.pack("<2d", 1.0, -2.0)}
    for dtype, data in samples.items():
        made = safetensors(
            "net.safetensors",
            [Tensor("w", dtype, [len(data) * 8 // BITS[dtype]], data)],
            codec="zstd",
            encode=lambda chunk, count, _: frames.planes(chunk, count),
        )
        slug, description = f"8.3-sign-in-place-{dtype.lower()}", f"{dtype} numbers whose signs are where they were"
        yield invalid(slug, description, "chunk-digest", [made], member="net.safetensors", tensor="w", clauses="7.2")
    description = "A C64 tensor in eight frames, for which four are right"
    complex_ = Tensor("w", "C64", [2], tensor.data)
    yield weights("8.3-c64-in-8", description, frames.planes(tensor.data, 8), complex_)
    description = "A byte between two frames"
    stored = frames.raw(planes[0]) + b"\0" + b"".join(map(frames.raw, planes[1:]))
    yield weights("8.2-byte-between", description, stored, tensor)
    tree = msgpack(
        "t.msgpack", "fours", codec="zstd", encode=lambda *_: b"".join(frames.raw(b"\xa5fours"[k::2]) for k in (0, 1))
    )
    yield invalid("8.3-msgpack-planes", "A msgpack member in two planes", "zstd-frame", [tree], member="t.msgpack")
