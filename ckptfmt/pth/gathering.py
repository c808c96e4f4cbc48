"""Elements put into order and into the byte order of our files, with NumPy: imported only where that is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ckptfmt.format.digest import BytesLike

__all__ = ["finish_numbers", "gather"]


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
