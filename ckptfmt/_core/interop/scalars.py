"""NumPy scalars of a tree (spec 11.6) as numbers of Python, without NumPy."""

from __future__ import annotations

import struct

__all__ = ["scalar_of"]

_LAYOUTS = {
    "BOOL": "<?",
    "U8": "<B",
    "I8": "<b",
    "U16": "<H",
    "I16": "<h",
    "U32": "<I",
    "I32": "<i",
    "U64": "<Q",
    "I64": "<q",
    "F16": "<e",
    "F32": "<f",
    "F64": "<d",
    "C64": "<2f",
    "C128": "<2d",
}


def scalar_of(value: list[object]) -> object:
    """Return the number that a dtype name and the bytes of one element are; of other dtypes, the bytes."""
    dtype, data = value
    if not isinstance(data, bytes) or dtype not in _LAYOUTS:
        return data
    numbers = struct.unpack(_LAYOUTS[str(dtype)], data)
    return complex(*numbers) if len(numbers) == 2 else numbers[0]
