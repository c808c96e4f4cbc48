"""The container: magic numbers, limits, preamble, trailer and where each part stands (spec 2, 3, 4, 13)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ckptfmt._core.format.digest import DIGEST_BYTES, digest_parts
from ckptfmt.errors import Problem, error_for

PREAMBLE_MAGIC = b"\x89CKPTFMT\r\n\x1a\n"  # 3.1
TRAILER_MAGIC = b"\x89CKPTEND"  # 4.2
MAJOR = 1  # 3.2
MINOR = 0  # 3.4

PREAMBLE_BYTES = 64  # 3
TRAILER_BYTES = 64  # 4
MIN_FILE_BYTES = 192  # 4.1
MEMBER_ALIGNMENT = 4096  # 2.1
INDEX_ALIGNMENT = 64  # 2.1

MAX_INDEX_BYTES = 256 << 20  # 13.1
MAX_MEMBERS = 4096  # 13.1
MAX_HEADER_BYTES = 100_000_000  # 13.1
MAX_MSGPACK_BYTES = 256 << 20  # 13.1
MAX_UINT = 2**63 - 1  # 1, 13.1

_PREAMBLE = struct.Struct("<12sHH48s")
_TRAILER = struct.Struct("<QQQ32s8s")
_TRAILER_FIELDS_BYTES = 24  # the part of the trailer that its digest covers


def align(position: int, alignment: int) -> int:
    """Return the smallest multiple of `alignment` that is at least `position`."""
    return -(-position // alignment) * alignment


def encode_preamble(major: int = MAJOR, minor: int = MINOR) -> bytes:
    """Return the 64 bytes that begin a file (spec 3)."""
    return _PREAMBLE.pack(PREAMBLE_MAGIC, major, minor, bytes(48))


def parse_preamble(preamble: bytes) -> tuple[int, int]:
    """Return (major, minor) of a preamble whose magic is known to be right.

    Raises:
        UnsupportedVersionError: The major version is not 1 (3.2).
        FormatError: A reserved byte is not zero (3.3).
    """
    _, major, minor, reserved = _PREAMBLE.unpack(preamble)
    if major != MAJOR:
        message = f"format version {major}.{minor}, this reader knows {MAJOR}.x; a newer ckptfmt reads it"
        raise error_for(Problem("major-version", message, offset=12))
    if any(reserved):
        raise error_for(Problem("preamble-reserved", "a reserved byte of the preamble is not zero", offset=16))
    return major, minor


def require_known_version(version: tuple[int, int], path: str) -> None:
    """Check that a file holds nothing that a copy written by this program would lose (16.1).

    Raises:
        UnsupportedVersionError: Its minor version is newer.
    """
    major, minor = version
    if minor > MINOR:
        message = (
            f"format version {major}.{minor} may hold more than version {major}.{MINOR}, which this writer knows, and "
            "a copy would lose that; a newer ckptfmt copies it"
        )
        raise error_for(Problem("feature-unknown", message, offset=14), path)


@dataclass(frozen=True)
class Trailer:
    """The last 64 bytes of a file (spec 4).

    Attributes:
        index_offset: Absolute offset of the index in bytes.
        index_bytes: Length of the index in bytes, without padding.
        file_bytes: Length of the whole file in bytes.
        digest: BLAKE3 over preamble, index and the three fields above; the file's identity (12.1).
    """

    index_offset: int
    index_bytes: int
    file_bytes: int
    digest: bytes


def check_head(head: bytes, file_bytes: int) -> None:
    """Check the first bytes of a file and its length, before anything else is read.

    Args:
        head: The first 64 bytes, or all bytes of a shorter file.
        file_bytes: Length of the file in bytes.

    Raises:
        FormatError: The file does not begin with the magic (3.1).
        TruncatedError: The file is shorter than any valid one (4.1).
    """
    magic = head[: len(PREAMBLE_MAGIC)]
    if not PREAMBLE_MAGIC.startswith(magic):
        message = f"not a ckptfmt file: it begins with {magic.hex(' ')}, expected {PREAMBLE_MAGIC.hex(' ')}"
        raise error_for(Problem("magic", message, offset=0))
    if file_bytes < MIN_FILE_BYTES:
        message = f"the file has {file_bytes} bytes, a complete one has at least {MIN_FILE_BYTES}"
        raise error_for(Problem("too-short", message))


def parse_trailer(data: bytes, file_bytes: int) -> Trailer:
    """Return the trailer of a file of `file_bytes` bytes whose last 64 bytes are `data`.

    Raises:
        TruncatedError: There is no trailer, or it belongs to a longer file (4.2, 4.3).
        LimitError: The index is larger than allowed (13.1).
        FormatError: The index is not where it has to be (4.4).
    """
    start = file_bytes - TRAILER_BYTES
    index_offset, index_bytes, declared, digest, magic = _TRAILER.unpack(data)
    if magic != TRAILER_MAGIC:
        message = "the trailer is missing: the write was not finished, or the end of the file is lost"
        raise error_for(Problem("trailer-magic", message, offset=start + 56))
    if declared != file_bytes:
        message = f"the file has {file_bytes} bytes, its trailer says {declared}"
        raise error_for(Problem("file-bytes", message, offset=start + 16))
    if index_bytes > MAX_INDEX_BYTES:
        message = f"the index has {index_bytes} bytes, the limit is {MAX_INDEX_BYTES}"
        raise error_for(Problem("limit-index", message, offset=start + 8))
    if (
        index_bytes < 1
        or index_offset < PREAMBLE_BYTES
        or index_offset % INDEX_ALIGNMENT
        or align(index_offset + index_bytes, INDEX_ALIGNMENT) != start
    ):
        message = f"an index of {index_bytes} bytes at offset {index_offset} does not end at the trailer"
        raise error_for(Problem("index-bounds", message, offset=start))
    return Trailer(index_offset, index_bytes, declared, digest)


def encode_trailer(preamble: bytes, index_offset: int, index: bytes) -> bytes:
    """Return the trailer that follows `index` (with its padding) at `index_offset`."""
    end = align(index_offset + len(index), INDEX_ALIGNMENT)
    fields = struct.pack("<QQQ", index_offset, len(index), end + TRAILER_BYTES)
    return fields + digest_parts(preamble, index, fields) + TRAILER_MAGIC


def check_digest(preamble: bytes, index: bytes, trailer_bytes: bytes) -> None:
    """Check the digest that binds preamble, index and trailer (4.5).

    Raises:
        IntegrityError: It does not match.
    """
    fields = trailer_bytes[:_TRAILER_FIELDS_BYTES]
    expected = trailer_bytes[_TRAILER_FIELDS_BYTES : _TRAILER_FIELDS_BYTES + DIGEST_BYTES]
    actual = digest_parts(preamble, index, fields)
    if actual != expected:
        found = f"their digest is {actual.hex()[:16]}..., the trailer says {expected.hex()[:16]}..."
        message = f"preamble, index or trailer is damaged: {found}"
        raise error_for(Problem("index-digest", message))
