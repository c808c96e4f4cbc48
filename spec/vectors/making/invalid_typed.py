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
    yield from _sparse()


def _typed(name: str, what: str, value: object, *tensors: Tensor) -> Vector:
    slug = name.lower().replace(".", "-").replace("_", "-")
    description = f"A typed {name} whose value is not as it has to be: {what.replace('-', ' ')}"
    return tree(f"11.8-{slug}-{what}", description, "typed-value", Typed(name, value), *tensors)


def _plain() -> Iterator[Vector]:
    wrong: dict[str, Mapping[str, object]] = {
        "frozenset": {"array": ["a"]},
        "datetime": {"number": 1_700_000_000, "text": "yesterday", "month-13": "2024-13-01T00:00:00"},
        "date": {"array": [2024, 1, 1], "february-29": "2023-02-29", "text": "tomorrow"},
        "time": {"number": 0, "hour-25": "25:00:00", "text": "noon"},
        "timedelta": {
            "two-numbers": [1, 2],
            "float": [0, 0.5, 0],
            "text": "1 day",
            "seconds": [0, 86_400, 0],
            "microseconds": [0, 0, -1],
            "days": [10**9, 0, 0],
        },
        "numpy.scalar": {
            "number": 1,
            "one-element": ["F32"],
            "three-elements": ["F32", bytes(4), 1],
            "unknown-dtype": ["F33", bytes(4)],
            "dtype-bin": [b"F32", bytes(4)],
            "short": ["F32", bytes(3)],
            "long": ["F64", bytes(9)],
            "text": ["U8", "a"],
            "c128-short": ["C128", bytes(8)],
            "f4": ["F4", bytes(1)],
        },
        "torch.Size": {"text": "2", "floats": [2.0], "booleans": [True], "tuple": Tuple([2])},
        "torch.dtype": {"number": 32},
        "torch.device": {"array": ["cuda", 0]},
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
    yield _typed("torch.sparse_csr", "parts-of-coo", coo, i, v)
