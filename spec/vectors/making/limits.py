"""Valid vectors at the limits of section 13, from below. They are small when they are packed, and large in memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from spec.vectors.making import frames
from spec.vectors.making.container import File, Segment, Tensor, header_object, json_text, member, msgpack, safetensors
from spec.vectors.making.invalid_members import zeros_behind
from spec.vectors.making.invalid_safetensors import mostly_x
from spec.vectors.making.samples import floats
from spec.vectors.making.values import Map, Raw, Set, Tuple, Typed, pack
from spec.vectors.making.vector import Vector, valid

MAX_VALUES = 16_777_216
MAX_BYTES = 256 << 20
LARGEST_N = 99_999_736  # the largest N of section 9.1 within 100,000,000


def all_limits() -> Iterator[Vector]:
    """Every vector of this module."""
    yield _values()
    yield _header()
    yield _msgpack()
    yield _index()
    yield _chunks()


def _values() -> Vector:
    kinds = [{"": None}, Map([(0, None)]), Tuple([None]), Set(["a"]), Typed("x", None)]
    counts = [3, 3, 2, 2, 3]  # the payload array of an ext value is no value of its own
    many = 2000
    nils = MAX_VALUES - (1 + len(kinds) + many * sum(counts) + 1)  # but for all arrays, and what is in the others
    inner = Raw(b"\xdd" + struct.pack(">I", nils) + b"\xc0" * nils, {"repeat": [None], "times": nils})
    made = msgpack("tree.msgpack", [*([kind] * many for kind in kinds), inner])
    description = "16,777,216 values of all kinds in one member, as many as there may be"
    return valid("limit-values", description, "10.5 13.1", File([made]))


def _header() -> Vector:
    weights = [floats("w", 1.0)]
    rest = len(json_text({"__metadata__": {"": ""}, **header_object(weights)}))
    metadata = {"": "x" * (LARGEST_N - rest)}
    made = safetensors("net.safetensors", weights, text_metadata=metadata, codec="zstd", encode=mostly_x)
    return valid("limit-header", "The longest header", "9.1 13.1", File([made]))


def _msgpack() -> Vector:
    zeros = MAX_BYTES - 5
    tree = Raw(b"\xc6" + struct.pack(">I", zeros) + bytes(zeros), {"bin": {"repeat": "00", "times": zeros}})
    made = msgpack("tree.msgpack", tree, codec="zstd", encode=zeros_behind)
    return valid("limit-msgpack", "The longest msgpack member: a bin of zeros", "13.1", File([made]))


def _index() -> Vector:
    rest = len(pack(File(metadata={"user": {"": Raw(b"")}}).index_map()))
    zeros = MAX_BYTES - rest - 5
    value = Raw(b"\xc6" + struct.pack(">I", zeros) + bytes(zeros), {"bin": {"repeat": "00", "times": zeros}})
    return valid("limit-index", "The longest index: a bin of zeros", "13.1", File(metadata={"user": {"": value}}))


def _chunks() -> Vector:
    """More digests than the shortest formats of a bin can hold, and than those of 16 bits."""
    chunks = 8
    zeros = Tensor("zeros", "U8", [chunks << 22], bytes(chunks << 22))
    log = member("log", [Segment(bytes(5 << 22))], codec="zstd", encode=lambda chunk, *_: frames.plane(chunk))
    made = safetensors("net.safetensors", [zeros], codec="zstd")
    return valid("identity-chunks", "A tensor of eight chunks, and its identity", "7.1 12.2", File([made, log]))
