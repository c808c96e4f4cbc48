"""Counts, moments and histograms of numbers that come in blocks, in one pass."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

__all__ = ["BINS", "Block", "Spread", "Sums", "blocks_of", "blocks_of_rows"]

BINS = 24
"""Number of bins of a histogram."""

_FINE_BINS = 8 * BINS  # of each block, before the range of all is known
_BLOCK_ELEMENTS = 1 << 18  # 2 MiB as 64-bit floats: fits the cache

_Array = np.ndarray[Any, Any]


class Block(NamedTuple):
    """What is known of some elements; of the finite ones from `low` on."""

    nan: int
    inf: int
    zeros: int
    finite: int
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    fine: _Array | None = None


class Spread(NamedTuple):
    """How the finite elements are spread: their range, and how many are in each of its `BINS` equal parts."""

    low: float
    high: float
    counts: tuple[int, ...]


def blocks_of(values: _Array) -> list[Block]:
    """Return the statistics of a flat array; of the magnitudes, if it is complex."""
    return [_block(values[start : start + _BLOCK_ELEMENTS]) for start in range(0, values.size, _BLOCK_ELEMENTS)]


def blocks_of_rows(values: _Array) -> list[list[Block]]:
    """Return the statistics of each row of a matrix with non-empty rows, as if each were a flat array."""
    if values.shape[1] > _BLOCK_ELEMENTS:
        return [blocks_of(row) for row in values]
    given = values
    if values.dtype.kind == "c":
        values = np.abs(values)
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        return [blocks_of(row) for row in given]
    width = values.shape[1]
    zeros = (width - np.count_nonzero(values, axis=1)).tolist()
    low, high = wide.min(axis=1), wide.max(axis=1)
    with np.errstate(all="ignore"):  # the squares of the largest doubles are infinite
        mean = wide.mean(axis=1)
        squares = np.square(wide - mean[:, None]).sum(axis=1)
    fine = _spread(wide, low[:, None], high[:, None])
    facts = zip(zeros, low.tolist(), high.tolist(), mean.tolist(), squares.tolist(), fine, strict=True)
    return [[Block(0, 0, zero, width, *numbers)] for zero, *numbers in facts]


def _block(values: _Array) -> Block:
    if values.dtype.kind == "c":
        values = np.abs(values)
    wide = values.astype(np.float64)
    zeros = int(values.size - np.count_nonzero(values))
    finite = np.isfinite(wide)
    count = int(np.count_nonzero(finite))
    nan = 0
    if count < values.size:
        nan = int(np.count_nonzero(np.isnan(wide)))
        wide = wide[finite]
    inf = values.size - count - nan
    if not count:
        return Block(nan, inf, zeros, 0)
    low, high = wide.min(), wide.max()
    with np.errstate(all="ignore"):  # the squares of the largest doubles are infinite
        mean = float(wide.mean())
        squares = float(np.square(wide - mean).sum())
    fine = _spread(wide[None], low[None, None], high[None, None])[0]
    return Block(nan, inf, zeros, count, float(low), float(high), mean, squares, fine)


def _spread(rows: _Array, low: _Array, high: _Array) -> _Array:
    """Return for each row how many of its values are in each of the fine bins from its `low` to its `high`."""
    half = low / 2
    span = high / 2 - half  # halves: the span of two doubles can be more than a double holds
    span[~(span > 0)] = 1  # all are equal, and in the first bin
    places = ((rows / 2 - half) / span * _FINE_BINS).astype(np.intp)
    np.minimum(places, _FINE_BINS - 1, out=places)
    places += np.arange(len(rows))[:, None] * _FINE_BINS
    return np.bincount(places.reshape(-1), minlength=len(rows) * _FINE_BINS).reshape(len(rows), _FINE_BINS)


class Sums:
    """What is known of all blocks so far.

    Attributes:
        finite: Number of elements that are finite.
        nan: Number of NaNs.
        inf: Number of infinities.
        zeros: Number of zeros.
        mean: Mean of the finite elements.
    """

    def __init__(self) -> None:
        self.finite = self.nan = self.inf = self.zeros = 0
        self.mean = self._squares = 0.0
        self._blocks: list[Block] = []

    def add(self, block: Block) -> None:
        """Add a block: counts add up, mean and squares as in Chan, Golub and LeVeque (1979)."""
        self.nan += block.nan
        self.inf += block.inf
        self.zeros += block.zeros
        if not block.finite:
            return
        total = self.finite + block.finite
        apart = block.mean - self.mean
        self.mean += apart * (block.finite / total)
        self._squares += block.squares
        if self.finite:  # the square of the largest doubles is infinite, and would not be nothing times nothing
            self._squares += apart * apart * self.finite * (block.finite / total)
        self.finite = total
        self._blocks.append(block)

    @property
    def std(self) -> float:
        """Standard deviation of the finite elements, of all of them and not of a sample. There has to be one."""
        return math.sqrt(self._squares / self.finite) if self._squares >= 0 else math.nan

    def spread(self) -> Spread | None:
        """Return the histogram of the finite elements; None if there are none."""
        if not self._blocks:
            return None
        low = min([block.low for block in self._blocks])
        high = max([block.high for block in self._blocks])
        if len(self._blocks) == 1:  # its bins have the range of all
            counts = _fine_of(self._blocks[0]).reshape(BINS, -1).sum(axis=1)
            return Spread(low, high, tuple(counts.tolist()))
        span = high / 2 - low / 2
        counts = np.zeros(BINS, np.int64)
        for block in self._blocks:
            step = (block.high / 2 - block.low / 2) / _FINE_BINS
            centres = block.low / 2 + step * (np.arange(_FINE_BINS) + 0.5)
            places = (centres - low / 2) / span * BINS if span > 0 else np.zeros(_FINE_BINS)
            np.add.at(counts, np.clip(places.astype(np.intp), 0, BINS - 1), _fine_of(block))
        return Spread(low, high, tuple(counts.tolist()))


def _fine_of(block: Block) -> _Array:
    assert block.fine is not None  # it has finite elements
    return block.fine
