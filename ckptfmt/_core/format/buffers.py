"""Buffers of bytes, as this library hands them around."""

from __future__ import annotations

__all__ = ["BytesLike"]

BytesLike = bytes | bytearray | memoryview
