"""A Zstandard decoder for the minimal reader, which has one of its own on Python 3.14 and later only."""

from __future__ import annotations

import pytest

from spec import minimal_reader
from tests.spec.answers import Decoder


@pytest.fixture
def with_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the minimal reader a decoder."""
    monkeypatch.setattr(minimal_reader, "zstd", Decoder)


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the decoder away, if there is one."""
    monkeypatch.setattr(minimal_reader, "zstd", None)
