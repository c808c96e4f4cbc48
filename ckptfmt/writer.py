"""Writing a checkpoint front to back in one pass, and publishing it (spec 15)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from ckptfmt.format.codec import encode_chunk
from ckptfmt.format.digest import CHUNK_BYTES, BytesLike, digest
from ckptfmt.format.index import Index, Member, Metadata, encode_index
from ckptfmt.format.layout import INDEX_ALIGNMENT, MEMBER_ALIGNMENT, align, encode_preamble, encode_trailer
from ckptfmt.format.planes import Split
from ckptfmt.planning import MemberPlan, SavePlan, plan_save
from ckptfmt.state import Adapter
from ckptfmt.storage import AtomicFile
from ckptfmt.workers import CORES, submit

# Some of them hash while the others wait for the disk, which is quicker with several writes at a time.
WRITERS = max(2 * CORES, min(8, 4 * CORES))


@dataclass(frozen=True)
class SaveReport:
    """What was written.

    Attributes:
        path: The file.
        identity: Its identity, 64 hex digits (12.1).
        file_bytes: Its length in bytes.
        components: Names of the components, in file order.
    """

    path: str
    identity: str
    file_bytes: int
    components: tuple[str, ...]


class Sink(Protocol):
    """What a checkpoint is written to. Several threads write, each byte once; what is left out is zero."""

    def write_at(self, offset: int, buffer: BytesLike, /) -> object:
        """Take all of `buffer` at its place."""


def save_state(
    path: str | os.PathLike[str],
    state: object,
    adapter: Adapter,
    *,
    metadata: Metadata,
    numpy_is_plain: bool,
    codec: str | Mapping[str, str] = "none",
    text_metadata: Mapping[str, Mapping[str, str]] | None = None,
) -> SaveReport:
    """Save a state atomically; nothing is touched before it is known that the state can be expressed.

    Takes what `plan_save` takes.

    Raises:
        StateError: The state, or an argument, cannot be expressed.
        StorageError: The file could not be written; what was at `path` is untouched.
    """
    plan = plan_save(
        state,
        adapter,
        metadata=metadata,
        numpy_is_plain=numpy_is_plain,
        codec=codec,
        text_metadata=text_metadata,
    )
    return write_plan(path, plan)


def write_plan(path: str | os.PathLike[str], plan: SavePlan) -> SaveReport:
    """Write a planned checkpoint, and publish it.

    Raises:
        StateError: A tensor does not give the bytes that its dtype and shape make.
        StorageError: The file could not be written; what was at `path` is untouched.
    """
    with AtomicFile(path, expected_bytes=plan.file_bytes) as file:
        identity, file_bytes = write_file(file, plan.members, plan.metadata)
        file.commit()
    return SaveReport(os.fspath(path), identity, file_bytes, plan.components)


def write_file(sink: Sink, members: Sequence[MemberPlan], metadata: Metadata) -> tuple[str, int]:
    """Write a whole file to `sink`.

    Returns:
        Its identity (64 hex digits) and its length in bytes.
    """
    preamble = encode_preamble()
    sink.write_at(0, preamble)
    position = len(preamble)
    written: list[Member] = []
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="ckptfmt-write") as pool:
        for plan in members:
            write = _write_plain if plan.codec == "none" else _write_compressed
            member = write(sink, pool, plan, align(position, MEMBER_ALIGNMENT))
            written.append(member)
            position = member.offset + member.stored_bytes
    offset = align(position, INDEX_ALIGNMENT)
    index = encode_index(Index(metadata, tuple(written)))
    end = align(offset + len(index), INDEX_ALIGNMENT)
    trailer = encode_trailer(preamble, offset, index)
    sink.write_at(offset, index)
    sink.write_at(end, trailer)
    return trailer[24:56].hex(), end + len(trailer)


_Batch = list[tuple[Split, BytesLike]]
"""Chunks, each with the way it is split; small ones together."""


def _write_plain(sink: Sink, pool: ThreadPoolExecutor, plan: MemberPlan, offset: int) -> Member:
    """Write a member as it is. Where each chunk goes is known, so the workers write, too."""
    position = offset

    def jobs() -> Iterator[Callable[[], bytes]]:
        nonlocal position
        for batch in _batches(plan):
            yield partial(_hash_and_write, sink, position, batch)
            position += sum(len(chunk) for _, chunk in batch)

    digests = b"".join(_in_order(pool, jobs()))
    return Member(
        name=plan.name,
        codec=plan.codec,
        offset=offset,
        stored_bytes=position - offset,
        logical_bytes=plan.logical_bytes,
        digests=digests,
        header=plan.header.text if plan.header is not None else None,
    )


def _hash_and_write(sink: Sink, offset: int, batch: _Batch) -> bytes:
    digests = b"".join(digest(chunk) for _, chunk in batch)
    sink.write_at(offset, batch[0][1] if len(batch) == 1 else b"".join(chunk for _, chunk in batch))
    return digests


@dataclass(frozen=True, slots=True)
class _Compressed:
    """Chunks after the worker: what to store, and the digests of the chunks."""

    stored: list[bytes]
    digests: bytes


def _write_compressed(sink: Sink, pool: ThreadPoolExecutor, plan: MemberPlan, offset: int) -> Member:
    """Write a member compressed. Only when a chunk is compressed it is known where the next one goes."""
    position = offset
    digests, stored_digests = bytearray(), bytearray()
    sizes: list[int] = []
    for done in _in_order(pool, (partial(_compress, batch) for batch in _batches(plan))):
        for stored in done.stored:
            sink.write_at(position, stored)
            position += len(stored)
            sizes.append(len(stored))
            stored_digests += digest(stored)
        digests += done.digests
    return Member(
        name=plan.name,
        codec=plan.codec,
        offset=offset,
        stored_bytes=position - offset,
        logical_bytes=plan.logical_bytes,
        digests=bytes(digests),
        header=plan.header.text if plan.header is not None else None,
        stored_chunk_bytes=tuple(sizes),
        stored_digests=bytes(stored_digests),
    )


def _compress(batch: _Batch) -> _Compressed:
    stored = [encode_chunk(chunk, split) for split, chunk in batch]
    return _Compressed(stored, b"".join(digest(chunk) for _, chunk in batch))


T = TypeVar("T")


def _in_order(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield the results of jobs in their order, with a few of them under way."""
    waiting: deque[Future[T]] = deque()
    for job in jobs:
        waiting.append(submit(pool, job))
        if len(waiting) > 2 * WRITERS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batches(plan: MemberPlan) -> Iterator[_Batch]:
    """Yield the chunks with the ways they are split, small ones in batches of about a chunk."""
    batch: _Batch = []
    nbytes = 0
    for part in plan.parts:
        data = part.read()
        size = part.nbytes
        if nbytes + size <= CHUNK_BYTES:
            if size:
                batch.append((part.split, data))
                nbytes += size
            continue
        if batch:
            yield batch
            batch, nbytes = [], 0
        view = memoryview(data).cast("B")
        for start in range(0, size, CHUNK_BYTES):
            batch.append((part.split, view[start : start + CHUNK_BYTES]))
            nbytes = min(CHUNK_BYTES, size - start)
            if nbytes == CHUNK_BYTES:
                yield batch
                batch, nbytes = [], 0
    if batch:
        yield batch
