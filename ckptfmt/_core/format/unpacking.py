"""A strict decoder for the MessagePack profile (spec 10): bytes to a tree, or the first rule that is broken.

One pass decodes and checks. Nothing is allocated for a declared count before that count is known to fit
the limits and the bytes that are left.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from ckptfmt._core.format import packing
from ckptfmt._core.format.packing import (
    MAX_DEPTH,
    MAX_LOOSE_KEYS,
    MAX_MSGPACK_BYTES,
    MAX_VALUES,
    TensorRef,
    Timestamp,
    Typed,
    big_integer_bytes,
    encode,
)
from ckptfmt.errors import Problem, error_for

# First byte of each sized format: (bytes of the length or number, smallest number that needs them).
_UINT = {0xCC: (1, 0x80), 0xCD: (2, 0x100), 0xCE: (4, 0x1_0000), 0xCF: (8, 0x1_0000_0000)}
_INT = {0xD0: (1, -0x20), 0xD1: (2, -0x80), 0xD2: (4, -0x8000), 0xD3: (8, -0x8000_0000)}
_STR = {0xD9: (1, 32), 0xDA: (2, 0x100), 0xDB: (4, 0x1_0000)}
_BIN = {0xC4: (1, 0), 0xC5: (2, 0x100), 0xC6: (4, 0x1_0000)}
_ARRAY = {0xDC: (2, 16), 0xDD: (4, 0x1_0000)}
_MAP = {0xDE: (2, 16), 0xDF: (4, 0x1_0000)}
_EXT = {0xC7: (1, 0), 0xC8: (2, 0x100), 0xC9: (4, 0x1_0000)}
_FIXEXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_FIXEXT_LENGTHS = frozenset(_FIXEXT.values())
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_DOUBLE = struct.Struct(">d")
_LOOSE_KEY_TYPES = frozenset({type(None), bool, int, float})


def decode(data: bytes, *, member: str | None = None, plain: bool = False) -> object:
    """Return the tree that `data` encodes.

    Args:
        data: Exactly one encoded value.
        member: Name of the member it comes from, for error messages.
        plain: Refuse ext types other than the timestamp, as the index does.

    Raises:
        FormatError: With code `msgpack-invalid`, `msgpack-canonical`, `msgpack-key`, `ext-payload`,
            `ext-unknown`, `index-schema` (an ext type under `plain`) or one of the `limit-` codes.
    """
    decoder = _Decoder(data, member, plain)
    if len(data) > MAX_MSGPACK_BYTES:
        decoder.fail("limit-msgpack", f"{len(data)} bytes, the limit is {MAX_MSGPACK_BYTES}", 0)
    value = decoder.value(0)
    if decoder.position != len(data):
        decoder.fail("msgpack-invalid", "bytes follow the value", decoder.position)
    return value


class _Decoder:
    __slots__ = ("data", "end", "loose_keys", "member", "plain", "position", "values")

    def __init__(self, data: bytes, member: str | None, plain: bool) -> None:
        self.data = data
        self.member = member
        self.plain = plain
        self.position = 0
        self.end = len(data)  # of the value or ext payload that is being read
        self.values = 1
        self.loose_keys = 0

    def fail(self, code: str, message: str, position: int) -> NoReturn:
        raise error_for(Problem(code, f"byte {position} of the msgpack: {message}", member=self.member))

    def take(self, nbytes: int) -> bytes:
        start = self.position
        stop = start + nbytes
        if stop > self.end:
            self.fail("msgpack-invalid", "the bytes end within a value", start)
        self.position = stop
        return self.data[start:stop]

    def length(self, sized: tuple[int, int]) -> int:
        """Read a length whose format must be the smallest that holds it."""
        nbytes, smallest = sized
        start = self.position - 1
        number = int.from_bytes(self.take(nbytes), "big")
        if number < smallest:
            self.fail("msgpack-canonical", f"a length of {number} has a shorter encoding", start)
        return number

    def count(self, elements: int) -> None:
        """Account for declared elements before any of them is read."""
        start = self.position
        self.values += elements
        if self.values > MAX_VALUES:
            self.fail("limit-values", f"more than {MAX_VALUES} values", start)
        if elements > self.end - start:
            self.fail("msgpack-invalid", f"{elements} elements are declared, the bytes end before", start)

    def value(self, level: int) -> object:
        start = self.position
        if start >= self.end:
            self.fail("msgpack-invalid", "the bytes end within a value", start)
        first = self.data[start]
        self.position = start + 1
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first < 0x90:
            return self.mapping(first & 0x0F, level)
        if first < 0xA0:
            return self.array(first & 0x0F, level)
        if first < 0xC0:
            return self.text(first & 0x1F)
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first == 0xCB:
            number: float = _DOUBLE.unpack(self.take(8))[0]
            return number
        return self.sized(first, level, start)

    def sized(self, first: int, level: int, start: int) -> object:
        """Read a value whose first byte is followed by a length or a number."""
        if first in _EXT:  # first what there is most of: tensors, then the numbers and names of parameters
            nbytes = self.length(_EXT[first])
            if nbytes in _FIXEXT_LENGTHS:
                self.fail("msgpack-canonical", f"an ext value of {nbytes} bytes has a shorter encoding", start)
            return self.extension(nbytes, level, start)
        if first in _UINT:
            return self.length(_UINT[first])
        if first in _STR:
            return self.text(self.length(_STR[first]))
        if first in _INT:
            nbytes, limit = _INT[first]
            number = int.from_bytes(self.take(nbytes), "big", signed=True)
            if number >= limit:
                self.fail("msgpack-canonical", f"the integer {number} has a shorter or unsigned encoding", start)
            return number
        if first in _BIN:
            return self.take(self.length(_BIN[first]))
        if first in _ARRAY:
            return self.array(self.length(_ARRAY[first]), level)
        if first in _MAP:
            return self.mapping(self.length(_MAP[first]), level)
        if first in _FIXEXT:
            return self.extension(_FIXEXT[first], level, start)
        if first == 0xCA:
            self.fail("msgpack-canonical", "float 32 is not used", start)
        self.fail("msgpack-invalid", "0xC1 is not a MessagePack format", start)

    def text(self, nbytes: int) -> str:
        start = self.position
        try:
            return str(self.take(nbytes), "utf-8")
        except UnicodeDecodeError:
            self.fail("msgpack-invalid", "a str is not valid UTF-8", start)

    def enter(self, elements: int, level: int) -> int:
        """Return the level of the elements of a container."""
        if elements and level >= MAX_DEPTH:
            self.fail("limit-depth", f"nested deeper than {MAX_DEPTH}", self.position)
        self.count(elements)
        return level + 1

    def array(self, elements: int, level: int) -> list[object]:
        level = self.enter(elements, level)
        value = self.value
        return [value(level) for _ in range(elements)]

    def mapping(self, pairs: int, level: int) -> dict[object, object]:
        level = self.enter(2 * pairs, level)
        result: dict[object, object] = {}
        for _ in range(pairs):
            start = self.position
            key = self.value(level)
            if type(key) is not str:
                self.check_key(key, start)
            if key in result:
                self.fail("msgpack-key", f"the key {key!r} stands twice in one map", start)
            result[key] = self.value(level)
        return result

    def check_key(self, key: object, start: int) -> None:
        kind = type(key)
        if kind is str or kind is bytes:
            return
        big = kind is int and not -(2**63) <= key < 2**64  # type: ignore[operator]  # kind says int
        if kind not in _LOOSE_KEY_TYPES or key != key or big:
            self.fail("msgpack-key", f"a {kind.__name__} such as this is neither a key nor a set element", start)
        self.loose_keys += 1
        if self.loose_keys > MAX_LOOSE_KEYS:
            self.fail("limit-keys", f"more than {MAX_LOOSE_KEYS} keys that are neither str nor bin", start)

    def extension(self, nbytes: int, level: int, start: int) -> object:
        (code,) = struct.unpack("b", self.take(1))
        outer_end = self.end
        stop = self.position + nbytes
        if stop > outer_end:
            self.fail("msgpack-invalid", "the bytes end within an ext value", start)
        if self.plain and code != packing.EXT_TIMESTAMP:
            self.fail("index-schema", f"ext type {code} does not belong into the index", start)
        if code == packing.EXT_TENSOR:
            return self.reference(nbytes, start)
        self.end = stop
        try:
            value = self.payload(code, nbytes, level, start)
            if self.position != stop:
                self.fail("ext-payload", f"bytes follow the payload of ext type {code}", self.position)
        finally:
            self.end = outer_end
        return value

    def reference(self, nbytes: int, start: int) -> TensorRef:
        try:
            return TensorRef(str(self.take(nbytes), "utf-8"))
        except UnicodeDecodeError:
            self.fail("ext-payload", "a tensor's name is not valid UTF-8", start)

    def payload(self, code: int, nbytes: int, level: int, start: int) -> object:
        match code:
            case packing.EXT_TUPLE:
                return tuple(self.elements(level, start))
            case packing.EXT_SET:
                return self.unique(level, start)
            case packing.EXT_TYPED:
                elements = self.elements(level, start)
                if len(elements) != 2 or type(elements[0]) is not str:
                    self.fail("ext-payload", "a typed value is an array of a type name and a value", start)
                return Typed(elements[0], elements[1])
        data = self.take(nbytes)
        value: object = None
        if code == packing.EXT_TIMESTAMP:
            value = _timestamp(data)
        elif code == packing.EXT_BIG_INTEGER:
            value = _big_integer(data)
        elif code == packing.EXT_COMPLEX:
            value = complex(*struct.unpack(">dd", data)) if nbytes == 16 else None
        else:
            self.fail("ext-unknown", f"ext type {code} is unknown to this reader", start)
        if value is None:
            self.fail("ext-payload", f"{nbytes} bytes that are not the one form of ext type {code}", start)
        return value

    def elements(self, level: int, start: int) -> list[object]:
        """Read the array that is the payload of a tuple, a set or a typed value."""
        first = self.data[self.position] if self.position < self.end else 0xC0
        self.position += 1
        if 0x90 <= first < 0xA0:
            return self.array(first & 0x0F, level)
        if first in _ARRAY:
            return self.array(self.length(_ARRAY[first]), level)
        self.fail("ext-payload", "the payload is not an array", start)

    def unique(self, level: int, start: int) -> set[object]:
        """Read the elements of a set: keys, in the order of their encoded bytes, none twice."""
        elements = self.elements(level, start)
        for element in elements:
            self.check_key(element, start)
        result = set(elements)
        if len(result) != len(elements):
            self.fail("msgpack-key", "an element stands twice in one set", start)
        encoded = [encode(element) for element in elements]
        if encoded != sorted(encoded):
            self.fail("ext-payload", "the elements of a set are not in the order of their encoded bytes", start)
        return result


def _timestamp(data: bytes) -> Timestamp | None:
    """Return the timestamp if `data` is its shortest form."""
    try:
        timestamp = Timestamp.from_bytes(data)
    except ValueError:
        return None
    return timestamp if timestamp.to_bytes() == data else None


def _big_integer(data: bytes) -> int | None:
    """Return the integer if `data` is its shortest form and no MessagePack integer could hold it."""
    number = int.from_bytes(data, "big", signed=True)
    if -(2**63) <= number < 2**64 or big_integer_bytes(number) != data:
        return None
    return number
