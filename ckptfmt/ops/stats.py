"""Statistics of the values of tensors: one pass over the data, on all cores, a few chunks in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ckptfmt.format.digest import CHUNK_BYTES
from ckptfmt.ops.arrays import array_of, has_numbers
from ckptfmt.ops.jsonform import float_json
from ckptfmt.ops.pooling import in_order
from ckptfmt.ops.progress import Meter, Report
from ckptfmt.ops.sources import Chunk, TensorFile, TensorInfo

__all__ = ["BINS", "Histogram", "TensorStats", "tensor_stats"]

BINS = 24
"""Number of bins of a histogram."""

_FINE_BINS = 8 * BINS  # of each block, before the range of all is known
_MOST_IN_BATCH = 256  # chunks: some hold their bytes
_BLOCK_ELEMENTS = 1 << 18  # 2 MiB as 64-bit floats: fits the cache

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Histogram:
    """How often values fall into bins of equal width.

    It is made in one pass: a value near the edge of a bin may be counted in the neighbouring one.

    Attributes:
        low: Lower edge of the first bin.
        high: Upper edge of the last bin.
        counts: Number of values in each bin.
    """

    low: float
    high: float
    counts: tuple[int, ...]

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: the attributes under their names."""
        return {"low": self.low, "high": self.high, "counts": list(self.counts)}


@dataclass(frozen=True)
class TensorStats:
    """Statistics of one tensor. Those of complex numbers are of their magnitudes.

    Attributes:
        tensor: The tensor.
        finite: Number of elements that are finite numbers.
        nan: Number of NaNs.
        inf: Number of positive and negative infinities.
        zeros: Number of zeros.
        minimum: Smallest of the finite elements; None if there is none, as for all that follow.
        maximum: Largest of them.
        mean: Their mean.
        std: Their standard deviation (of all of them, not of a sample).
        histogram: How they are spread.
    """

    tensor: TensorInfo
    finite: int
    nan: int
    inf: int
    zeros: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    histogram: Histogram | None

    def to_json(self) -> dict[str, object]:
        """Return them in JSON.

        Keys: `component`, `name`, `finite`, `nan`, `inf`, `zeros` (counts), `min`, `max`, `mean`, `std`, `histogram`
        (each null if no element is finite).
        """
        numbers = {"min": self.minimum, "max": self.maximum, "mean": self.mean, "std": self.std}
        return {
            "component": self.tensor.component,
            "name": self.tensor.name,
            "finite": self.finite,
            "nan": self.nan,
            "inf": self.inf,
            "zeros": self.zeros,
            **{name: None if value is None else float_json(value) for name, value in numbers.items()},
            "histogram": None if self.histogram is None else self.histogram.to_json(),
        }


def tensor_stats(
    file: TensorFile, tensors: Sequence[TensorInfo], progress: Report | None = None
) -> tuple[TensorStats, ...]:
    """Return statistics of tensors of an open file, in the given order. Those without numbers are left out.

    Args:
        file: The file.
        tensors: Which of its tensors.
        progress: Takes how far the reading is.

    Raises:
        CkptfmtError: A tensor cannot be read, or is damaged.
    """
    chosen = [tensor for tensor in tensors if has_numbers(tensor.dtype)]
    meter = Meter(file.path, sum(tensor.nbytes for tensor in chosen), progress)
    sums = [_Sums() for _ in chosen]
    for looks in in_order(_look_at_all, _batches(_chunks(file, chosen))):
        for number, nbytes, blocks in looks:
            for block in blocks:
                sums[number].add(block)
            meter.advance(nbytes)
    return tuple(total.stats(tensor) for total, tensor in zip(sums, chosen, strict=True))


class _Item(NamedTuple):
    """A chunk of one of the tensors, which is this long at most."""

    number: int
    chunk: Chunk
    dtype: str
    most_bytes: int


def _chunks(file: TensorFile, tensors: Sequence[TensorInfo]) -> Iterator[_Item]:
    for number, tensor in enumerate(tensors):
        for chunk in file.parts[tensor.component].chunks(tensor.name):
            yield _Item(number, chunk, tensor.dtype, min(tensor.nbytes, CHUNK_BYTES))


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Join small chunks: to hand each of them from thread to thread would take longer than to look at it."""
    batch: list[_Item] = []
    nbytes = 0
    for item in items:
        if batch and (nbytes + item.most_bytes > CHUNK_BYTES or len(batch) == _MOST_IN_BATCH):
            yield batch
            batch, nbytes = [], 0
        batch.append(item)
        nbytes += item.most_bytes
    if batch:
        yield batch


@dataclass(frozen=True)
class _Block:
    """What is known of some elements; of the finite ones from `count` on."""

    nan: int
    inf: int
    zeros: int
    count: int
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    fine: _Array | None = None


def _look_at_all(batch: Sequence[_Item]) -> list[tuple[int, int, list[_Block]]]:
    return [_look(item) for item in batch]


def _look(item: _Item) -> tuple[int, int, list[_Block]]:
    data = item.chunk()
    array = array_of(data, item.dtype)
    blocks = [_block(array[start : start + _BLOCK_ELEMENTS]) for start in range(0, array.size, _BLOCK_ELEMENTS)]
    return item.number, len(data), blocks


def _block(values: _Array) -> _Block:
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
        return _Block(nan, inf, zeros, 0)
    low, high = float(wide.min()), float(wide.max())
    with np.errstate(all="ignore"):  # the squares of the largest doubles are infinite
        mean = float(wide.mean())
        squares = float(np.square(wide - mean).sum())
    return _Block(nan, inf, zeros, count, low, high, mean, squares, _spread(wide, low, high))


def _spread(values: _Array, low: float, high: float) -> _Array:
    """Return how many values are in each of the fine bins from `low` to `high`."""
    span = high / 2 - low / 2  # halves: the span of two doubles can be more than a double holds
    if not span > 0:
        fine = np.zeros(_FINE_BINS, np.int64)
        fine[0] = values.size
        return fine
    places = ((values / 2 - low / 2) / span * _FINE_BINS).astype(np.intp)
    return np.bincount(np.minimum(places, _FINE_BINS - 1), minlength=_FINE_BINS)


class _Sums:
    """What is known of one tensor so far."""

    def __init__(self) -> None:
        self._nan = self._inf = self._zeros = self._count = 0
        self._mean = self._squares = 0.0
        self._blocks: list[_Block] = []

    def add(self, block: _Block) -> None:
        """Add a block: counts add up, mean and squares as in Chan, Golub and LeVeque (1979)."""
        self._nan += block.nan
        self._inf += block.inf
        self._zeros += block.zeros
        if not block.count:
            return
        total = self._count + block.count
        apart = block.mean - self._mean
        self._mean += apart * (block.count / total)
        self._squares += block.squares
        if self._count:  # the square of the largest doubles is infinite, and would not be nothing times nothing
            self._squares += apart * apart * self._count * (block.count / total)
        self._count = total
        self._blocks.append(block)

    def stats(self, tensor: TensorInfo) -> TensorStats:
        """Return the statistics of the tensor."""
        counts = (self._count, self._nan, self._inf, self._zeros)
        if not self._count:
            return TensorStats(tensor, *counts, None, None, None, None, None)
        low = min(block.low for block in self._blocks)
        high = max(block.high for block in self._blocks)
        std = math.sqrt(self._squares / self._count) if self._squares >= 0 else math.nan
        return TensorStats(tensor, *counts, low, high, self._mean, std, self._histogram(low, high))

    def _histogram(self, low: float, high: float) -> Histogram:
        if len(self._blocks) == 1:  # its bins have the range of all
            counts = _fine_of(self._blocks[0]).reshape(BINS, -1).sum(axis=1)
            return Histogram(low, high, tuple(counts.tolist()))
        span = high / 2 - low / 2
        counts = np.zeros(BINS, np.int64)
        for block in self._blocks:
            step = (block.high / 2 - block.low / 2) / _FINE_BINS
            centres = block.low / 2 + step * (np.arange(_FINE_BINS) + 0.5)
            places = (centres - low / 2) / span * BINS if span > 0 else np.zeros(_FINE_BINS)
            np.add.at(counts, np.clip(places.astype(np.intp), 0, BINS - 1), _fine_of(block))
        return Histogram(low, high, tuple(counts.tolist()))


def _fine_of(block: _Block) -> _Array:
    assert block.fine is not None  # it has finite elements
    return block.fine
