"""Tensors as views of storages, read chunk by chunk in C order and little-endian, whatever lies in the file."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource, at_hand
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.pth.data.dtypes import ElementType
from ckptfmt._core.pth.data.storages import StorageData
from ckptfmt._core.pth.limits import MAX_DIMENSIONS
from ckptfmt.errors import ForeignFileError

__all__ = ["BLOCK_BYTES", "PthTensor", "Storage", "TensorView", "c_strides", "tensor_leaf", "view_of"]

_GATHERED_BYTES = 8 << 20
"""How much of a storage is read at a time to put elements into order."""
BLOCK_BYTES = 16 << 20
"""How much of a tensor is put together at a time, of elements that lie far apart."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A storage of the file.

    Attributes:
        key: What the file calls it.
        data: Its bytes.
        kind: Type of its elements; `uint8` if the storage itself does not say.
        swapped: Whether it is big-endian.
    """

    key: str
    data: StorageData
    kind: ElementType
    swapped: bool = False


@dataclass(frozen=True, eq=False)
class TensorView:
    """Elements of a storage.

    Attributes:
        storage: The storage.
        kind: Type of the elements.
        offset: Of the first element, in elements.
        shape: Sizes of the dimensions.
        strides: Distances of neighbours in each dimension, in elements.
        conjugated: Whether the imaginary parts are to be negated.
        negated: Whether all numbers are to be negated.
    """

    storage: Storage
    kind: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False

    @property
    def nbytes(self) -> int:
        """Length of its elements in bytes."""
        return math.prod(self.shape) * self.kind.nbytes

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie in C order without holes."""
        if 0 in self.shape:
            return True
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1:
                if stride != expected:
                    return False
                expected *= size
        return True

    @property
    def identity(self) -> tuple[object, ...]:
        """What is equal for two views of the same elements."""
        facts = (self.kind.name, self.offset, self.shape, self.strides, self.conjugated, self.negated)
        return (id(self.storage.data), *facts)

    def chunks(self) -> Iterator[BytesLike]:
        """Yield the elements' bytes in C order, little-endian, cut every `CHUNK_BYTES`.

        Raises:
            ForeignFileError: The storage is damaged.
            StorageError: The file cannot be read.
        """
        pieces = self._ranges() if self.contiguous else _cut(self._gathered(self.offset, self.shape, self.strides))
        if self._needs_work:
            from ckptfmt._core.pth.data.gathering import finish_numbers

            word = self.kind.word_bytes
            for piece in pieces:
                yield finish_numbers(
                    piece,
                    word=word,
                    swapped=self.storage.swapped,
                    kind=self.kind.name,
                    conjugated=self.conjugated,
                    negated=self.negated,
                )
        else:
            yield from pieces

    @property
    def _needs_work(self) -> bool:
        return (self.storage.swapped and self.kind.word_bytes > 1) or self.conjugated or self.negated

    def _ranges(self) -> Iterator[BytesLike]:
        begin = self.offset * self.kind.nbytes
        for start in range(0, self.nbytes, CHUNK_BYTES):
            yield self.storage.data.read(begin + start, min(CHUNK_BYTES, self.nbytes - start))

    def _gathered(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Iterator[BytesLike]:
        """Yield the elements in C order, in pieces of any length.

        Rows of the first dimension are taken together as long as what lies between them is short. Where every row
        reaches across nearly all of the others, as in a transposed matrix, some are put together from many reads.
        """
        from ckptfmt._core.pth.data.gathering import gather, gather_block

        nbytes = self.kind.nbytes
        inner = _span(shape[1:], strides[1:])
        whole = _span(shape, strides)
        rows = max(1, (_GATHERED_BYTES // nbytes - inner) // strides[0] + 1) if strides[0] else shape[0]
        if whole * nbytes <= _GATHERED_BYTES:
            data = self.storage.data.read(offset * nbytes, whole * nbytes)
            yield from gather(data, nbytes, shape, strides, _GATHERED_BYTES)
        elif inner * shape[0] > 4 * whole and math.prod(shape[1:]) * nbytes <= BLOCK_BYTES:
            rows = max(1, BLOCK_BYTES // (math.prod(shape[1:]) * nbytes))
            for row in range(0, shape[0], rows):
                some = (min(rows, shape[0] - row), *shape[1:])
                yield gather_block(self.storage.data.read, nbytes, offset + row * strides[0], some, strides)
        elif inner * nbytes > _GATHERED_BYTES:
            for row in range(shape[0]):
                yield from self._gathered(offset + row * strides[0], shape[1:], strides[1:])
        else:
            for row in range(0, shape[0], rows):
                some = (min(rows, shape[0] - row), *shape[1:])
                span = _span(some, strides) * nbytes
                data = self.storage.data.read((offset + row * strides[0]) * nbytes, span)
                yield from gather(data, nbytes, some, strides, _GATHERED_BYTES)


@dataclass(slots=True, eq=False)
class PthTensor(TensorSource):
    """A tensor of a file of PyTorch.

    Attributes:
        view: Where its elements are.
    """

    view: TensorView

    @property
    def alias(self) -> Hashable:
        """See `TensorSource.alias`."""
        return self.view.identity if math.prod(self.shape) else self

    def chunks(self) -> Iterator[ReadChunk]:
        """See `TensorSource.chunks`."""
        return map(at_hand, self.view.chunks())


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of elements in C order."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def view_of(
    storage: Storage,
    kind: ElementType,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    conjugated: bool = False,
    negated: bool = False,
) -> TensorView:
    """Return a view after checking that it stays inside its storage.

    Raises:
        ForeignFileError: It does not, or its shape or strides are none.
    """
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise ForeignFileError(f"a tensor with {len(shape)} dimensions and {len(strides)} strides")
    if offset < 0 or min(shape, default=0) < 0 or min(strides, default=0) < 0:
        raise ForeignFileError("a tensor with a negative size, stride or offset")
    if math.prod(size for size in shape if size) >= 1 << 59:
        raise ForeignFileError("a tensor of more elements than any memory has")
    end = offset + _span(shape, strides) if math.prod(shape) else 0
    if end * kind.nbytes > storage.data.nbytes:
        raise ForeignFileError(
            f"a tensor reaches to byte {end * kind.nbytes} of its storage {storage.key!a:.80}, "
            f"which has {storage.data.nbytes}"
        )
    return TensorView(storage, kind, offset, shape, strides, conjugated, negated)


def tensor_leaf(view: TensorView) -> PthTensor:
    """Return a view as a leaf of a tree; of a complex type that is expressed by its parts, the parts.

    Numbers that PyTorch packs into one element are elements of their own, in the last dimension.

    Raises:
        ForeignFileError: Its element type cannot be expressed.
    """
    kind = view.kind
    if kind.dtype is None:
        raise ForeignFileError(
            f"a tensor of torch.{kind.name}, which cannot be expressed; convert it with PyTorch first"
        )
    shape = view.shape
    if kind.typed:
        shape = (*shape, 2)
    elif kind.packed > 1:
        shape = (*shape[:-1], kind.packed * (shape[-1] if shape else 1))
    return PthTensor(kind.dtype, shape, view)


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Return how many elements there are from the first to the last one of a view that is not empty."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _cut(pieces: Iterator[BytesLike]) -> Iterator[BytesLike]:
    """Yield pieces of any length as pieces of `CHUNK_BYTES`."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)
