"""Read and verify a ckptfmt file with the Python standard library alone.

This is the format's specification, `ckptfmt-1.md`, once more as a program. It cites the spec's clauses, checks
every rule for files, and favours clearness over speed.

    python minimal_reader.py FILE     prints what the file holds, as JSON

Exit status: 0 the file is valid; 1 it is not, with one line `problem-code: message`; 2 wrong usage; 3 no answer:
the file cannot be read, or holds compressed Zstandard blocks and this Python has no decoder for them (3.14 and
later do). For programs: `read(path)`.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO, NamedTuple

try:
    from compression import zstd  # type: ignore[import-not-found]  # Python 3.14 and later
except ImportError:
    zstd = None

UINT = 2**63 - 1  # section 1
MAX_INDEX = MAX_MSGPACK = 256 << 20  # 13.1
MAX_MEMBERS = 4096
MAX_HEADER = 100_000_000
MAX_DEPTH = 64
MAX_VALUES = 16_777_216
MAX_KEYS = 131_072


class Refused(Exception):  # noqa: N818  # the word of the spec
    """The file breaks the spec. `code` is the problem code of section 18."""

    def __init__(self, code: str, message: str, member: str | None = None, tensor: str | None = None) -> None:
        self.code, self.message, self.member, self.tensor = code, message, member, tensor
        places = [f"{what} {name!r}: " for what, name in (("member", member), ("tensor", tensor)) if name is not None]
        super().__init__(f"{code}: {''.join(places)}{message}")


class NeedsZstd(Exception):  # noqa: N818  # not an error of the file
    """Everything that could be checked is right, but some Zstandard blocks need a real decoder."""


def must(condition: object, code: str, message: str, tensor: str | None = None) -> None:
    """Refuse the file if the condition does not hold."""
    if not condition:
        raise Refused(code, message, tensor=tensor)


def align(x: int, n: int) -> int:
    """Return the smallest multiple of n that is at least x."""
    return -(-x // n) * n


# ---- BLAKE3, unkeyed, 32 bytes of output ----------------------------------------------------------------------------
#
# BLAKE3 hashes pieces of 1024 bytes independently and joins the results in a binary tree, level by level. So many
# pieces can be hashed at once: an integer holds one 32-bit word of each, every word in a *lane* of 64 bits. What
# additions and shifts carry into the upper half of a lane is cut off by `mask`.

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXED = "048C 159D 26AE 37BF 05AF 16BC 278D 349E"  # places in the 4 x 4 state: its columns, then its diagonals
MIXED_PLACES = [tuple(int(place, 16) for place in places) for places in MIXED.split()]
PIECE_START, PIECE_END, PARENT, ROOT = 1, 2, 4, 8
LANES = 512
Words = tuple[int, ...]


def _join(words: Words | range) -> int:
    return int.from_bytes(struct.pack(f"<{len(words)}Q", *words), "little")


def _compress(state: list[int], block: list[int], counter: int, length: int, flags: int, ones: int) -> list[int]:
    """Compress one block into the state in all lanes; `ones` is the number 1 in every lane."""
    mask = 0xFFFFFFFF * ones
    v = [*state, *(word * ones for word in IV[:4]), counter, 0, length * ones, flags * ones]
    for _ in range(7):
        for (i, j, k, m), x, y in zip(MIXED_PLACES, block[::2], block[1::2], strict=True):
            a, b, c, d = v[i], v[j], v[k], v[m]
            a = (a + b + x) & mask
            d ^= a
            d = (d >> 16 | d << 16) & mask
            c = (c + d) & mask
            b ^= c
            b = (b >> 12 | b << 20) & mask
            a = (a + b + y) & mask
            d ^= a
            d = (d >> 8 | d << 24) & mask
            c = (c + d) & mask
            b ^= c
            v[i], v[j], v[k], v[m] = a, (b >> 7 | b << 25) & mask, c, d
        block = [block[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def _nodes(state: list[int], count: int) -> list[Words]:
    """Take a state apart: the 8 words of each lane."""
    return list(zip(*(struct.unpack(f"<{count}Q", word.to_bytes(8 * count, "little")) for word in state), strict=True))


def _hash_pieces(data: bytes, count: int, first: int, end_flags: int) -> list[Words]:
    """Hash pieces of equal length, each in a lane of its own. `first` is the number of the first one."""
    ones, length = _join((1,) * count), len(data) // count
    blocks = max(1, -(-length // 64))
    words = struct.unpack(f"<{count * blocks * 16}I", data.ljust(count * blocks * 64, b"\0"))
    state, counter = [word * ones for word in IV], _join(range(first, first + count))
    for i in range(blocks):
        flags = (PIECE_START if i == 0 else 0) | (end_flags if i == blocks - 1 else 0)
        block = [_join(words[16 * i + word :: 16 * blocks]) for word in range(16)]
        state = _compress(state, block, counter, min(64, length - 64 * i), flags, ones)
    return _nodes(state, count)


def blake3(data: bytes) -> bytes:
    """Return the BLAKE3 digest of data."""
    last = max(0, len(data) - 1) // 1024  # number of the last piece; it alone may be shorter
    nodes: list[Words] = []
    for first in range(0, last, LANES):
        end = min(last, first + LANES)
        nodes += _hash_pieces(data[1024 * first : 1024 * end], end - first, first, PIECE_END)
    nodes += _hash_pieces(data[1024 * last :], 1, last, PIECE_END if last else PIECE_END | ROOT)
    while len(nodes) > 1:  # an odd node at the end moves up as it is
        pairs = [left + right for left, right in zip(nodes[::2], nodes[1::2], strict=False)]
        ones, flags = _join((1,) * len(pairs)), PARENT if len(nodes) > 2 else PARENT | ROOT
        columns = [_join(column) for column in zip(*pairs, strict=True)]
        state = _compress([word * ones for word in IV], columns, 0, 64, flags, ones)
        nodes = _nodes(state, len(pairs)) + nodes[2 * len(pairs) :]
    return struct.pack("<8I", *nodes[0])


# ---- 10 The MessagePack profile -------------------------------------------------------------------------------------


class Ext(NamedTuple):
    """A value for which Python's plain types do not suffice, as kind and value.

    map: list of [key, value]; timestamp: [seconds, nanoseconds]; tensor: its name; tuple and set: list;
    complex: 16 bytes; typed: [type name, value].
    """

    kind: str
    value: Any


# First byte: what begins there, the width of the number that follows, and the smallest number (or length) that
# needs this format (10.2). The numbers of "int" are negative, and lie below the bound.
# fmt: off
FORMATS = {
    0xC4: ("bin", 1, 0), 0xC5: ("bin", 2, 2**8), 0xC6: ("bin", 4, 2**16),
    0xC7: ("ext", 1, 0), 0xC8: ("ext", 2, 2**8), 0xC9: ("ext", 4, 2**16),
    0xCC: ("uint", 1, 2**7), 0xCD: ("uint", 2, 2**8), 0xCE: ("uint", 4, 2**16), 0xCF: ("uint", 8, 2**32),
    0xD0: ("int", 1, -2**5), 0xD1: ("int", 2, -2**7), 0xD2: ("int", 4, -2**15), 0xD3: ("int", 8, -2**31),
    0xD9: ("str", 1, 2**5), 0xDA: ("str", 2, 2**8), 0xDB: ("str", 4, 2**16),
    0xDC: ("array", 2, 2**4), 0xDD: ("array", 4, 2**16), 0xDE: ("map", 2, 2**4), 0xDF: ("map", 4, 2**16),
}
# fmt: on
FIXEXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class Decoder:
    """Decodes a value and holds it against section 10. `plain` is the profile of the index (10.6)."""

    def __init__(self, data: bytes, plain: bool) -> None:
        self.data, self.plain, self.position, self.values, self.keys = data, plain, 0, 1, 0

    def decode(self) -> Any:
        """Return the one value that the data is (10.1)."""
        value = self._value(0, len(self.data))
        must(self.position == len(self.data), "msgpack-invalid", "something follows the value (10.1)")
        return value

    def _take(self, count: int, end: int) -> bytes:
        must(count <= end - self.position, "msgpack-invalid", "the value ends early (10.1)")
        self.position += count
        return self.data[self.position - count : self.position]

    def _head(self, end: int) -> tuple[str, Any]:
        """Read what a value begins with: its kind and its length, or "value" and the value itself."""
        first = self._take(1, end)[0]
        if first < 0x80 or first >= 0xE0:
            return "value", first if first < 0x80 else first - 256
        if first < 0xC0:
            return ("str", first & 31) if first >= 0xA0 else ("array" if first >= 0x90 else "map", first & 15)
        if first in CONSTANTS:
            return "value", CONSTANTS[first]
        if first in FIXEXT:
            return "ext", FIXEXT[first]
        if first == 0xCB:
            return "value", struct.unpack(">d", self._take(8, end))[0]
        must(first != 0xC1, "msgpack-invalid", "byte 0xC1 (10.1)")
        must(first != 0xCA, "msgpack-canonical", "a float 32 (10.2)")
        kind, width, bound = FORMATS[first]
        number = int.from_bytes(self._take(width, end), "big", signed=kind == "int")
        shortest = number < bound if kind == "int" else number >= bound
        shortest = shortest and not (first == 0xC7 and number in FIXEXT.values())
        must(shortest, "msgpack-canonical", f"{kind} {number} has a shorter encoding (10.2)")
        return ("value" if kind in ("uint", "int") else kind), number

    def _value(self, depth: int, end: int) -> Any:
        """Decode a value that stands `depth` levels deep and lies before `end`."""
        kind, number = self._head(end)
        if kind == "value":
            return number
        if kind == "array":
            return self._elements(number, depth, end)
        if kind == "map":
            return Ext("map", self._pairs(number, depth, end))
        if kind == "ext":
            return self._ext(int.from_bytes(self._take(1, end), "big", signed=True), number, depth, end)
        data = self._take(number, end)
        return data if kind == "bin" else _text(data, "msgpack-invalid")

    def _enter(self, depth: int, elements: int, values: int) -> None:
        """10.5: what an array or a map declares counts before it is read."""
        self.values += values
        must(self.values <= MAX_VALUES, "limit-values", f"more than {MAX_VALUES} values (13.1)")
        must(not elements or depth < MAX_DEPTH, "limit-depth", f"nested deeper than {MAX_DEPTH} (13.1)")

    def _elements(self, number: int, depth: int, end: int) -> list[Any]:
        self._enter(depth, number, number)
        return [self._value(depth + 1, end) for _ in range(number)]

    def _pairs(self, number: int, depth: int, end: int) -> list[list[Any]]:
        self._enter(depth, number, 2 * number)
        pairs, keys = [], set[Any]()
        for _ in range(number):
            key = self._value(depth + 1, end)
            self._check_key(key, keys)
            pairs.append([key, self._value(depth + 1, end)])
        return pairs

    def _check_key(self, key: Any, others: set[Any]) -> None:
        """10.3. Python compares True, 1 and 1.0 as the clause demands, and large numbers exactly."""
        legal = not isinstance(key, list | Ext) and key == key
        must(legal, "msgpack-key", "something that cannot be a key or an element of a set (10.3)")
        legal = not isinstance(key, int) or -(2**63) <= key < 2**64
        must(legal, "msgpack-key", "a big integer cannot be a key or an element of a set (10.3)")
        must(key not in others, "msgpack-key", f"{key!r:.80} stands twice in a map or set (10.3)")
        others.add(key)
        self.keys += not isinstance(key, str | bytes)
        must(self.keys <= MAX_KEYS, "limit-keys", f"more than {MAX_KEYS} keys that are neither str nor bin (13.1)")

    def _ext(self, type_: int, nbytes: int, depth: int, end: int) -> Any:
        """10.6 10.7: the registry of ext types."""
        must(not self.plain or type_ == -1, "index-schema", f"ext type {type_} in the index (10.6)")
        must(type_ in (-1, 1, 2, 3, 4, 5, 6), "ext-unknown", f"ext type {type_} is not known (10.6)")
        must(nbytes <= end - self.position, "msgpack-invalid", "the value ends early (10.1)")
        if type_ in (2, 3, 6):
            return self._ext_of_array({2: "tuple", 3: "set", 6: "typed"}[type_], depth, self.position + nbytes)
        payload = self._take(nbytes, end)
        if type_ == -1:
            return Ext("timestamp", _timestamp(payload))
        if type_ == 1:
            return Ext("tensor", _text(payload, "ext-payload"))
        if type_ == 4:
            number = int.from_bytes(payload, "big", signed=True)
            minimal = int.from_bytes(payload[1:], "big", signed=True) != number
            must(minimal and not -(2**63) <= number < 2**64, "ext-payload", "a big integer is small or padded (10.7)")
            return number
        must(nbytes == 16, "ext-payload", f"a complex number of {nbytes} bytes (10.7)")
        return Ext("complex", payload)

    def _ext_of_array(self, kind: str, depth: int, end: int) -> Ext:
        form, number = self._head(end) if self.position < end else ("nothing", 0)
        must(form == "array", "ext-payload", f"the payload of a {kind} is not an array (10.7)")
        self._enter(depth, number, number)
        items, encoded = [], []
        for _ in range(number):
            start = self.position
            items.append(self._value(depth + 1, end))
            encoded.append(self.data[start : self.position] if kind == "set" else b"")
        must(self.position == end, "ext-payload", f"something follows the array of a {kind} (10.7)")
        must(encoded == sorted(encoded), "ext-payload", "the elements of a set are not sorted (10.7)")
        if kind == "set":
            others = set[Any]()
            for item in items:
                self._check_key(item, others)
        typed = number == 2 and isinstance(items[0], str)
        must(kind != "typed" or typed, "ext-payload", "a typed value is not a type name and a value (10.7)")
        return Ext(kind, items)


def _text(data: bytes, code: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused(code, "text is not valid UTF-8 (10.1, 10.7)") from None


def _timestamp(payload: bytes) -> list[int]:
    """Seconds since 1970 and nanoseconds, from the shortest of the three forms (10.7)."""
    seconds = nanoseconds = 0
    if len(payload) == 4:
        seconds = int.from_bytes(payload, "big")
    elif len(payload) == 8:
        nanoseconds, seconds = divmod(int.from_bytes(payload, "big"), 2**34)
    elif len(payload) == 12:
        nanoseconds, seconds = struct.unpack(">Iq", payload)
    shortest = 12 if not 0 <= seconds < 2**34 else 8 if nanoseconds or seconds >= 2**32 else 4
    valid = len(payload) == shortest and nanoseconds < 10**9
    must(valid, "ext-payload", "a timestamp is invalid or not in its shortest form (10.7)")
    return [seconds, nanoseconds]


def to_json(value: Any) -> Any:
    """Render a decoded value in JSON, as vectors/README.md describes."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else {"int": hex(value)}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, Ext):
        return {value.kind: value.value.hex() if value.kind == "complex" else to_json(value.value)}
    return [to_json(element) for element in value]


# ---- 8 Codecs: Zstandard frames (RFC 8878) --------------------------------------------------------------------------

MAX_WINDOW = 8 << 20
RLE, COMPRESSED, RESERVED = 1, 2, 3


def _frame(stored: bytes, start: int, size: int) -> tuple[bytes | None, int]:
    """Decode a frame of `size` bytes of content: the content, and where the frame ends.

    The content is None if blocks are compressed and there is no decoder for them.
    """

    def number(position: int, nbytes: int) -> int:
        must(position + nbytes <= len(stored), "zstd-frame", "a frame ends early or is missing (8.2)")
        return int.from_bytes(stored[position : position + nbytes], "little")

    must(number(start, 4) == 0xFD2FB528, "zstd-frame", "something else than a Zstandard frame (8.2, 8.4)")
    descriptor, position, window = number(start + 4, 1), start + 5, size
    must(not descriptor & 8, "zstd-frame", "a reserved bit is set (8.2)")
    must(not descriptor & 3, "zstd-frame", "Dictionary_ID_Flag is not 0 (8.4)")
    if not descriptor & 32:  # not a single segment: the window size is given
        exponent, mantissa = divmod(number(position, 1), 8)
        window = (8 + mantissa) << (7 + exponent)
        position += 1
    width = (1 if descriptor & 32 else 0, 2, 4, 8)[descriptor >> 6]
    declared = number(position, width) + (256 if width == 2 else 0)
    position += width
    must(declared == size, "zstd-frame", f"content size {declared} declared, {size} expected (8.4)")
    must(window <= MAX_WINDOW, "zstd-frame", f"a window of {window} bytes, limit {MAX_WINDOW} (8.4)")
    content, compressed, last = bytearray(), False, 0
    while not last:
        block = number(position, 3)
        last, kind, nbytes, position = block & 1, block >> 1 & 3, block >> 3, position + 3
        must(kind != RESERVED and nbytes <= min(window, 128 << 10), "zstd-frame", "an invalid block (8.2)")
        block_end = position + (1 if kind == RLE else nbytes)
        number(block_end, 0)
        compressed = compressed or kind == COMPRESSED
        must(len(content) + nbytes <= size or compressed, "zstd-frame", "more content than declared (8.4)")
        if not compressed:
            content += stored[position:block_end] * (nbytes if kind == RLE else 1)
        position = block_end
    checksum = number(position, 4) if descriptor & 4 else None
    position += 4 if descriptor & 4 else 0
    decoded = _decompress(stored[start:position], size) if compressed else bytes(content)
    if decoded is not None:
        must(len(decoded) == size, "zstd-frame", f"{len(decoded)} bytes of content, {size} declared (8.4)")
        right = checksum is None or checksum == xxh64(decoded) & 0xFFFFFFFF
        must(right, "zstd-frame", "the checksum of the content is wrong (8.4)")
    return decoded, position


def _decompress(frame: bytes, size: int) -> bytes | None:
    if zstd is None:
        return None
    try:
        content: bytes = zstd.ZstdDecompressor().decompress(frame, max_length=size + 1)
    except zstd.ZstdError as error:
        raise Refused("zstd-frame", f"{error} (8.2)") from None
    return content


PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def xxh64(data: bytes) -> int:
    """Return the XXH64 hash of data with seed 0, whose lower half is a frame's checksum."""
    p1, p2, p3, p4, p5 = PRIMES
    mask = 2**64 - 1

    def rotated(x: int, count: int) -> int:
        return (x << count | (x & mask) >> 64 - count) & mask

    def mixed(lane: int, word: int) -> int:
        return rotated(lane + word * p2 & mask, 31) * p1 & mask

    whole = len(data) // 32 * 32
    result = p5
    if whole:
        lanes = [p1 + p2, p2, 0, -p1]
        for words in struct.iter_unpack("<4Q", data[:whole]):
            lanes = [mixed(lane, word) for lane, word in zip(lanes, words, strict=True)]
        result = sum(rotated(lane, count) for lane, count in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            result = (result ^ mixed(0, lane)) * p1 + p4
    result += len(data)
    rest = data[whole:]
    for (word,) in struct.iter_unpack("<Q", rest[: len(rest) // 8 * 8]):
        result = rotated((result ^ mixed(0, word)) & mask, 27) * p1 + p4
    rest = rest[len(rest) // 8 * 8 :]
    if len(rest) >= 4:
        result = rotated((result ^ int.from_bytes(rest[:4], "little") * p1) & mask, 23) * p2 + p3
        rest = rest[4:]
    for byte in rest:
        result = rotated((result ^ byte * p5) & mask, 11) * p1
    result &= mask
    result = (result ^ result >> 33) * p2 & mask
    result = (result ^ result >> 29) * p3 & mask
    return result ^ result >> 32


def _decode_zstd(stored: bytes, size: int, planes: int, exponent_bits: int) -> bytes | None:
    """8.2 8.3: one frame for each byte plane, and nothing else."""
    content, end, missing = bytearray(size), 0, False
    for k in range(planes):
        plane, end = _frame(stored, end, size // planes)
        missing = missing or plane is None
        content[k::planes] = plane or bytes(size // planes)
    must(end == len(stored), "zstd-frame", f"something follows the {planes} frames of a chunk (8.2)")
    return None if missing else _sign_up(bytes(content), planes, exponent_bits)


def _sign_up(content: bytes, nbytes: int, exponent_bits: int) -> bytes:
    """8.3: rotate sign and exponent of each float right by one bit."""
    if not exponent_bits:
        return content
    below = 8 * nbytes - 1 - exponent_bits  # bits of the mantissa
    # All numbers at once, as one large integer: `ones` has the lowest bit of each.
    numbers = int.from_bytes(content, "little")
    ones = int.from_bytes((b"\1" + bytes(nbytes - 1)) * (len(content) // nbytes), "little")
    signs = (numbers >> below) & ones
    exponents = (numbers >> (below + 1)) & (ones * ((1 << exponent_bits) - 1))
    mantissas = numbers & (ones * ((1 << below) - 1))
    moved = signs << (8 * nbytes - 1) | exponents << below | mantissas
    return moved.to_bytes(len(content), "little")


# ---- 9 safetensors members ------------------------------------------------------------------------------------------

BITS = {"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4} | {
    dtype: bits
    for bits, dtypes in {
        8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ F8_E8M0",
        16: "U16 I16 F16 BF16",
        32: "U32 I32 F32",
        64: "U64 I64 F64 C64",
    }.items()
    for dtype in dtypes.split()
}
PLANES = {dtype: max(1, bits // 8) for dtype, bits in BITS.items()} | {"C64": 4}
EXPONENT_BITS = {"F16": 5, "BF16": 8, "F32": 8, "C64": 8, "F64": 11}  # 8.3


class Tensor(NamedTuple):
    """One tensor of a safetensors header."""

    name: str
    dtype: str
    shape: list[int]
    data_offsets: list[int]


class JsonObject(list[tuple[str, Any]]):
    """The pairs of a JSON object, repeated keys included."""


def _unique(node: Any, code: str = "header-json") -> dict[str, Any]:
    """9.6: the object as a dict."""
    must(isinstance(node, JsonObject), "header-json", "an object expected (9.2)")
    result: dict[str, Any] = {}
    for key, value in node:
        must(key not in result, "header-json" if key == "__metadata__" else code, f"key {key!r} stands twice (9.6)")
        result[key] = value
    return result


NO_INTEGER = float("inf")  # stands for every number that is no integer, or out of every range


def _header_number(text: str) -> int | float:
    """9.3: an integer, even if its form is not the right one."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of many digits
        return NO_INTEGER
    legal = number == 0 or (number.adjusted() < 40 and number == number.to_integral_value())
    return int(number) if legal else NO_INTEGER


def _not_json(name: str) -> None:
    raise ValueError(name)


def parse_header(text: bytes) -> tuple[dict[str, str], list[Tensor]]:
    """Section 9.2 to 9.7: the text metadata, and the tensors in the component's order."""
    try:
        root = json.loads(
            text.decode(),
            object_pairs_hook=JsonObject,
            parse_int=_header_number,
            parse_float=_header_number,
            parse_constant=_not_json,
        )
    except (ValueError, RecursionError):
        raise Refused("header-json", "the header is not JSON in UTF-8 (9.2)") from None
    entries, metadata = _unique(root, "tensor-duplicate"), {}
    if "__metadata__" in entries:
        metadata = _unique(entries.pop("__metadata__"))
        strings = all(isinstance(value, str) for value in metadata.values())
        must(metadata and strings, "header-json", "__metadata__ is empty or holds something else than strings (9.2)")
    tensors = [_tensor(name, _unique(node)) for name, node in entries.items()]
    must(tensors, "header-json", "no tensor (9.7)")
    _check_offsets(tensors)
    canonical: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    for t in tensors:
        canonical[t.name] = {"dtype": t.dtype, "shape": t.shape, "data_offsets": t.data_offsets}
    expected = json.dumps(canonical, ensure_ascii=False, separators=(",", ":"))  # escapes as 9.3 does
    try:
        must(text == expected.encode(), "header-canonical", "order or form of the header is off (9.2, 9.3)")
    except UnicodeEncodeError:
        raise Refused("header-json", "half a surrogate pair, which is no text (9.3)") from None
    return metadata, tensors


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    must(entry.keys() == {"dtype", "shape", "data_offsets"}, "header-json", "a key is missing or unknown (9.2)", name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    types = isinstance(dtype, str) and _are_numbers(shape) and _are_numbers(offsets) and len(offsets) == 2
    must(types, "header-json", "a value has a wrong type (9.2)", name)
    must(dtype in BITS, "tensor-dtype", f"dtype {dtype!r:.40} is not known (9.2)", name)
    in_range = len(shape) <= 64 and all(map(_is_uint, shape))
    must(in_range and math.prod(filter(None, shape)) <= UINT, "tensor-shape", "the shape is out of range (9.2)", name)
    return Tensor(name, dtype, shape, offsets)


def _check_offsets(tensors: list[Tensor]) -> None:
    """9.4: the place of every tensor follows from the list of tensors."""
    position = 0
    for group in range(3):
        for name, dtype, shape, data_offsets in tensors:
            nbytes, rest = divmod(math.prod(shape) * BITS[dtype], 8)
            must(rest == 0, "tensor-offsets", "not a whole number of bytes (9.4)", name)
            if (0 if nbytes % 4096 == 0 else 1 if nbytes % 64 == 0 else 2) == group:
                expected = [position, position + nbytes]
                must(data_offsets == expected, "tensor-offsets", f"{data_offsets}, {expected} expected (9.4)", name)
                position += nbytes


def _are_numbers(value: Any) -> bool:
    return type(value) is list and all(type(element) in (int, float) for element in value)


def _are_integers(value: Any) -> bool:
    return type(value) is list and all(type(element) is int for element in value)


# ---- 5, 6, 7 Index, members, chunks ---------------------------------------------------------------------------------

CHUNK = 4 << 20


class Segment(NamedTuple):
    """7.1: a part of a member that is cut into chunks from its own start. For `planes` and `exponent_bits` see 8.3."""

    tensor: str | None
    nbytes: int
    planes: int = 1
    exponent_bits: int = 0


class Member(NamedTuple):
    """5.4: an entry of the index, None where a key is absent; and what follows from its `header`."""

    name: str
    codec: str
    offset: int
    stored_bytes: int
    logical_bytes: int
    header: bytes | None
    digests: bytes
    stored_chunk_bytes: Any
    stored_digests: Any
    segments: tuple[Segment, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    text_metadata: Any = None

    @property
    def component(self) -> str | None:
        """6.3: the component that the member belongs to; None if it is opaque."""
        stem, dot, extension = self.name.rpartition(".")
        return stem if dot and extension in ("safetensors", "msgpack") else None

    def chunks(self) -> Iterator[tuple[int, Segment, int, bytes]]:
        """Number, segment, logical length and digest of every chunk."""
        number = 0
        for segment in self.segments:
            for start in range(0, segment.nbytes, CHUNK):
                yield number, segment, min(CHUNK, segment.nbytes - start), _digest(self.digests, number)
                number += 1


def _digest(digests: bytes, number: int) -> bytes:
    return digests[32 * number : 32 * number + 32]


def _is_uint(value: Any) -> bool:
    return type(value) is int and 0 <= value <= UINT


def _is(kind: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Ext) and value.kind == kind


def _is_map_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _is("map")(value) and all(isinstance(k, str) and check(v) for k, v in value.value)


def _is_array_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_created(value: Any) -> bool:
    first, end = -62_135_596_800, 253_402_300_800  # the years 1 to 9999
    return _is("timestamp")(value) and first <= value.value[0] < end and value.value[1] % 1000 == 0


def _is_str(value: Any) -> bool:
    return isinstance(value, str)


def _is_bin(value: Any) -> bool:
    return isinstance(value, bytes)


Schema = dict[str, Callable[[Any], bool]]
INDEX: Schema = {
    "required_features": _is_array_of(_is_str),
    "metadata": _is("map"),
    "members": _is_array_of(_is("map")),
}
METADATA: Schema = {
    "run_id": lambda value: _is_str(value) and 1 <= len(value.encode()) <= 256,
    "generation": _is_uint,
    "step": _is_uint,
    "epoch": _is_uint,
    "metrics": _is_map_of(lambda value: isinstance(value, float)),
    "created": _is_created,
    "parent": lambda value: _is_bin(value) and len(value) == 32,
    "producer": _is_str,
    "user": _is_map_of(lambda _: True),
}
ENTRY: Schema = {
    "name": _is_str,
    "codec": _is_str,
    "offset": _is_uint,
    "stored_bytes": _is_uint,
    "logical_bytes": _is_uint,
    "header": _is_bin,
    "digests": _is_bin,
    "stored_chunk_bytes": _is_array_of(_is_uint),
    "stored_digests": _is_bin,
}


def _record(value: Ext, schema: Schema, newer: bool, what: str) -> dict[str, Any]:
    """5.1 5.3 5.4: a map by its known keys. Only a newer minor may have others (16.1)."""
    record = {key: item for key, item in value.value if isinstance(key, str) and key in schema}
    must(newer or len(record) == len(value.value), "index-schema", f"{what}: an unknown key")
    must(list(record) == [key for key in schema if key in record], "index-schema", f"{what}: the order is wrong")
    for key, item in record.items():
        must(schema[key](item), "index-schema", f"{what}: {key} has a wrong type or is out of range")
    return record


def parse_index(data: bytes, newer: bool) -> tuple[dict[str, Any], list[Member]]:
    """Section 5: the metadata, and the members as the index has them."""
    value = Decoder(data, plain=True).decode()
    must(_is("map")(value), "index-schema", "the index is not a map (5.1)")
    features: Any = next((item for key, item in value.value if key == "required_features"), None)
    are_names = INDEX["required_features"](features) and features == sorted(set(features), key=str.encode)
    must(are_names, "index-schema", "required_features is missing, or no sorted array of different names (5.1)")
    must(not features, "feature-unknown", f"the file requires {features}, this reader knows no feature (5.2)")
    index = _record(value, INDEX, newer, "index (5.1)")
    must(len(index) == len(INDEX), "index-schema", "the index lacks a key (5.1)")
    must(len(index["members"]) <= MAX_MEMBERS, "limit-members", f"more than {MAX_MEMBERS} members (13.1)")
    members = []
    for number, entry in enumerate(index["members"]):
        record = _record(entry, ENTRY, newer, f"member {number} (5.4)")
        absent = set() if record.get("name", "").endswith(".safetensors") else {"header"}
        absent |= {"stored_chunk_bytes", "stored_digests"} if record.get("codec") == "none" else set()
        right = record.keys() == ENTRY.keys() - absent
        must(right, "index-schema", f"member {number} has a key too many or too few (5.4)")
        fields: dict[str, Any] = dict.fromkeys(absent) | record
        members.append(Member(**fields))
    return _record(index["metadata"], METADATA, newer, "metadata (5.3)"), members


DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def check_places(members: list[Member], index_offset: int) -> None:
    """Section 6 and clause 2.1: every name, and every place, which follows from what stands before."""
    position, names, components, folded = 64, [""], dict[str, str](), dict[str, str]()
    for member in members:
        with named(name := member.name):
            legal = 1 <= len(name) <= 160 and NAME_CHARACTERS.issuperset(name) and name[0] not in ".-"
            legal = legal and name[-1] != "." and name.lower().partition(".")[0] not in DEVICES
            legal = legal and len(member.component or "") <= 148
            must(legal, "member-name", "too long, or not a name for a file everywhere (6.1, 6.3)")
            twice = name in names or folded.setdefault(name.lower(), name) != name
            must(not twice, "member-duplicate", "two members have this name, case apart (6.2)")
            component = member.component
            twice = component is not None and folded.setdefault(f"{component.lower()}/", component) != component
            must(not twice, "member-duplicate", "two components have this name, case apart (6.2)")
            stored, logical = member.stored_bytes, member.logical_bytes
            equal = stored == logical or member.codec != "none"
            must(stored >= 1 and equal, "member-bytes", f"{stored} stored bytes, {logical} logical bytes (6.6)")
            expected = align(position, 4096)
            must(member.offset == expected, "member-offset", f"offset {member.offset}, {expected} expected (2.1)")
            is_big = name.endswith(".msgpack") and logical > MAX_MSGPACK
            must(not is_big, "limit-msgpack", f"{logical} bytes, limit {MAX_MSGPACK} (13.1)")
            if member.component is not None and components.setdefault(member.component, name) != name:
                in_order = names[-1] == f"{member.component}.msgpack"
                must(in_order, "component-members", "the .msgpack member is not directly before this one (6.4)")
            names.append(name)
            position = member.offset + stored
    expected = align(position, 64)
    must(index_offset == expected, "index-bounds", f"index at {index_offset}, {expected} expected (2.1)")
    must("_root" not in components or len(components) == 1, "component-members", "_root is not alone (11.5)")


def with_segments(member: Member) -> Member:
    """Sections 7, 8 and 9, as far as they concern the index: the member with its segments and tensors."""
    must(member.codec in ("none", "zstd"), "codec-unknown", f"codec {member.codec!r} is not known (8.1)")
    if member.header is None:
        member = member._replace(segments=(Segment(None, member.logical_bytes),))
    else:
        block_bytes = align(8 + len(member.header), 4096)  # 9.1
        must(block_bytes - 8 <= MAX_HEADER, "limit-header", f"{block_bytes - 8} bytes, limit {MAX_HEADER} (13.1)")
        text_metadata, tensors = parse_header(member.header)
        segments = [Segment(None, block_bytes)]
        for t in sorted(tensors, key=lambda t: t.data_offsets):
            nbytes = t.data_offsets[1] - t.data_offsets[0]
            segments.append(Segment(t.name, nbytes, PLANES[t.dtype], EXPONENT_BITS.get(t.dtype, 0)))
        member = member._replace(segments=tuple(segments), tensors=tuple(tensors), text_metadata=text_metadata)
        right = member.logical_bytes == sum(segment.nbytes for segment in segments)
        must(right, "member-bytes", f"logical_bytes is {member.logical_bytes}, not what the header says (9.5)")
    count = sum(-(-segment.nbytes // CHUNK) for segment in member.segments)
    must(len(member.digests) == 32 * count, "digest-count", f"not {count} digests (7.1)")
    if member.codec != "none":
        sizes = member.stored_chunk_bytes
        must(len(sizes) == count and sum(sizes) == member.stored_bytes, "stored-chunks", "number or sum is wrong (7.3)")
        fit = all(1 <= sizes[number] <= nbytes + 1024 for number, _, nbytes, _ in member.chunks())
        must(fit, "stored-chunks", "a stored chunk is empty or too long (7.3)")
        must(len(member.stored_digests) == 32 * count, "stored-chunks", f"not {count} stored digests (7.3)")
    if member.header is not None:
        block = struct.pack("<Q", block_bytes - 8) + member.header.ljust(block_bytes - 8)
        for number, start in enumerate(range(0, block_bytes, CHUNK)):
            right = blake3(block[start : start + CHUNK]) == _digest(member.digests, number)
            must(right, "header-digest", "header and digests of the header block do not agree (9.5)")
    return member


# ---- 11 Components and trees ----------------------------------------------------------------------------------------

Tensors = dict[str, Tensor]


def check_tree(value: Any, tensors: Tensors, used: set[str]) -> None:
    """11.2 11.8: every reference has its tensor, every typed value is as the table of 11.6 says."""
    if isinstance(value, list):
        for element in value:
            check_tree(element, tensors, used)
    elif _is("tensor")(value):
        must(value.value in tensors, "tree-reference", f"the tree refers to {value.value!r}, no tensor (11.2)")
        used.add(value.value)
    elif isinstance(value, Ext) and value.kind in ("map", "tuple", "set", "typed"):
        check_tree(value.value, tensors, used)
        if value.kind == "typed" and value.value[0] in TYPES:
            right = TYPES[value.value[0]](value.value[1], tensors)
            must(right, "typed-value", f"the value of a typed {value.value[0]!r} is not as it has to be (11.8)")


def _is_typed(value: Any, *names: str) -> bool:
    return _is("typed")(value) and value.value[0] in names


def _tensor_of(*dtypes: str) -> Callable[[Any, Tensors], bool]:
    return lambda value, tensors: _is("tensor")(value) and tensors[value.value].dtype in dtypes


def _are_elements(value: Any, _: Tensors) -> bool:
    return _is("tensor")(value) or _is_typed(value, "C128", "C32")


def _iso(form: str, real: Callable[[str], object]) -> Callable[[Any, Tensors], bool]:
    """11.6: text of one form, which means something that exists."""

    def check(value: Any, _: Tensors) -> bool:
        try:
            return _is_str(value) and re.fullmatch(form, value, re.ASCII) is not None and bool(real(value))
        except ValueError:
            return False

    return check


def _is_real_datetime(text: str) -> bool:
    offset = datetime.fromisoformat(text).utcoffset()
    return offset is None or bool(offset)  # one in UTC is a timestamp


DATE = r"\d{4}-\d\d-\d\d"
MINUTES, SECONDS = r"([01]\d|2[0-3]):[0-5]\d", r"[0-5]\d"
FRACTION = r"(\.(?!000000)\d{6})?"
OFFSET = rf"([+-]{MINUTES}(:(?!00){SECONDS})?)?(?<!-00:00)"
TIME = f"{MINUTES}:{SECONDS}{FRACTION}{OFFSET}"


def _is_timedelta(value: Any, _: Tensors) -> bool:
    in_range = _are_integers(value) and len(value) == 3 and abs(value[0]) < 10**9
    return in_range and 0 <= value[1] < 86_400 and 0 <= value[2] < 1_000_000


def _complex_of(dtype: str) -> Callable[[Any, Tensors], bool]:
    def check(value: Any, tensors: Tensors) -> bool:
        tensor = tensors[value.value] if _is("tensor")(value) else None
        return tensor is not None and tensor.dtype == dtype and tensor.shape[-1:] == [2]

    return check


def _is_scalar(value: Any, _: Tensors) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not _is_str(value[0]) or not _is_bin(value[1]):
        return False
    if value[0] == "BOOL" and value[1] not in (b"\0", b"\1"):
        return False
    return 8 * len(value[1]) == (BITS | {"C128": 128}).get(value[0])


def _are_uints(value: Any, _: Tensors) -> bool:
    return type(value) is list and all(map(_is_uint, value))


def _is_name(form: str) -> Callable[[Any, Tensors], bool]:
    return lambda value, _: _is_str(value) and re.fullmatch(form, value, re.ASCII) is not None


def _map_of(**checks: Callable[[Any, Tensors], bool]) -> Callable[[Any, Tensors], bool]:
    def check(value: Any, tensors: Tensors) -> bool:
        keys = [key for key, _ in value.value] if _is("map")(value) else None
        return keys == list(checks) and all(checks[key](item, tensors) for key, item in value.value)

    return check


def _is_per_rank(value: Any, _: Tensors) -> bool:
    return isinstance(value, list) and len(value) >= 2 and not any(map(_holds_per_rank, value))


def _holds_per_rank(value: Any) -> bool:
    if isinstance(value, Ext) and value.kind in ("map", "tuple", "set", "typed"):
        return _is_typed(value, "per_rank") or _holds_per_rank(value.value)
    return isinstance(value, list) and any(map(_holds_per_rank, value))


def _is_sparse(layout: str) -> Callable[[Any, Tensors], bool]:
    """11.6 t and u, with the shapes of 11.9."""
    keys = ["compressed_indices", "plain_indices", "values", "size"]
    types: dict[str, Callable[[Any, Tensors], bool]] = dict.fromkeys(keys[:2], _tensor_of("I64", "I32"))
    if layout == "coo":
        types = {"indices": _tensor_of("I64")}
    types |= {"values": _are_elements, "size": _are_uints}
    if layout == "coo":
        types |= {"is_coalesced": lambda value, _: isinstance(value, bool)}

    def check(value: Any, tensors: Tensors) -> bool:
        if not _map_of(**types)(value, tensors):
            return False
        parts = dict(value.value)
        elements = parts["values"].value if _is("tensor")(parts["values"]) else parts["values"].value[1].value
        values, size = list(tensors[elements].shape), parts["size"]
        if not _is("tensor")(parts["values"]):
            del values[-1]  # real and imaginary part
        if layout == "coo":
            return _coo_fits(tensors[parts["indices"].value].shape, values, size)
        compressed, plain = (tensors[parts[key].value] for key in keys[:2])
        return compressed.dtype == plain.dtype and _compressed_fits(layout, compressed.shape, plain.shape, values, size)

    return check


def _coo_fits(indices: list[int], values: list[int], size: list[int]) -> bool:
    sparse = indices[0] if len(indices) == 2 else len(size) + 1
    return values[:1] == indices[1:] and len(size) >= sparse and size[sparse:] == values[1:]


def _compressed_fits(layout: str, compressed: list[int], plain: list[int], values: list[int], size: list[int]) -> bool:
    batches = len(compressed) - 1
    if batches < 0 or len(size) < batches + 2:
        return False
    batch, (rows, columns), dense = size[:batches], size[batches : batches + 2], size[batches + 2 :]
    blocks = values[batches + 1 : batches + 3] if layout in ("bsr", "bsc") else [1, 1]
    if len(blocks) < 2 or 0 in blocks or rows % blocks[0] or columns % blocks[1]:
        return False
    slices = rows // blocks[0] if layout in ("csr", "bsr") else columns // blocks[1]
    inside = blocks if layout in ("bsr", "bsc") else []
    right = compressed == [*batch, slices + 1] and len(plain) == batches + 1 and plain[:-1] == batch
    return right and values == [*plain, *inside, *dense]


_NUMPY = [dtype for dtype, bits in BITS.items() if bits >= 8]
TYPES: dict[str, Callable[[Any, Tensors], bool]] = {
    "frozenset": lambda value, _: _is("set")(value),
    "datetime": _iso(f"{DATE}T{TIME}", _is_real_datetime),
    "date": _iso(DATE, date.fromisoformat),
    "time": _iso(TIME, time.fromisoformat),
    "timedelta": _is_timedelta,
    "C128": _complex_of("F64"),
    "C32": _complex_of("F16"),
    "numpy.ndarray": lambda value, tensors: _tensor_of(*_NUMPY)(value, tensors) or _is_typed(value, "C128"),
    "numpy.scalar": _is_scalar,
    "per_rank": _is_per_rank,
    "torch.Size": _are_uints,
    "torch.dtype": _is_name(r"[A-Za-z_]\w*"),
    "torch.device": _is_name(r"[A-Za-z_]\w*(:(0|[1-9]\d*))?"),
    **{f"torch.sparse_{layout}": _is_sparse(layout) for layout in ("coo", "csr", "csc", "bsr", "bsc")},
}


# ---- 12 Identities --------------------------------------------------------------------------------------------------


def pack(value: Any) -> bytes:
    """Encode nil, integers from 0, str, bin, and arrays of them: all that an identity needs (12.2)."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return bytes([value]) if value < 128 else _sized(0xCC, (1, 2, 4, 8), value)
    if isinstance(value, list):
        head = bytes([0x90 + len(value)]) if len(value) < 16 else _sized(0xDC, (2, 4), len(value))
        return head + b"".join(map(pack, value))
    if isinstance(value, str):
        body = value.encode()
        return (bytes([0xA0 + len(body)]) if len(body) < 32 else _sized(0xD9, (1, 2, 4), len(body))) + body
    return _sized(0xC4, (1, 2, 4), len(value)) + bytes(value)


def _sized(first: int, widths: Words, number: int) -> bytes:
    step, width = next((step, width) for step, width in enumerate(widths) if number < 256**width)
    return bytes([first + step]) + number.to_bytes(width, "big")


def component_identity(tree: Member | None, weights: Member | None) -> bytes:
    """12.2: equal for equal content, whatever the codec, the order and the place."""
    own: dict[str | None, bytes] = {}
    for _, segment, _, digest in weights.chunks() if weights else ():
        own[segment.tensor] = own.get(segment.tensor, b"") + digest
    tensors = sorted(weights.tensors, key=lambda t: t.name.encode()) if weights else []
    rows = [[t.name, t.dtype, t.shape, own.get(t.name, b"")] for t in tensors]
    return blake3(pack([tree.digests if tree else None, rows]))


# ---- 2, 3, 4, 14 The file -------------------------------------------------------------------------------------------

MAGIC = b"\x89CKPTFMT\r\n\x1a\n"
TRAILER_MAGIC = b"\x89CKPTEND"
Sink = Callable[[str, str | None, bytes], None]


def read(path: str | os.PathLike[str], sink: Sink | None = None) -> dict[str, Any]:
    """Read and verify every byte of a file; return what it holds, ready for JSON, without the tensors' data.

    Args:
        path: The file.
        sink: Called for every chunk, in order, with the member's name, the tensor's (None outside tensors) and the
            verified logical bytes. They are kept nowhere else, so that memory stays bounded.

    Raises:
        Refused: The file breaks a clause.
        NeedsZstd: Nothing is wrong, but there are Zstandard blocks that this Python cannot decode.
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123  # any path-like will do
        return read_file(file, sink)


def read_file(file: BinaryIO, sink: Sink | None = None) -> dict[str, Any]:
    """Do what `read` does, with a file that is open or in memory."""
    size = file.seek(0, os.SEEK_END)
    preamble = _read_at(file, 0, min(64, size))
    must(MAGIC.startswith(preamble[:12]), "magic", f"the file begins with {preamble[:12].hex(' ')} (3.1)")
    must(size >= 192, "too-short", f"{size} bytes, at least 192 expected (4.1)")
    trailer = _read_at(file, size - 64, 64)
    index_offset, index_bytes, file_bytes, digest, trailer_magic = struct.unpack("<QQQ32s8s", trailer)
    must(trailer_magic == TRAILER_MAGIC, "trailer-magic", "the file does not end with a trailer: truncated (4.2)")
    must(file_bytes == size, "file-bytes", f"{size} bytes, but {file_bytes} were written (4.3)")
    must(index_bytes <= MAX_INDEX, "limit-index", f"index of {index_bytes} bytes, limit {MAX_INDEX} (13.1)")
    legal = index_bytes >= 1 and index_offset >= 64 and index_offset % 64 == 0
    legal = legal and align(index_offset + index_bytes, 64) + 64 == size
    must(legal, "index-bounds", f"an index of {index_bytes} bytes at {index_offset} (4.4)")
    index = _read_at(file, index_offset, index_bytes)
    unchanged = blake3(preamble + index + trailer[:24]) == digest
    must(unchanged, "index-digest", "the preamble, the index or the trailer has changed (4.5)")
    major, minor = struct.unpack("<HH", preamble[12:16])
    must(major == 1, "major-version", f"format version {major}.{minor}; this reader knows major 1 (3.2)")
    must(not any(preamble[16:]), "preamble-reserved", "a reserved byte is not zero (3.3)")
    metadata, members = parse_index(index, newer=minor > 0)
    check_places(members, index_offset)
    for number, member in enumerate(members):
        with named(member.name):
            members[number] = with_segments(member)

    position, trees, needs_zstd = 64, dict[str, Any](), False
    for member in members:
        _check_padding(file, position, member.offset)
        data: list[bytes] | None = [] if member.name.endswith(".msgpack") else None
        with named(member.name):
            if not _read_member(file, member, data, sink):
                needs_zstd = True
            elif data is not None:
                trees[member.name] = Decoder(b"".join(data), plain=False).decode()
        position = member.offset + member.stored_bytes
    _check_padding(file, position, index_offset)
    _check_padding(file, index_offset + index_bytes, size - 64)

    components = _components(members, trees)
    if needs_zstd:
        raise NeedsZstd("compressed Zstandard blocks need Python 3.14 or later; everything else is right")
    keys = ("name", "codec", "offset", "stored_bytes", "logical_bytes")
    return {
        "version": [major, minor],
        "identity": digest.hex(),  # 12.1
        "metadata": {key: to_json(value) for key, value in metadata.items()},
        "members": [{key: to_json(getattr(member, key)) for key in keys} for member in members],
        "components": components,
    }


def _read_at(file: BinaryIO, offset: int, nbytes: int) -> bytes:
    file.seek(offset)
    data = file.read(nbytes)
    if len(data) != nbytes:
        raise OSError(f"{nbytes} bytes expected at {offset}, {len(data)} found: the file has changed")
    return data


@contextmanager
def named(member: str, tensor: str | None = None) -> Iterator[None]:
    """Name the member, and the tensor if it is known, in what is refused inside (14.4)."""
    try:
        yield
    except Refused as error:
        raise Refused(error.code, error.message, member, error.tensor or tensor) from None


def _check_padding(file: BinaryIO, start: int, end: int) -> None:
    zero = not any(_read_at(file, start, end - start))
    must(zero, "padding", f"a padding byte between {start} and {end} is not zero (2.2)")


def _read_member(file: BinaryIO, member: Member, kept: list[bytes] | None, sink: Sink | None) -> bool:
    """7.2 7.4: check every chunk. False if some could not be decoded."""
    position, complete = member.offset, True
    for number, segment, nbytes, digest in member.chunks():
        with named(member.name, segment.tensor):
            is_plain = member.codec == "none"
            stored = _read_at(file, position, nbytes if is_plain else member.stored_chunk_bytes[number])
            position += len(stored)
            right = is_plain or blake3(stored) == _digest(member.stored_digests, number)
            must(right, "stored-digest", f"stored chunk {number} has changed (7.4)")
            data = stored if is_plain else _decode_zstd(stored, nbytes, segment.planes, segment.exponent_bits)
            if data is None:
                complete = False
                continue
            must(blake3(data) == digest, "chunk-digest", f"chunk {number} has changed (7.2)")
        if kept is not None:
            kept.append(data)
        if sink is not None:
            sink(member.name, segment.tensor, data)
    return complete


def _components(members: list[Member], trees: dict[str, Any]) -> dict[str, Any]:
    """Section 11: the components in the order of the file, each with its tensors and its tree."""
    by_name, result = {member.name: member for member in members}, {}
    for component in dict.fromkeys(member.component for member in members if member.component is not None):
        tree, weights = by_name.get(f"{component}.msgpack"), by_name.get(f"{component}.safetensors")
        tensors = {t.name: t for t in weights.tensors} if weights else {}
        result[component] = {
            "identity": component_identity(tree, weights).hex(),
            "flat": tree is None,  # 11.1
            "text_metadata": weights.text_metadata if weights else {},
            "tensors": [{key: to_json(value) for key, value in t._asdict().items()} for t in tensors.values()],
        }
        if tree is not None and tree.name in trees:
            used: set[str] = set()
            with named(tree.name):
                check_tree(trees[tree.name], tensors, used)
                for name in tensors:
                    must(name in used, "tree-unreferenced", "the tree does not refer to this tensor (11.2)", name)
            result[component]["tree"] = to_json(trees[tree.name])
    return result


def main(arguments: list[str]) -> int:
    """Answer a command line; return the exit status."""
    if len(arguments) != 1:
        print("usage: python minimal_reader.py FILE", file=sys.stderr)
        return 2
    try:
        print(json.dumps(read(arguments[0]), indent=2))
    except Refused as error:
        print(error)
        return 1
    except (NeedsZstd, OSError) as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
