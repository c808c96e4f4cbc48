"""Data of tensors as NumPy arrays to calculate with."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckptfmt.errors import FormatError
from ckptfmt.format.digest import BytesLike
from ckptfmt.numpy import numpy_dtype

__all__ = ["array_of", "has_numbers", "rearranged"]

_NATIVE_KINDS = "biufc"


def has_numbers(dtype: str) -> bool:
    """Say whether data of this dtype can be calculated with: not 4- and 6-bit floats, nor text."""
    try:
        _dtype_of(dtype)
    except FormatError:
        return False
    return True


def array_of(data: BytesLike, dtype: str) -> np.ndarray[Any, Any]:
    """Return data as a flat array: of the dtype itself, or float32 for the short floats that NumPy lacks."""
    array = np.frombuffer(data, _dtype_of(dtype))
    return array if array.dtype.kind in _NATIVE_KINDS else array.astype(np.float32)


def rearranged(data: BytesLike, *, swapped: int, itemsize: int, fortran: tuple[int, ...] | None) -> memoryview:
    """Return data in little-endian and C order.

    Args:
        data: The data of a whole array, or, in C order, of some of its elements.
        swapped: Bytes of the numbers that stand in big-endian order; 1: none do.
        itemsize: Bytes of an element.
        fortran: The shape, if the data are in Fortran order.
    """
    flat: np.ndarray[Any, Any] = np.frombuffer(data, np.uint8)
    if swapped > 1:
        flat = flat.reshape(-1, swapped)[:, ::-1].reshape(-1)
    if fortran is not None:
        elements = flat.view(f"V{itemsize}").reshape(fortran, order="F")
        flat = np.ascontiguousarray(elements).reshape(-1).view(np.uint8)
    return np.ascontiguousarray(flat).data


def _dtype_of(dtype: str) -> np.dtype[Any]:
    return np.dtype("<c16") if dtype == "C128" else numpy_dtype(dtype)
