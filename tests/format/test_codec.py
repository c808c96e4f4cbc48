"""Chunks in Zstandard frames, where memory is short: that says nothing about the chunk."""

from __future__ import annotations

import pytest
import zstandard

from ckptfmt._core.format import codec
from ckptfmt._core.format.planes import WHOLE

SHORT = zstandard.ZstdError("error: Allocation error : not enough memory")  # what the binding says


class Short:
    """A compressor or decompressor without memory."""

    def __init__(self, **_: object) -> None:
        pass

    def compress(self, *_: object) -> bytes:
        raise SHORT

    def decompress(self, *_: object, **__: object) -> bytes:
        raise SHORT


def test_a_chunk_is_not_called_damaged_because_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = codec.encode_chunk(bytes(1000))
    monkeypatch.setattr(zstandard, "ZstdDecompressor", Short)
    with pytest.raises(MemoryError):
        codec.decode_chunk(stored, memoryview(bytearray(1000)), WHOLE, member="m", tensor=None)


def test_to_be_short_of_memory_when_compressing_is_no_error_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstandard, "ZstdCompressor", Short)
    with pytest.raises(MemoryError):
        codec.encode_chunk(bytes(1000))
