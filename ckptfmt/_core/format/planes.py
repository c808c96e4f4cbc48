"""Byte planes: the bytes of numbers by their rank, so that those that are alike stand together (spec 8.2, 8.3).

NumPy does it, in a few passes and without holding up other threads; it is imported when a chunk is split or joined.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from ckptfmt._core.format.buffers import BytesLike

    _Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["WHOLE", "Split", "copy_bytes", "put_plane", "split_planes"]


class Split(NamedTuple):
    """How the chunks of a tensor are split under codec `zstd`.

    Attributes:
        planes: Number of planes, which is the number of bytes of one number; 1 leaves a chunk as it is.
        exponent_bits: For floats, the number of exponent bits that the sign moves below. 0: the bits stay as they are.
    """

    planes: int
    exponent_bits: int = 0


WHOLE = Split(1)

_local = threading.local()

_TOP_BITS = 16
# So many numbers at a time: what is made on the way is small enough to come from memory that was used before. Memory
# that is new to the process costs more than all the rest.
_BLOCK = 1 << 15


def split_planes(chunk: BytesLike, split: Split) -> list[BytesLike]:
    """Return the planes of a chunk, the one of the lowest bytes first. They stay until this thread splits the next."""
    if split.planes == 1:
        return [chunk]
    import numpy as np

    flat = np.frombuffer(chunk, np.uint8)
    rows = _scratch(len(flat)).reshape(split.planes, -1)
    rows[...] = flat.reshape(-1, split.planes).T
    if split.exponent_bits:
        tops = _tops(flat, split)
        for start in range(0, len(tops), _BLOCK):
            moved = _rotated_left(tops[start : start + _BLOCK].copy(), split.exponent_bits)
            rows[-2, start : start + _BLOCK] = moved  # the lower byte of each
            rows[-1, start : start + _BLOCK] = moved >> 8
    return [row.data for row in rows]


def copy_bytes(data: memoryview, into: memoryview) -> None:
    """Copy bytes to memory of the same length, and let other threads work meanwhile.

    The assignment of one memoryview to another holds the interpreter, also while the system makes new pages.
    """
    import numpy as np

    np.frombuffer(into, np.uint8)[:] = np.frombuffer(data, np.uint8)


def put_plane(plane: BytesLike, number: int, split: Split, into: memoryview) -> None:
    """Put a plane to its places in a chunk; after the last one, the chunk is what it was before it was split."""
    if split.planes == 1:
        into[:] = plane
        return
    import numpy as np

    flat = np.frombuffer(into, np.uint8)
    flat.reshape(-1, split.planes)[:, number] = np.frombuffer(plane, np.uint8)
    if split.exponent_bits and number == split.planes - 1:
        tops = _tops(flat, split)
        for start in range(0, len(tops), _BLOCK):
            tops[start : start + _BLOCK] = _rotated_right(tops[start : start + _BLOCK].copy(), split.exponent_bits)


def _scratch(nbytes: int) -> _Array:
    """Return memory of this thread, used again and again."""
    import numpy as np

    memory: _Array | None = getattr(_local, "memory", None)
    if memory is None or len(memory) < nbytes:
        memory = _local.memory = np.empty(nbytes, np.uint8)
    return memory[:nbytes]


def _tops(chunk: _Array, split: Split) -> _Array:
    """Return the 16 highest bits of each float, in which sign and exponent are."""
    halves: _Array = chunk.view("<u2")
    return halves.reshape(-1, split.planes // 2)[:, -1]


def _rotated_left(tops: _Array, exponent_bits: int) -> _Array:
    """Rotate the sign and the exponent left by one bit, in place (8.3)."""
    mantissa_bits = _TOP_BITS - 1 - exponent_bits
    low = tops >> (_TOP_BITS - 1)
    low <<= mantissa_bits
    low |= tops & ((1 << mantissa_bits) - 1)
    tops <<= 1
    tops &= (1 << _TOP_BITS) - (2 << mantissa_bits)
    tops |= low
    return tops


def _rotated_right(tops: _Array, exponent_bits: int) -> _Array:
    """Undo `_rotated_left`."""
    mantissa_bits = _TOP_BITS - 1 - exponent_bits
    sign = tops >> mantissa_bits
    sign <<= _TOP_BITS - 1
    sign |= tops & ((1 << mantissa_bits) - 1)
    tops >>= 1
    tops &= (1 << (_TOP_BITS - 1)) - (1 << mantissa_bits)
    tops |= sign
    return tops
