"""Any file of tensors as the plan of a native checkpoint: read chunk by chunk while it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ckptfmt._core.container.planning import ByteSource, MemberPlan, SavePlan, fixed_part
from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.dtypes import COMPLEX_PARTS, DTYPES
from ckptfmt._core.format.index import MSGPACK, SAFETENSORS, Metadata
from ckptfmt._core.format.packing import TensorRef, Typed, encode
from ckptfmt._core.format.planes import WHOLE
from ckptfmt._core.format.tensors import Header, plan_header
from ckptfmt._core.interop.base import ComponentSource, MemberInfo, TensorFile
from ckptfmt.errors import FormatError, StateError

__all__ = ["plan_rewrite", "tensor_bytes"]

_FLAT = object()

Advance = Callable[[int], None]
"""Takes how many more bytes of tensors were read."""


def plan_rewrite(file: TensorFile, metadata: Metadata, *, codec: str, advance: Advance) -> SavePlan:
    """Return the plan of a checkpoint with the content of a file.

    The pieces of the plan are to be read in their order, each once, as the writer does.

    Args:
        file: The file. It has to stay open until all is written.
        metadata: Facts for the index.
        codec: Codec of all components.
        advance: Called after each piece of work.

    Raises:
        StateError: The file holds something that cannot be expressed.
    """
    members = [member for part in file.components.values() for member in _members(part, codec, advance)]
    members += [_opaque(file, member) for member in file.opaque]
    return SavePlan(tuple(file.components), tuple(members), metadata)


def _opaque(file: TensorFile, member: MemberInfo) -> MemberPlan:
    """Return the plan of a member that belongs to no component: it is kept as it is (spec 6.5)."""
    pieces = [ByteSource(nbytes, WHOLE, chunk) for nbytes, chunk in file.opaque_chunks(member.name)]
    return MemberPlan(member.name, member.codec, None, pieces)


def tensor_bytes(tensor: TensorSource, place: str, advance: Advance) -> list[ByteSource]:
    """Return the data of a tensor in pieces of the length of a chunk, to be read in order, each once.

    Args:
        tensor: The tensor.
        place: What errors call it.
        advance: Takes how many more bytes were read.
    """
    split = DTYPES[tensor.dtype].split if tensor.dtype in DTYPES else WHOLE
    total = tensor.nbytes
    stream = _Stream(tensor, place, advance)
    if 0 < total <= CHUNK_BYTES:  # most are, and there may be many of them
        return [ByteSource(total, split, stream.taking(total))]
    sizes = (min(CHUNK_BYTES, total - start) for start in range(0, total, CHUNK_BYTES))
    return [ByteSource(nbytes, split, stream.taking(nbytes)) for nbytes in sizes]


class _Stream:
    """The chunks of a tensor, begun when the first one is asked for."""

    def __init__(self, tensor: TensorSource, place: str, advance: Advance) -> None:
        self._tensor = tensor
        self._place = place
        self._advance = advance
        self._chunks: Iterator[ReadChunk] | None = None
        self._missing = tensor.nbytes

    def taking(self, nbytes: int) -> Callable[[], BytesLike]:
        """Return what reads the next chunk, which has to be of this length."""

        def read() -> BytesLike:
            if self._chunks is None:
                self._chunks = self._tensor.chunks()
            chunk = next(self._chunks, None)
            data = b"" if chunk is None else chunk()
            self._missing -= nbytes
            too_long = False
            if not self._missing:
                # Whoever yields the last chunk holds it, and finds what is wrong with the end of its data.
                too_long = next(self._chunks, None) is not None
                self._chunks = None
            if memoryview(data).nbytes != nbytes or too_long:
                raise StateError(self._place, "its data are not of the length of its shape")
            self._advance(nbytes)
            return data

        return read


def _members(part: ComponentSource, codec: str, advance: Advance) -> Iterator[MemberPlan]:
    tree, dtypes = _expressed(part)
    if tree is not _FLAT:
        yield MemberPlan(part.name + MSGPACK, codec, None, [fixed_part(encode(tree))])
    if not part.tensors:
        return
    header = _header(part, dtypes)
    pieces = [fixed_part(header.block())]
    for tensor in header.by_offset():
        pieces += tensor_bytes(part.tensors[tensor.name], f"{part.shown_name}.{tensor.name}", advance)
    yield MemberPlan(part.name + SAFETENSORS, codec, header, pieces)


_Dtypes = Mapping[str, tuple[str, tuple[int, ...]]]


def _expressed(part: ComponentSource) -> tuple[object, _Dtypes]:
    """Return the tree of a component, `_FLAT` if it is to be flat, and its tensors' dtypes and shapes as stored.

    Arrays of complex128 stand in `.npz` files; a native component has a tree for them (spec 11.6).

    Raises:
        StateError: A dtype has no expression.
    """
    dtypes = {}
    for name, tensor in part.tensors.items():
        dtype, shape = tensor.dtype, tensor.shape
        if dtype in COMPLEX_PARTS:
            dtype, shape = COMPLEX_PARTS[dtype], (*shape, 2)
        elif dtype not in DTYPES:
            raise StateError(f"{part.shown_name}.{name}", f"an array of dtype {dtype}", "convert it to numbers first")
        dtypes[name] = dtype, shape
    if not part.flat:
        return part.tree(), dtypes
    if not part.tensors:
        return {}, dtypes
    if all(tensor.dtype in DTYPES for tensor in part.tensors.values()):
        return _FLAT, dtypes
    tree = {
        name: Typed(tensor.dtype, TensorRef(name)) if tensor.dtype in COMPLEX_PARTS else TensorRef(name)
        for name, tensor in part.tensors.items()
    }
    return tree, dtypes


def _header(part: ComponentSource, dtypes: _Dtypes) -> Header:
    try:
        return plan_header(((name, *facts) for name, facts in dtypes.items()), _fitting(part.text_metadata))
    except FormatError as error:
        raise StateError(part.shown_name, str(error)) from error


def _fitting(text: Mapping[str, str]) -> dict[str, str] | None:
    return dict(text) or None
