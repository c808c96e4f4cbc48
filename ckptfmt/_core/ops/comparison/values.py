"""Comparing the values of two tensors, read side by side, a few chunks at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.ops.comparison.distance import ValueDifference
from ckptfmt._core.ops.inspection.arrays import array_of, has_numbers

__all__ = ["compare_values"]

_Array = np.ndarray[Any, Any]


def compare_values(before: TensorSource, after: TensorSource, advance: Callable[[int], None]) -> ValueDifference | None:
    """Return how far two tensors are apart; None if they differ in shape, or cannot be calculated with.

    Of each, a chunk or two are in memory at a time. Calculated with 64-bit floats.

    Args:
        before: The first tensor.
        after: The second one.
        advance: Called with the number of bytes of the first one that were worked off since its last call.

    Raises:
        CkptfmtError: One of them cannot be read.
    """
    if before.shape != after.shape or not (has_numbers(before.dtype) and has_numbers(after.dtype)):
        return None
    sums = _Sums()
    for one, two in _side_by_side(_arrays(before), _arrays(after)):
        sums.add(one, two)
        advance(one.size * before.nbytes // before.elements)
    return ValueDifference(before.elements, sums.changed, sums.max_abs, sums.max_rel, sums.cosine())


class _Sums:
    """What is known of the part that was read."""

    def __init__(self) -> None:
        self.changed = 0
        self.max_abs = self.max_rel = 0.0
        self._dot = self._one = self._two = 0.0

    def add(self, one: _Array, two: _Array) -> None:
        differ = one != two
        with np.errstate(all="ignore"):  # what is not finite is looked at on its own
            wide = np.complex128 if one.dtype.kind == "c" or two.dtype.kind == "c" else np.float64
            one, two = one.astype(wide), two.astype(wide)
            differ &= ~(np.isnan(one) & np.isnan(two))
            finite = np.isfinite(one) & np.isfinite(two)
            self._dot += float(np.vdot(one[finite], two[finite]).real)
            self._one += float(np.vdot(one[finite], one[finite]).real)
            self._two += float(np.vdot(two[finite], two[finite]).real)
            self.changed += int(np.count_nonzero(differ))
            if np.any(differ & ~finite):
                self.max_abs, self.max_rel = math.inf, 2.0
            near = differ & finite
            if np.any(near):
                apart = np.abs(one[near] - two[near])
                larger = np.maximum(np.abs(one[near]), np.abs(two[near]))
                self.max_abs = max(self.max_abs, float(apart.max()))
                self.max_rel = max(self.max_rel, float(np.divide(apart, larger, where=larger > 0, out=apart).max()))

    def cosine(self) -> float | None:
        if not (self._one > 0 and self._two > 0):
            return None
        return max(-1.0, min(1.0, self._dot / math.sqrt(self._one) / math.sqrt(self._two)))


def _arrays(tensor: TensorSource) -> Iterator[_Array]:
    for chunk in tensor.chunks():
        yield array_of(chunk(), tensor.dtype)


def _side_by_side(some: Iterator[_Array], others: Iterator[_Array]) -> Iterator[tuple[_Array, _Array]]:
    """Yield pieces of equal length of two series of arrays."""
    one = two = np.empty(0)
    while True:
        one = next(some, one) if not one.size else one
        two = next(others, two) if not two.size else two
        length = min(one.size, two.size)
        if not length:
            return
        yield one[:length], two[:length]
        one, two = one[length:], two[length:]
