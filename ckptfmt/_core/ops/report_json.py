"""The JSON form of the values in reports.

Every report has a `to_json()` that returns plain dicts, lists, strings, numbers, booleans and None. The
result is always valid JSON (RFC 8259), and the form is public: keys are added, never renamed or removed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.packing import TensorRef, Timestamp, Typed, datetime_of
from ckptfmt.errors import Problem

__all__ = ["float_json", "integer_json", "metadata_json", "problem_json", "time_json", "tree_json", "value_json"]


def float_json(value: float) -> float | str:
    """Return a float as it is, or `"NaN"`, `"Infinity"`, `"-Infinity"`, for which JSON has no number."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_LONGEST_BITS = 1 << 13


def integer_json(value: int) -> int | str:
    """Return an integer as it is; one of more than 8,192 bits as text, `"0x..."`: few readers accept longer ones."""
    return value if value.bit_length() <= _LONGEST_BITS else f"{value:#x}"


def time_json(value: datetime) -> str:
    """Return a UTC time as ISO 8601 text that ends in `Z`."""
    return value.isoformat().replace("+00:00", "Z")


def value_json(value: object) -> object:
    """Return a plain value of the metadata (spec 5.3, `user`) in JSON.

    Values that JSON has stay as they are. A float that is not finite is a string (`float_json`), and so is an integer
    of more than 8,192 bits (`"0x..."`). A time is ISO 8601 text, or `{"$timestamp": [seconds, nanoseconds]}` since 1970
    if `datetime` cannot hold it. Bytes are `{"$bytes": "<hex>"}`, and a map with a key that is not a string is
    `{"$map": [[key, value], ...]}`.
    """
    match value:
        case None | bool() | str():
            return value
        case int():
            return integer_json(value)
        case float():
            return float_json(value)
        case datetime():
            return time_json(value)
        case Timestamp():
            moment = datetime_of(value)
            if isinstance(moment, datetime):
                return time_json(moment)
            return {"$timestamp": [moment.seconds, moment.nanoseconds]}
        case bytes():
            return {"$bytes": value.hex()}
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: value_json(item) for key, item in value.items()}
        case Mapping():
            return {"$map": [[value_json(key), value_json(item)] for key, item in value.items()]}
        case list() | tuple():
            return [value_json(item) for item in value]
        case _:  # the plain profile has no other type
            raise TypeError(f"not a plain value: {type(value).__name__}")


def tree_json(value: object) -> object:
    """Return a value of a component's tree (spec 10.1, 11.6) in JSON.

    As `value_json`, and further: a tuple is an array, a set `{"$set": [...]}` in no particular order, a complex
    number `{"$complex": [real, imaginary]}`, a reference to a tensor `{"$tensor": name}`, and a value with a type
    name `{"$type": name, "value": ...}`.
    """
    match value:
        case TensorRef(name):
            return {"$tensor": name}
        case Typed(name, inner):
            return {"$type": name, "value": tree_json(inner)}
        case complex():
            return {"$complex": [float_json(value.real), float_json(value.imag)]}
        case set() | frozenset():
            return {"$set": [tree_json(item) for item in value]}
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: tree_json(item) for key, item in value.items()}
        case Mapping():
            return {"$map": [[tree_json(key), tree_json(item)] for key, item in value.items()]}
        case list() | tuple():
            return [tree_json(item) for item in value]
        case _:
            return value_json(value)


def metadata_json(metadata: Metadata) -> dict[str, object]:
    """Return the metadata of a checkpoint in JSON.

    Keys, each null if not recorded: `run_id`, `generation`, `step`, `epoch`, `metrics` (object of numbers;
    one that is not finite is the string `"NaN"`, `"Infinity"` or `"-Infinity"`), `created` (ISO 8601, UTC), `parent`
    (64 hexadecimal digits), `producer`, `user` (see `value_json`).
    """
    metrics = metadata.metrics
    return {
        "run_id": metadata.run_id,
        "generation": metadata.generation,
        "step": metadata.step,
        "epoch": metadata.epoch,
        "metrics": None if metrics is None else {name: float_json(value) for name, value in metrics.items()},
        "created": None if metadata.created is None else time_json(metadata.created),
        "parent": None if metadata.parent is None else metadata.parent.hex(),
        "producer": metadata.producer,
        "user": value_json(metadata.user),
    }


def problem_json(problem: Problem) -> dict[str, object]:
    """Return a problem in JSON.

    Keys: `code` and `kind` (spec section 18), `message`, and `member`, `tensor`, `offset` (absolute, in bytes),
    each null where it does not apply.
    """
    return {
        "code": problem.code,
        "kind": problem.kind.value,
        "message": problem.message,
        "member": problem.member,
        "tensor": problem.tensor,
        "offset": problem.offset,
    }
