"""The only door to BLAKE3 (spec 12)."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from ckptfmt._core.format.buffers import BytesLike

DIGEST_BYTES = 32  # 1


def digest(data: BytesLike) -> bytes:
    """Return the 32 bytes of the BLAKE3 digest of `data`. Releases the GIL on large input."""
    return blake3(data).digest()


def digest_parts(*parts: BytesLike) -> bytes:
    """Return the digest of the concatenation of `parts`."""
    return digest_stream(parts)


def digest_stream(parts: Iterable[BytesLike]) -> bytes:
    """Return the digest of the concatenation of parts that come one after the other."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest()
