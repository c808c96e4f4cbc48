"""The index: metadata and the table of members (spec 5, 6, 7)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from ckptfmt._core.format.chunks import Chunk, Segment, chunks_in, plan_segments
from ckptfmt._core.format.digest import DIGEST_BYTES
from ckptfmt._core.format.layout import PREAMBLE_BYTES
from ckptfmt._core.format.packing import encode, timestamp_of
from ckptfmt._core.format.planes import WHOLE
from ckptfmt._core.format.tensors import Header, parse_header

ROOT = "_root"  # 11.5
SAFETENSORS = ".safetensors"  # 6.3
MSGPACK = ".msgpack"
CODECS = ("none", "zstd")  # 8.1
RESERVED = "shards.index"  # 6.7
_MEMBER = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,158}[A-Za-z0-9_-])?", re.ASCII)  # 6.1
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.ASCII | re.IGNORECASE)  # 6.1
_MAX_COMPONENT_BYTES = 148  # 6.3


def are_component_names(names: Iterable[object]) -> bool:
    """Say whether a writer may store a state under these keys as components (6.1 to 6.3, 6.7, 11.5)."""
    seen = set()
    count = 0
    for name in names:
        if not is_component_name(name):
            return False
        seen.add(str(name).lower())
        count += 1
    return len(seen) == count


def is_component_name(name: object) -> bool:
    """Say whether a writer may give a component this name, if there are several (6.1, 6.3, 6.7, 11.5)."""
    return isinstance(name, str) and not name.startswith("_") and is_member_name(name + SAFETENSORS)


def is_reserved(name: str) -> bool:
    """Say whether a name is one that this version of the format does not give away (6.7)."""
    return name.startswith("_") or name == RESERVED


def is_member_name(name: str) -> bool:
    """Say whether `name` can name a member (6.1, 6.3)."""
    if not _MEMBER.fullmatch(name) or _DEVICE.fullmatch(name):
        return False
    component = component_of(name)
    return component is None or 1 <= len(component) <= _MAX_COMPONENT_BYTES


def component_of(name: str) -> str | None:
    """Return the component that a member of this name belongs to, None if it is opaque (6.3)."""
    return name.rpartition(".")[0] if name.endswith((SAFETENSORS, MSGPACK)) else None


def shown_name(component: str) -> str:
    """Return what messages call a component; the only one of a file without components is the state."""
    return "state" if component == ROOT else component


@dataclass(frozen=True)
class Metadata:
    """Facts about a checkpoint (5.3); each may be absent.

    Attributes:
        run_id: Which training run this is; the same across restarts.
        generation: Which of the programs that have saved the run, one after the other, wrote it; the first is 1.
        step: Optimizer steps done since the start of the run.
        epoch: Epochs finished.
        metrics: Measured values at this step.
        created: When it was taken, in UTC.
        parent: Identity (32 bytes) of the checkpoint that this run started from.
        producer: The program that wrote the file.
        user: Whatever the user wants to note: str keys, plain values.
    """

    run_id: str | None = None
    generation: int | None = None
    step: int | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] | None = None
    created: datetime | None = None
    parent: bytes | None = None
    producer: str | None = None
    user: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Member:
    """One member as the index describes it (5.4).

    Attributes:
        name: Such as `net.safetensors`.
        codec: `none` or `zstd`; another name where a newer writer used it.
        offset: Absolute offset of the first stored byte.
        stored_bytes: Length as stored.
        logical_bytes: Length after decoding.
        digests: The 32-byte digests of the logical chunks, one after the other.
        header: The header text of a safetensors member, else None.
        stored_chunk_bytes: Stored length of each chunk, None for codec `none`.
        stored_digests: Digests of the stored chunks, None for codec `none`.
    """

    name: str
    codec: str
    offset: int
    stored_bytes: int
    logical_bytes: int
    digests: bytes
    header: bytes | None = None
    stored_chunk_bytes: tuple[int, ...] | None = None
    stored_digests: bytes | None = None

    def at(self, offset: int, header: Header | None = None) -> Member:
        """Return the same member at another offset. Pass its parsed header if you have it: parsing takes a while."""
        moved = replace(self, offset=offset)
        known = header or self.__dict__.get("parsed_header")
        if known is not None:
            moved.__dict__["parsed_header"] = known  # where `cached_property` looks first
        return moved

    @property
    def kind(self) -> str:
        """Return `safetensors`, `msgpack` or `opaque` (6.3)."""
        for suffix in (SAFETENSORS, MSGPACK):
            if self.name.endswith(suffix):
                return suffix[1:]
        return "opaque"

    @property
    def component(self) -> str | None:
        """Name of the component that the member belongs to, None for an opaque one."""
        return component_of(self.name)

    @cached_property
    def parsed_header(self) -> Header | None:
        """The parsed header of a safetensors member, else None. Raises FormatError."""
        return None if self.header is None else parse_header(self.header, self.name)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The runs of logical bytes that are cut into chunks (7.1)."""
        if self.parsed_header is not None:
            return self.parsed_header.segments
        return plan_segments([(None, self.logical_bytes, WHOLE)])

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""
        header = self.parsed_header
        return chunks_in(self.logical_bytes) if header is None else header.chunk_count

    @cached_property
    def stored_offsets(self) -> tuple[int, ...]:
        """Offset of each stored chunk from the member's start, for codecs other than `none`."""
        offsets, position = [], 0
        for nbytes in self.stored_chunk_bytes or ():
            offsets.append(position)
            position += nbytes
        return tuple(offsets)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all chunks in order."""
        for segment in self.segments:
            yield from segment.chunks()

    def digests_of(self, first: int, count: int) -> bytes:
        """Return the expected digests of the logical bytes of neighbouring chunks, one after the other."""
        return self.digests[first * DIGEST_BYTES : (first + count) * DIGEST_BYTES]


@dataclass(frozen=True)
class Index:
    """The whole index.

    Attributes:
        metadata: Facts about the checkpoint.
        members: In the order of their offsets.
        required_features: Features that a reader has to know.
    """

    metadata: Metadata
    members: tuple[Member, ...]
    required_features: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """Absolute offset of the end of the last member, or of the preamble."""
        return self.members[-1].offset + self.members[-1].stored_bytes if self.members else PREAMBLE_BYTES


INDEX_KEYS = ("required_features", "metadata", "members")
METADATA_KEYS = ("run_id", "generation", "step", "epoch", "metrics", "created", "parent", "producer", "user")
MEMBER_KEYS = ("name", "codec", "offset", "stored_bytes", "logical_bytes", "header", "digests")
STORED_KEYS = ("stored_chunk_bytes", "stored_digests")


def encode_index(index: Index) -> bytes:
    """Return the MessagePack bytes of the index (5)."""
    metadata = {key: value for key in METADATA_KEYS if (value := getattr(index.metadata, key)) is not None}
    if index.metadata.created is not None:
        metadata["created"] = timestamp_of(index.metadata.created)
    members = []
    for member in index.members:
        fields = {key: getattr(member, key) for key in (*MEMBER_KEYS, *STORED_KEYS)}
        if member.stored_chunk_bytes is not None:
            fields["stored_chunk_bytes"] = list(member.stored_chunk_bytes)
        members.append({key: value for key, value in fields.items() if value is not None})
    features = sorted(index.required_features, key=str.encode)
    return encode({"required_features": features, "metadata": metadata, "members": members})
