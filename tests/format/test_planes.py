"""Byte planes against a slow definition of the same, bit by bit (spec 8.2, 8.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.planes import Split, put_plane, split_planes
from spec.vectors.making.frames import sign_down

SPLITS = sorted({dtype.split for dtype in DTYPES.values()})


def slow_planes(chunk: bytes, split: Split) -> list[bytes]:
    moved = sign_down(chunk, split.planes, split.exponent_bits)
    return [moved[k :: split.planes] for k in range(split.planes)]


@pytest.mark.parametrize("split", SPLITS, ids=str)
@given(data=st.data())
def test_split_is_the_slow_one_and_join_undoes_it(split: Split, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    chunk = data.draw(st.binary(min_size=count * split.planes, max_size=count * split.planes))
    planes = [bytes(plane) for plane in split_planes(chunk, split)]
    assert planes == slow_planes(chunk, split)
    joined = bytearray(len(chunk))
    for number, plane in enumerate(planes):
        put_plane(plane, number, split, memoryview(joined))
    assert joined == chunk


def test_the_examples_of_the_spec() -> None:
    for before, after in ((0xBF800000, 0x7F800000), (0x3E200000, 0x7C200000)):
        planes = split_planes(before.to_bytes(4, "little"), DTYPES["F32"].split)
        assert b"".join(map(bytes, planes)) == after.to_bytes(4, "little")
