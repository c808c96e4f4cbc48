"""The library answers every vector as its sidecar says."""

from __future__ import annotations

import math
import struct
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ckptfmt import PerRank, Typed
from ckptfmt._core.container.numpy_adapter import NUMPY_ADAPTERS
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt.errors import FormatError, Problem, error_for
from tests.spec.vectors import EVERY_VALID, INVALID, VALID, Vector, integers

# The column "NumPy / ml_dtypes" of the table in section 9; the dtypes that share bytes have no type there.
DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "BF16": ml_dtypes.bfloat16,
    "C64": np.complex64,
    "C128": np.complex128,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}

MOMENTS: dict[str, Any] = {"datetime": datetime, "date": date, "time": time}


def _beyond_numpy(component: dict[str, Any]) -> bool:
    """Whether NumPy has no array for one of the tensors: of a dtype that shares bytes, or of a huge but empty shape."""
    return any(
        tensor["dtype"] not in DTYPES
        or math.prod(filter(None, integers(tensor["shape"]))) * np.dtype(DTYPES[tensor["dtype"]]).itemsize >= 2**63
        for tensor in component["tensors"]
    )


@pytest.mark.parametrize("vector", EVERY_VALID, ids=lambda vector: vector.name)
def test_valid_vector_opens(vector: Vector, tmp_path: Path) -> None:
    content = vector.content
    with Checkpoint.open(vector.file(tmp_path), NUMPY_ADAPTERS) as checkpoint:
        assert checkpoint.verify() == ()
        assert checkpoint.identity == content["identity"]
        assert list(checkpoint.version) == content["version"]
        assert checkpoint.file_bytes == len(vector.data())
        assert list(checkpoint) == list(content["components"])
        for name, expected in content["components"].items():
            component = checkpoint[name]
            assert component.identity == expected["identity"]
            assert component.flat == expected["flat"]
            assert dict(component.text_metadata) == expected["text_metadata"]
            described = [
                {
                    "name": entry.name,
                    "dtype": entry.dtype,
                    "shape": list(entry.shape),
                    "data_offsets": [entry.begin, entry.end],
                }
                for entry in component.tensors.values()
            ]
            assert described == [
                {
                    **{key: tensor[key] for key in ("name", "dtype")},
                    **{key: integers(tensor[key]) for key in ("shape", "data_offsets")},
                }
                for tensor in expected["tensors"]
            ]
            for tensor in expected["tensors"]:
                assert component.read_bytes(tensor["name"]) == bytes.fromhex(tensor["data"])


@pytest.mark.parametrize("vector", EVERY_VALID, ids=lambda vector: vector.name)
def test_valid_vector_has_its_metadata_and_members(vector: Vector, tmp_path: Path) -> None:
    content = vector.content
    with Checkpoint.open(vector.file(tmp_path), NUMPY_ADAPTERS) as checkpoint:
        for key in ("run_id", "generation", "step", "epoch", "metrics", "created", "parent", "producer", "user"):
            _check(content["metadata"].get(key), getattr(checkpoint.metadata, key), {})
        for member, expected in zip(checkpoint.index.members, content["members"], strict=True):
            for key in ("name", "codec", "offset", "stored_bytes", "logical_bytes"):
                assert getattr(member, key) == expected[key]
            if "data" in expected:
                assert checkpoint.read_opaque(member.name) == bytes.fromhex(expected["data"])


@pytest.mark.parametrize("vector", EVERY_VALID, ids=lambda vector: vector.name)
def test_valid_vector_loads(vector: Vector, tmp_path: Path) -> None:
    components = vector.content["components"]
    with Checkpoint.open(vector.file(tmp_path), NUMPY_ADAPTERS) as checkpoint:
        if any(map(_beyond_numpy, components.values())):
            with pytest.raises(FormatError):
                checkpoint.load()
            return
        state = checkpoint.load()
    if "_root" in components:
        _check_component(components["_root"], state)
        return
    assert list(state) == list(components)
    for name, expected in components.items():
        _check_component(expected, state[name])


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector.name)
def test_invalid_vector_is_refused(vector: Vector, tmp_path: Path) -> None:
    problems = _problems(vector.file(tmp_path))
    assert {problem.code for problem in problems} <= vector.codes
    error = error_for(problems)
    for problem in problems:
        assert type(error_for(problem)) is type(error)
    if "member" in vector.sidecar:
        assert problems[0].member == vector.sidecar["member"]
    if "tensor" in vector.sidecar:
        assert problems[0].tensor == vector.sidecar["tensor"]


def test_tied_weights_are_one_object(tmp_path: Path) -> None:
    (vector,) = [vector for vector in VALID if vector.name == "tied-weights"]
    with Checkpoint.open(vector.file(tmp_path), NUMPY_ADAPTERS) as checkpoint:
        net = checkpoint.load()["net"]
    assert net["embed"] is net["head"]


def _problems(path: Path) -> tuple[Problem, ...]:
    """What the library finds in a bad file: when it opens it, verifies it, or else loads it."""
    try:
        with Checkpoint.open(path, NUMPY_ADAPTERS) as checkpoint:
            problems = checkpoint.verify()
            if not problems:
                checkpoint.load()
            return problems
    except FormatError as error:
        return error.problems


def _check_component(expected: dict[str, Any], actual: Any) -> None:
    tensors = {tensor["name"]: tensor for tensor in expected["tensors"]}
    if not expected["flat"]:
        _check(expected["tree"], actual, tensors)
        return
    assert list(actual) == list(tensors)
    for name, tensor in tensors.items():
        _check_tensor(tensor, actual[name])


def _check_tensor(expected: dict[str, Any], actual: Any, dtype: str | None = None) -> None:
    """Hold an array against a tensor. dtype: C128 if the last dimension is real and imaginary part."""
    shape = integers(expected["shape"][:-1] if dtype else expected["shape"])
    assert isinstance(actual, np.ndarray)
    assert (actual.dtype, list(actual.shape)) == (np.dtype(DTYPES[dtype or expected["dtype"]]), shape)
    data = bytes.fromhex(expected["data"])
    assert actual.tobytes() == (bytes(map(bool, data)) if expected["dtype"] == "BOOL" else data)


def _check(expected: Any, actual: Any, tensors: dict[str, Any]) -> None:
    """Hold a value against its rendering in JSON."""
    if isinstance(expected, list):
        assert type(actual) is list
        _check_all(expected, actual, tensors)
        return
    if not isinstance(expected, dict):
        assert type(actual) is type(expected)
        assert actual == expected
        return
    (kind, value), *_ = expected.items()
    match kind:
        case "int":
            assert actual == int(value, 16)
        case "float":
            assert type(actual) is float
            assert struct.pack(">d", actual).hex() == value
        case "bin":
            assert actual == bytes.fromhex(value)
        case "complex":
            assert struct.pack(">2d", actual.real, actual.imag).hex() == value
        case "map":
            _check_all([key for key, _ in value], list(actual), tensors)
            _check_all([item for _, item in value], list(actual.values()), tensors)
        case "timestamp":
            _check(value, _moment(actual), tensors)
        case "tuple":
            assert type(actual) is tuple
            _check_all(value, actual, tensors)
        case "set":
            assert isinstance(actual, set | frozenset)
            assert len(actual) == len(value)
            for item in value:
                assert sum(_same(item, element) for element in actual) == 1
        case "tensor":
            _check_tensor(tensors[value], actual)
        case "typed":
            _check_typed(value[0], value[1], actual, tensors)
        case _:
            pytest.fail(f"unknown rendering {kind}")


def _moment(actual: Any) -> list[int]:
    """Seconds and nanoseconds of a datetime, or of what stands for a timestamp that no datetime can hold."""
    if not isinstance(actual, datetime):
        return [actual.seconds, actual.nanoseconds]
    seconds, microseconds = divmod((actual - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), 10**6)
    return [seconds, microseconds * 1000]


def _check_all(expected: list[Any], actual: Any, tensors: dict[str, Any]) -> None:
    for item, element in zip(expected, actual, strict=True):
        _check(item, element, tensors)


def _same(expected: Any, actual: Any) -> bool:
    try:
        _check(expected, actual, {})
    except AssertionError:
        return False
    return True


def _check_typed(name: str, value: Any, actual: Any, tensors: dict[str, Any]) -> None:
    """Hold a typed value against the table in 11.6; of a type that NumPy does not know, against its content."""
    match name:
        case "frozenset":
            assert type(actual) is frozenset
            _check(value, actual, tensors)
        case "datetime" | "date" | "time":
            assert type(actual) is MOMENTS[name]
            assert actual.isoformat() == value
        case "timedelta":
            assert actual == timedelta(*value)
        case "C128":
            _check_tensor(tensors[value["tensor"]], actual, "C128")
        case "numpy.ndarray":
            _check(value, actual, tensors)
        case "numpy.scalar":
            assert isinstance(actual, np.generic)
            assert actual.dtype == np.dtype(DTYPES[value[0]])
            assert actual.tobytes() == bytes.fromhex(value[1]["bin"])
        case "per_rank":
            assert type(actual) is PerRank
            _check(value, list(actual.values), tensors)
        case _:
            assert type(actual) is Typed
            assert actual.name == name
            _check(value, actual.value, tensors)
