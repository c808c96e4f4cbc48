"""Invalid vectors for section 10 and clause 11.2: MessagePack, ext values, references."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from spec.vectors.making.container import Tensor, msgpack, safetensors
from spec.vectors.making.samples import floats
from spec.vectors.making.values import Complex, Map, Raw, Set, TensorName, Timestamp, Tuple, Typed, ext, pack
from spec.vectors.making.vector import Vector, invalid

NAME = "tree.msgpack"
NAN = float("nan")


def all_values() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _invalid()
    yield from _canonical()
    yield from _keys()
    yield from _limits()
    yield from _ext()
    yield from _references()


def tree(slug: str, description: str, problem: str, value: object, *tensors: Tensor, **options: Any) -> Vector:
    """Make a vector with one component; bytes are the member as it is."""
    made = [msgpack(NAME, Raw(value) if isinstance(value, bytes) else value)]
    if tensors:
        made.append(safetensors("tree.safetensors", tensors))
    return invalid(slug, description, problem, made, **{"member": NAME, **options})


def _invalid() -> Iterator[Vector]:
    cases = {
        "trailing-byte": (b"\xc0\xc0", "A second value"),
        "trailing-zero": (b"\xc0\0", "A zero byte behind the value"),
        "byte-c1": (b"\xc1", "The byte 0xC1"),
        "byte-c1-inside": (b"\x92\xc0\xc1", "The byte 0xC1 in an array"),
        "int-ends-early": (b"\xcd\x01", "An integer ends early"),
        "float-ends-early": (b"\xcb\0\0\0", "A float ends early"),
        "str-ends-early": (b"\xa5abc", "A str ends early"),
        "length-ends-early": (b"\xd9", "The length of a str is missing"),
        "bin-ends-early": (b"\xc4\x05abc", "A bin ends early"),
        "array-ends-early": (b"\x93\x01\x02", "An array ends early"),
        "map-without-value": (b"\x81\xa1k", "A map ends behind a key"),
        "map-without-key": (b"\x82\xa1k\x01", "A map ends before a key"),
        "ext-without-type": (b"\xd4", "The type of an ext value is missing"),
        "ext-ends-early": (b"\xc7\x09\x01abc", "An ext value ends early"),
        "tuple-ends-early": (b"\xc7\x09\x02\x91\xc0", "A tuple ends early, behind its array"),
        "str-2-32": (b"\xdb\xff\xff\xff\xffabc", "A str of 2^32 - 1 bytes in a small file"),
        "bin-2-32": (b"\xc6\xff\xff\xff\xffabc", "A bin of 2^32 - 1 bytes in a small file"),
        "ext-2-32": (b"\xc9\xff\xff\xff\xff\x01abc", "An ext value of 2^32 - 1 bytes in a small file"),
        "str-not-utf-8": (b"\xa1\xff", "A str that is not UTF-8"),
        "str-overlong": (b"\xa2\xc0\xaf", "A str in overlong UTF-8"),
        "str-surrogate": (b"\xa3\xed\xa0\x80", "A str with a surrogate in UTF-8"),
        "str-beyond-unicode": (b"\xa4\xf4\x90\x80\x80", "A str with a character above U+10FFFF"),
        "str-cut": (b"\xa2\xe2\x82", "A str that ends inside a character"),
        "key-not-utf-8": (b"\x81\xa1\xff\xc0", "A key that is not UTF-8"),
        "json": (b'{"a":1}', "JSON text"),
    }
    for slug, (data, description) in cases.items():
        yield tree(f"10.1-{slug}", description, "msgpack-invalid", data)


def _canonical() -> Iterator[Vector]:
    def array(head: bytes, count: int) -> bytes:
        return head + b"\xc0" * count

    def map_(head: bytes, count: int) -> bytes:
        return head + b"".join(bytes([key, 0xC0]) for key in range(count))

    cases = {
        "uint8": (b"\xcc\x7f", "127 as uint 8"),
        "uint16": (b"\xcd\0\xff", "255 as uint 16"),
        "uint32": (b"\xce\0\0\xff\xff", "65,535 as uint 32"),
        "uint64": (b"\xcf\0\0\0\0\xff\xff\xff\xff", "2^32 - 1 as uint 64"),
        "int8": (b"\xd0\xe0", "-32 as int 8"),
        "int16": (b"\xd1\xff\x80", "-128 as int 16"),
        "int32": (b"\xd2\xff\xff\x80\0", "-32,768 as int 32"),
        "int64": (b"\xd3\xff\xff\xff\xff\x80\0\0\0", "-2^31 as int 64"),
        "int8-positive": (b"\xd0\x01", "1 as int 8"),
        "int16-positive": (b"\xd1\x7f\xff", "32,767 in a signed format"),
        "int64-positive": (b"\xd3\x7f\xff\xff\xff\xff\xff\xff\xff", "2^63 - 1 in a signed format"),
        "str8": (b"\xd9\x1f" + b"a" * 31, "A str of 31 bytes as str 8"),
        "str8-empty": (b"\xd9\0", "An empty str as str 8"),
        "str16": (b"\xda\0\xff" + b"a" * 255, "A str of 255 bytes as str 16"),
        "str32": (b"\xdb\0\0\x01\0" + b"a" * 256, "A str of 256 bytes as str 32"),
        "bin16": (b"\xc5\0\xff" + bytes(255), "A bin of 255 bytes as bin 16"),
        "bin32": (b"\xc6\0\0\x01\0" + bytes(256), "A bin of 256 bytes as bin 32"),
        "array16": (array(b"\xdc\0\x0f", 15), "An array of 15 as array 16"),
        "array32": (array(b"\xdd\0\0\0\x10", 16), "An array of 16 as array 32"),
        "map16": (map_(b"\xde\0\x0f", 15), "A map of 15 as map 16"),
        "map32": (map_(b"\xdf\0\0\0\x10", 16), "A map of 16 as map 32"),
        "ext8": (b"\xc7\x10\x05" + bytes(16), "16 bytes as ext 8 and not as fixext 16"),
        "ext8-timestamp": (b"\xc7\x04\xff\0\0\0\0", "4 bytes as ext 8 and not as fixext 4"),
        "ext16": (b"\xc8\0\x03\x01abc", "3 bytes as ext 16"),
        "str32-65535": (b"\xdb\0\0\xff\xff" + b"a" * 65_535, "A str of 65,535 bytes as str 32"),
        "bin32-65535": (b"\xc6\0\0\xff\xff" + bytes(65_535), "A bin of 65,535 bytes as bin 32"),
        "array32-65535": (array(b"\xdd\0\0\xff\xff", 65_535), "An array of 65,535 as array 32"),
        "map32-65535": (
            b"\xdf\0\0\xff\xff" + b"".join(b"\xa4%04x\xc0" % key for key in range(65_535)),
            "A map of 65,535 as map 32",
        ),
        "ext32-65535": (b"\xc9\0\0\xff\xff\x04\x7f" + bytes(65_534), "65,535 bytes as ext 32"),
        "ext16-255": (b"\xc8\0\xff\x04\x7f" + bytes(254), "255 bytes as ext 16"),
        "ext32": (b"\xc9\0\0\0\x03\x01abc", "3 bytes as ext 32"),
        "float32": (b"\xca\x3f\x80\0\0", "A float 32"),
        "in-array": (b"\x91\xcc\x01", "1 as uint 8, in an array"),
        "in-map": (b"\x81\xa1k\xcc\x01", "1 as uint 8, as the value of a map"),
        "key": (b"\x81\xcc\x01\xc0", "1 as uint 8, as the key of a map"),
        "in-tuple": (ext(2, b"\x91\xcc\x01"), "1 as uint 8, in a tuple"),
        "tuple-array": (ext(2, b"\xdc\0\x01\x01"), "The array of a tuple as array 16"),
        "tuple-array32": (ext(2, b"\xdd\0\0\0\x01\x01"), "The array of a tuple as array 32"),
        "set-array16": (ext(3, b"\xdc\0\x01\x01"), "The array of a set as array 16"),
        "in-typed": (ext(6, b"\x92\xa1x\xca\x3f\x80\0\0"), "A float 32 in a typed value"),
    }
    for slug, (data, description) in cases.items():
        tensors = [floats("abc", 1.0)] if slug in ("ext16", "ext32") else []
        yield tree(f"10.2-{slug}", description, "msgpack-canonical", data, *tensors)


def _keys() -> Iterator[Vector]:
    problem = "msgpack-key"
    keys: dict[str, object] = {
        "array": [1],
        "map": {},
        "nan": NAN,
        "tuple": Tuple([1]),
        "timestamp": Timestamp(1),
        "big-integer": 1 << 64,
        "big-integer-negative": -(1 << 63) - 1,
        "complex": Complex(1.0, 0.0),
        "tensor": TensorName("w"),
        "typed": Typed("x", 1),
        "set": Set([1]),
    }
    for slug, key in keys.items():
        tensors = [floats("w", 1.0)] if slug == "tensor" else []
        yield tree(f"10.3-{slug}", f"A key that is no key: {slug}", problem, Map([(key, 1)]), *tensors)
        yield tree(f"10.3-element-{slug}", f"A set of one that cannot be a key: {slug}", problem, Set([key]), *tensors)
    equal: dict[str, tuple[object, object]] = {
        "str": ("a", "a"),
        "bin": (b"a", b"a"),
        "nil": (None, None),
        "int": (5, 5),
        "int-float": (1, 1.0),
        "true-int": (True, 1),
        "false-minus-zero": (False, -0.0),
        "zero-minus-zero": (0.0, -0.0),
        "large-int-float": (1 << 63, float(1 << 63)),
        "2-62": (1 << 62, float(1 << 62)),
        "infinity": (float("inf"), float("inf")),
    }
    for slug, (one, other) in equal.items():
        pairs = Map([(one, 1), ("between", 2), (other, 3)])
        yield tree(f"10.3-equal-{slug}", f"Two equal keys: {one!r} and {other!r}", problem, pairs)
        yield tree(f"10.3-equal-elements-{slug}", f"A set of {one!r} and {other!r}", problem, Set([one, other]))
    inside = [{"a": Tuple([Map([("k", 1), ("k", 2)])])}]
    yield tree("10.3-equal-inside", "Two equal keys in a map in a tuple in a map in an array", problem, inside)


def _limits() -> Iterator[Vector]:
    def deep(count: int, wrap: Any, inner: object = None) -> object:
        for _ in range(count):
            inner = wrap(inner)
        return inner

    wraps = {
        "arrays": lambda inner: [inner],
        "maps": lambda inner: {"": inner},
        "tuples": lambda inner: Tuple([inner]),
        "typed": lambda inner: Typed("x", inner),
    }
    for slug, wrap in wraps.items():
        yield tree(f"13.1-depth-{slug}", f"65 levels: {slug}", "limit-depth", deep(65, wrap), clauses="10.5")
    value = deep(64, wraps["arrays"], Set([1]))
    yield tree("13.1-depth-set", "A set on level 65", "limit-depth", value, clauses="10.5")
    bottom = deep(100_000, lambda inner: inner)
    yield tree(
        "13.1-depth-10000", "10,000 nested arrays", "limit-depth", b"\x91" * 10_000 + pack(bottom), clauses="10.5 14.1"
    )
    count = 1 << 24
    counts = {
        "array": (b"\xdd" + struct.pack(">I", count), "An array of 2^24 elements: with itself, one value too many"),
        "array-largest": (b"\xdd\xff\xff\xff\xff", "An array of 2^32 - 1 elements"),
        "map": (b"\xdf" + struct.pack(">I", count // 2), "A map of 2^23 pairs: with itself, one value too many"),
        "map-largest": (b"\xdf\xff\xff\xff\xff", "A map of 2^32 - 1 pairs"),
        "tuple": (ext(2, b"\xdd" + struct.pack(">I", count)), "A tuple of 2^24 elements"),
        "set": (ext(3, b"\xdd" + struct.pack(">I", count)), "A set of 2^24 elements"),
        "nested": (
            b"\xdd" + struct.pack(">I", count - 1) + b"\x91",
            "An array of 2^24 - 1 elements, and one in its first",
        ),
    }
    for slug, (data, description) in counts.items():
        clauses = "10.5 14.1"
        # A reader may notice early that the bytes left cannot hold the elements of the outer array.
        also = "msgpack-invalid" if slug == "nested" else ""
        yield tree(f"13.1-values-{slug}", description, "limit-values", data, clauses=clauses, also=also)
    maps = [Map([(0, None)])] * 131_073
    yield tree("13.1-keys", "131,073 maps, each with an integer as its key", "limit-keys", maps)
    sets = [Set([number]) for number in range(100)] * 1310 + [Map([(None, 1), (True, 1), (0.5, 1)])] * 24 + [Set([1])]
    yield tree("13.1-keys-and-elements", "131,073 keys and set elements of all kinds", "limit-keys", sets)


def _ext() -> Iterator[Vector]:
    for type_ in (0, 7, 127, -2, -128):
        yield tree(f"10.6-ext-{type_}", f"Ext type {type_}", "ext-unknown", ext(type_, b"abc"))
    yield tree("10.6-ext-inside", "An unknown ext type in a typed value", "ext-unknown", Typed("x", Raw(ext(9, b""))))
    problem = "ext-payload"
    cases: dict[str, tuple[int, bytes, str]] = {
        "timestamp-0": (-1, b"", "A timestamp of 0 bytes"),
        "timestamp-5": (-1, bytes(5), "A timestamp of 5 bytes"),
        "timestamp-16": (-1, bytes(16), "A timestamp of 16 bytes"),
        "timestamp-64": (-1, struct.pack(">Q", 5), "A timestamp of 8 bytes for which 4 suffice"),
        "timestamp-96": (-1, struct.pack(">Iq", 1, 5), "A timestamp of 12 bytes for which 8 suffice"),
        "timestamp-96-seconds": (-1, struct.pack(">Iq", 0, 5), "A timestamp of 12 bytes for which 4 suffice"),
        "timestamp-64-nanoseconds": (-1, struct.pack(">Q", 10**9 << 34 | 1), "10^9 nanoseconds in 8 bytes"),
        "timestamp-96-nanoseconds": (-1, struct.pack(">Iq", 10**9, -1), "10^9 nanoseconds in 12 bytes"),
        "tensor-not-utf-8": (1, b"\xff", "A tensor's name that is not UTF-8"),
        "tuple-not-array": (2, pack(1), "The payload of a tuple is an integer"),
        "tuple-map": (2, pack({}), "The payload of a tuple is a map"),
        "tuple-empty": (2, b"", "The payload of a tuple is empty"),
        "tuple-trailing": (2, pack([1]) + b"\xc0", "A byte behind the array of a tuple"),
        "set-not-array": (3, pack("a"), "The payload of a set is a str"),
        "set-unsorted": (3, pack(["b", "a"]), "A set that is not sorted"),
        "set-sorted-as-numbers": (3, pack([-1, 1]), "A set sorted by value and not by encoded bytes"),
        "set-trailing": (3, pack(["a"]) + b"\xc0", "A byte behind the array of a set"),
        "big-small": (4, (1 << 63).to_bytes(9, "big"), "2^63 as a big integer"),
        "big-largest-uint": (4, ((1 << 64) - 1).to_bytes(9, "big"), "2^64 - 1 as a big integer"),
        "big-smallest-int": (4, (-1 << 63).to_bytes(8, "big", signed=True), "-2^63 as a big integer"),
        "big-zero": (4, b"\0", "0 as a big integer"),
        "big-empty": (4, b"", "A big integer of 0 bytes"),
        "big-padded": (4, (1 << 64).to_bytes(10, "big"), "A big integer with a byte too many"),
        "big-negative-padded": (
            4,
            (-1 << 64).to_bytes(10, "big", signed=True),
            "A negative big integer with a byte too many",
        ),
        "complex-8": (5, bytes(8), "A complex number of 8 bytes"),
        "complex-15": (5, bytes(15), "A complex number of 15 bytes"),
        "complex-17": (5, bytes(17), "A complex number of 17 bytes"),
        "complex-24": (5, bytes(24), "A complex number of 24 bytes"),
        "complex-0": (5, b"", "A complex number of 0 bytes"),
        "typed-one": (6, pack(["x"]), "A typed value of one element"),
        "typed-three": (6, pack(["x", 1, 2]), "A typed value of three elements"),
        "typed-empty": (6, pack([]), "A typed value of no element"),
        "typed-name-bin": (6, pack([b"x", 1]), "A type name that is a bin"),
        "typed-map": (6, pack({"x": 1}), "The payload of a typed value is a map"),
        "typed-trailing": (6, pack(["x", 1]) + b"\xc0", "A byte behind the array of a typed value"),
    }
    for slug, (type_, payload, description) in cases.items():
        yield tree(f"10.7-{slug}", description, problem, ext(type_, payload))
    yield tree(
        "10.1-ext-beyond-payload",
        "A tuple in a tuple reaches beyond the payload of the outer one",
        "msgpack-invalid",
        b"\x92\xc7\x03\x02\x91\xd4\x02\x90",
        clauses="10.7",
    )
    inner = ext(2, pack(Raw(b"\x92\xc0")))
    yield tree(
        "10.1-array-beyond-payload",
        "The array of a tuple reaches beyond the payload",
        "msgpack-invalid",
        b"\x92" + inner + b"\xc0",
        clauses="10.7",
    )


def _references() -> Iterator[Vector]:
    weights = [floats("w", 1.0), floats("v", 2.0)]
    missing = [TensorName("w"), TensorName("v"), TensorName("u")]
    yield tree("11.2-missing", "A reference to a tensor that is not there", "tree-reference", missing, *weights)
    yield tree("11.2-no-member", "A reference without a safetensors member", "tree-reference", TensorName("w"))
    prefix = [TensorName("w"), TensorName("v"), TensorName("W")]
    yield tree("11.2-other-case", "A reference in another case", "tree-reference", prefix, *weights)
    inside = [TensorName("w"), TensorName("v"), Typed("my.Type", [TensorName("u")])]
    description = "A reference to a missing tensor in a typed value that nobody knows"
    yield tree("11.2-missing-in-typed", description, "tree-reference", inside, *weights)
    inside = [TensorName("w"), Tuple([TensorName("u")]), TensorName("v")]
    yield tree(
        "11.2-missing-in-tuple", "A reference to a missing tensor in a tuple", "tree-reference", inside, *weights
    )
    yield tree(
        "11.2-unreferenced",
        "A tensor that the tree does not refer to",
        "tree-unreferenced",
        TensorName("w"),
        *weights,
        member=None,
        tensor="v",
    )
    yield tree(
        "11.2-tree-without-references",
        "Tensors, and a tree without references",
        "tree-unreferenced",
        ["w"],
        floats("w", 1.0),
        member=None,
        tensor="w",
    )
