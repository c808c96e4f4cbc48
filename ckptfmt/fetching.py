"""Reading chunks: ranged reads, both digests and the codec, on worker threads (spec 7.2, 7.4, 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ckptfmt.errors import FormatError, Problem, error_for
from ckptfmt.format.codec import decode_chunk
from ckptfmt.format.digest import CHUNK_BYTES, DIGEST_BYTES, BytesLike, Chunk, Segment, digest
from ckptfmt.format.index import CODECS, Member
from ckptfmt.storage import Source
from ckptfmt.workers import CORES


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk to be read and verified.

    Attributes:
        member: The member it belongs to.
        chunk: The chunk.
        into: Where its logical bytes go; None if they are only verified.
    """

    member: Member
    chunk: Chunk
    into: memoryview | None


def pieces_of(member: Member, segment: Segment, into: memoryview | None) -> Iterator[Piece]:
    """Yield the pieces of one segment; `into` takes the whole segment."""
    for chunk in segment.chunks():
        start = chunk.offset - segment.offset
        yield Piece(member, chunk, None if into is None else into[start : start + chunk.nbytes])


def fetch(
    source: Source,
    pieces: Iterable[Piece],
    *,
    problems: list[Problem] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Read and verify pieces, which have to be in file order.

    Args:
        source: The file.
        pieces: What to read.
        problems: Takes what is wrong, so that the rest is still read; without it, the first problem raises.
        progress: Called on the caller's thread with the number of logical bytes done since its last call.

    Raises:
        IntegrityError: A digest does not match.
        FormatError: A stored chunk is not what its codec makes.
        UnsupportedVersionError: The codec is unknown.
        StorageError: The file cannot be read.
    """
    groups = list(_group(pieces))

    def run(group: list[Piece]) -> tuple[int, list[Problem]]:
        return sum(piece.chunk.nbytes for piece in group), _fetch_group(source, group)

    def settle(nbytes: int, found: list[Problem]) -> None:
        if found and problems is None:
            raise error_for(found)
        if problems is not None:
            problems.extend(found)
        if progress is not None:
            progress(nbytes)

    if len(groups) == 1:
        settle(*run(groups[0]))
        return
    with ThreadPoolExecutor(CORES, thread_name_prefix="ckptfmt-read") as pool:
        try:
            for result in pool.map(run, groups):
                settle(*result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _group(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Join neighbours of one member into groups of about a chunk, so that small tensors share one read."""
    group: list[Piece] = []
    nbytes = 0
    for piece in pieces:
        if group and (
            piece.member is not group[-1].member
            or piece.chunk.number != group[-1].chunk.number + 1
            or nbytes + piece.chunk.nbytes > CHUNK_BYTES
        ):
            yield group
            group, nbytes = [], 0
        group.append(piece)
        nbytes += piece.chunk.nbytes
    if group:
        yield group


def _fetch_group(source: Source, group: list[Piece]) -> list[Problem]:
    member = group[0].member
    if member.codec not in CODECS:
        message = f"codec {member.codec!r} is unknown to this reader; a newer ckptfmt reads it"
        return [Problem("codec-unknown", message, member=member.name)]
    first, last = group[0].chunk, group[-1].chunk
    if member.codec != "none":
        return _fetch_stored(source, group)
    if first is last and group[0].into is not None:
        source.read_into(member.offset + first.offset, group[0].into)
        return _check(group[0], group[0].into)
    data = _read(source, member.offset + first.offset, last.offset + last.nbytes - first.offset)
    problems: list[Problem] = []
    for piece in group:
        start = piece.chunk.offset - first.offset
        logical = data[start : start + piece.chunk.nbytes]
        problems += _check(piece, logical)
        if piece.into is not None:
            piece.into[:] = logical
    return problems


def _fetch_stored(source: Source, group: list[Piece]) -> list[Problem]:
    """Read, check, decode and check again the chunks of a member with a codec."""
    member = group[0].member
    sizes, digests = member.stored_chunk_bytes or (), member.stored_digests or b""
    start = member.stored_offsets[group[0].chunk.number]
    last = group[-1].chunk.number
    data = _read(source, member.offset + start, member.stored_offsets[last] + sizes[last] - start)
    problems: list[Problem] = []
    for piece in group:
        number = piece.chunk.number
        begin = member.stored_offsets[number] - start
        stored = data[begin : begin + sizes[number]].tobytes()
        tensor = piece.chunk.segment.tensor
        if digest(stored) != digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
            offset = member.offset + start + begin
            message = f"{len(stored)} stored bytes are not what was written"
            problems.append(Problem("stored-digest", message, member=member.name, tensor=tensor, offset=offset))
            continue
        try:
            planes = piece.chunk.segment.planes
            logical = decode_chunk(stored, piece.chunk.nbytes, planes, member=member.name, tensor=tensor)
        except FormatError as error:
            problems += error.problems
            continue
        problems += _check(piece, logical)
        if piece.into is not None:
            piece.into[:] = logical
    return problems


def _read(source: Source, offset: int, nbytes: int) -> memoryview:
    data = memoryview(bytearray(nbytes))
    source.read_into(offset, data)
    return data


def _check(piece: Piece, logical: BytesLike) -> list[Problem]:
    """Return the problem of a chunk whose logical bytes are not those that the digest speaks of (7.2)."""
    member, chunk = piece.member, piece.chunk
    if digest(logical) == member.chunk_digest(chunk.number):
        return []
    offset = member.offset + chunk.offset if member.codec == "none" else None
    message = f"{chunk.nbytes} bytes are not what was written"
    return [Problem("chunk-digest", message, member=member.name, tensor=chunk.segment.tensor, offset=offset)]
