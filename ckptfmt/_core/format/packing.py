"""The only door to MessagePack: trees of plain values to bytes and back (spec 10).

Encoding is the msgpack package's. Decoding is `format.unpacking`, which checks every rule of the
profile in its one pass and therefore can say which byte breaks which rule.

In memory a tree is made of None, bool, int, float, complex, str, bytes, list, tuple, set, dict,
`Timestamp`, `TensorRef` and `Typed`. A datetime in UTC is encoded as the timestamp that it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
from msgpack import Timestamp

from ckptfmt._core.format.layout import MAX_MSGPACK_BYTES

__all__ = [
    "EXT_BIG_INTEGER",
    "EXT_COMPLEX",
    "EXT_SET",
    "EXT_TENSOR",
    "EXT_TIMESTAMP",
    "EXT_TUPLE",
    "EXT_TYPED",
    "LEAVES",
    "MAX_DEPTH",
    "MAX_LOOSE_KEYS",
    "MAX_MSGPACK_BYTES",
    "MAX_VALUES",
    "TensorRef",
    "Timestamp",
    "Typed",
    "datetime_of",
    "encode",
    "timestamp_of",
]

EXT_TIMESTAMP = -1  # 10.6, and the six below
EXT_TENSOR = 1
EXT_TUPLE = 2
EXT_SET = 3
EXT_BIG_INTEGER = 4
EXT_COMPLEX = 5
EXT_TYPED = 6

MAX_DEPTH = 64  # 13.1, and the two below
MAX_VALUES = 1 << 24
MAX_LOOSE_KEYS = 1 << 17

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor of the component's safetensors member, by name (ext 1)."""

    name: str


@dataclass(frozen=True, slots=True)
class Typed:
    """A value with a type name (ext 6). A reader that does not know the name keeps it as this (11.8)."""

    name: str
    value: Any


LEAVES = frozenset({type(None), bool, int, float, complex, str, bytes, set})
"""Types of the values that stay as they are wherever a tree is walked or rebuilt. To ask this first is quick."""


def encode(tree: object) -> bytes:
    """Return the one encoding of `tree` (10.2).

    Raises:
        TypeError: It holds something that is not in the module's list, or a datetime that is not in UTC.
        ValueError: A str holds a lone surrogate, or the nesting is far beyond the limit.
    """
    packed: bytes = msgpack.packb(tree, default=_extend, strict_types=True, use_bin_type=True)
    return packed


def _extend(value: object) -> msgpack.ExtType | Timestamp:
    """Return the ext value for what MessagePack itself does not have."""
    match value:
        case TensorRef(name):
            return msgpack.ExtType(EXT_TENSOR, name.encode())
        case Typed(name, inner):
            return msgpack.ExtType(EXT_TYPED, encode([name, inner]))
        case tuple():
            return msgpack.ExtType(EXT_TUPLE, encode(list(value)))
        case set():
            elements = sorted(map(encode, value))
            return msgpack.ExtType(EXT_SET, msgpack.Packer().pack_array_header(len(elements)) + b"".join(elements))
        case complex():
            return msgpack.ExtType(EXT_COMPLEX, struct.pack(">dd", value.real, value.imag))
        case int():
            return msgpack.ExtType(EXT_BIG_INTEGER, big_integer_bytes(value))
        case datetime() if type(value) is datetime:  # a subclass may know more than a datetime, such as nanoseconds
            if value.tzinfo is not UTC:
                raise TypeError(f"{value!r} is not in UTC: use .astimezone(timezone.utc)")
            return timestamp_of(value)
    raise TypeError(f"{type(value)} cannot be encoded")


def big_integer_bytes(value: int) -> bytes:
    """Return the two's complement of `value`, big-endian, in the fewest bytes."""
    magnitude = value if value >= 0 else ~value
    return value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


def timestamp_of(moment: datetime) -> Timestamp:
    """Return the timestamp of an aware datetime, exact to the microsecond."""
    since = moment - _EPOCH
    return Timestamp(since.days * 86400 + since.seconds, since.microseconds * 1000)


def datetime_of(timestamp: Timestamp) -> datetime | Timestamp:
    """Return the UTC datetime of a timestamp; the timestamp itself where datetime cannot hold it."""
    if timestamp.nanoseconds % 1000:
        return timestamp
    try:
        return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanoseconds // 1000)
    except OverflowError:  # beyond the years 1 to 9999
        return timestamp
