"""Reading chunks: ranged reads, both digests and the codec, on worker threads (spec 7.2, 7.4, 8).

Each worker reuses buffers of its own, which no other thread can reach. Their content is verified there and then copied
to its destination once.

Uncompressed chunks that are not small are read straight into their destination and verified in place: a copy would take
as long as reading them from the page cache. This is sound because each job runs once (`system.workers`), the read of a
piece has ended when its bytes are hashed, and no two jobs share memory, so nothing writes there again. The caller of
`fetch` keeps others away from the memory until it returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ckptfmt._core.format.chunks import CHUNK_BYTES, Chunk, Segment
from ckptfmt._core.format.codec import decode_chunk
from ckptfmt._core.format.digest import DIGEST_BYTES, digest, digest_stream
from ckptfmt._core.format.index import CODECS, Member
from ckptfmt._core.format.planes import copy_bytes
from ckptfmt._core.storage import Source
from ckptfmt._core.system.workers import CORES, Workers
from ckptfmt.errors import FormatError, Problem, error_for

__all__ = ["NewBuffer", "ReadRequest", "ReadTarget", "fetch", "new_buffer", "read_chunk"]

ReadTarget = memoryview | Callable[[int, memoryview], None] | None
"""Where the bytes of a segment go: memory of its length; a function, called from any thread with the offset in the
segment and the bytes of each verified piece; or nowhere, if they only need verification."""

NewBuffer = Callable[[int], memoryview]
"""Makes the buffer of a worker, given its length in bytes."""

_READERS = CORES + 1  # one waits for the disk while the others hash; more wait for a network
_JOINED_BYTES = 1 << 20
_MAX_SEGMENTS = 4096
_SMALL_BYTES = 64 << 10
_CACHED_PIECE_BYTES = 1 << 20

_TRUTH_VALUES = bytes([0]) + bytes([1]) * 255


class ReadRequest(NamedTuple):
    """A segment to be read and verified.

    Attributes:
        member: The member it belongs to.
        segment: The segment.
        target: Where its logical bytes go.
    """

    member: Member
    segment: Segment
    target: ReadTarget = None


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring segments of one member, about a MiB together, or a chunk of one; one read brings them all.

    Attributes:
        member: The member.
        segments: Each of one chunk.
        targets: For each segment, where its bytes go.
        nbytes: Length of all of them.
    """

    member: Member
    segments: list[Segment]
    targets: list[ReadTarget]
    nbytes: int


def new_buffer(nbytes: int) -> memoryview:
    """Return ordinary memory for a worker."""
    return memoryview(bytearray(nbytes))


def normalize_truth_values(memory: memoryview) -> None:
    """Put 1 in place of every byte that is not 0: the libraries of arrays know no other true (9.8)."""
    for start in range(0, len(memory), CHUNK_BYTES):
        piece = memory[start : start + CHUNK_BYTES]
        piece[:] = bytes(piece).translate(_TRUTH_VALUES)


def fetch(
    source: Source,
    requests: Iterable[ReadRequest],
    *,
    problems: list[Problem] | None = None,
    progress: Callable[[int], None] | None = None,
    make_buffer: NewBuffer = new_buffer,
) -> None:
    """Read and verify segments, which have to be in file order.

    A function is never given damaged bytes. Memory may hold some: use it only if there are no problems. When this
    returns or raises, nothing writes any more.

    Args:
        source: The file.
        requests: What to read. No two of them may have memory in common.
        problems: Takes what is wrong, so that the rest is still read; without it, the first problem raises.
        progress: Called on the caller's thread with the number of logical bytes done since its last call.
        make_buffer: Makes the memory that functions among the `requests` are given views of.

    Raises:
        IntegrityError: A digest does not match.
        FormatError: A stored chunk is not what its codec makes.
        UnsupportedVersionError: The codec is unknown.
        StorageError: The file cannot be read.
    """
    reader = _Reader(source, make_buffer)
    jobs = (partial(reader.run, group) for group in _groups(requests))
    with Workers(max(_READERS, source.connections), "ckptfmt-read") as workers:
        for done in workers.in_order(jobs):
            if done.problems and problems is None:
                raise error_for(done.problems)
            if problems is not None:
                problems.extend(done.problems)
            if progress is not None:
                progress(done.nbytes)


def read_chunk(source: Source, member: Member, chunk: Chunk) -> bytearray:
    """Return the verified data of one chunk, read on the caller's thread.

    Raises:
        CkptfmtError: As `fetch` does.
    """
    data = bytearray(chunk.nbytes)
    problems = _Reader(source, new_buffer).run(_Group(member, [chunk.alone()], [memoryview(data)], len(data))).problems
    if problems:
        raise error_for(problems)
    return data


def _groups(requests: Iterable[ReadRequest]) -> Iterator[_Group]:
    """Cut large segments into chunks, and join neighbouring small ones, so that they share one read."""
    member: Member | None = None
    segments: list[Segment] = []
    targets: list[ReadTarget] = []
    nbytes = following = 0
    for request in requests:
        segment = request.segment
        size = segment.nbytes
        if not size:
            continue
        joins = request.member is member and segment.first_chunk == following
        if segments and not (joins and nbytes + size <= _JOINED_BYTES and len(segments) < _MAX_SEGMENTS):
            assert member is not None  # there are segments of it
            yield _Group(member, segments, targets, nbytes)
            segments, targets, nbytes = [], [], 0
        member = request.member
        if size > CHUNK_BYTES or (size > _SMALL_BYTES and not callable(request.target)):
            yield from _chunks(request)
            following = -1
            continue
        segments.append(segment)
        targets.append(request.target)
        nbytes += size
        following = segment.first_chunk + 1
    if segments:
        assert member is not None  # there are segments of it
        yield _Group(member, segments, targets, nbytes)


def _chunks(request: ReadRequest) -> Iterator[_Group]:
    member, segment, target = request
    for chunk in segment.chunks():
        start = chunk.offset - segment.offset
        part: ReadTarget = target
        if isinstance(target, memoryview):
            part = target[start : start + chunk.nbytes]
        elif target is not None:
            part = partial(_at, target, start)
        yield _Group(member, [chunk.alone()], [part], chunk.nbytes)


def _at(target: Callable[[int, memoryview], None], start: int, begin: int, data: memoryview) -> None:
    target(start + begin, data)


def _stored_range(group: _Group) -> tuple[int, int]:
    """Return place and length of what is stored of a group."""
    member, first, last = group.member, group.segments[0], group.segments[-1]
    if member.stored_chunk_bytes is None:
        return member.offset + first.offset, group.nbytes
    start = member.stored_offsets[first.first_chunk]
    end = member.stored_offsets[last.first_chunk] + member.stored_chunk_bytes[last.first_chunk]
    return member.offset + start, end - start


class _Done(NamedTuple):
    """A group that was read.

    Attributes:
        nbytes: Its logical length.
        problems: What is wrong with it.
    """

    nbytes: int
    problems: list[Problem]


class _Reader:
    """Reads groups, in any number of threads."""

    def __init__(self, source: Source, make_buffer: NewBuffer) -> None:
        self._source = source
        self._make_buffer = make_buffer
        self._local = threading.local()
        self._cached = True  # as far as is known; any thread may find that it is not

    def run(self, group: _Group) -> _Done:
        """Read, verify and deliver the segments of a group."""
        return _Done(group.nbytes, self._read_group(group))

    def _read_group(self, group: _Group) -> list[Problem]:
        member = group.member
        if member.codec not in CODECS:
            message = f"codec {member.codec!r} is unknown to this reader; a newer ckptfmt reads it"
            return [Problem("codec-unknown", message, member=member.name)]
        return self._plain(group) if member.codec == "none" else self._decoded(group)

    def _plain(self, group: _Group) -> list[Problem]:
        member, segments, targets = group.member, group.segments, group.targets
        only, target = segments[0], targets[0]
        if len(segments) == 1 and not callable(target):
            pieces = self._pieces(member.offset + only.offset, only.nbytes, target)
            return _check(member, only, digest_stream(pieces))
        data = self._read(*_stored_range(group))
        digests = []
        begin = 0
        for segment in segments:
            end = begin + segment.nbytes
            digests.append(digest(data[begin:end]))
            begin = end
        sound = b"".join(digests) == member.digests_of(only.first_chunk, len(segments))
        problems: list[Problem] = []
        begin = 0
        for segment, target, found in zip(segments, targets, digests, strict=True):
            end = begin + segment.nbytes
            if not sound and (faults := _check(member, segment, found)):
                problems += faults
            elif target is not None:
                _deliver(data[begin:end], target)
            begin = end
        return problems

    def _decoded(self, group: _Group) -> list[Problem]:
        """Read, check, decode and check again the chunks of a member with a codec."""
        member = group.member
        sizes, digests = member.stored_chunk_bytes or (), member.stored_digests or b""
        place, nbytes = _stored_range(group)
        start = place - member.offset
        data = self._read(place, nbytes)
        problems: list[Problem] = []
        for segment, target in zip(group.segments, group.targets, strict=True):
            number, tensor = segment.first_chunk, segment.tensor
            begin = member.stored_offsets[number] - start
            stored = bytes(data[begin : begin + sizes[number]])
            if digest(stored) != digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
                offset = member.offset + start + begin
                message = f"{len(stored)} stored bytes are not what was written"
                problems.append(Problem("stored-digest", message, member=member.name, tensor=tensor, offset=offset))
                continue
            logical = self._buffer("decoded", segment.nbytes)
            try:
                decode_chunk(stored, logical, segment.split, member=member.name, tensor=tensor)
            except FormatError as error:
                problems += error.problems
                continue
            found = _check(member, segment, digest(logical))
            problems += found
            if not found:
                _deliver(logical, target)
        return problems

    def _pieces(self, offset: int, nbytes: int, memory: memoryview | None) -> Iterator[memoryview]:
        """Read bytes into memory, and yield each piece once it is there; without memory, it stays until the next one.

        Where the system has the file in memory, pieces are small: they are still in the processor's cache when they are
        hashed. A disk is asked for everything at once.
        """
        done = 0
        while done < nbytes:
            count = min(_CACHED_PIECE_BYTES if self._cached else nbytes, nbytes - done)
            piece = self._buffer("stored", count) if memory is None else memory[done : done + count]
            if self._cached:
                count = self._source.read_cached(offset + done, piece)
                if count < len(piece):
                    self._cached = False
            else:
                self._source.read_into(offset + done, piece)
            yield piece[:count]
            done += count

    def _read(self, offset: int, nbytes: int) -> memoryview:
        data = self._buffer("stored", nbytes)
        self._source.read_into(offset, data)
        return data

    def _buffer(self, use: str, nbytes: int) -> memoryview:
        """Return memory of this thread, which keeps its content until the next call for the same use."""
        buffer: memoryview | None = getattr(self._local, use, None)
        if buffer is None or len(buffer) < nbytes:
            grown = 0 if buffer is None else 2 * len(buffer)
            buffer = self._make_buffer(max(nbytes, min(grown, CHUNK_BYTES)))
            setattr(self._local, use, buffer)
        return buffer[:nbytes]


def _deliver(data: memoryview, target: ReadTarget) -> None:
    """Bring verified bytes to their place."""
    if callable(target):
        target(0, data)
    elif target is not None and len(data) > _SMALL_BYTES:
        copy_bytes(data, target)
    elif target is not None:
        target[:] = data


def _check(member: Member, segment: Segment, found: bytes) -> list[Problem]:
    """Return the problem of a chunk whose logical bytes have another digest than the index says (7.2)."""
    if found == member.digests_of(segment.first_chunk, 1):
        return []
    offset = member.offset + segment.offset if member.codec == "none" else None
    message = f"{segment.nbytes} bytes are not what was written"
    return [Problem("chunk-digest", message, member=member.name, tensor=segment.tensor, offset=offset)]
