"""Members and files of the format, built part by part so that each part can be made wrong."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from blake3 import blake3

from spec.vectors.making import frames
from spec.vectors.making.values import Raw, pack, pack_map, render

MAGIC = b"\x89CKPTFMT\r\n\x1a\n"
TRAILER_MAGIC = b"\x89CKPTEND"
CHUNK = 4 << 20
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("F4",), 4),
}
PLANES = {dtype: 4 if dtype == "C64" else max(1, bits // 8) for dtype, bits in BITS.items()}
EXPONENT_BITS = {"F16": 5, "BF16": 8, "F32": 8, "C64": 8, "F64": 11}


def align(x: int, n: int) -> int:
    """Return the smallest multiple of n that is at least x."""
    return -(-x // n) * n


def digest(data: bytes) -> bytes:
    """Return the BLAKE3 digest of data."""
    return blake3(data).digest()


def cut(data: bytes) -> list[bytes]:
    """Cut a segment into chunks."""
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]


def digests(data: bytes) -> bytes:
    """Return the digests of a segment's chunks, one after the other."""
    return b"".join(map(digest, cut(data)))


@dataclass(frozen=True)
class Tensor:
    """A tensor and its data."""

    name: str
    dtype: str
    shape: Sequence[int]
    data: bytes

    def __post_init__(self) -> None:
        assert len(self.data) * 8 == math.prod(self.shape) * BITS[self.dtype], self.name


def laid_out(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors in the order of their data (9.4)."""
    return sorted(tensors, key=lambda tensor: (len(tensor.data) % 4096 != 0, len(tensor.data) % 64 != 0))


def offsets(tensors: Sequence[Tensor]) -> dict[str, list[int]]:
    """Return the data_offsets of every tensor (9.4)."""
    result, position = {}, 0
    for tensor in laid_out(tensors):
        result[tensor.name] = [position, position + len(tensor.data)]
        position += len(tensor.data)
    return result


def json_text(value: object) -> bytes:
    """Encode JSON in the form of 9.3, which is the one of Python's json without its spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def header_object(tensors: Sequence[Tensor], text_metadata: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the header of a safetensors member as an object (9.2)."""
    header: dict[str, Any] = {"__metadata__": dict(text_metadata)} if text_metadata else {}
    places = offsets(tensors)
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": places[tensor.name],
        }
    return header


def header_block(text: bytes) -> bytes:
    """Return the header block for a header text (9.1)."""
    size = align(8 + len(text), 4096) - 8
    return struct.pack("<Q", size) + text.ljust(size)


class Segment(NamedTuple):
    """A segment of a member (7.1), its plane count, and the exponent bits of its floats (8.3)."""

    data: bytes
    planes: int = 1
    exponent_bits: int = 0


@dataclass
class Member:
    """A member and its entry in the index (5.4). `place` is where it really stands, if not where it should."""

    name: str
    stored: bytes
    entry: dict[str, Any]
    place: int | None = None
    tensors: Sequence[Tensor] = ()
    text_metadata: Mapping[str, str] = field(default_factory=dict)
    tree: object = None
    logical: bytes = b""

    def edited(self, **changes: object) -> Member:
        """Return a copy with other values in its entry."""
        return replace(self, entry={**self.entry, **changes})


Encode = Callable[[bytes, int, int], bytes]


def member(
    name: str,
    segments: Sequence[Segment],
    *,
    codec: str = "none",
    header: bytes | None = None,
    encode: Encode = frames.planes,
) -> Member:
    """Build a member of any kind. `encode` makes a stored chunk of a chunk and how it is split."""
    logical = b"".join(segment.data for segment in segments)
    chunks = [(chunk, segment) for segment in segments for chunk in cut(segment.data)]
    stored = [
        chunk if codec == "none" else encode(chunk, segment.planes, segment.exponent_bits) for chunk, segment in chunks
    ]
    entry: dict[str, Any] = {
        "name": name,
        "codec": codec,
        "offset": None,
        "stored_bytes": sum(map(len, stored)),
        "logical_bytes": len(logical),
        **({} if header is None else {"header": header}),
        "digests": b"".join(digest(chunk) for chunk, _ in chunks),
    }
    if codec != "none":
        entry["stored_chunk_bytes"] = [len(chunk) for chunk in stored]
        entry["stored_digests"] = b"".join(map(digest, stored))
    return Member(name, b"".join(stored), entry, logical=logical)


def opaque(name: str, data: bytes, **options: Any) -> Member:
    """Build an opaque member."""
    return member(name, [Segment(data)], **options)


def msgpack(name: str, tree: object, **options: Any) -> Member:
    """Build a msgpack member from a value; `Raw` gives its bytes."""
    return replace(member(name, [Segment(pack(tree))], **options), tree=tree)


def safetensors(
    name: str,
    tensors: Sequence[Tensor],
    *,
    text_metadata: Mapping[str, str] | None = None,
    header: bytes | None = None,
    block: bytes | None = None,
    data: Sequence[Segment] | None = None,
    **options: Any,
) -> Member:
    """Build a safetensors member. header, block and data replace what follows from the tensors."""
    text = json_text(header_object(tensors, text_metadata)) if header is None else header
    if data is None:
        data = [Segment(it.data, PLANES[it.dtype], EXPONENT_BITS.get(it.dtype, 0)) for it in laid_out(tensors)]
    result = member(name, [Segment(block or header_block(text)), *data], header=text, **options)
    return replace(result, tensors=tensors, text_metadata=text_metadata or {})


@dataclass(frozen=True)
class File:
    """A file, as its parts. Whatever is given in place of None is not worked out."""

    members: Sequence[Member] = ()
    metadata: Mapping[str, object] | Raw = field(default_factory=dict)
    features: object = field(default_factory=list)
    major: int = 1
    minor: int = 0
    reserved: bytes = bytes(48)
    index: bytes | None = None
    index_offset: int | None = None

    def preamble(self) -> bytes:
        """Return the preamble (section 3)."""
        return MAGIC + struct.pack("<HH", self.major, self.minor) + self.reserved

    def places(self) -> list[int]:
        """Return the offset of every member (2.1)."""
        result, position = [], 64
        for item in self.members:
            result.append(align(position, 4096) if item.place is None else item.place)
            position = result[-1] + len(item.stored)
        return result

    def body(self) -> bytes:
        """Return everything before the index."""
        data = bytearray(self.preamble())
        for item, place in zip(self.members, self.places(), strict=True):
            data.extend(bytes(max(0, place - len(data))))
            data[place : place + len(item.stored)] = item.stored
        return bytes(data.ljust(self.index_offset or align(len(data), 64), b"\0"))

    def entries(self) -> list[dict[str, Any]]:
        """Return the value of the index's `members` (5.4)."""
        return [
            {key: place if key == "offset" and value is None else value for key, value in item.entry.items()}
            for item, place in zip(self.members, self.places(), strict=True)
        ]

    def index_map(self) -> dict[str, Any]:
        """Return the index as a mapping (5.1)."""
        return {"required_features": self.features, "metadata": self.metadata, "members": self.entries()}

    def with_index(self, **changes: object) -> File:
        """Return a copy with other values in the index."""
        return replace(self, index=pack_map({**self.index_map(), **changes}))

    def encode(self, **trailer: Any) -> bytes:
        """Return the bytes of the file; `trailer` replaces fields of the trailer, see `seal`."""
        return seal(self.body(), pack_map(self.index_map()) if self.index is None else self.index, **trailer)


def seal(
    body: bytes,
    index: bytes,
    *,
    index_offset: int | None = None,
    index_bytes: int | None = None,
    file_bytes: int | None = None,
    padding: bytes = b"",
) -> bytes:
    """Append index and trailer to what stands before them (section 4); the digest is right for the numbers given."""
    data = body + index + padding
    data += bytes(align(len(data), 64) - len(data))
    numbers = struct.pack(
        "<QQQ",
        len(body) if index_offset is None else index_offset,
        len(index) if index_bytes is None else index_bytes,
        len(data) + 64 if file_bytes is None else file_bytes,
    )
    return data + numbers + digest(body[:64] + index + numbers) + TRAILER_MAGIC


def patched(data: bytes, offset: int, replacement: bytes) -> bytes:
    """Return data with some bytes replaced; a negative offset counts from the end."""
    start = offset % len(data)
    return data[:start] + replacement + data[start + len(replacement) :]


def flipped(data: bytes, offset: int) -> bytes:
    """Return data with one bit flipped."""
    return patched(data, offset, bytes([data[offset] ^ 1]))


def resealed(data: bytes) -> bytes:
    """Return a file with the digest of its trailer worked out anew."""
    index_offset, index_bytes = struct.unpack("<QQ", data[-64:-48])
    index = data[index_offset : index_offset + index_bytes]
    return patched(data, -40, digest(data[:64] + index + data[-64:-40]))


def component_identity(tree: Member | None, weights: Member | None) -> bytes:
    """Return the identity of a component (12.2)."""
    return digest(pack([tree.entry["digests"] if tree else None, identity_rows(weights) if weights else []]))


def identity_rows(weights: Member) -> list[list[object]]:
    """Return what an identity says of the tensors of a member (12.2)."""
    tensors = sorted(weights.tensors, key=lambda tensor: tensor.name.encode())
    return [[tensor.name, tensor.dtype, list(tensor.shape), digests(tensor.data)] for tensor in tensors]


def content(file: File, data: bytes) -> dict[str, Any]:
    """Describe what a valid file holds, for its sidecar. It follows from how the file was made, not from its bytes."""
    described = [
        {
            **{key: render(entry[key]) for key in ("name", "codec", "offset", "stored_bytes", "logical_bytes")},
            **({} if item.name.endswith((".msgpack", ".safetensors")) else {"data": item.logical.hex()}),
        }
        for item, entry in zip(file.members, file.entries(), strict=True)
    ]
    known = ("run_id", "generation", "step", "epoch", "metrics", "created", "parent", "producer", "user")
    metadata = {} if isinstance(file.metadata, Raw) else file.metadata
    return {
        "version": [file.major, file.minor],
        "identity": data[-40:-8].hex(),
        "metadata": {key: render(value) for key, value in metadata.items() if key in known},
        "members": described,
        "components": _components(file.members),
    }


def _components(members: Sequence[Member]) -> dict[str, Any]:
    by_name = {item.name: item for item in members}
    result: dict[str, Any] = {}
    for item in members:
        component, _, _ = item.name.rpartition(".")
        if not item.name.endswith((".msgpack", ".safetensors")) or component in result:
            continue
        tree, weights = by_name.get(f"{component}.msgpack"), by_name.get(f"{component}.safetensors")
        result[component] = {
            "identity": component_identity(tree, weights).hex(),
            "flat": tree is None,
            "text_metadata": dict(weights.text_metadata) if weights else {},
            "tensors": _tensors(weights) if weights else [],
            **({"tree": render(tree.tree)} if tree else {}),
        }
    return result


def _tensors(weights: Member) -> list[dict[str, Any]]:
    places = offsets(weights.tensors)
    return [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": render(list(tensor.shape)),
            "data_offsets": render(places[tensor.name]),
            "data": tensor.data.hex(),
        }
        for tensor in weights.tensors
    ]
