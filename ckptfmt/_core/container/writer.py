"""The writer of checkpoints: front to back, in one pass, and published when complete (spec 15)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from ckptfmt._core.container.planning import ByteSource, MemberPlan, SavePlan, StoredMember, require_valid
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.codec import encode_chunk
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.index import Index, Member, Metadata, encode_index
from ckptfmt._core.format.layout import (
    INDEX_ALIGNMENT,
    MEMBER_ALIGNMENT,
    Trailer,
    align,
    encode_preamble,
    encode_trailer,
    parse_trailer,
)
from ckptfmt._core.format.parsing import validate_members
from ckptfmt._core.format.planes import Split
from ckptfmt._core.storage.base import Guard
from ckptfmt._core.storage.resolve import create
from ckptfmt._core.system.workers import CORES, Workers
from ckptfmt.errors import FormatError, StateError

# Some threads hash while others wait for the disk, which is faster with several writes in flight.
WRITERS = max(2 * CORES, min(8, 4 * CORES))


@dataclass(frozen=True)
class SaveReport:
    """Report of a save.

    Attributes:
        path: The file.
        identity: Its identity, 64 hex digits (12.1).
        file_bytes: Its length in bytes.
        components: Names of the components, in file order.
        per_rank: Paths of the values that differ between ranks, such as `net.avg`. Random states and positions in the
            data differ on every rank and are not listed.
    """

    path: str
    identity: str
    file_bytes: int
    components: tuple[str, ...]
    per_rank: tuple[str, ...] = ()


class WrittenFile(NamedTuple):
    """A file that was written completely.

    Attributes:
        identity: Its identity, 64 hex digits (12.1).
        file_bytes: Its length in bytes.
        facts: Its index.
    """

    identity: str
    file_bytes: int
    facts: Index


class Sink(Protocol):
    """The destination of a checkpoint. Several threads write, each byte once; bytes not written are zero."""

    def write_at(self, offset: int, buffer: BytesLike, /) -> object:
        """Write all of `buffer` at this offset."""


def write_plan(
    path: str | os.PathLike[str],
    plan: SavePlan,
    *,
    replace: bool = True,
    guard: Guard = nullcontext,
    instead: Callable[[Index], SaveReport | None] | None = None,
) -> SaveReport:
    """Write a planned checkpoint, and publish it.

    Args:
        path: The file.
        plan: The plan.
        replace: Replace what is at the path. False: publish beside it (see `storage.base.Store.create`); the report
            says where.
        guard: Held during publication. If it raises, nothing is published.
        instead: Called with the index of the new file while the guard is held. If it returns the report of another
            file, that file takes the place of the new one, and nothing is published.

    Raises:
        StateError: The data of a tensor does not have the length that its dtype and shape require.
        StorageError: The file could not be written; what was at `path` is untouched.
    """
    with create(path, expected_bytes=plan.file_bytes, replace=replace, guard=guard) as file:
        written = write_file(file, plan.members, plan.metadata)
        if instead is not None:
            with guard():
                other = instead(written.facts)
            if other is not None:
                return other
        file.commit(written_bytes=written.file_bytes)
    return _report(file.path, written, plan)


def write_plan_to(sink: Sink, path: str, plan: SavePlan) -> SaveReport:
    """Write a planned checkpoint to a sink, which messages and the report call `path`.

    Raises:
        StateError: As for `write_plan`.
        StorageError: The sink raised it.
    """
    return _report(path, write_file(sink, plan.members, plan.metadata), plan)


def _report(path: str, written: WrittenFile, plan: SavePlan) -> SaveReport:
    return SaveReport(path, written.identity, written.file_bytes, plan.components, plan.per_rank)


def write_file(sink: Sink, members: Sequence[MemberPlan | StoredMember], metadata: Metadata) -> WrittenFile:
    """Write a whole file to `sink`.

    Names and metadata are checked before the first byte is written, everything else of the members before the
    trailer is: without a trailer, nobody takes the file for a checkpoint.

    Raises:
        StateError: A reader would refuse the file, or the data of a tensor does not have the length that its dtype and
            shape require.
    """
    require_valid([plan.name for plan in members], metadata)
    preamble = encode_preamble()
    sink.write_at(0, preamble)
    position = len(preamble)
    written: list[Member] = []
    with Workers(WRITERS, "ckptfmt-write") as workers:
        for plan in members:
            member = _write_member(sink, workers, plan, _pad(sink, position, MEMBER_ALIGNMENT))
            written.append(member)
            position = member.offset + member.stored_bytes
    facts = Index(metadata, tuple(written))
    trailer = _write_index(sink, preamble, facts, _pad(sink, position, INDEX_ALIGNMENT))
    return WrittenFile(trailer.digest.hex(), trailer.file_bytes, facts)


def _write_index(sink: Sink, preamble: bytes, facts: Index, offset: int) -> Trailer:
    """Write index and trailer, which make a checkpoint of what was written.

    Raises:
        StateError: A reader would refuse the file.
    """
    problems = validate_members(facts.members, offset)
    if problems:
        raise StateError("state", "; ".join(map(str, problems[:3])), "see section 6 of the specification")
    index = encode_index(facts)
    encoded = encode_trailer(preamble, offset, index)
    end = align(offset + len(index), INDEX_ALIGNMENT)
    try:
        trailer = parse_trailer(encoded, end + len(encoded))
    except FormatError as error:
        raise StateError("state", str(error), "save fewer tensors in one file") from error
    sink.write_at(offset, index)
    _pad(sink, offset + len(index), INDEX_ALIGNMENT)
    sink.write_at(end, encoded)
    return trailer


def _pad(sink: Sink, position: int, alignment: int) -> int:
    """Write zeros up to a multiple of the alignment, and return it: a sink that uploads must not wait for gaps."""
    start = align(position, alignment)
    if start > position:
        sink.write_at(position, bytes(start - position))
    return start


class _Batch(NamedTuple):
    """Chunks with their splits; small ones come together.

    Attributes:
        chunks: Their bytes.
        splits: How each is split.
        nbytes: Length of all of them.
    """

    chunks: list[BytesLike]
    splits: list[Split]
    nbytes: int


class _Written(NamedTuple):
    """The data of a member that were written.

    Attributes:
        nbytes: Stored length in bytes.
        digests: Digests of the chunks.
        chunk_bytes: Stored length of each chunk; None for codec `none`.
        stored_digests: Digests of the stored chunks; None for codec `none`.
    """

    nbytes: int
    digests: bytes
    chunk_bytes: tuple[int, ...] | None = None
    stored_digests: bytes | None = None


def _write_member(sink: Sink, workers: Workers, plan: MemberPlan | StoredMember, offset: int) -> Member:
    """Write a member, and return its entry in the index."""
    if isinstance(plan, StoredMember):
        return _copy_stored(sink, workers, plan, offset)
    write = _write_plain if plan.codec == "none" else _write_compressed
    written = write(sink, workers, plan, offset)
    member = Member(
        name=plan.name,
        codec=plan.codec,
        offset=offset,
        stored_bytes=written.nbytes,
        logical_bytes=plan.logical_bytes,
        digests=written.digests,
        header=None if plan.header is None else plan.header.text,
        stored_chunk_bytes=written.chunk_bytes,
        stored_digests=written.stored_digests,
    )
    return member.at(offset, plan.header)


def _copy_stored(sink: Sink, workers: Workers, plan: StoredMember, offset: int) -> Member:
    def jobs() -> Iterator[Callable[[], object]]:
        position = offset
        for part in plan.parts:
            yield partial(_copy, sink, position, part)
            position += part.nbytes

    for _ in workers.in_order(jobs()):
        pass
    return plan.member.at(offset)


def _copy(sink: Sink, offset: int, part: ByteSource) -> None:
    sink.write_at(offset, part.read())


def _write_plain(sink: Sink, workers: Workers, plan: MemberPlan, offset: int) -> _Written:
    """Write a member uncompressed. The offset of each chunk is known in advance, so the workers write as well."""
    position = offset

    def jobs() -> Iterator[Callable[[], bytes]]:
        nonlocal position
        for batch in _batches(plan):
            yield partial(_hash_and_write, sink, position, batch)
            position += batch.nbytes

    digests = b"".join(workers.in_order(jobs()))
    return _Written(position - offset, digests)


def _hash_and_write(sink: Sink, offset: int, batch: _Batch) -> bytes:
    chunks = batch.chunks
    digests = b"".join(map(digest, chunks))
    sink.write_at(offset, chunks[0] if len(chunks) == 1 else b"".join(chunks))
    return digests


@dataclass(frozen=True, slots=True)
class _Compressed:
    """Compressed chunks, and the digests of their content."""

    stored: list[bytes]
    digests: bytes


def _write_compressed(sink: Sink, workers: Workers, plan: MemberPlan, offset: int) -> _Written:
    """Write a member compressed. The offset of a chunk is known only after the chunk before it is compressed."""
    position = offset
    digests, stored_digests = bytearray(), bytearray()
    sizes: list[int] = []
    for done in workers.in_order(partial(_compress, batch) for batch in _batches(plan)):
        for stored in done.stored:
            sink.write_at(position, stored)
            position += len(stored)
            sizes.append(len(stored))
            stored_digests += digest(stored)
        digests += done.digests
    return _Written(position - offset, bytes(digests), tuple(sizes), bytes(stored_digests))


def _compress(batch: _Batch) -> _Compressed:
    return _Compressed(list(map(encode_chunk, batch.chunks, batch.splits)), b"".join(map(digest, batch.chunks)))


def _batches(plan: MemberPlan) -> Iterator[_Batch]:
    """Yield the chunks with their splits, small ones in batches of about the length of a chunk.

    Raises:
        StateError: The data of a tensor does not have the length that its dtype and shape require.
    """
    chunks: list[BytesLike] = []
    splits: list[Split] = []
    nbytes = 0
    for number, (size, split, read, _) in enumerate(plan.parts):
        data = read()
        if len(data) != size:
            found = f"gives {len(data)} bytes, its dtype and shape require {size}"
            raise StateError(_place(plan, number), found, "do not change tensors while they are being saved")
        if not size:
            continue
        if nbytes + size > CHUNK_BYTES and chunks:
            yield _Batch(chunks, splits, nbytes)
            chunks, splits, nbytes = [], [], 0
        if size <= CHUNK_BYTES:
            chunks.append(data)
            splits.append(split)
            nbytes += size
            continue
        view = memoryview(data)
        for start in range(0, size, CHUNK_BYTES):
            yield _Batch([view[start : start + CHUNK_BYTES]], [split], min(CHUNK_BYTES, size - start))
    if chunks:
        yield _Batch(chunks, splits, nbytes)


def _place(plan: MemberPlan, number: int) -> str:
    """Return the name of a part of a member in errors: that of its tensor, if each tensor is one part."""
    tensors = plan.header.by_offset() if plan.header is not None else []
    component = plan.name.rpartition(".")[0]
    return f"{component}.{tensors[number - 1].name}" if len(tensors) == len(plan.parts) - 1 else component
