"""What the writers of other formats are asked for, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ckptfmt._core.container.tensor_source import ReadChunk
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.interop.dropped import Dropped
from ckptfmt._core.system.workers import in_order
from ckptfmt.errors import StateError

__all__ = ["Exported", "Request"]


@dataclass(frozen=True)
class Request:
    """A request to write some components of an open file.

    Attributes:
        file: The file.
        components: The components.
        target: The file or directory to write.
        alone: Whether the component is to be written by itself, without its name.
        shard_bytes: Most bytes of tensors in one shard.
        advance: Takes how many more bytes of tensors were read.
    """

    file: TensorFile
    components: tuple[ComponentSource, ...]
    target: str
    alone: bool
    shard_bytes: int
    advance: Callable[[int], None]

    def data_of(self, component: ComponentSource, name: str) -> Iterator[BytesLike]:
        """Yield the data of a tensor, piece by piece; those of a long one are read and verified ahead.

        Raises:
            StateError: It does not have the length that its dtype and shape require.
        """
        tensor = component.tensors[name]
        missing, chunks = tensor.nbytes, tensor.chunks()
        for data in in_order(_read, chunks) if missing > CHUNK_BYTES else map(_read, chunks):
            nbytes = memoryview(data).nbytes
            missing -= nbytes
            self.advance(nbytes)
            yield data
        if missing:
            what = "its data does not have the length that its dtype and shape require"
            raise StateError(f"{component.shown_name}.{name}", what)


def _read(chunk: ReadChunk) -> BytesLike:
    return chunk()


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        nbytes: Its length; of a directory, that of all files in it.
        dropped: What was left out, and why.
        notes: What is not as it was, in sentences.
    """

    nbytes: int
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
