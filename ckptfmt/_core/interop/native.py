"""Checkpoints of ours as files of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial

from ckptfmt._core.container.chunk_reader import Want, fetch
from ckptfmt._core.container.component import Component
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import Chunk as Piece
from ckptfmt._core.format.chunks import Segment
from ckptfmt._core.format.index import Member
from ckptfmt._core.interop.base import Chunk, MemberInfo, Part, TensorFile, TensorInfo
from ckptfmt._core.storage import AtomicFile, LocalSource
from ckptfmt.errors import FormatError

__all__ = ["OurFile", "OurPart", "open_file", "segment_chunks"]


class OurFile(TensorFile):
    """A checkpoint of ours.

    Attributes:
        checkpoint: The open checkpoint.
    """

    form = "ckptfmt"
    checked = True

    def __init__(self, source: LocalSource) -> None:
        super().__init__(source)
        self.checkpoint = checkpoint = Checkpoint(source)
        self.metadata = checkpoint.metadata
        self.identity = checkpoint.identity
        self.version = checkpoint.version
        self.required_features = checkpoint.index.required_features
        self.opaque = tuple(map(_member_info, checkpoint.opaque_members))
        self.opaque_digests = {member.name: member.digests for member in checkpoint.opaque_members}
        self.parts = {name: OurPart(source, component) for name, component in checkpoint.items()}

    def opaque_chunks(self, member: Member) -> Iterator[tuple[int, Chunk]]:
        """Yield the chunks of a member that belongs to no component, each with its length in bytes."""
        for segment in member.segments:
            lengths = (chunk.nbytes for chunk in segment.chunks())
            yield from zip(lengths, segment_chunks(self._source, member, segment), strict=True)


class OurPart(Part):
    """A component of a checkpoint of ours.

    Attributes:
        component: The component.
    """

    has_digests = True

    def __init__(self, source: LocalSource, component: Component) -> None:
        self._source = source
        self.component = component
        self.name = component.name
        self.codec = component.codec
        self.stored_bytes = component.stored_bytes
        self.logical_bytes = component.logical_bytes
        self.members = tuple(map(_member_info, component.members))
        self.text_metadata = component.text_metadata
        self.tensors = {
            entry.name: TensorInfo(self.name, entry.name, entry.dtype, entry.shape, entry.nbytes)
            for entry in component.tensors.values()
        }

    @property
    def identity(self) -> str:
        """See `Part.identity`."""
        return self.component.identity

    @property
    def flat(self) -> bool:
        """See `Part.flat`."""
        return self.component.flat

    def digest(self, name: str) -> bytes:
        """See `Part.digest`; nothing is read."""
        return self.component.tensor_digests(name)

    def chunks(self, name: str) -> Iterator[Chunk]:
        """See `Part.chunks`; each chunk is verified when it is read."""
        member = self.component.tensor_member
        assert member is not None  # it has a tensor of that name
        return segment_chunks(self._source, member, self._segments[name])

    def copy_to(self, file: AtomicFile, header: bytes) -> bool:
        """See `Part.copy_to`; a member with codec `none` lies like that."""
        member = self.component.tensor_member
        if member is None or member.codec != "none":
            return False
        first = member.segments[0]
        if first.nbytes != len(header):
            return False
        found = b"".join(chunk() for chunk in segment_chunks(self._source, member, first))
        return found == header and file.copy_from(self._source, member.offset, member.logical_bytes)

    @cached_property
    def _segments(self) -> Mapping[str, Segment]:
        member = self.component.tensor_member
        segments = () if member is None else member.segments
        return {segment.tensor: segment for segment in segments if segment.tensor is not None}

    def tree(self) -> object:
        """See `Part.tree`."""
        return None if self.component.flat else self.component.structure()


def segment_chunks(source: LocalSource, member: Member, segment: Segment) -> Iterator[Chunk]:
    """Yield the chunks of a segment of a member (spec section 7); each is verified when it is read."""
    for chunk in segment.chunks():
        yield partial(_read_chunk, source, member, chunk)


def _read_chunk(source: LocalSource, member: Member, chunk: Piece) -> BytesLike:
    data = bytearray(chunk.nbytes)
    try:
        fetch(source, [Want(member, chunk.alone(), memoryview(data))])
    except FormatError as error:
        raise error.at(source.path) from error
    return data


def open_file(source: LocalSource) -> OurFile:
    """Return the checkpoint in `source`.

    Raises:
        FormatError: It is not a valid ckptfmt file, or of a newer version.
        StorageError: It cannot be read.
    """
    return OurFile(source)


def _member_info(member: Member) -> MemberInfo:
    return MemberInfo(
        name=member.name,
        kind=member.kind,
        codec=member.codec,
        offset=member.offset,
        stored_bytes=member.stored_bytes,
        logical_bytes=member.logical_bytes,
    )
