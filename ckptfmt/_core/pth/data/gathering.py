"""Elements put into order and into the byte order of our files, with NumPy: imported only where that is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ckptfmt._core.format.buffers import BytesLike

__all__ = ["finish_numbers", "gather", "gather_block"]

Read = Callable[[int, int], BytesLike]
_MOST_READ_BYTES = 4 << 20
_MOST_BETWEEN_BYTES = 16 << 10
"""What lies between two runs of elements is read with them up to this length: quicker than two reads."""


def gather(
    data: BytesLike, nbytes: int, shape: tuple[int, ...], strides: tuple[int, ...], most: int
) -> Iterator[BytesLike]:
    """Yield elements in C order, in pieces of about `most` bytes.

    Args:
        data: The elements from the first to the last, with what lies between them.
        nbytes: Bytes of an element.
        shape: Sizes of the dimensions; at least one.
        strides: Distances of neighbours in each dimension, in elements.
        most: Length of a piece, unless a single row is longer.
    """
    elements: np.ndarray[Any, Any] = np.ndarray(
        shape, f"V{nbytes}", buffer=data, strides=tuple(stride * nbytes for stride in strides)
    )
    rows = max(1, most // max(nbytes * math.prod(shape[1:]), 1))
    for row in range(0, shape[0], rows):
        yield np.ascontiguousarray(elements[row : row + rows]).reshape(-1).view(np.uint8).data


def gather_block(read: Read, nbytes: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> BytesLike:
    """Return elements in C order that lie far apart: those of some rows of a transposed matrix.

    They are read in the order in which they lie, without what is between them where that is much.

    Args:
        read: Returns a range of bytes: begin, length.
        nbytes: Bytes of an element.
        offset: Of the first element, in elements.
        shape: Sizes of the dimensions; at least one.
        strides: Distances of neighbours in each dimension, in elements.
    """
    block: np.ndarray[Any, Any] = np.empty(shape, f"V{nbytes}")
    axes = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    _fill(read, block.transpose(axes), offset, [strides[axis] for axis in axes])
    return block.reshape(-1).view(np.uint8).data


def _fill(read: Read, block: np.ndarray[Any, Any], offset: int, strides: Sequence[int]) -> None:
    """Read the elements of a block, of which no stride is longer than the one before."""
    nbytes = block.dtype.itemsize
    inner = 1 + sum((size - 1) * stride for size, stride in zip(block.shape[1:], strides[1:], strict=True))
    whole = inner + (block.shape[0] - 1) * strides[0]
    if (strides[0] - inner) * nbytes > _MOST_BETWEEN_BYTES or inner * nbytes > _MOST_READ_BYTES:
        for number, row in enumerate(block):
            here = offset + number * strides[0]
            if row.ndim:
                _fill(read, row, here, strides[1:])
            else:
                block[number : number + 1] = np.frombuffer(read(here * nbytes, nbytes), block.dtype)
        return
    rows = max(1, (_MOST_READ_BYTES // nbytes - inner) // max(strides[0], 1) + 1)
    for number in range(0, block.shape[0], rows):
        some = block[number : number + rows]
        span = whole - (block.shape[0] - some.shape[0]) * strides[0]
        data = read((offset + number * strides[0]) * nbytes, span * nbytes)
        some[...] = np.ndarray(some.shape, block.dtype, data, strides=tuple(stride * nbytes for stride in strides))


def finish_numbers(
    data: BytesLike, *, word: int, swapped: bool, kind: str, conjugated: bool, negated: bool
) -> memoryview:
    """Return numbers in little-endian order, and negated where they are to be.

    Args:
        data: Whole elements.
        word: Bytes of one number.
        swapped: Whether they are big-endian.
        kind: What PyTorch calls the element type.
        conjugated: Negate every second number.
        negated: Negate all numbers.
    """
    words: np.ndarray[Any, Any] = np.frombuffer(data, np.uint8).reshape(-1, word)
    words = np.array(words[:, ::-1] if swapped else words, order="C")
    if "float" in kind or "complex" in kind:
        # The sign of a float is its highest bit, which is in the last byte now.
        if conjugated:
            words[1::2, -1] ^= 0x80
        if negated:
            words[:, -1] ^= 0x80
    elif negated:
        integers = words.reshape(-1).view(f"<u{word}")
        np.negative(integers, out=integers)
    return words.reshape(-1).data
