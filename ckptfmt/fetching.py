"""Reading chunks: ranged reads, both digests and the codec, on worker threads (spec 7.2, 7.4, 8).

Each worker has one buffer, used again and again. What goes to memory that is there already is read straight into it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ckptfmt.errors import FormatError, Problem, error_for
from ckptfmt.format.codec import decode_chunk
from ckptfmt.format.digest import CHUNK_BYTES, DIGEST_BYTES, Segment, digest
from ckptfmt.format.index import CODECS, Member
from ckptfmt.storage import Source
from ckptfmt.workers import CORES, submit

__all__ = ["Into", "NewBuffer", "Want", "fetch", "new_buffer"]

Into = memoryview | Callable[[int, memoryview], None] | None
"""Where the bytes of a segment go: memory of its length; a function that is given each verified piece and its place
in the segment, from any thread; or nowhere, if they are only to be verified."""

NewBuffer = Callable[[int], memoryview]
"""Makes the buffer of a worker, of so many bytes."""

# So that reading goes on while what was read is hashed, and what one file can make us hold has a limit.
_AHEAD_BYTES = 32 << 20
_READERS = CORES + 1  # one waits for the disk while the others hash
_MAX_SEGMENTS = 4096
_SMALL_BYTES = 64 << 10

_TRUTH_VALUES = bytes([0]) + bytes([1]) * 255


class Want(NamedTuple):
    """A segment to be read and verified.

    Attributes:
        member: The member it belongs to.
        segment: The segment.
        into: Where its logical bytes go.
    """

    member: Member
    segment: Segment
    into: Into = None


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring segments of one member, about a chunk together, or a chunk of one; one read brings them all.

    Attributes:
        member: The member.
        segments: Each of one chunk.
        targets: For each segment, where its bytes go.
        nbytes: Length of all of them.
    """

    member: Member
    segments: list[Segment]
    targets: list[Into]
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
    wants: Iterable[Want],
    *,
    problems: list[Problem] | None = None,
    progress: Callable[[int], None] | None = None,
    make_buffer: NewBuffer = new_buffer,
) -> None:
    """Read and verify segments, which have to be in file order.

    What is damaged has been written to its memory all the same when that is known; a function is never given it.

    Args:
        source: The file.
        wants: What to read.
        problems: Takes what is wrong, so that the rest is still read; without it, the first problem raises.
        progress: Called on the caller's thread with the number of logical bytes done since its last call.
        make_buffer: Makes the memory that functions among the `wants` are given views of.

    Raises:
        IntegrityError: A digest does not match.
        FormatError: A stored chunk is not what its codec makes.
        UnsupportedVersionError: The codec is unknown.
        StorageError: The file cannot be read.
    """
    worker = _Worker(source, make_buffer)

    def settle(group: _Group, found: list[Problem]) -> None:
        if found and problems is None:
            raise error_for(found)
        if problems is not None:
            problems.extend(found)
        if progress is not None:
            progress(group.nbytes)

    groups = _groups(wants)
    first = next(groups, None)
    second = next(groups, None)
    if first is None:
        return
    if second is None:
        settle(first, worker.run(first))
        return
    waiting: deque[tuple[_Group, Future[list[Problem]]]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ckptfmt-read") as pool:
        try:
            ahead = 0
            for group in _chain(first, second, groups):
                waiting.append((group, submit(pool, partial(worker.run, group))))
                ahead += group.nbytes
                while ahead > _AHEAD_BYTES or waiting[0][1].done():
                    done, future = waiting.popleft()
                    ahead -= done.nbytes
                    settle(done, future.result())
                    if not waiting:
                        break
            for done, future in waiting:
                settle(done, future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _chain(first: _Group, second: _Group, others: Iterator[_Group]) -> Iterator[_Group]:
    yield first
    yield second
    yield from others


def _groups(wants: Iterable[Want]) -> Iterator[_Group]:
    """Cut large segments into chunks, and join neighbouring small ones, so that they share one read."""
    member: Member | None = None
    segments: list[Segment] = []
    targets: list[Into] = []
    nbytes = following = 0
    for want in wants:
        segment = want.segment
        size = segment.nbytes
        if not size:
            continue
        joins = want.member is member and segment.first_chunk == following
        if segments and not (joins and nbytes + size <= CHUNK_BYTES and len(segments) < _MAX_SEGMENTS):
            assert member is not None  # there are segments of it
            yield _Group(member, segments, targets, nbytes)
            segments, targets, nbytes = [], [], 0
        member = want.member
        if size > CHUNK_BYTES:
            yield from _chunks(want)
            following = -1
            continue
        segments.append(segment)
        targets.append(want.into)
        nbytes += size
        following = segment.first_chunk + 1
    if segments:
        assert member is not None  # there are segments of it
        yield _Group(member, segments, targets, nbytes)


def _chunks(want: Want) -> Iterator[_Group]:
    member, segment, into = want
    for chunk in segment.chunks():
        start = chunk.offset - segment.offset
        part: Into = into
        if isinstance(into, memoryview):
            part = into[start : start + chunk.nbytes]
        elif into is not None:
            part = partial(_at, into, start)
        yield _Group(member, [chunk.alone()], [part], chunk.nbytes)


def _at(into: Callable[[int, memoryview], None], start: int, begin: int, data: memoryview) -> None:
    into(start + begin, data)


def _stored_range(group: _Group) -> tuple[int, int]:
    """Return place and length of what is stored of a group."""
    member, first, last = group.member, group.segments[0], group.segments[-1]
    if member.stored_chunk_bytes is None:
        return member.offset + first.offset, group.nbytes
    start = member.stored_offsets[first.first_chunk]
    end = member.stored_offsets[last.first_chunk] + member.stored_chunk_bytes[last.first_chunk]
    return member.offset + start, end - start


class _Worker:
    """Reads groups, in any number of threads."""

    def __init__(self, source: Source, make_buffer: NewBuffer) -> None:
        self._source = source
        self._make_buffer = make_buffer
        self._local = threading.local()

    def run(self, group: _Group) -> list[Problem]:
        """Read, verify and deliver the segments of a group; return what is wrong with them."""
        member = group.member
        if member.codec not in CODECS:
            message = f"codec {member.codec!r} is unknown to this reader; a newer ckptfmt reads it"
            return [Problem("codec-unknown", message, member=member.name)]
        return self._plain(group) if member.codec == "none" else self._decoded(group)

    def _plain(self, group: _Group) -> list[Problem]:
        member, segments, targets = group.member, group.segments, group.targets
        only, into = segments[0], targets[0]
        if len(segments) == 1 and isinstance(into, memoryview):
            self._source.read_into(member.offset + only.offset, into)
            return _check(member, only, digest(into))
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
        for segment, into, found in zip(segments, targets, digests, strict=True):
            end = begin + segment.nbytes
            faults = [] if sound else _check(member, segment, found)
            problems += faults
            if isinstance(into, memoryview):
                into[:] = data[begin:end]
            elif into is not None and not faults:
                into(0, data[begin:end])
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
        for segment, into in zip(group.segments, group.targets, strict=True):
            number, tensor = segment.first_chunk, segment.tensor
            begin = member.stored_offsets[number] - start
            stored = bytes(data[begin : begin + sizes[number]])
            if digest(stored) != digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]:
                offset = member.offset + start + begin
                message = f"{len(stored)} stored bytes are not what was written"
                problems.append(Problem("stored-digest", message, member=member.name, tensor=tensor, offset=offset))
                continue
            try:
                logical = into if isinstance(into, memoryview) else memoryview(bytearray(segment.nbytes))
                decode_chunk(stored, logical, segment.split, member=member.name, tensor=tensor)
            except FormatError as error:
                problems += error.problems
                continue
            found = _check(member, segment, digest(logical))
            problems += found
            if into is not None and not isinstance(into, memoryview) and not found:
                into(0, logical)
        return problems

    def _read(self, offset: int, nbytes: int) -> memoryview:
        data = self._buffer(nbytes)[:nbytes]
        self._source.read_into(offset, data)
        return data

    def _buffer(self, nbytes: int) -> memoryview:
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < nbytes:
            wanted = nbytes if nbytes <= _SMALL_BYTES else CHUNK_BYTES  # a small file is not worth a large buffer
            buffer = self._local.buffer = self._make_buffer(max(nbytes, wanted))
        return buffer


def _check(member: Member, segment: Segment, found: bytes) -> list[Problem]:
    """Return the problem of a chunk whose logical bytes have another digest than the index says (7.2)."""
    if found == member.digests_of(segment.first_chunk, 1):
        return []
    offset = member.offset + segment.offset if member.codec == "none" else None
    message = f"{segment.nbytes} bytes are not what was written"
    return [Problem("chunk-digest", message, member=member.name, tensor=segment.tensor, offset=offset)]
