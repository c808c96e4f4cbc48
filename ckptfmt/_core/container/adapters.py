"""How the tensors and values of a framework go into checkpoints and come out: what each adapter has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.packing import Typed
from ckptfmt.errors import StateError

__all__ = ["Adapter", "Encoder", "TensorLeaf"]


@dataclass(slots=True, eq=False)
class TensorLeaf(ABC):
    """A tensor that was found in a tree and is not copied yet. Each framework has a kind of its own.

    Attributes:
        dtype: Name of the spec's section 9, such as `F32`.
        shape: Sizes of its dimensions.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def alias(self) -> Hashable:
        """What is equal for two leaves that are one tensor: same memory, dtype, shape and strides."""
        return self

    @abstractmethod
    def read(self) -> memoryview:
        """Return its data as a flat view of bytes: C order, little-endian. May copy."""

    def read_copy(self) -> bytes:
        """Return a copy of its data. For small tensors, of which there may be many, it may be quicker than a view."""
        return bytes(self.read())

    def copy_into(self, buffer: memoryview) -> None:
        """Copy its data to memory of the same length.

        It may return before the copy is done, if the framework has its own way to wait for it.

        Raises:
            StateError: The data are of another length.
        """
        data = self.read()
        if len(data) != len(buffer):
            found = f"gives {len(data)} bytes, its dtype and shape make them {len(buffer)}"
            raise StateError(f"a tensor of {self.dtype} {list(self.shape)}", found)
        buffer[:] = data

    def window(self, number: int, nbytes: int) -> BytesLike:
        """Return a sample of its data: the piece of that number, if they are cut into pieces of about this length.

        Numbers go round, so that any number is one of a piece. Tensors of one dtype, shape and strides are cut alike.
        """
        data = self.read()
        start = number % max(1, -(-len(data) // nbytes)) * nbytes
        return data[start : start + nbytes]

    def chunks(self) -> Iterator[BytesLike]:
        """Yield its data cut every `CHUNK_BYTES`."""
        data = self.read()
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]


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
