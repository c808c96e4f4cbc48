"""How the tensors and values of a framework go into checkpoints and come out: what each adapter has to do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource, at_hand
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.packing import Typed

__all__ = ["Adapter", "Encoder", "TensorLeaf"]


@dataclass(slots=True, eq=False)
class TensorLeaf(TensorSource):
    """A tensor in memory that was found in a tree and is not copied yet. Each framework has a kind of its own."""

    @abstractmethod
    def read(self) -> memoryview:
        """Return its data as a flat view of bytes: C order, little-endian. May copy."""

    def copy_into(self, buffer: memoryview) -> None:
        """See `TensorSource.copy_into`."""
        data = self.read()
        self._require_length(len(data), len(buffer))
        buffer[:] = data

    def chunks(self) -> Iterator[ReadChunk]:
        """See `TensorSource.chunks`."""
        data = self.read()
        for start in range(0, len(data), CHUNK_BYTES):
            yield at_hand(data[start : start + CHUNK_BYTES])


class Encoder(Protocol):
    """How the tensors and values of one framework go into trees."""

    @property
    def marker(self) -> str | None:
        """Name of the typed value that marks its tensors beside those of another framework (11.6); None if none does.

        It returns such a tensor as a `Typed` of this name.
        """

    def encode(self, value: object, path: str) -> object:
        """Return what represents `value` in a tree.

        That is a `TensorLeaf`, a `Typed` whose value is encoded in turn, a plain value, or NotImplemented
        if the type is unknown here.

        Raises:
            StateError: The type is known, and this value of it cannot be expressed.
        """


class Adapter(Encoder, Protocol):
    """How the tensors and values of one framework go in and out."""

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        """Return a new tensor, and its memory as a flat, writable view of bytes.

        Raises:
            UnsupportedVersionError: `tensor-dtype`: the framework has no such dtype.
            FormatError: `tensor-shape`: the framework has no tensor of such a shape.
        """

    def view(self, dtype: str, shape: tuple[int, ...], memory: memoryview) -> Any | None:
        """Return a tensor that is this read-only memory; None if the framework has no such tensors."""

    def decode(self, typed: Typed) -> object:
        """Return the value that `typed` represents, or `typed` itself if its name is unknown here.

        Its value is decoded already: tensors are tensors of this adapter.

        Raises:
            FormatError: `typed-value`: the framework refuses the value.
        """
