"""Tensors for the vectors."""

from __future__ import annotations

import math
import struct

from spec.vectors.making.container import BITS, Tensor


def pattern(nbytes: int, seed: int = 1) -> bytes:
    """Return bytes that differ from their neighbours."""
    return bytes((seed + 37 * i + i // 251) % 256 for i in range(nbytes))


def tensor(name: str, dtype: str, *shape: int, seed: int = 1) -> Tensor:
    """Return a tensor with a pattern in it."""
    nbytes = math.prod(shape) * BITS[dtype] // 8
    data = bytes(byte & 1 for byte in pattern(nbytes, seed)) if dtype == "BOOL" else pattern(nbytes, seed)
    return Tensor(name, dtype, shape, data)


def floats(name: str, *values: float) -> Tensor:
    """Return an F32 tensor of one dimension."""
    return Tensor(name, "F32", [len(values)], struct.pack(f"<{len(values)}f", *values))
