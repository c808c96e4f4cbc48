"""What the minimal reader, or a changed copy of it, makes of a file."""

from __future__ import annotations

from collections import defaultdict
from io import BytesIO
from typing import Any, BinaryIO, Protocol

import zstandard

from spec import minimal_reader
from tests.spec.vectors import Vector


class Reader(Protocol):
    """The part of `spec.minimal_reader` that is used here."""

    Refused: type[minimal_reader.Refused]

    def read_file(self, file: BinaryIO, sink: minimal_reader.Sink | None = None) -> dict[str, Any]: ...


class _Decompressor:
    """The part of `compression.zstd.ZstdDecompressor` that the reader uses."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max_length)


class Decoder:
    """A Zstandard decoder for the reader, which has one of its own on Python 3.14 and later only."""

    ZstdDecompressor = _Decompressor
    ZstdError = zstandard.ZstdError


def described(file: BinaryIO, reader: Reader = minimal_reader) -> dict[str, Any]:
    """What a reader makes of a file, in the form of a sidecar's content."""
    data: defaultdict[tuple[str, str | None], bytearray] = defaultdict(bytearray)
    content = reader.read_file(file, lambda member, tensor, chunk: data[member, tensor].extend(chunk))
    for member in content["members"]:
        if not member["name"].endswith((".safetensors", ".msgpack")):
            member["data"] = data[member["name"], None].hex()
    for name, component in content["components"].items():
        for tensor in component["tensors"]:
            tensor["data"] = data[f"{name}.safetensors", tensor["name"]].hex()
    return content


def is_right(vector: Vector, data: bytes, reader: Reader = minimal_reader) -> bool:
    """Whether a reader answers a vector as its sidecar says: the content, or the code and the place of the fault."""
    try:
        content = described(BytesIO(data), reader)
    except reader.Refused as error:
        places = {"member": error.member, "tensor": error.tensor}
        named = all(vector.sidecar.get(what, place) == place for what, place in places.items())
        return vector.problem is not None and error.code in vector.codes and named
    return (
        vector.problem is None
        and content == vector.content
        and list(content["components"]) == list(vector.content["components"])
    )
