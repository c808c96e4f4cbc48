"""Metadata in JSON without loss: what people may edit, and what becomes the same bytes again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ckptfmt._core.format.index import METADATA_KEYS, Metadata
from ckptfmt._core.format.packing import Timestamp
from ckptfmt._core.ops.report_json import float_json

__all__ = ["decode_metadata", "encode_metadata"]

# A map with one of these as its only key is a value that JSON lacks. A map of the user's that looks like one
# is written as pairs.
_FLOAT, _TIME, _STAMP, _BYTES, _MAP = "$float", "$time", "$timestamp", "$bytes", "$map"


def encode_metadata(metadata: Metadata) -> dict[str, object]:
    """Return facts about a checkpoint as JSON values, those that are absent left out."""
    facts = {key: getattr(metadata, key) for key in METADATA_KEYS}
    return {key: _encode(value) for key, value in facts.items() if value is not None}


def decode_metadata(document: object) -> Metadata:
    """Return the facts that `encode_metadata`, or a person, wrote.

    Raises:
        ValueError: The document is not valid.
    """
    if not isinstance(document, dict) or not document.keys() <= set(METADATA_KEYS):
        unknown = document.keys() - set(METADATA_KEYS) if isinstance(document, dict) else [document]
        raise ValueError(f"unknown key {', '.join(map(repr, unknown)):.200}")
    facts = {key: _decode(value) for key, value in document.items()}
    if facts.get("metrics") is not None:
        if not isinstance(facts["metrics"], dict):
            raise ValueError("metrics is not an object")
        facts["metrics"] = {name: float(value) for name, value in facts["metrics"].items()}
    if not isinstance(facts.get("created"), datetime | None):
        raise ValueError('created is not a time; write {"$time": "2026-03-01T12:00:00+00:00"}')
    return Metadata(**facts)


def _encode(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return {_FLOAT: float_json(value)}
        case datetime():
            return {_TIME: value.isoformat()}
        case Timestamp():
            return {_STAMP: [value.seconds, value.nanoseconds]}
        case bytes():
            return {_BYTES: value.hex()}
        case Mapping() if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _encode(item) for key, item in value.items()}
        case Mapping():
            return {_MAP: [[_encode(key), _encode(item)] for key, item in value.items()]}
        case list() | tuple():
            return [_encode(item) for item in value]
    return value


def _decode(value: object) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("$float", str(text))]:
            return float(text)
        case [("$time", str(text))]:
            return datetime.fromisoformat(text)
        case [("$timestamp", [int(seconds), int(nanoseconds)])]:
            return Timestamp(seconds, nanoseconds)
        case [("$bytes", str(text))]:
            return bytes.fromhex(text)
        case [("$map", list(pairs))]:
            return {_decode(key): _decode(item) for key, item in map(_pair, pairs)}
    return {key: _decode(item) for key, item in value.items()}


def _pair(item: object) -> tuple[object, object]:
    if not isinstance(item, list) or len(item) != 2:
        raise ValueError(f"{item!r:.100} is not a pair of key and value")
    return item[0], item[1]
