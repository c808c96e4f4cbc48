"""Values of the spec's section 10: their MessagePack encoding, and their rendering in JSON (see ../README.md)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Map:
    """A map by its pairs: other than a dict, it can hold 1 beside true, or a key twice."""

    pairs: Sequence[tuple[object, object]]


@dataclass(frozen=True)
class Timestamp:
    """Ext -1."""

    seconds: int
    nanoseconds: int = 0


@dataclass(frozen=True)
class TensorName:
    """Ext 1."""

    name: str


@dataclass(frozen=True)
class Tuple:
    """Ext 2."""

    items: Sequence[object]


@dataclass(frozen=True)
class Set:
    """Ext 3. The elements are sorted when they are encoded."""

    items: Sequence[object]


@dataclass(frozen=True)
class Complex:
    """Ext 5."""

    real: float
    imaginary: float


@dataclass(frozen=True)
class Typed:
    """Ext 6."""

    name: str
    value: object


@dataclass(frozen=True)
class Float:
    """A float by its bits, for NaNs."""

    bits: int


@dataclass(frozen=True)
class Raw:
    """Bytes that stand in the encoding as they are, for what must not be written."""

    data: bytes
    json: Any = field(default=None)


def pack(value: object) -> bytes:
    """Encode a value as section 10 demands."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _pack_int(value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case Float():
            return b"\xcb" + struct.pack(">Q", value.bits)
        case str():
            data = value.encode()
            return _head(0xA0, 32, 0xD9, (1, 2, 4), len(data)) + data
        case bytes():
            return _head(0, 0, 0xC4, (1, 2, 4), len(value)) + value
        case Raw():
            return value.data
        case Map():
            body = b"".join(pack(key) + pack(item) for key, item in value.pairs)
            return _head(0x80, 16, 0xDE, (2, 4), len(value.pairs)) + body
        case Mapping():
            return pack(Map(tuple(value.items())))
        case list():
            return _head(0x90, 16, 0xDC, (2, 4), len(value)) + b"".join(map(pack, value))
        case _:
            return ext(*_ext_payload(value))


def ext(type_: int, payload: bytes) -> bytes:
    """Encode an ext value of any type."""
    fixed = {1: b"\xd4", 2: b"\xd5", 4: b"\xd6", 8: b"\xd7", 16: b"\xd8"}
    head = fixed.get(len(payload)) or _head(0, 0, 0xC7, (1, 2, 4), len(payload))
    return head + struct.pack("b", type_) + payload


def pack_map(record: Mapping[str, object]) -> bytes:
    """Encode a map with str keys."""
    return pack(Map(tuple(record.items())))


def big_integer(number: int) -> bytes:
    """Encode the payload of ext 4: two's complement in the fewest bytes."""
    return number.to_bytes((number if number >= 0 else ~number).bit_length() // 8 + 1, "big", signed=True)


def timestamp(seconds: int, nanoseconds: int) -> bytes:
    """Encode the payload of ext -1 in its shortest form."""
    if not 0 <= seconds < 1 << 34:
        return struct.pack(">Iq", nanoseconds, seconds)
    if nanoseconds or seconds >= 1 << 32:
        return struct.pack(">Q", nanoseconds << 34 | seconds)
    return struct.pack(">I", seconds)


def _ext_payload(value: object) -> tuple[int, bytes]:
    match value:
        case Timestamp():
            return -1, timestamp(value.seconds, value.nanoseconds)
        case TensorName():
            return 1, value.name.encode()
        case Tuple():
            return 2, pack(list(value.items))
        case Set():
            return 3, pack([Raw(data) for data in sorted(map(pack, value.items))])
        case Complex():
            return 5, struct.pack(">2d", value.real, value.imaginary)
        case Typed():
            return 6, pack([value.name, value.value])
        case _:
            raise TypeError(type(value))


def _pack_int(number: int) -> bytes:
    if -32 <= number < 0:
        return struct.pack("b", number)
    if number >= 1 << 64 or number < -1 << 63:
        return ext(4, big_integer(number))
    if number >= 0:
        return _head(0, 128, 0xCC, (1, 2, 4, 8), number)
    step = next(step for step in range(4) if number >= -1 << (8 << step) - 1)
    return bytes([0xD0 + step]) + number.to_bytes(1 << step, "big", signed=True)


def _head(short: int, fixed: int, first: int, widths: Sequence[int], number: int) -> bytes:
    """Encode a length, or an unsigned integer, in the smallest format: below `fixed` in the first byte itself."""
    if number < fixed:
        return bytes([short + number])
    step, width = next((step, width) for step, width in enumerate(widths) if number < 1 << 8 * width)
    return bytes([first + step]) + number.to_bytes(width, "big")


def render(value: object) -> Any:
    """Render a value in JSON."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 1 << 53 else {"int": hex(value)}
        case float():
            return {"float": struct.pack(">d", value).hex()}
        case Float():
            return {"float": f"{value.bits:016x}"}
        case bytes():
            return {"bin": value.hex()}
        case Map():
            return {"map": [[render(key), render(item)] for key, item in value.pairs]}
        case Mapping():
            return render(Map(tuple(value.items())))
        case list():
            return [render(item) for item in value]
        case Raw():
            return value.json
        case Timestamp():
            return {"timestamp": [render(value.seconds), render(value.nanoseconds)]}
        case TensorName():
            return {"tensor": value.name}
        case Tuple():
            return {"tuple": [render(item) for item in value.items]}
        case Set():
            return {"set": [render(item) for item in sorted(value.items, key=pack)]}
        case Complex():
            return {"complex": struct.pack(">2d", value.real, value.imaginary).hex()}
        case Typed():
            return {"typed": [value.name, render(value.value)]}
        case _:
            raise TypeError(type(value))
