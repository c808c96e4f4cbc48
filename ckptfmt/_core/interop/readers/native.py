"""Checkpoints of the native format as files of tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from ckptfmt._core.container.chunk_reader import read_chunk
from ckptfmt._core.container.component import Component
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.tensor_source import ReadChunk, TensorSource
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import Chunk, Segment
from ckptfmt._core.format.index import Member
from ckptfmt._core.interop.base import ComponentSource, MemberInfo, TensorFile, TensorInfo
from ckptfmt._core.storage import Publication, Source
from ckptfmt.errors import FormatError

__all__ = ["NativeFile", "open_file", "segment_chunks"]


class NativeFile(TensorFile):
    """A checkpoint of the native format.

    Attributes:
        checkpoint: The open checkpoint.
    """

    form = "ckptfmt"
    checked = True

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.checkpoint = checkpoint = Checkpoint(source)
        self.metadata = checkpoint.metadata
        self.identity = checkpoint.identity
        self.version = checkpoint.version
        self.required_features = checkpoint.index.required_features
        self.opaque = tuple(map(_member_info, checkpoint.opaque_members))
        self.opaque_digests = {member.name: member.digests for member in checkpoint.opaque_members}
        self._components = {name: _NativeComponent(source, component) for name, component in checkpoint.items()}

    @property
    def components(self) -> Mapping[str, ComponentSource]:
        """See `TensorFile.components`."""
        return self._components

    def opaque_chunks(self, name: str) -> Iterator[tuple[int, ReadChunk]]:
        """See `TensorFile.opaque_chunks`; each chunk is verified when it is read."""
        member = next(member for member in self.checkpoint.opaque_members if member.name == name)
        for segment in member.segments:
            lengths = (chunk.nbytes for chunk in segment.chunks())
            yield from zip(lengths, segment_chunks(self._source, member, segment), strict=True)


class _NativeComponent(ComponentSource):
    """A component of a checkpoint of the native format."""

    has_digests = True

    def __init__(self, source: Source, component: Component) -> None:
        super().__init__(
            component.name,
            {name: _NativeTensor(entry.dtype, entry.shape, self, name) for name, entry in component.tensors.items()},
            codec=component.codec,
            stored_bytes=component.stored_bytes,
            logical_bytes=component.logical_bytes,
            text_metadata=component.text_metadata,
        )
        self.source = source
        self.component = component
        self.members = tuple(map(_member_info, component.members))

    @cached_property
    def tensor_infos(self) -> Mapping[str, TensorInfo]:
        """See `ComponentSource.tensor_infos`; the header has their lengths."""
        return {
            name: TensorInfo(self.name, name, dtype, shape, end - begin)
            for name, dtype, shape, begin, end in self.component.tensors.values()
        }

    @property
    def identity(self) -> str:
        """See `ComponentSource.identity`."""
        return self.component.identity

    @property
    def flat(self) -> bool:
        """See `ComponentSource.flat`."""
        return self.component.flat

    def tree(self) -> object:
        """See `ComponentSource.tree`."""
        return None if self.component.flat else self.component.structure()

    def copy_to(self, file: Publication, header: bytes) -> bool:
        """See `ComponentSource.copy_to`; a member with codec `none` lies like that."""
        member = self.component.tensor_member
        if member is None or member.codec != "none":
            return False
        first = member.segments[0]
        if first.nbytes != len(header):
            return False
        found = b"".join(chunk() for chunk in segment_chunks(self.source, member, first))
        return found == header and file.copy_from(self.source, member.offset, member.logical_bytes)

    @cached_property
    def segments(self) -> Mapping[str, Segment]:
        """Where each of its tensors is."""
        member = self.component.tensor_member
        segments = () if member is None else member.segments
        return {segment.tensor: segment for segment in segments if segment.tensor is not None}


@dataclass(slots=True, eq=False)
class _NativeTensor(TensorSource):
    """A tensor of a checkpoint of the native format."""

    owner: _NativeComponent
    name: str

    def chunks(self) -> Iterator[ReadChunk]:
        """See `TensorSource.chunks`; each chunk is verified when it is read."""
        member = self.owner.component.tensor_member
        assert member is not None  # it has a tensor of that name
        return segment_chunks(self.owner.source, member, self.owner.segments[self.name])

    def digests(self) -> bytes:
        """See `TensorSource.digests`; nothing is read."""
        return self.owner.component.tensor_digests(self.name)


def segment_chunks(source: Source, member: Member, segment: Segment) -> Iterator[ReadChunk]:
    """Yield the chunks of a segment of a member (spec section 7); each is verified when it is read."""
    for chunk in segment.chunks():
        yield partial(_read_chunk, source, member, chunk)


def _read_chunk(source: Source, member: Member, chunk: Chunk) -> BytesLike:
    try:
        return read_chunk(source, member, chunk)
    except FormatError as error:
        raise error.at(source.path) from error


def open_file(source: Source, *, inert: Collection[str] = ()) -> NativeFile:
    """Return the checkpoint in `source`.

    Args:
        source: The file.
        inert: Of no use here: there are no pickles in it.

    Raises:
        FormatError: It is not a valid ckptfmt file, or of a newer version.
        StorageError: It cannot be read.
    """
    del inert
    return NativeFile(source)


def _member_info(member: Member) -> MemberInfo:
    return MemberInfo(
        name=member.name,
        kind=member.kind,
        codec=member.codec,
        offset=member.offset,
        stored_bytes=member.stored_bytes,
        logical_bytes=member.logical_bytes,
    )
