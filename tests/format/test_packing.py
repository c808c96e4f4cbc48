"""The MessagePack profile against the msgpack package (spec 10)."""

import math
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptfmt._core.format.packing import TensorRef, Timestamp, Typed, encode
from ckptfmt._core.format.unpacking import decode
from ckptfmt.errors import FormatError
from tests import strategies
from tests.strategies import same

standard = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        strategies.text,
        st.binary(max_size=300),
        st.builds(Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=20), st.dictionaries(strategies.keys, inner, max_size=20)),
)
profile = st.recursive(
    st.one_of(standard, strategies.numbers, st.complex_numbers(), st.builds(TensorRef, strategies.text)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(strategies.keys, max_size=5),
        st.dictionaries(strategies.keys, inner, max_size=3),
        st.builds(Typed, strategies.text, inner),
    ),
    max_leaves=10,
)


@given(standard)
def test_the_msgpack_package_reads_and_writes_the_same_bytes(tree: Any) -> None:
    data = encode(tree)
    assert same(msgpack.unpackb(data, strict_map_key=False, timestamp=0), tree)
    assert same(decode(msgpack.packb(tree)), tree)


@given(profile)
@example(Typed("", complex(0.0, math.nan)))
def test_every_tree_comes_back(tree: Any) -> None:
    assert same(decode(encode(tree)), tree)


@given(st.binary(max_size=60))
@example(b"\xca\0\0\0\0")
@example(b"\xd9\x01a")
@example(b"\xcc\x05")
@example(b"\xd0\x05")
@example(b"\xc7\x01\x02\x90")
def test_what_is_accepted_encodes_to_the_same_bytes(data: bytes) -> None:
    """10.2: a reader may decode, encode again and compare."""
    try:
        tree = decode(data)
    except FormatError:
        return
    assert encode(tree) == data
    hooked = msgpack.unpackb(data, strict_map_key=False, timestamp=0, ext_hook=lambda code, payload: (code, payload))
    assert hooked is not NotImplemented  # the package finds it well-formed, too


@given(profile, st.data())
def test_what_the_msgpack_package_refuses_is_refused(tree: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(tree))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        msgpack.unpackb(bytes(encoded), strict_map_key=False, timestamp=0, ext_hook=lambda code, payload: None)
    except (ValueError, TypeError):
        with pytest.raises(FormatError):
            decode(bytes(encoded))
