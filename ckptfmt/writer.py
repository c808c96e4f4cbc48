"""Writing a checkpoint front to back in one pass, and publishing it (spec 15)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from ckptfmt._version import __version__
from ckptfmt.errors import FormatError, StateError
from ckptfmt.fetching import WORKERS
from ckptfmt.format.codec import encode_chunk
from ckptfmt.format.digest import CHUNK_BYTES, BytesLike, digest
from ckptfmt.format.index import CODECS, MSGPACK, SAFETENSORS, Index, Member, Metadata, encode_index
from ckptfmt.format.layout import (
    INDEX_ALIGNMENT,
    MAX_MEMBERS,
    MEMBER_ALIGNMENT,
    align,
    encode_preamble,
    encode_trailer,
)
from ckptfmt.format.parsing import validate_metadata
from ckptfmt.format.tensors import DTYPES, Header, plan_header
from ckptfmt.state import Adapter, FlatComponent, TensorLeaf, flatten_state
from ckptfmt.storage import AtomicFile


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
    """What a checkpoint is written to, front to back."""

    def write(self, buffer: BytesLike, /) -> object:
        """Take all of `buffer`."""


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

    Args:
        path: The file.
        state: A mapping of component names to trees, or any other tree (11.5).
        adapter: Knows the framework's tensors.
        metadata: Facts for the index.
        numpy_is_plain: See `ckptfmt.state.flatten_state`.
        codec: One for all components, or a mapping of component name to codec (the others: `none`).
        text_metadata: `__metadata__` of the safetensors members, by component.

    Raises:
        StateError: The state, or an argument, cannot be expressed.
        StorageError: The file could not be written; what was at `path` is untouched.
    """
    _check_metadata(metadata)
    components = list(flatten_state(state, adapter, numpy_is_plain=numpy_is_plain))
    codecs = _codecs(codec, [component.name for component in components])
    members = [
        plan
        for component in components
        for plan in _plan_members(component, codecs[component.name], (text_metadata or {}).get(component.name))
    ]
    if len(members) > MAX_MEMBERS:
        found = f"{len(members)} members, the limit is {MAX_MEMBERS}"
        raise StateError("state", found, "put components into one mapping")
    with AtomicFile(path, expected_bytes=_expected_bytes(members)) as file:
        identity, file_bytes = write_file(file, members, metadata)
        file.commit()
    return SaveReport(os.fspath(path), identity, file_bytes, tuple(component.name for component in components))


def _expected_bytes(members: Sequence[MemberPlan]) -> int | None:
    """Return about how long the file will be, None if compression makes that unknown."""
    if any(plan.codec != "none" for plan in members):
        return None
    return MEMBER_ALIGNMENT + sum(align(plan.logical_bytes, MEMBER_ALIGNMENT) for plan in members)


@dataclass(frozen=True)
class MemberPlan:
    """A member that is going to be written.

    Attributes:
        name: Its name.
        codec: Its codec.
        header: Its header, if it is a safetensors member.
        logical_bytes: Its length in bytes.
        parts: Its segments as (plane count, function that returns the bytes), in file order.
    """

    name: str
    codec: str
    header: Header | None
    logical_bytes: int
    parts: Sequence[tuple[int, Callable[[], BytesLike]]]


def _plan_members(
    component: FlatComponent, codec: str, text_metadata: Mapping[str, str] | None
) -> Iterator[MemberPlan]:
    structure = component.structure
    if structure is not None:
        yield MemberPlan(component.name + MSGPACK, codec, None, len(structure), [(1, lambda: structure)])
    if not component.tensors:
        return
    try:
        header = plan_header(
            ((name, leaf.dtype, leaf.shape) for name, leaf in component.tensors.items()), text_metadata
        )
    except FormatError as error:
        raise StateError(component.name, str(error)) from error
    parts: list[tuple[int, Callable[[], BytesLike]]] = [(1, header.block)]
    for segment in header.segments()[1:]:
        assert segment.tensor is not None  # only the first segment is no tensor
        leaf = component.tensors[segment.tensor]
        parts.append((DTYPES[leaf.dtype].planes, _reading(leaf, segment.nbytes, f"{component.name}.{segment.tensor}")))
    logical_bytes = header.block_bytes + header.data_bytes
    yield MemberPlan(component.name + SAFETENSORS, codec, header, logical_bytes, parts)


def _reading(leaf: TensorLeaf, nbytes: int, path: str) -> Callable[[], BytesLike]:
    def read() -> BytesLike:
        data = leaf.read()
        if data.nbytes != nbytes:
            raise StateError(path, f"gives {data.nbytes} bytes, its dtype and shape make them {nbytes}")
        return data

    return read


def write_file(sink: Sink, members: Sequence[MemberPlan], metadata: Metadata) -> tuple[str, int]:
    """Write a whole file to `sink`, front to back.

    Returns:
        Its identity (64 hex digits) and its length in bytes.
    """
    preamble = encode_preamble()
    sink.write(preamble)
    position = len(preamble)
    written: list[Member] = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="ckptfmt-write") as pool:
        for plan in members:
            offset = align(position, MEMBER_ALIGNMENT)
            sink.write(bytes(offset - position))
            member = _write_member(sink, pool, plan, offset)
            written.append(member)
            position = offset + member.stored_bytes
    offset = align(position, INDEX_ALIGNMENT)
    index = encode_index(Index(metadata, tuple(written)))
    end = align(offset + len(index), INDEX_ALIGNMENT)
    trailer = encode_trailer(preamble, offset, index)
    sink.write(bytes(offset - position) + index + bytes(end - offset - len(index)) + trailer)
    return trailer[24:56].hex(), end + len(trailer)


@dataclass(frozen=True, slots=True)
class _Written:
    """Chunks after the worker: what to store, and their digests."""

    stored: list[BytesLike]
    digests: bytes
    stored_digests: bytes


def _write_member(sink: Sink, pool: ThreadPoolExecutor, plan: MemberPlan, offset: int) -> Member:
    """Write one member; workers hash (and compress) while the caller's thread writes, in order."""
    digests, stored_digests = bytearray(), bytearray()
    sizes: list[int] = []
    waiting: deque[Future[_Written]] = deque()
    work = _hash if plan.codec == "none" else _compress

    def settle() -> None:
        done = waiting.popleft().result()
        for stored in done.stored:
            sink.write(stored)
            sizes.append(len(stored))
        digests.extend(done.digests)
        stored_digests.extend(done.stored_digests)

    for batch in _batches(plan):
        waiting.append(pool.submit(work, batch))
        if len(waiting) > 2 * WORKERS:
            settle()
    while waiting:
        settle()
    plain = plan.codec == "none"
    return Member(
        name=plan.name,
        codec=plan.codec,
        offset=offset,
        stored_bytes=sum(sizes),
        logical_bytes=plan.logical_bytes,
        digests=bytes(digests),
        header=plan.header.text if plan.header is not None else None,
        stored_chunk_bytes=None if plain else tuple(sizes),
        stored_digests=None if plain else bytes(stored_digests),
    )


def _batches(plan: MemberPlan) -> Iterator[list[tuple[int, memoryview]]]:
    """Yield the chunks with their plane counts, small ones in batches of about a chunk."""
    batch: list[tuple[int, memoryview]] = []
    nbytes = 0
    for planes, read in plan.parts:
        data = memoryview(read()).cast("B")
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            if batch and nbytes + len(chunk) > CHUNK_BYTES:
                yield batch
                batch, nbytes = [], 0
            batch.append((planes, chunk))
            nbytes += len(chunk)
    if batch:
        yield batch


def _hash(batch: list[tuple[int, memoryview]]) -> _Written:
    digests = b"".join(digest(chunk) for _, chunk in batch)
    chunks: list[BytesLike] = [chunk for _, chunk in batch]
    return _Written(chunks if len(chunks) == 1 else [b"".join(chunks)], digests, b"")


def _compress(batch: list[tuple[int, memoryview]]) -> _Written:
    stored: list[BytesLike] = [encode_chunk(chunk, planes) for planes, chunk in batch]
    return _Written(stored, b"".join(digest(chunk) for _, chunk in batch), b"".join(map(digest, stored)))


def _codecs(codec: str | Mapping[str, str], components: list[str]) -> dict[str, str]:
    """Return the codec of each component."""
    chosen = dict.fromkeys(components, codec) if isinstance(codec, str) else dict.fromkeys(components, "none")
    if not isinstance(codec, str):
        unknown = [name for name in codec if name not in chosen]
        if unknown:
            raise StateError("codec", f"the state has no component {unknown[0]!r}; it has: {', '.join(components)}")
        chosen.update(codec)
    for name in chosen.values():
        if name not in CODECS:
            raise StateError("codec", f"{name!r} is not a codec", f"use one of: {', '.join(CODECS)}")
    return chosen


def make_metadata(
    state: object,
    *,
    step: int | None = None,
    epoch: int | None = None,
    metrics: Mapping[str, float] | None = None,
    run_id: str | None = None,
    parent: str | None = None,
    user: Mapping[str, Any] | None = None,
    created: datetime | None = None,
) -> Metadata:
    """Return the metadata for the arguments of `ckptfmt.save`, which see.

    Raises:
        StateError: `parent` is not an identity, or `created` is not aware.
    """
    if epoch is None and isinstance(state, Mapping):
        inside = state.get("epoch")
        epoch = inside if type(inside) is int and inside >= 0 else None
    if created is not None and created.tzinfo is None:
        raise StateError("created", "a datetime without a time zone", "use datetime.now(timezone.utc)")
    try:
        parent_bytes = None if parent is None else bytes.fromhex(parent)
    except ValueError:
        raise StateError("parent", f"{parent!r} is not an identity", "give the 64 hex digits of one") from None
    return Metadata(
        run_id=run_id,
        step=step,
        epoch=epoch,
        metrics=None if metrics is None else {name: float(value) for name, value in metrics.items()},
        created=datetime.now(UTC) if created is None else created,
        parent=parent_bytes,
        producer=f"ckptfmt {__version__}",
        user=user,
    )


def _check_metadata(metadata: Metadata) -> None:
    try:
        validate_metadata(metadata)
    except (FormatError, TypeError, ValueError) as error:
        raise StateError("metadata", str(error), "see the arguments of ckptfmt.save") from error
