"""Files in memory for the tests: a source over bytes, and containers around any member bytes."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from unittest import mock

import msgpack
from blake3 import blake3

from ckptfmt._core.container.numpy_adapter import NUMPY_ADAPTERS
from ckptfmt._core.container.planning import ByteSource, MemberPlan, fixed_part
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import write_file
from ckptfmt._core.format.buffers import BytesLike
from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.tensors import Header


@dataclass
class BytesSource:
    """A file in memory that counts what is read of it, and claims to be on a disk, its first bytes cached."""

    data: bytes
    path: str = "memory"
    reads: list[tuple[int, int]] = field(default_factory=list)
    cached_bytes: int = 0
    connections: int = 1

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, nbytes: int) -> bytes:
        assert 0 <= offset <= offset + nbytes <= self.size, "a read outside the file"
        self.reads.append((offset, nbytes))
        return self.data[offset : offset + nbytes]

    def view(self, offset: int, nbytes: int) -> memoryview:
        return memoryview(self.data)[offset : offset + nbytes]

    def private_view(self, offset: int, nbytes: int) -> memoryview:
        return memoryview(bytearray(self.view(offset, nbytes)))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

    def read_cached(self, offset: int, buffer: memoryview) -> int:
        found = self.data[offset : min(self.cached_bytes, offset + len(buffer))]
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def open_bytes(data: bytes) -> Checkpoint:
    return Checkpoint(BytesSource(data), NUMPY_ADAPTERS)


def container(*members: tuple[str, bytes | tuple[bytes, int]], codec: str = "none") -> bytes:
    """Return a file with members of any bytes; a safetensors member is (header text, length of its zero data).

    The writer's last check is left out: a reader has to refuse what the writer would.
    """
    sink = BytesSink()
    with mock.patch("ckptfmt._core.container.writer.validate_members", return_value=()):
        write_file(sink, [_plan(name, content, codec) for name, content in members], Metadata())
    return bytes(sink.data)


@dataclass
class BytesSink:
    """Collects what is written."""

    data: bytearray = field(default_factory=bytearray)

    def write_at(self, offset: int, buffer: BytesLike, /) -> None:
        end = offset + len(buffer)
        self.data.extend(bytes(max(0, end - len(self.data))))
        self.data[offset:end] = buffer


def _plan(name: str, content: bytes | tuple[bytes, int], codec: str) -> MemberPlan:
    if isinstance(content, bytes):
        return MemberPlan(name, codec, None, [fixed_part(content)])
    text, nbytes = content
    header = Header((), {}, text)
    return MemberPlan(
        name,
        codec,
        header,
        [fixed_part(header.block()), ByteSource(nbytes, DTYPES["F32"].split, lambda: bytes(nbytes))],
    )


def edit_index(data: bytes, edit: Callable[[Any], Any]) -> bytes:
    """Return the file with its index edited, and trailer and digest made to fit."""
    offset, nbytes = struct.unpack_from("<QQ", data, len(data) - 64)
    tree = edit(msgpack.unpackb(data[offset : offset + nbytes], strict_map_key=False, timestamp=0))
    return with_index(data, msgpack.packb(tree))


def with_index(data: bytes, index: bytes) -> bytes:
    """Return the file with these bytes as its index, and trailer and digest made to fit."""
    (offset,) = struct.unpack_from("<Q", data, len(data) - 64)
    padded = index + bytes(-(offset + len(index)) % 64)
    fields = struct.pack("<QQQ", offset, len(index), offset + len(padded) + 64)
    digest = blake3(data[:64] + index + fields).digest()
    return data[:offset] + padded + fields + digest + b"\x89CKPTEND"
