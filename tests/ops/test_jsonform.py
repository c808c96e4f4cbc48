from __future__ import annotations

import json
import math
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ckptfmt._core.format.packing import Timestamp
from ckptfmt._core.ops.report_json import float_json, problem_json, time_json, value_json
from ckptfmt.errors import Problem

_TIMES = st.datetimes(timezones=st.just(UTC))
_KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | _TIMES
_LEAVES = _KEYS | st.floats()
PLAIN = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)


@given(PLAIN)
def test_every_plain_value_becomes_valid_json(value: object) -> None:
    document = value_json(value)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@given(st.floats())
def test_no_float_is_lost(value: float) -> None:
    again = float(float_json(value))
    assert again == value or (math.isnan(again) and math.isnan(value))


def test_what_json_has_no_word_for() -> None:
    assert value_json([math.nan, math.inf, -math.inf]) == ["NaN", "Infinity", "-Infinity"]
    assert value_json(b"\x00\xff") == {"$bytes": "00ff"}
    assert value_json({"lr": 0.1}) == {"lr": 0.1}
    assert value_json({1: "a", "1": "b"}) == {"$map": [[1, "a"], ["1", "b"]]}
    assert value_json(Timestamp(1_772_368_200)) == "2026-03-01T12:30:00Z"
    assert value_json(Timestamp(2**40, 5)) == {"$timestamp": [2**40, 5]}
    assert time_json(datetime(2026, 3, 1, 12, 30, tzinfo=UTC)) == "2026-03-01T12:30:00Z"


def test_a_problem_says_code_kind_and_place() -> None:
    problem = Problem("chunk-digest", "the digest does not match", member="net.safetensors", tensor="w", offset=8192)
    assert problem_json(problem) == {
        "code": "chunk-digest",
        "kind": "corrupt",
        "message": "the digest does not match",
        "member": "net.safetensors",
        "tensor": "w",
        "offset": 8192,
    }
