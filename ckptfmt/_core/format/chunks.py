"""Members cut into segments and chunks; each chunk has a digest of its own (spec 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ckptfmt._core.format.planes import Split

CHUNK_BYTES = 4 << 20  # 7


class Segment(NamedTuple):
    """A run of logical bytes of a member that is cut into chunks from its own start (spec 7).

    Attributes:
        tensor: Name of the tensor whose data this is, or None.
        offset: First byte, counted from the member's start.
        nbytes: Length in bytes; a segment of 0 bytes has no chunk.
        split: How its chunks are split under codec `zstd` (8.3).
        first_chunk: Number of its first chunk within the member.
    """

    tensor: str | None
    offset: int
    nbytes: int
    split: Split
    first_chunk: int

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        return chunks_in(self.nbytes)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks in order."""
        for number in range(self.chunk_count):
            start = number * CHUNK_BYTES
            nbytes = min(CHUNK_BYTES, self.nbytes - start)
            yield Chunk(self.first_chunk + number, self.offset + start, nbytes, self)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a segment with a digest of its own.

    Attributes:
        number: Its position among the member's chunks.
        offset: First logical byte, counted from the member's start.
        nbytes: Logical length in bytes, 1 to 4 MiB.
        segment: The segment it belongs to.
    """

    number: int
    offset: int
    nbytes: int
    segment: Segment

    def alone(self) -> Segment:
        """Return the segment that is this chunk and nothing else."""
        return self.segment._replace(offset=self.offset, nbytes=self.nbytes, first_chunk=self.number)


def plan_segments(parts: Iterable[tuple[str | None, int, Split]]) -> tuple[Segment, ...]:
    """Return the segments of a member, from (tensor name or None, length in bytes, split) in file order."""
    segments: list[Segment] = []
    offset = chunk = 0
    for tensor, nbytes, split in parts:
        segments.append(Segment(tensor, offset, nbytes, split, chunk))
        offset += nbytes
        chunk += 1 if 0 < nbytes <= CHUNK_BYTES else chunks_in(nbytes)
    return tuple(segments)


def chunks_in(nbytes: int) -> int:
    """Return the number of chunks of a segment of this length."""
    return -(-nbytes // CHUNK_BYTES)
