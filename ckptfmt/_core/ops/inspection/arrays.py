"""Data of tensors as NumPy arrays to calculate with."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckptfmt._core.container.numpy_adapter import numpy_dtype
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt.errors import FormatError

__all__ = ["array_of", "has_numbers"]

_NATIVE_KINDS = "biufc"


def has_numbers(dtype: str) -> bool:
    """Say whether data of this dtype can be calculated with: not 4- and 6-bit floats, nor text."""
    try:
        numpy_dtype(dtype)
    except FormatError:
        return False
    return True


def array_of(data: BytesLike, dtype: str) -> np.ndarray[Any, Any]:
    """Return data as a flat array: of the dtype itself, or float32 for the short floats that NumPy lacks."""
    array = np.frombuffer(data, numpy_dtype(dtype))
    return array if array.dtype.kind in _NATIVE_KINDS else array.astype(np.float32)
