"""A tensor that is not read yet, wherever it is: in memory, in a checkpoint, or in a file of another format."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.tensors import tensor_nbytes
from ckptfmt.errors import StateError

__all__ = ["ReadChunk", "TensorSource", "at_hand"]

ReadChunk = Callable[[], BytesLike]
"""Returns the checked bytes of one chunk; may be called from any thread, once."""


@dataclass(slots=True, eq=False)
class TensorSource(ABC):
    """A tensor that is read when its data are asked for.

    Attributes:
        dtype: Name of the dtype (spec section 9), such as `F32`; in a file of another format that has a dtype
            beyond these, what it is called there.
        shape: Sizes of its dimensions.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Length of its data in bytes."""
        return tensor_nbytes(self.dtype, self.shape) or 0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def alias(self) -> Hashable:
        """What is equal for two sources that are one tensor: same data, dtype, shape and strides."""
        return self

    @abstractmethod
    def chunks(self) -> Iterator[ReadChunk]:
        """Yield the chunks: the data in C order, little-endian, cut every 4 MiB (spec section 7).

        The iterator belongs to one thread; what it yields may be called on others. At most a few of them should be
        held at a time, because some hold their bytes.

        Raises:
            CkptfmtError: The data cannot be read, or are damaged. A chunk raises it, too.
        """

    def read(self) -> BytesLike:
        """Return all data. For small tensors."""
        return b"".join(chunk() for chunk in self.chunks())

    def read_copy(self) -> bytes:
        """Return a copy of all data. For small tensors, of which there may be many."""
        return bytes(self.read())

    def private_map(self) -> memoryview | None:
        """Return all data as memory that the system reads from the file when it is touched, and that may be written.

        None if they do not lie in a file as they are. Whoever touches the memory after the file was made shorter is
        ended by the system: read the file first.
        """
        return None

    def copy_into(self, buffer: memoryview) -> None:
        """Copy the data to memory of the same length.

        It may return before the copy is done, if the framework has its own way to wait for it.

        Raises:
            StateError: The data are of another length.
        """
        position = 0
        for chunk in self.chunks():
            data = chunk()
            self._require_length(position + len(data), len(buffer), whole=False)
            buffer[position : position + len(data)] = data
            position += len(data)
        self._require_length(position, len(buffer))

    def window(self, number: int, nbytes: int) -> BytesLike:
        """Return a sample of its data: the piece of that number, if they are cut into pieces of about this length.

        Numbers go round, so that any number is one of a piece. Tensors of one dtype, shape and strides are cut alike.
        """
        data = memoryview(self.read())
        start = number % max(1, -(-len(data) // nbytes)) * nbytes
        return data[start : start + nbytes]

    def digests(self) -> bytes:
        """Return the digests of the chunks (spec 7.2), one after the other: equal for equal data."""
        return b"".join(digest(chunk()) for chunk in self.chunks())

    def _require_length(self, found: int, expected: int, *, whole: bool = True) -> None:
        if found > expected or (whole and found != expected):
            what = f"gives {found} bytes, its dtype and shape require {expected}"
            raise StateError(f"a tensor of {self.dtype} {list(self.shape)}", what)


def at_hand(data: BytesLike) -> ReadChunk:
    """Return a chunk that is read already."""
    return lambda: data
