"""The annotated hex dump of section A of the spec."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from spec.vectors.making.container import (
    CHUNK,
    MAGIC,
    TRAILER_MAGIC,
    File,
    align,
    component_identity,
    identity_rows,
)
from spec.vectors.making.values import TensorName, Timestamp, Tuple, Typed, pack

WIDTH = 16


class Part(NamedTuple):
    """Some bytes of the file, and what they mean."""

    data: bytes
    meaning: str


def annotated(file: File) -> str:
    """Return the hex dump of a file with one safetensors member, line by line with its meaning.

    Raises:
        AssertionError: The parts are not the file.
    """
    parts = list(_parts(file))
    assert b"".join(part.data for part in parts) == file.encode()
    return dumped(parts)


def annotated_identity(file: File) -> str:
    """Return what the identity of the component in a file with one safetensors member is the digest of (12.2)."""
    (member,) = file.members
    identity = component_identity(None, member).hex()
    dump = annotated_value([None, identity_rows(member)])
    return "\n".join([dump, "", f"BLAKE3: {identity[:32]}", f"        {identity[32:]}"])


def annotated_value(value: object) -> str:
    """Return the hex dump of a value."""
    parts = list(_value(value, 0, ""))
    assert b"".join(part.data for part in parts) == pack(value)
    return dumped(parts)


def dumped(parts: Iterable[Part]) -> str:
    """Return the hex dump of parts."""
    lines, offset = [f"{'offset':8}{'bytes':{3 * WIDTH + 1}}meaning"], 0
    for part in parts:
        lines += _lines(offset, part)
        offset += len(part.data)
    return "\n".join(line.rstrip() for line in lines)


def _lines(offset: int, part: Part) -> Iterator[str]:
    if len(part.data) > WIDTH and part.data == part.data[:1] * len(part.data):
        yield f"{offset:<8}{part.data[:4].hex(' ') + ' ...':{3 * WIDTH + 1}}{part.meaning}, {len(part.data)} bytes"
        return
    for start in range(0, len(part.data), WIDTH):
        piece = part.data[start : start + WIDTH]
        yield f"{offset + start:<8}{piece.hex(' '):{3 * WIDTH + 1}}{part.meaning if start == 0 else '  ...'}"


def _parts(file: File) -> Iterator[Part]:
    (member,) = file.members
    yield Part(MAGIC, "magic (3.1)")
    yield Part(struct.pack("<H", file.major), f"major: {file.major} (3.2)")
    yield Part(struct.pack("<H", file.minor), f"minor: {file.minor} (3.4)")
    yield Part(file.reserved, "reserved (3.3)")
    yield Part(bytes(4096 - 64), "padding (2.2)")
    text = member.entry["header"]
    size = align(8 + len(text), 4096) - 8
    yield Part(struct.pack("<Q", size), f"member {member.name}: N = {size} (9.1)")
    for start in range(0, len(text), WIDTH):
        piece = text[start : start + WIDTH]
        yield Part(piece, f"{'header text (9.2): ' if start == 0 else ' ' * 19}{piece.decode()}")
    yield Part(b" " * (size - len(text)), "spaces up to N (9.1)")
    for tensor in member.tensors:
        assert len(tensor.data) < CHUNK
        values = ", ".join(map(str, struct.unpack(f"<{len(tensor.data) // 4}f", tensor.data)))
        yield Part(tensor.data, f"tensor {tensor.name}: {values} (9.4)")
    end = 4096 + len(member.stored)
    index = align(end, 64)
    yield Part(bytes(index - end), "padding (2.2)")
    index_parts = list(_value(file.index_map(), 0, "index (5.1): "))
    yield from index_parts
    index_bytes = sum(len(part.data) for part in index_parts)
    trailer = file.encode()[-64:]
    yield Part(bytes(align(index + index_bytes, 64) - index - index_bytes), "padding (2.2)")
    for name, start in (("index_offset", 0), ("index_bytes", 8), ("file_bytes", 16)):
        number = struct.unpack("<Q", trailer[start : start + 8])[0]
        yield Part(trailer[start : start + 8], f"trailer: {name} = {number} (4.3, 4.4)")
    yield Part(trailer[24:56], "digest of preamble, index and the 24 bytes above (4.5)")
    yield Part(TRAILER_MAGIC, "trailer's magic (4.2)")


def _value(value: object, depth: int, label: str) -> Iterator[Part]:
    """Take the encoding of a value apart: a part for each scalar, and for the head of each array and map."""
    indent = "  " * depth
    items: list[tuple[object, str]]
    match value:
        case dict():
            head, what = pack(value)[:1], f"map of {len(value)}"
            items = [item for key, content in value.items() for item in ((key, ""), (content, f"{key}: "))]
        case list():
            head, what = pack(value)[:1], f"array of {len(value)}"
            items = [(content, "") for content in value]
        case bytes() if label == "digests: ":
            yield Part(pack(value)[: -len(value)], f"{indent}{label}bin of {len(value)} bytes")
            for number, start in enumerate(range(0, len(value), 32)):
                yield Part(value[start : start + 32], f"{indent}  {'tensor bias' if number else 'header block'}")
            return
        case bytes():
            head, what, items = pack(value), f"bin of {len(value)} bytes", []
        case TensorName():
            head, what, items = pack(value), f'ext 1: tensor "{value.name}"', []
        case Tuple():
            payload = list(value.items)
            head, what, items = pack(value)[: -len(pack(payload))], "ext 2: tuple", [(payload, "")]
        case Typed():
            head = pack(value)[: -len(pack([value.name, value.value]))]
            what, items = "ext 6: typed", [([value.name, value.value], "")]
        case Timestamp():
            head, what, items = pack(value), f"timestamp {value.seconds}", []
        case _:
            head, what, items = pack(value), "nil" if value is None else repr(value).replace("'", '"'), []
    yield Part(head, f"{indent}{label}{what}")
    for item, item_label in items:
        yield from _value(item, depth + 1, item_label)
