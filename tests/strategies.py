"""Hypothesis strategies shared by the tests: trees, arrays, metadata."""

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptfmt import PerRank
from ckptfmt._core.format.packing import Typed

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(
    st.integers(),
    st.sampled_from([n + d for n in (0, 2**7, 2**8, 2**16, 2**31, 2**32, 2**63, 2**64) for d in (-1, 0, 1)]),
    st.sampled_from([-n + d for n in (2**5, 2**7, 2**15, 2**31, 2**63) for d in (-1, 0, 1)]),
)
offsets = st.integers(-82_800, 82_800).map(lambda seconds: timezone(timedelta(seconds=seconds)))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.floats(),
    st.complex_numbers(),
    text,
    st.binary(max_size=12),
    st.datetimes(timezones=st.one_of(st.none(), st.just(UTC), offsets)),
    st.dates(),
    st.times(),
    st.timedeltas(),
)
keys = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    text,
    st.binary(max_size=6),
)

NATIVE = "bool u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8 c8 >f4 >i8"
EXTENDED = "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
PLAIN_DTYPES: list[np.dtype[Any]] = [
    *map(np.dtype, NATIVE.split()),
    *(np.dtype(getattr(ml_dtypes, name)) for name in EXTENDED.split()),
]


@st.composite
def arrays(draw: st.DrawFn, dtypes: list[np.dtype[Any]] = PLAIN_DTYPES) -> np.ndarray[Any, Any]:
    """Arrays of every dtype, of 0 to 4 dimensions, empty ones and every memory layout included; any bits."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    nbytes = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=nbytes, max_size=nbytes))
    if dtype.kind == "b":
        data = bytes(byte & 1 for byte in data)
    array = np.frombuffer(bytearray(data), dtype).reshape(shape)  # memory of its own: never tied
    layout = draw(st.sampled_from(["C", "F", "reversed", "strided", "transposed"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed" and array.ndim:
        return array[::-1]
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return array.T if layout == "transposed" else array


complex_arrays = arrays([np.dtype("complex128")])
numpy_scalars = (
    arrays([dtype for dtype in PLAIN_DTYPES if dtype.isnative] + [np.dtype("complex128")])
    .filter(lambda array: array.size > 0)
    .map(lambda array: array.reshape(-1)[0])
)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Trees of `leaves` in lists, tuples, sets and mappings."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(keys, inner, max_size=4),
            st.sets(keys, max_size=4),
            st.frozensets(keys, max_size=4),
        ),
        max_leaves=12,
    )


plain_trees = trees(scalars)
state_leaves = st.one_of(scalars, arrays(), complex_arrays, numpy_scalars)
per_rank = st.lists(trees(state_leaves), min_size=2, max_size=3).map(lambda values: PerRank(tuple(values)))
state_trees = trees(st.one_of(state_leaves, per_rank))

metadata = st.fixed_dictionaries(
    {},
    optional={
        "run_id": text.filter(bool),
        "step": st.integers(0, 2**63 - 1),
        "epoch": st.integers(0, 2**63 - 1),
        "metrics": st.dictionaries(text, st.floats(), max_size=3),
        "created": st.datetimes(timezones=st.just(UTC)),
        "parent": st.binary(min_size=32, max_size=32).map(bytes.hex),
        "user": st.dictionaries(
            text,
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), text, st.binary()),
                lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
                max_leaves=5,
            ),
            max_size=3,
        ),
    },
)


def same(a: Any, b: Any) -> bool:
    """Say whether two trees are equal in type and bit for bit, NaN and -0.0 included."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        little = a.dtype.newbyteorder("<"), b.dtype.newbyteorder("<")
        bits = a.astype(little[0]).tobytes(), b.astype(little[1]).tobytes()
        return a.shape == b.shape and little[0] == little[1] and bits[0] == bits[1]
    if type(a) is not type(b):
        return False
    if isinstance(a, float | complex | np.generic):
        return np.asarray(a).tobytes() == np.asarray(b).tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(k, m) and same(v, w) for (k, v), (m, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, PerRank):
        return same(a.values, b.values)
    if isinstance(a, Typed):
        return a.name == b.name and same(a.value, b.value)
    if isinstance(a, datetime | date | time):
        return bool(a == b) and a.isoformat() == b.isoformat()
    return bool(a == b)
