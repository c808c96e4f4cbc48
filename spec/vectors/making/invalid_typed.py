"""Invalid vectors for clause 11.8: typed values that are not as the table of 11.6 says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spec.vectors.making.container import Tensor
from spec.vectors.making.invalid_values import tree
from spec.vectors.making.samples import floats, tensor
from spec.vectors.making.values import TensorName, Tuple, Typed
from spec.vectors.making.vector import Vector


def all_typed() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _plain()
    yield from _tensors()
    hidden = Typed("my.Type", {"when": [Typed("date", "yesterday")]})
    description = "A typed date whose value is not as it has to be, inside a typed value of an unknown name"
    yield tree("11.8-inside-unknown", description, "typed-value", hidden)
    yield from _sparse()
    yield from _shapes()


def _typed(name: str, what: str, value: object, *tensors: Tensor) -> Vector:
    slug = name.lower().replace(".", "-").replace("_", "-")
    description = f"A typed {name} whose value is not as it has to be: {what.replace('-', ' ')}"
    return tree(f"11.8-{slug}-{what}", description, "typed-value", Typed(name, value), *tensors)


def _plain() -> Iterator[Vector]:
    wrong: dict[str, Mapping[str, object]] = {
        "frozenset": {"array": ["a"]},
        "datetime": {
            "number": 1_700_000_000,
            "text": "yesterday",
            "empty": "",
            "month-13": "2024-13-01T00:00:00",
            "february-29": "2023-02-29T00:00:00",
            "year-0": "0000-01-01T00:00:00",
            "year-10000": "10000-01-01T00:00:00",
            "without-hyphens": "20240229T000000",
            "without-time": "2024-02-29",
            "space-for-t": "2024-02-29 00:00:00",
            "lower-case-t": "2024-02-29t00:00:00",
            "line-end-behind": "2024-02-29T00:00:00\n",
            "z": "2024-02-29T00:00:00Z",
            "offset-zero": "2024-02-29T00:00:00+00:00",
            "offset-minus-zero": "2024-02-29T00:00:00-00:00",
            "offset-without-colon": "2024-02-29T00:00:00+0100",
            "offset-hours": "2024-02-29T00:00:00+01",
            "offset-24-hours": "2024-02-29T00:00:00+24:00",
            "offset-seconds-zero": "2024-02-29T00:00:00+01:00:00",
            "offset-microseconds": "2024-02-29T00:00:00+01:00:00.000001",
        },
        "date": {
            "array": [2024, 1, 1],
            "february-29": "2023-02-29",
            "text": "tomorrow",
            "without-hyphens": "20240229",
            "week": "2024-W09-4",
            "day-of-year": "2024-060",
            "with-time": "2024-02-29T00:00:00",
        },
        "time": {
            "number": 0,
            "hour-25": "25:00:00",
            "text": "noon",
            "hour-24": "24:00:00",
            "second-60": "23:59:60",
            "without-seconds": "12:00",
            "t-first": "T12:00:00",
            "comma": "12:00:00,500000",
            "one-digit": "12:00:00.5",
            "nanoseconds": "12:00:00.000000001",
            "fraction-zero": "12:00:00.000000",
            "z": "12:00:00Z",
            "offset-minus-zero": "12:00:00-00:00",
            "digits-not-ascii": "1\u0662:00:00",
        },
        "timedelta": {
            "two-numbers": [1, 2],
            "float": [0, 0.5, 0],
            "text": "1 day",
            "seconds": [0, 86_400, 0],
            "microseconds": [0, 0, -1],
            "days": [10**9, 0, 0],
            "days-negative": [-(10**9), 0, 0],
            "big-days": [2**64, 0, 0],
            "days-true": [True, 0, 0],
            "four-numbers": [0, 0, 0, 0],
            "bin": bytes(3),
            "tuple": Tuple([0, 0, 0]),
            "seconds-negative": [0, -1, 0],
            "microseconds-10-6": [0, 0, 10**6],
            "microseconds-float": [0, 0, 0.0],
        },
        "numpy.scalar": {
            "number": 1,
            "one-element": ["F32"],
            "tuple": Tuple(["F32", bytes(4)]),
            "three-elements": ["F32", bytes(4), 1],
            "unknown-dtype": ["F33", bytes(4)],
            "dtype-bin": [b"F32", bytes(4)],
            "dtype-array": [["F32"], bytes(4)],
            "short": ["F32", bytes(3)],
            "long": ["F64", bytes(9)],
            "text": ["U8", "a"],
            "c128-short": ["C128", bytes(8)],
            "f4": ["F4", bytes(1)],
            "f6": ["F6_E2M3", bytes(1)],
            "c32": ["C32", bytes(4)],
            "bool-2": ["BOOL", b"\2"],
        },
        "torch.Size": {
            "text": "2",
            "floats": [2.0],
            "booleans": [True],
            "tuple": Tuple([2]),
            "negative": [2, -1],
            "2-63": [2**63],
        },
        "per_rank": {
            "map": {"0": 1, "1": 2},
            "tuple": Tuple([1, 2]),
            "empty": [],
            "one-value": [1],
            "nested": [1, Typed("per_rank", [2, 3])],
            "nested-deeper": [{"a": [Tuple([Typed("my.Type", Typed("per_rank", [2, 3]))])]}, 1],
        },
        "torch.dtype": {
            "number": 32,
            "empty": "",
            "digit-first": "8bits",
            "dot": "torch.float32",
            "path": "../x",
            "not-ascii": "flo\u00e4t",
        },
        "torch.device": {
            "array": ["cuda", 0],
            "empty": "",
            "no-number": "cuda:",
            "negative": "cuda:-1",
            "leading-zero": "cuda:01",
            "hyphen": "no-device",
            "two-colons": "cuda:0:0",
            "line-end-behind": "cpu\n",
            "not-ascii": "cud\u00e4",
            "digits-not-ascii": "cuda:1\u0661",
        },
    }
    for name, values in wrong.items():
        for what, value in values.items():
            yield _typed(name, what, value)


def _tensors() -> Iterator[Vector]:
    w = TensorName("w")
    yield _typed("C128", "number", 1)
    yield _typed("C128", "tensor-of-f32", w, tensor("w", "F32", 2, 2))
    yield _typed("C128", "last-dimension-3", w, tensor("w", "F64", 2, 3))
    yield _typed("C128", "no-dimension", w, tensor("w", "F64"))
    yield _typed("C32", "tensor-of-f32", w, tensor("w", "F32", 2))
    yield _typed("numpy.ndarray", "array", [1, 2])
    yield _typed("numpy.ndarray", "c32", Typed("C32", w), tensor("w", "F16", 2))
    yield _typed("numpy.ndarray", "f4", w, tensor("w", "F4", 2))
    yield _typed("numpy.ndarray", "f6", w, tensor("w", "F6_E3M2", 4))


def _sparse() -> Iterator[Vector]:
    i, v = tensor("i", "I64", 2, 2), floats("v", 1.0, 2.0)
    coo: dict[str, object] = {
        "indices": TensorName("i"),
        "values": TensorName("v"),
        "size": [2, 3],
        "is_coalesced": True,
    }
    name = "torch.sparse_coo"
    yield _typed(name, "array", list(coo.values()), i, v)
    yield _typed(name, "no-size", {key: value for key, value in coo.items() if key != "size"}, i, v)
    yield _typed(name, "unknown-key", {**coo, "x": 1}, i, v)
    yield _typed(name, "size-of-text", {**coo, "size": ["2", 3]}, i, v)
    yield _typed(name, "is-coalesced-1", {**coo, "is_coalesced": 1}, i, v)
    yield _typed(name, "indices-array", {**coo, "indices": [0, 1]}, v)
    yield _typed(name, "order", dict(reversed(coo.items())), i, v)
    yield _typed(name, "size-negative", {**coo, "size": [2, -3]}, i, v)
    yield _typed(name, "size-2-63", {**coo, "size": [2, 1 << 63]}, i, v)
    yield _typed(name, "indices-i32", coo, tensor("i", "I32", 2, 2), v)
    yield _typed(name, "indices-f64", coo, tensor("i", "F64", 2, 2), v)
    complex_indices = {**coo, "indices": Typed("C128", TensorName("i"))}
    yield _typed(name, "indices-c128", complex_indices, tensor("i", "F64", 2, 2), v)
    yield _typed(name, "values-numpy", {**coo, "values": Typed("numpy.ndarray", TensorName("v"))}, i, v)
    pairs = tensor("v", "F32", 2, 2)
    yield _typed(name, "values-numpy-pairs", {**coo, "values": Typed("numpy.ndarray", TensorName("v"))}, i, pairs)
    for layout in ("csr", "csc", "bsr", "bsc"):
        yield _typed(f"torch.sparse_{layout}", "array", [1])
    parts: dict[str, object] = {
        "compressed_indices": TensorName("c"),
        "plain_indices": TensorName("p"),
        "values": TensorName("v"),
        "size": 4,
    }
    c, p = tensor("c", "I64", 3), tensor("p", "I64", 2)
    yield _typed("torch.sparse_csr", "size-number", parts, c, p, v)
    unsigned = {**parts, "size": [2, 2]}
    yield _typed("torch.sparse_bsr", "indices-u64", unsigned, c, tensor("p", "U64", 2), v)
    yield _typed("torch.sparse_csc", "indices-i16", unsigned, tensor("c", "I16", 3), p, v)
    yield _typed("torch.sparse_csr", "parts-of-coo", coo, i, v)
    narrow = tensor("c", "I32", 3)
    yield _typed("torch.sparse_csr", "indices-of-two-dtypes-narrow-first", unsigned, narrow, p, v)
    yield _typed("torch.sparse_csr", "indices-of-two-dtypes", unsigned, c, tensor("p", "I32", 2), v)


def _shapes() -> Iterator[Vector]:
    def coo(what: str, indices: list[int], values: list[int], size: list[int], typed: str = "") -> Vector:
        i, v = tensor("i", "I64", *indices), tensor("v", "F64" if typed else "F32", *values)
        elements = Typed(typed, TensorName("v")) if typed else TensorName("v")
        parts = {"indices": TensorName("i"), "values": elements, "size": size, "is_coalesced": False}
        return _misfit("coo", what, parts, i, v)

    def compressed(
        layout: str, what: str, slices: list[int], plain: list[int], values: list[int], size: list[int]
    ) -> Vector:
        c, p, v = tensor("c", "I64", *slices), tensor("p", "I64", *plain), tensor("v", "F32", *values)
        names = {"compressed_indices": "c", "plain_indices": "p", "values": "v"}
        parts = {key: TensorName(name) for key, name in names.items()}
        return _misfit(layout, what, {**parts, "size": size}, c, p, v)

    yield coo("indices of one dimension", [2], [2], [2])
    yield coo("no dimension of values for indices of one", [2], [], [2, 3])
    yield coo("no dimension but one of indices", [1], [], [])
    yield coo("more values than indices", [2, 2], [3], [2, 3])
    yield coo("a larger dense dimension", [1, 2], [2, 3], [4, 2])
    yield coo("indices of three dimensions", [2, 2, 1], [2], [2, 3])
    yield coo("fewer values than indices", [2, 3], [2], [2, 3])
    yield coo("values without a dimension", [2, 1], [], [2, 3])
    yield coo("a size of too few dimensions", [2, 2], [2], [2])
    yield coo("a size of too many dimensions", [2, 2], [2], [2, 3, 4])
    yield coo("another dense dimension", [2, 2], [2, 4], [2, 3, 5])
    yield coo("real and imaginary part taken for a dimension", [2, 2], [2, 2], [2, 3, 2], "C128")
    yield compressed("csr", "too few slices", [2], [2], [2], [2, 3])
    yield compressed("csr", "as many slices as columns", [4], [2], [2], [2, 3])
    yield compressed("csc", "as many slices as rows", [3], [2], [2], [2, 3])
    yield compressed("csr", "fewer values than indices", [3], [3], [2], [2, 3])
    yield compressed("csr", "compressed indices without a dimension", [], [2], [2], [2, 3])
    yield compressed("csr", "plain indices of two dimensions", [3], [2, 1], [2, 1], [2, 3])
    yield compressed("csr", "a size of one dimension", [3], [2], [2], [2])
    yield compressed("csr", "another batch of plain indices", [2, 3], [3, 2], [2, 2], [2, 2, 3])
    yield compressed("csr", "plain indices and values without a dimension", [3], [], [], [2, 3])
    for count in (1, 3):
        what = f"{count} for 2 batches of plain indices and values"
        yield compressed("csr", what, [2, 3], [count, 2], [count, 2], [2, 2, 3])
    yield compressed("csr", "another batch in the size", [2, 3], [2, 2], [2, 2], [3, 2, 3])
    yield compressed("csr", "another batch of values", [2, 3], [2, 2], [3, 2], [2, 2, 3])
    yield compressed("csr", "another dense dimension", [3], [2], [2, 4], [2, 3, 5])
    yield compressed("csr", "values in blocks", [3], [2], [2, 1, 1], [2, 3])
    yield compressed("bsr", "values without blocks", [3], [2], [2], [2, 3])
    yield compressed("bsr", "blocks of one dimension", [3], [2], [2, 1], [2, 3])
    yield compressed("bsr", "blocks without rows", [1], [0], [0, 0, 1], [0, 3])
    yield compressed("bsc", "blocks without columns", [1], [0], [0, 1, 0], [2, 0])
    yield compressed("bsr", "blocks that do not divide the rows", [2], [2], [2, 2, 1], [3, 3])
    yield compressed("bsc", "blocks that do not divide the columns", [2], [2], [2, 1, 2], [3, 3])
    yield compressed("bsr", "as many slices as rows", [5], [2], [2, 2, 3], [4, 6])
    yield compressed("bsc", "as many slices as rows of blocks", [4], [2], [2, 2, 3], [6, 6])


def _misfit(layout: str, what: str, parts: Mapping[str, object], *tensors: Tensor) -> Vector:
    slug = what.replace(" ", "-")
    description = f"A typed torch.sparse_{layout} whose shapes do not fit: {what}"
    value = Typed(f"torch.sparse_{layout}", dict(parts))
    return tree(f"11.9-{layout}-{slug}", description, "typed-value", value, *tensors)
