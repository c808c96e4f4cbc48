"""Valid vectors for sections 10 and 11: values of MessagePack, ext values, typed values."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from spec.vectors.making.container import BITS, File, Member, Tensor, msgpack, safetensors
from spec.vectors.making.samples import floats, pattern, tensor
from spec.vectors.making.values import Complex, Float, Map, Set, TensorName, Timestamp, Tuple, Typed, pack
from spec.vectors.making.vector import Vector, valid


def all_valid_values() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _values()
    yield from _typed()


def _values() -> Iterator[Vector]:
    def tree(name: str, description: str, clauses: str, value: object) -> Vector:
        return valid(name, description, clauses, File([msgpack("tree.msgpack", value)]))

    edges = [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
    edges += [-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**53), -(2**63)]
    yield tree("integers", "Integers at the borders of every format", "10.2", edges)
    big = [2**64, -(2**63) - 1, 2**71 - 1, 2**71, -(2**71), -(2**71) - 1, 2**1000, -(3**700)]
    yield tree("big-integers", "Integers of ext 4, with and without a byte for the sign", "10.7", big)
    bits = [0, 1 << 63, 0x7FF << 52, 0xFFF << 52, 1, 0x7FF8 << 48, 0xFFF8000000000123, 0x3FF << 52, 0x3FB999999999999A]
    yield tree(
        "floats", "Floats with all of their bits, NaNs included", "10.2 11.6", [Float(number) for number in bits]
    )
    texts = ["", "a" * 31, "a" * 32, "é" * 127, "a" * 255, "a" * 256, "\0", "\U0001f600", "e\u0301", "\u2028"]
    yield tree(
        "strings", "Strings of every length format but the longest; no Unicode form is changed", "10.1 10.2", texts
    )
    yield tree("bins", "Binary strings", "10.2", [b"", bytes(1), pattern(255), pattern(256)])
    arrays = [[], [None] * 15, [None] * 16, {}, Map([(i, None) for i in range(15)]), Map([(i, i) for i in range(16)])]
    yield tree("containers", "Arrays and maps of 0, 15 and 16 elements", "10.2 10.4", arrays)
    wide = ["a" * 65536, bytes(65536), [None] * 65536, Map([(f"{i:x}", None) for i in range(65536)])]
    wide.append(Tuple([None] * 65536))
    yield tree("wide", "A str, a bin, an array, a map and an ext of 65,536: the longest formats", "10.2", wide)
    wide = ["a" * 65535, bytes(65535), [None] * 65535, Map([(f"{i:x}", None) for i in range(32768)])]
    wide += [Tuple([None] * 65532), Tuple(["a" * 253]), Tuple(["a" * 252]), Tuple(["a" * 30]), "a" * 32768, [1] * 32768]
    wide += [Tuple([b"a" * 32768]), bytes(32768)]
    yield tree("wide-16", "The longest of each that 16 bits can count, and others", "10.2", wide)
    keys = [
        None,
        True,
        False,
        2,
        -1,
        2**64 - 1,
        -(2**63),
        0.5,
        float("inf"),
        float("-inf"),
        "",
        "2",
        "é",
        b"",
        b"2",
        2.5,
    ]
    yield tree(
        "map-keys", "Keys of every kind, in an order of their own", "10.3 10.4", Map([(key, pack(key)) for key in keys])
    )
    close = [
        (1, "a"),
        (0, "b"),
        ("1", "c"),
        (b"1", "d"),
        (float(2**53), "e"),
        (2**53 + 1, "f"),
        (float(2**54), "g"),
        (2**54 + 1, "i"),
        (5e-324, "h"),
    ]
    yield tree("map-keys-close", "Keys that are nearly equal", "10.3", Map(close))
    tuples = [Tuple([]), Tuple([1]), Tuple([Tuple([]), [Tuple([2, "x"])]]), Tuple(list(range(20)))]
    yield tree("tuples", "Tuples: empty, nested, long", "10.6 10.7", tuples)
    sets = [Set([]), Set([3, 1, 2]), Set(["b", "a", b"a", None, True, 2, -1, 0.5]), Tuple([Set(["x"])])]
    sets.append(Set([float(2**53), 2**53 + 1]))
    yield tree("sets", "Sets, sorted by their encoded bytes", "10.7", sets)
    times = [
        (0, 0),
        (1_700_000_000, 0),
        (2**32 - 1, 0),
        (2**32, 0),
        (0, 1000),
        (2**34 - 1, 999_999_000),
        (2**34, 0),
        (-1, 0),
        (-1, 999_999_000),
    ]
    yield tree("timestamps", "Timestamps in each of the three forms", "10.7 11.6", [Timestamp(*time) for time in times])
    far = [(0, 1), (2**34, 999_999_999), (253_402_300_800, 0), (-62_135_596_801, 0), (2**63 - 1, 5), (-(2**63), 0)]
    description = "Timestamps of single nanoseconds, and far from today"
    yield tree("timestamps-far", description, "10.7 11.6", [Timestamp(*time) for time in far])
    numbers = [Complex(0.0, -0.0), Complex(1.5, float("inf")), Complex(-1e300, 5e-324), Complex(float("nan"), 0.0)]
    yield tree("complex", "Complex numbers", "10.7 11.6", numbers)
    deep: Any = []
    for number in range(64):
        deep = ([deep], {"": deep}, Tuple([deep]), Typed("deep", deep))[number % 4]
    yield tree("depth-64", "Nesting to the limit, in arrays, maps, tuples and typed values", "10.5 13.1", deep)


def _typed() -> Iterator[Vector]:
    def tree(name: str, description: str, value: object, *tensors: Tensor, clauses: str = "11.6 11.8") -> Vector:
        weights: list[Member] = [safetensors("tree.safetensors", tensors)] if tensors else []
        return valid(name, description, clauses, File([msgpack("tree.msgpack", value), *weights]))

    yield tree("typed-frozenset", "frozenset", [Typed("frozenset", Set(["b", "a"])), Typed("frozenset", Set([]))])
    moments: dict[str, list[object]] = {
        "datetime": [
            "2024-02-29T12:34:56",
            "0001-01-01T00:00:00.000001",
            "2024-01-01T00:00:00+05:30",
            "9999-12-31T23:59:59.999999",
            "2024-01-01T00:00:00-23:59:59",
            "2024-01-01T00:00:00+00:00:01",
            "1880-01-01T12:00:00.000001+00:53:28",
        ],
        "date": ["2024-02-29", "0001-01-01", "9999-12-31"],
        "time": ["00:00:00", "23:59:59.999999", "12:00:00+01:00", "12:00:00+00:00", "12:00:00.500000-00:00:30"],
        "timedelta": [[0, 0, 0], [-1, 86_399, 999_999], [999_999_999, 86_399, 999_999], [-999_999_999, 0, 0]],
    }
    for name, values in moments.items():
        yield tree(f"typed-{name}", name, [Typed(name, value) for value in values])
    doubles = Tensor("z", "F64", [2, 2], struct.pack("<4d", 1.0, 2.0, -1.0, 0.5))
    halves = Tensor("h", "F16", [1, 2], struct.pack("<2e", 1.0, 2.0))
    value = [Typed("C128", TensorName("z")), Typed("C32", TensorName("h"))]
    yield tree("typed-complex-tensors", "C128 and C32", value, doubles, halves)
    arrays = [Typed("numpy.ndarray", TensorName("a")), Typed("numpy.ndarray", Typed("C128", TensorName("z")))]
    yield tree(
        "typed-numpy-ndarray", "numpy.ndarray, of a dtype of section 9 and of C128", arrays, floats("a", 1.0), doubles
    )
    whole = {dtype: bits for dtype, bits in BITS.items() if bits % 8 == 0}
    every = [tensor(dtype, dtype, 2, seed=60) for dtype in whole]
    arrays = [Typed("numpy.ndarray", TensorName(dtype)) for dtype in whole]
    yield tree("typed-numpy-dtypes", "numpy.ndarray of every dtype that NumPy has", arrays, *every)
    scalars = [Typed("numpy.scalar", [dtype, tensor("", dtype, seed=60).data]) for dtype in whole]
    scalars.append(Typed("numpy.scalar", ["BOOL", b"\1"]))
    scalars.append(Typed("numpy.scalar", ["C128", struct.pack("<2d", 1.0, -2.0)]))
    yield tree("typed-numpy-scalar", "numpy.scalar of every dtype", scalars)
    torch = [
        Typed("torch.Size", []),
        Typed("torch.Size", [2, 0, 3]),
        Typed("torch.dtype", "bfloat16"),
        Typed("torch.device", "cuda:0"),
        Typed("torch.device", "cpu"),
        Typed("torch.Size", [2**63 - 1]),
    ]
    yield tree("typed-torch", "torch.Size, torch.dtype and torch.device", torch)
    new = [Typed("torch.dtype", "float3_e1m1"), Typed("torch.device", "_quantum:100000"), Typed("torch.device", "q0")]
    new.append(Typed("torch.dtype", "_private"))
    yield tree("typed-torch-new", "Dtypes and devices that no PyTorch has yet: inert data", new)
    indices = Tensor("i", "I64", [2, 2], struct.pack("<4q", 0, 1, 2, 0))
    coo = {"indices": TensorName("i"), "values": TensorName("v"), "size": [2, 3], "is_coalesced": True}
    sparse = Typed("torch.sparse_coo", coo)
    yield tree("typed-torch-sparse-coo", "torch.sparse_coo", sparse, indices, floats("v", 1.0, 2.0))
    complex_ = {**coo, "values": Typed("C128", TensorName("v")), "is_coalesced": False}
    complex_values = Tensor("v", "F64", [2, 2], struct.pack("<4d", 1.0, 2.0, -1.0, 0.5))
    description = "torch.sparse_coo of complex values"
    yield tree("typed-torch-sparse-complex", description, Typed("torch.sparse_coo", complex_), indices, complex_values)
    narrow = {**complex_, "values": Typed("C32", TensorName("v"))}
    halves_ = Tensor("v", "F16", [2, 2], struct.pack("<4e", 1.0, 2.0, -1.0, 0.5))
    description = "torch.sparse_coo of values of complex32"
    yield tree("typed-torch-sparse-c32", description, Typed("torch.sparse_coo", narrow), indices, halves_)
    compressed = Tensor("c", "I64", [3], struct.pack("<3q", 0, 1, 2))
    plain = Tensor("p", "I64", [2], struct.pack("<2q", 1, 0))
    for layout in ("csr", "csc", "bsr", "bsc"):
        weights = (
            floats("v", 1.0, 2.0) if layout[0] == "c" else Tensor("v", "F32", [2, 1, 1], struct.pack("<2f", 1.0, 2.0))
        )
        parts = {
            "compressed_indices": TensorName("c"),
            "plain_indices": TensorName("p"),
            "values": TensorName("v"),
            "size": [2, 2],
        }
        sparse = Typed(f"torch.sparse_{layout}", parts)
        yield tree(f"typed-torch-sparse-{layout}", f"torch.sparse_{layout}", sparse, compressed, plain, weights)
    small = (
        Tensor("c", "I32", [3], struct.pack("<3i", 0, 1, 2)),
        Tensor("p", "I32", [2], struct.pack("<2i", 1, 0)),
    )
    sparse = Typed("torch.sparse_csr", parts)
    yield tree("typed-torch-sparse-i32", "Indices of 32 bits", sparse, *small, floats("v", 1.0, 2.0))
    indices = Tensor("i", "I64", [1, 2], struct.pack("<2q", 0, 2))
    dense = {**coo, "size": [4, 3]}
    rows = Tensor("v", "F32", [2, 3], struct.pack("<6f", *range(6)))
    description = "torch.sparse_coo with a dense dimension"
    yield tree("typed-torch-sparse-dense", description, Typed("torch.sparse_coo", dense), indices, rows)
    none = Tensor("i", "I64", [0, 1], b"")
    whole_ = Tensor("v", "F32", [1, 2], struct.pack("<2f", 1.0, 2.0))
    description = "torch.sparse_coo without a sparse dimension"
    yield tree("typed-torch-sparse-none", description, Typed("torch.sparse_coo", {**coo, "size": [2]}), none, whole_)
    batch = (
        Tensor("c", "I64", [2, 3], struct.pack("<6q", 0, 1, 2, 0, 1, 2)),
        Tensor("p", "I64", [2, 2], struct.pack("<4q", 1, 0, 0, 1)),
        Tensor("v", "F32", [2, 2], struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)),
    )
    sparse = Typed("torch.sparse_csr", {**parts, "size": [2, 2, 2]})
    yield tree("typed-torch-sparse-batch", "torch.sparse_csr with a batch dimension", sparse, *batch)
    wide = (
        Tensor("c", "I64", [3], struct.pack("<3q", 0, 1, 2)),
        Tensor("p", "I64", [2], struct.pack("<2q", 2, 0)),
        Tensor("v", "F32", [2], struct.pack("<2f", 1.0, 2.0)),
    )
    sparse = Typed("torch.sparse_csc", {**parts, "size": [3, 2]})
    yield tree("typed-torch-sparse-columns", "torch.sparse_csc with fewer columns than rows", sparse, *wide)
    blocks = (
        Tensor("c", "I64", [1, 3], struct.pack("<3q", 0, 1, 2)),
        Tensor("p", "I64", [1, 2], struct.pack("<2q", 1, 0)),
        Tensor("v", "F32", [1, 2, 2, 3, 1], struct.pack("<12f", *range(12))),
    )
    sparse = Typed("torch.sparse_bsr", {**parts, "size": [1, 4, 6, 1]})
    description = "torch.sparse_bsr with a batch, blocks of 2 x 3 and a dense dimension"
    yield tree("typed-torch-sparse-blocks", description, sparse, *blocks)
    for layout, size in (("bsr", [6, 3]), ("bsc", [2, 9])):
        long = (
            Tensor("c", "I64", [4], struct.pack("<4q", 0, 1, 1, 2)),
            Tensor("p", "I64", [2], struct.pack("<2q", 0, 0)),
            Tensor("v", "F32", [2, 2, 3], struct.pack("<12f", *range(12))),
        )
        sparse = Typed(f"torch.sparse_{layout}", {**parts, "size": size})
        description = f"torch.sparse_{layout} of three slices, and one block in the other direction"
        yield tree(f"typed-torch-sparse-{layout}-slices", description, sparse, *long)
    nothing = (
        Tensor("c", "I64", [1], struct.pack("<q", 0)),
        Tensor("p", "I64", [0], b""),
        Tensor("v", "F32", [0], b""),
    )
    sparse = Typed("torch.sparse_csr", {**parts, "size": [0, 0]})
    yield tree("typed-torch-sparse-empty", "torch.sparse_csr without rows and columns", sparse, *nothing)
    ranks = {
        "avg": Typed("per_rank", [TensorName("avg.0"), TensorName("avg.1")]),
        "seen": Typed("per_rank", [[1], [], {"a": None}]),
        "lr": 0.5,
    }
    averages = floats("avg.0", 1.0, 2.0), Tensor("avg.1", "F64", [1], struct.pack("<d", 3.0))
    yield tree("typed-per-rank", "per_rank of tensors and of plain values", ranks, *averages)
    whole_tree = Typed("per_rank", [{"n": 1}, Typed("frozenset", Set([]))])
    yield tree("typed-per-rank-root", "A component that differs as a whole", whole_tree)
    unknown = [
        Typed("os.system", "true"),
        Typed("this.s", 1),
        Typed("", None),
        Typed("shard", ["a", 1]),
        Typed("my.Type", {"w": TensorName("w"), "t": Tuple([1])}),
    ]
    description = "Type names that nobody knows stay inert data, and what they hold counts as always"
    yield tree("typed-unknown", description, unknown, floats("w", 1.0), clauses="11.2 11.8 14.3 16.3 16.4")
