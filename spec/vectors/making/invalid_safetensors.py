"""Invalid vectors for section 9: safetensors members."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from spec.vectors.making import frames
from spec.vectors.making.container import (
    File,
    Member,
    Segment,
    Tensor,
    digest,
    header_block,
    header_object,
    json_text,
    safetensors,
)
from spec.vectors.making.samples import floats
from spec.vectors.making.vector import Vector, invalid

W = floats("w", 1.0, 2.0)
GOOD = json_text(header_object([W]))
NAME = "net.safetensors"


def all_safetensors() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _block()
    yield from _json()
    yield from _canonical()
    yield from _values()
    yield from _offsets()
    yield from _agreement()


def _header(slug: str, description: str, problem: str, text: bytes, nbytes: int = 8, **options: Any) -> Vector:
    """Make a vector with a member of this header text, and of nbytes of data."""
    data = [Segment(bytes(nbytes))] if nbytes else []
    made = safetensors(NAME, [], header=text, data=data)
    return invalid(slug, description, problem, [made], member=NAME, **options)


def _entry(slug: str, description: str, problem: str, entry: object, nbytes: int = 8, **options: Any) -> Vector:
    """Make a vector whose header has one tensor w with this entry."""
    return _header(slug, description, problem, json_text({"w": entry}), nbytes, **options)


def _block() -> Iterator[Vector]:
    def block(slug: str, description: str, data: bytes, problem: str = "header-digest", **options: str) -> Vector:
        made = safetensors(NAME, [W], block=data)
        return invalid(slug, description, problem, [made], member=NAME, **options)

    page = header_block(GOOD)
    long = struct.pack("<Q", 8184) + GOOD.ljust(8184)
    yield block(
        "9.1-page-too-long",
        "The header block is a page longer than it needs to be",
        long,
        "member-bytes",
        also="header-digest",
    )
    short = struct.pack("<Q", len(GOOD)) + GOOD
    description = "The header block does not end at a multiple of 4096"
    yield block("9.1-not-padded", description, short, "member-bytes", also="header-digest")
    for fill, what in ((b"\0", "zeros"), (b"\n", "line-ends"), (b"\t", "tabs")):
        yield block(
            f"9.1-padded-with-{what}",
            f"The header text is padded with {what.replace('-', ' ')}",
            page[:8] + GOOD.ljust(4088, fill),
        )
    yield block("9.1-spaces-first", "The spaces stand before the header text", page[:8] + GOOD.rjust(4088))
    for number, what in ((4087, "one-less"), (1 << 60, "2-60"), (1 << 63, "2-63"), ((1 << 64) - 1, "2-64-1")):
        yield block(
            f"9.1-length-{what}",
            f"The member says that its header has {number} bytes",
            struct.pack("<Q", number) + page[8:],
        )
    big = struct.pack(">Q", 4088) + page[8:]
    yield block("9.1-length-big-endian", "The header's length in the wrong byte order", big)
    text = json_text({"__metadata__": {"": "x" * 99_999_800}, **header_object([W])})
    made = safetensors(NAME, [W], header=text, codec="zstd", encode=mostly_x)
    description = "A header of more than 100,000,000 bytes"
    yield invalid("13.1-header", description, "limit-header", [made], member=NAME, clauses="9.1")


def mostly_x(chunk: bytes, planes: int, exponent_bits: int) -> bytes:
    """Compress a chunk as raw blocks, and RLE blocks where there is only one byte value."""
    if planes > 1:
        return frames.planes(chunk, planes, exponent_bits)
    result = frames.header(len(chunk))
    for start in range(0, len(chunk), frames.MAX_BLOCK):
        piece = chunk[start : start + frames.MAX_BLOCK]
        last = start + len(piece) == len(chunk)
        equal = piece == piece[:1] * len(piece)
        kind, body = (frames.RLE, piece[:1]) if equal else (frames.RAW, piece)
        result += frames.block(kind, len(piece), body, last)
    return result


def _json() -> Iterator[Vector]:
    problem = "header-json"
    good = header_object([W])["w"]
    texts = {
        "empty": (b"", "No text"),
        "array": (b"[]", "An array"),
        "ends-early": (GOOD[:-1], "The last brace is missing"),
        "trailing-comma": (GOOD[:-1] + b",}", "A comma behind the last entry"),
        "single-quotes": (GOOD.replace(b'"', b"'"), "Single quotes"),
        "comment": (GOOD + b"//", "A comment"),
        "two-objects": (GOOD + GOOD, "Two objects"),
        "utf-16": (GOOD.decode().encode("utf-16-le"), "UTF-16"),
        "byte-order-mark": (b"\xef\xbb\xbf" + GOOD, "A byte order mark"),
        "not-utf-8": (GOOD.replace(b'"w"', b'"\xff"'), "A name that is not UTF-8"),
        "overlong-utf-8": (GOOD.replace(b'"w"', b'"\xc0\xaf"'), "A name in overlong UTF-8"),
        "surrogate-utf-8": (GOOD.replace(b'"w"', b'"\xed\xa0\x80"'), "A name with a surrogate in UTF-8"),
        "nan": (GOOD.replace(b"[2]", b"[NaN]"), "NaN, which is not JSON"),
        "leading-zero": (GOOD.replace(b"[2]", b"[02]"), "A number with a leading zero, which is not JSON"),
        "plus": (GOOD.replace(b"[2]", b"[+2]"), "A number with a plus sign, which is not JSON"),
        "raw-tab": (GOOD.replace(b'"w"', b'"\tw"'), "A raw tabulator in a string, which is not JSON"),
        "raw-line-end": (b'{"__metadata__":{"k":"a\nb"},' + GOOD[1:], "A raw line end in a string of __metadata__"),
        "lone-surrogate": (GOOD.replace(b'"w"', b'"\\ud800"'), "An escape of half a surrogate pair"),
        "surrogates-swapped": (GOOD.replace(b'"w"', b'"\\ude00\\ud83d"'), "A surrogate pair the wrong way round"),
        "surrogate-in-metadata": (
            b'{"__metadata__":{"k":"\\udc00"},' + GOOD[1:],
            "Half a surrogate pair in __metadata__",
        ),
        "surrogate-then-letter": (GOOD.replace(b'"w"', b'"\\ud800\\u0041"'), "Half a surrogate pair and a letter"),
        "no-fraction": (GOOD.replace(b"[2]", b"[2.]"), "A number that ends in a point, which is not JSON"),
        "no-exponent": (GOOD.replace(b"[2]", b"[2e]"), "A number that ends in an e, which is not JSON"),
        "point-first": (GOOD.replace(b"[2]", b"[.2]"), "A number that begins with a point, which is not JSON"),
        "minus-alone": (GOOD.replace(b"[2]", b"[-]"), "A minus sign without a number"),
        "escape-not-hexadecimal": (GOOD.replace(b'"w"', b'"\\u00g0"'), "An escape with a digit that is none"),
        "escape-short": (GOOD.replace(b'"w"', b'"\\u12"'), "An escape of two digits"),
        "escape-unknown": (GOOD.replace(b'"w"', b'"\\x41"'), "An escape that JSON does not know"),
        "semicolon": (GOOD.replace(b"0,8", b"0;8"), "A semicolon for a comma"),
        "no-colon": (GOOD.replace(b'"w":', b'"w"'), "A colon is missing"),
        "no-comma": (GOOD.replace(b'],"', b']"'), "A comma is missing"),
        "brace-for-bracket": (GOOD.replace(b"[2]", b"[2}"), "A brace closes an array"),
        "key-not-text": (GOOD.replace(b'"w"', b"1"), "A key that is a number"),
        "infinity": (GOOD.replace(b"[2]", b"[Infinity]"), "Infinity, which is not JSON"),
        "no-break-space": (GOOD.replace(b"[2]", b"[\xc2\xa02]"), "A no-break space, which is no white space of JSON"),
        "deep": (b'{"w":' + b"[" * 4000 + b"]" * 4000 + b"}", "4000 nested arrays"),
    }
    for slug, (text, description) in texts.items():
        yield _header(f"9.2-{slug}", description, problem, text)
    for slug, metadata in (
        ("empty", {}),
        ("array", []),
        ("null", None),
        ("number", {"k": 1}),
        ("object", {"k": {}}),
        ("mixed", {"k": "v", "l": 1}),
        ("mixed-first", {"k": 1, "l": "v"}),
    ):
        text = json_text({"__metadata__": metadata, "w": good})
        yield _header(f"9.2-metadata-{slug}", f"__metadata__ is {metadata}", problem, text)
    for key in good:
        rest = {name: value for name, value in good.items() if name != key}
        yield _entry(f"9.2-no-{key.replace('_', '-')}", f"A tensor without {key}", problem, rest)
    yield _entry("9.2-unknown-key", "A tensor with a key that is not known", problem, {**good, "x": 1})
    yield _entry("9.2-entry-array", "A tensor whose entry is an array", problem, [])
    yield _entry("9.2-entry-null", "A tensor whose entry is null", problem, None)
    wrong: dict[str, tuple[str, object]] = {
        "dtype-number": ("dtype", 5),
        "dtype-null": ("dtype", None),
        "dtype-array": ("dtype", ["F32"]),
        "shape-null": ("shape", None),
        "shape-number": ("shape", 2),
        "shape-text": ("shape", ["2"]),
        "shape-true": ("shape", [True, 2]),
        "shape-nested": ("shape", [[2]]),
        "offsets-object": ("data_offsets", {}),
        "offsets-three": ("data_offsets", [0, 8, 8]),
        "offsets-one": ("data_offsets", [0]),
        "offsets-text": ("data_offsets", ["0", "8"]),
    }
    for slug, (key, value) in wrong.items():
        yield _entry(f"9.2-{slug}", f"{key} is {value}: a wrong type", problem, {**good, key: value})
    twice = b'{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    yield _header("9.6-dtype-twice", "dtype stands twice in an entry", problem, twice)
    twice = b'{"w":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}'
    yield _header("9.6-shape-twice", "shape stands twice in an entry", problem, twice)
    twice = b'{"__metadata__":{"k":"1","k":"2"},' + GOOD[1:]
    yield _header("9.6-text-metadata-twice", "A key stands twice in __metadata__", problem, twice)
    twice = b'{"__metadata__":{"k":"1"},"__metadata__":{"k":"1"},' + GOOD[1:]
    yield _header("9.6-metadata-twice", "__metadata__ stands twice", problem, twice)
    twice = b'{"__metadata__":{"k":"1"},"__metadata__":{"l":"2"},' + GOOD[1:]
    yield _header("9.6-metadata-twice-other", "__metadata__ stands twice, with different keys", problem, twice)
    entry = json_text(good)
    for slug, data in (("same", entry), ("other", json_text({**good, "data_offsets": [8, 16]}))):
        text = b'{"w":' + entry + b',"w":' + data + b"}"
        yield _header(
            f"9.6-tensor-twice-{slug}",
            "A name stands for two tensors",
            "tensor-duplicate",
            text,
            16 if slug == "other" else 8,
        )
    yield _header("9.7-no-tensor", "An object without tensors", problem, b"{}", 0)
    yield _header("9.7-only-metadata", "Text metadata and no tensor", problem, b'{"__metadata__":{"k":"v"}}', 0)


def _canonical() -> Iterator[Vector]:
    problem = "header-canonical"
    metadata = b'{"__metadata__":{"k":"v"},'
    texts = {
        "space": (GOOD.replace(b":", b": "), "Spaces behind colons"),
        "line-end-first": (b"\n" + GOOD, "White space before the object"),
        "space-last": (GOOD + b" ", "White space behind the object"),
        "tab-in-array": (GOOD.replace(b"[2]", b"[\t2]"), "White space in an array"),
        "slash-escaped": (GOOD.replace(b'"w"', b'"\\/"'), "An escaped slash"),
        "letter-escaped": (GOOD.replace(b'"w"', b'"\\u0077"'), "An escaped letter"),
        "umlaut-escaped": (GOOD.replace(b'"w"', b'"\\u00e4"'), "A character above U+007F is escaped"),
        "surrogates-escaped": (GOOD.replace(b'"w"', b'"\\ud83d\\ude00"'), "A character above U+FFFF is escaped"),
        "quote-as-number": (GOOD.replace(b'"w"', b'"\\u0022"'), "A quote escaped by its number"),
        "tab-as-number": (GOOD.replace(b'"w"', b'"\\u0009"'), "A tab escaped by its number"),
        "upper-case-digits": (GOOD.replace(b'"w"', b'"\\u001F"'), "Uppercase hexadecimal digits"),
        "delete-escaped": (GOOD.replace(b'"w"', b'"\\u007f"'), "U+007F is escaped"),
        "value-escaped": (GOOD.replace(b'"F32"', b'"F3\\u0032"'), "An escaped letter in a dtype"),
        "minus-zero": (GOOD.replace(b"[0,", b"[-0,"), "Minus zero"),
        "fraction": (GOOD.replace(b"[2]", b"[2.0]"), "An integer with a fraction"),
        "exponent": (GOOD.replace(b"[2]", b"[2e0]"), "An integer with an exponent"),
        "zero-exponent": (GOOD.replace(b"[0,", b"[0e99,"), "Zero with a large exponent"),
        "exponent-negative": (GOOD.replace(b"[2]", b"[20e-1]"), "An integer with a negative exponent"),
        "fraction-in-offsets": (GOOD.replace(b"8]", b"8.0]"), "An integer of data_offsets with a fraction"),
    }
    for slug, (text, description) in texts.items():
        yield _header(f"9.3-{slug}", description, problem, text)
    yield _header("9.2-metadata-last", "__metadata__ stands last", problem, GOOD[:-1] + b',"__metadata__":{"k":"v"}}')
    good = header_object([W])["w"]
    yield _entry("9.2-entry-order", "The keys of an entry in another order", problem, dict(sorted(good.items())))
    spaced = metadata.replace(b'"k":', b'"k" :') + GOOD[1:]
    yield _header("9.3-space-in-metadata", "White space in __metadata__", problem, spaced)


def _values() -> Iterator[Vector]:
    good = header_object([W])["w"]

    def entry(slug: str, description: str, problem: str, nbytes: int = 8, also: str = "", **change: object) -> Vector:
        return _entry(slug, description, problem, {**good, **change}, nbytes, also=also)

    for dtype in ("F7", "f32", "FLOAT", "", "C128", "I128", "F32 ", "I4", "U4"):
        slug = {"": "empty", "f32": "lower-case", "F32 ": "space"}.get(dtype, dtype.lower())
        yield entry(f"9.2-dtype-{slug}", f"dtype {dtype!r}", "tensor-dtype", dtype=dtype)
    yield entry("9.2-shape-65", "65 dimensions", "tensor-shape", shape=[2, *[1] * 64])
    problem = "tensor-shape"
    for number, what in ((1 << 63, "2-63"), (1 << 64, "2-64"), (10**30, "10-30")):
        end, also = 4 * number, "member-bytes tensor-offsets"
        description = f"A dimension of {number}"
        yield entry(f"9.2-shape-{what}", description, problem, also=also, shape=[number], data_offsets=[0, end])
    for text, what in (("-2", "negative"), ("2.5", "fraction"), ("2e400", "exponent"), ("-2.0", "negative-fraction")):
        header = GOOD.replace(b"[2]", f"[{text}]".encode())
        yield _header(f"9.2-shape-{what}", f"A dimension of {text}", problem, header)
    yield _header(
        "9.2-shape-digits", "A dimension of 5000 digits", problem, GOOD.replace(b"[2]", b"[" + b"9" * 5000 + b"]")
    )
    for text, what in (("8.5", "fraction"), ("8e400", "exponent"), ("-8", "negative")):
        header = GOOD.replace(b"8]", f"{text}]".encode())
        yield _header(f"9.2-offsets-{what}", f"data_offsets up to {text}", "tensor-offsets", header)
    empty: dict[str, Any] = {"nbytes": 0, "data_offsets": [0, 0]}
    description = "A dimension of 2^63 in an empty tensor"
    yield entry("9.2-shape-0-and-2-63", description, problem, shape=[0, 1 << 63], **empty)
    description = "Dimensions whose product is 2^63, in an empty tensor"
    yield entry("9.2-shape-product", description, problem, shape=[0, 1 << 32, 1 << 31], **empty)
    description = "Dimensions whose product is 0 modulo 2^64"
    yield entry("9.2-shape-wraps", description, problem, also="tensor-offsets", shape=[1 << 32, 1 << 32, 2], **empty)
    description = "A shape in its limits, but the length in bytes is 0 modulo 2^64"
    wraps = {**empty, "dtype": "F64", "shape": [1 << 62]}
    yield entry("9.4-length-wraps", description, "tensor-offsets", also="member-bytes", **wraps)


def _offsets() -> Iterator[Vector]:
    problem = "tensor-offsets"

    def tensors(
        slug: str, description: str, tensors: Sequence[Tensor], places: Sequence[list[int]], nbytes: int, also: str = ""
    ) -> Vector:
        header = header_object(tensors)
        for tensor, place in zip(tensors, places, strict=True):
            header[tensor.name]["data_offsets"] = place
        return _header(slug, description, problem, json_text(header), nbytes, also=also)

    two = [floats("a", 1.0), floats("b", 2.0)]
    yield tensors("9.4-hole", "A hole between two tensors", two, [[0, 4], [8, 12]], 12)
    yield tensors("9.4-hole-first", "The first tensor does not start at 0", two, [[4, 8], [8, 12]], 12)
    yield tensors("9.4-overlap", "Two tensors share their data", two, [[0, 4], [0, 4]], 4)
    yield tensors("9.4-overlap-half", "Two tensors share half of their data", two, [[0, 4], [2, 6]], 6)
    yield tensors("9.4-reversed", "The tensors in the reverse order", two, [[4, 8], [0, 4]], 8)
    mixed = [floats("a", 1.0), floats("b", *[2.0] * 16)]
    description = "A length that is no multiple of 64 stands before one that is"
    yield tensors("9.4-multiples-of-64-late", description, mixed, [[0, 4], [4, 68]], 68)
    pages = [floats("a", *[1.0] * 16), floats("b", *[2.0] * 1024)]
    description = "A length that is no multiple of 4096 stands before one that is"
    yield tensors("9.4-multiples-of-4096-late", description, pages, [[0, 64], [64, 4160]], 4160)
    description = "An empty tensor stands among the multiples of 64"
    yield tensors("9.4-empty-late", description, [floats("a", *[1.0] * 16), floats("b")], [[0, 64], [64, 64]], 64)
    empty = [floats("a", 1.0), floats("b")]
    yield tensors("9.4-empty-last", "An empty tensor stands at the end of the data", empty, [[0, 4], [4, 4]], 4)
    one = [floats("a", 1.0)]
    yield tensors("9.4-begin-after-end", "The end before the beginning", one, [[4, 0]], 4)
    yield tensors("9.4-too-short", "Fewer bytes than dtype and shape need", two, [[0, 3], [3, 7]], 7)
    yield tensors("9.4-too-long", "More bytes than dtype and shape need", one, [[0, 8]], 8)
    yield tensors("9.4-empty-with-bytes", "Bytes for a tensor without elements", [floats("a")], [[0, 64]], 64)
    for number, what in ((1 << 60, "2-60"), (1 << 63, "2-63"), (1 << 64, "2-64"), (10**30, "10-30")):
        description = f"data_offsets up to {number}"
        yield tensors(f"9.4-end-{what}", description, one, [[0, number]], 4)
        yield tensors(f"9.4-begin-{what}", f"data_offsets from {number}", one, [[number, number + 4]], 4)
    parts: list[tuple[str, list[int], int]] = [
        ("F4", [3], 2),
        ("F4", [5], 2),
        ("F4", [], 1),
        ("F6_E2M3", [2], 2),
        ("F6_E3M2", [3, 3], 7),
    ]
    for dtype, shape, length in parts:
        name = f"9.4-part-of-a-byte-{dtype.lower().replace('_', '-')}-{len(shape)}"
        name += "-rounded-down" if shape == [5] else ""
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, length]}
        yield _entry(name, f"{dtype} of shape {shape} is not a whole number of bytes", problem, entry, length)


def _agreement() -> Iterator[Vector]:
    good = safetensors(NAME, [W])
    other = json_text(header_object([floats("v", 1.0, 2.0)]))

    def vector(slug: str, description: str, made: Member, problem: str = "header-digest", **options: str) -> Vector:
        return invalid(slug, description, problem, File([made]), member=NAME, **options)

    yield vector(
        "9.5-other-text", "The index has another name for the tensor than the member", good.edited(header=other)
    )
    digests = good.entry["digests"]
    wrong = good.edited(digests=bytes(32) + digests[32:])
    yield vector("9.5-digest", "The digest of the header block is wrong", wrong)
    made = safetensors(NAME, [W], header=other, block=header_block(GOOD))
    made = made.edited(digests=digest(header_block(other)) + digests[32:])
    description = "Index and digests agree; the member has another header"
    yield vector("9.5-member-differs", description, made, "chunk-digest", clauses="7.2")
    text = safetensors(NAME, [W], block=header_block(b'{"__metadata__":{"k":"v"},' + GOOD[1:]))
    yield vector("9.5-text-metadata", "The member has text metadata, the index has not", text)
    for nbytes, what in ((7, "short"), (9, "long")):
        made = safetensors(NAME, [W], data=[Segment(bytes(nbytes))])
        description = f"{nbytes} bytes of data for a tensor of 8"
        yield vector(f"9.5-data-{what}", description, made, "member-bytes", clauses="9.4")
    extra = safetensors(NAME, [W], data=[Segment(W.data), Segment(b"extra")])
    yield vector("9.5-data-behind", "Bytes behind the last tensor", extra, "member-bytes", also="digest-count")
    zstd = safetensors(NAME, [W], codec="zstd").edited(logical_bytes=1 << 60)
    yield vector("9.5-logical-2-60", "logical_bytes is 2^60", zstd, "member-bytes")
