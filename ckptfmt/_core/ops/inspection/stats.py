"""Statistics of the values of tensors: one pass over the data, on all cores, a few chunks in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ckptfmt._core.container.tensor_source import ReadChunk
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.interop.base import TensorFile, TensorInfo
from ckptfmt._core.ops.inspection.arrays import array_of, has_numbers
from ckptfmt._core.ops.inspection.running_stats import BINS, Block, Sums, blocks_of, blocks_of_rows
from ckptfmt._core.ops.progress import Meter, Report
from ckptfmt._core.ops.report_json import float_json
from ckptfmt._core.system.workers import in_order

__all__ = ["BINS", "Histogram", "TensorStats", "tensor_stats"]

_MOST_IN_BATCH = 256  # chunks: some hold their bytes
_BATCH_BYTES = 1 << 20


@dataclass(frozen=True)
class Histogram:
    """Number of values in bins of equal width.

    Counted in one pass: a value near the edge of a bin may be counted in the next bin.

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
    """Statistics of one tensor; of the magnitudes, if it is complex.

    Attributes:
        tensor: The tensor.
        finite: Number of elements that are finite numbers.
        nan: Number of NaNs.
        inf: Number of positive and negative infinities.
        zeros: Number of zeros.
        minimum: Smallest finite element. It and all that follow are None if no element is finite.
        maximum: Largest finite element.
        mean: Mean of the finite elements.
        std: Their standard deviation (of the population, not of a sample).
        histogram: Their histogram.
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
    sums = Sums()
    current = 0
    found: list[TensorStats] = []
    for looks in in_order(_run, _jobs(_batches(_chunks(file, chosen)))):
        for number, nbytes, blocks in looks:
            while current < number:
                found.append(_stats(chosen[current], sums))
                current, sums = current + 1, Sums()
            for block in blocks:
                sums.add(block)
            meter.advance(nbytes)
    for tensor in chosen[current:]:
        found.append(_stats(tensor, sums))
        sums = Sums()
    return tuple(found)


def _stats(tensor: TensorInfo, sums: Sums) -> TensorStats:
    counts = (sums.finite, sums.nan, sums.inf, sums.zeros)
    spread = sums.spread()
    if spread is None:
        return TensorStats(tensor, *counts, None, None, None, None, None)
    return TensorStats(tensor, *counts, spread.low, spread.high, sums.mean, sums.std, Histogram(*spread))


class _Item(NamedTuple):
    """A chunk of one of the tensors, which is this long at most."""

    number: int
    chunk: ReadChunk
    dtype: str
    most_bytes: int


_Looks = list[tuple[int, int, list[Block]]]
"""What was seen: number of the tensor, bytes read of it, their blocks."""


def _chunks(file: TensorFile, tensors: Sequence[TensorInfo]) -> Iterator[_Item]:
    for number, tensor in enumerate(tensors):
        for chunk in file.components[tensor.component].tensors[tensor.name].chunks():
            yield _Item(number, chunk, tensor.dtype, min(tensor.nbytes, CHUNK_BYTES))


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Join small tensors: together, they are looked at in a few steps."""
    batch: list[_Item] = []
    nbytes = 0
    for item in items:
        if batch and (nbytes + item.most_bytes > _BATCH_BYTES or len(batch) == _MOST_IN_BATCH):
            yield batch
            batch, nbytes = [], 0
        batch.append(item)
        nbytes += item.most_bytes
    if batch:
        yield batch


def _jobs(batches: Iterable[list[_Item]]) -> Iterator[Callable[[], _Looks]]:
    """Yield work for other threads. With small tensors they would only wait for each other: those are done here."""
    for batch in batches:
        if len(batch) == 1:
            yield partial(_look, batch[0])
        else:
            yield partial(_given, _look_together(batch))


def _run(job: Callable[[], _Looks]) -> _Looks:
    return job()


def _given(looks: _Looks) -> _Looks:
    return looks


def _look(item: _Item) -> _Looks:
    data = item.chunk()
    return [(item.number, len(data), blocks_of(array_of(data, item.dtype)))]


def _look_together(batch: Sequence[_Item]) -> _Looks:
    """Look at small tensors; those of one dtype and length as the rows of a matrix."""
    data = [item.chunk() for item in batch]
    kinds: dict[tuple[str, int], list[int]] = {}
    for place, item in enumerate(batch):
        kinds.setdefault((item.dtype, len(data[place])), []).append(place)
    blocks: list[list[Block]] = [[] for _ in batch]
    for (dtype, nbytes), places in kinds.items():
        if nbytes:
            matrix = array_of(b"".join([data[place] for place in places]), dtype).reshape(len(places), -1)
            for place, row in zip(places, blocks_of_rows(matrix), strict=True):
                blocks[place] = row
    return [(item.number, len(some), looked) for item, some, looked in zip(batch, data, blocks, strict=True)]
