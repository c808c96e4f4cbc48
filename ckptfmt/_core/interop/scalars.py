"""NumPy scalars of a tree (spec 11.6) as numbers of Python, without NumPy."""

from __future__ import annotations

from ckptfmt._core.format.dtypes import ELEMENTS

__all__ = ["scalar_of"]


def scalar_of(value: list[object]) -> object:
    """Return the number for a dtype name and the bytes of one element; for a dtype that Python lacks, the bytes."""
    dtype, data = value
    element = ELEMENTS.get(str(dtype))
    return data if not isinstance(data, bytes) or element is None or element.layout is None else element.number(data)
