"""A Zstandard decoder for the minimal reader, which has one of its own on Python 3.14 and later only."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import zstandard

from spec import minimal_reader


class _Decompressor:
    """The part of `compression.zstd.ZstdDecompressor` that the reader uses."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max_length)


@pytest.fixture
def with_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the minimal reader the decoder of Python 3.14."""
    decoder = SimpleNamespace(ZstdDecompressor=_Decompressor, ZstdError=zstandard.ZstdError)
    monkeypatch.setattr(minimal_reader, "zstd", decoder)


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the decoder away, if there is one."""
    monkeypatch.setattr(minimal_reader, "zstd", None)
