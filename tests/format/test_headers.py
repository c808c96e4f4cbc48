"""Headers of safetensors members: tensors of one dtype and shape are looked at once, whatever else a number spells."""

from __future__ import annotations

import pytest

from ckptfmt._core.format.tensors import parse_header, plan_header
from ckptfmt.errors import FormatError

TEXT = (
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},'
    b'"c":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}'
)


def test_tensors_of_one_kind_have_places_of_their_own() -> None:
    header = parse_header(TEXT)
    assert header == plan_header([("a", "F32", (1,)), ("b", "F32", (1,)), ("c", "I32", (1,))])
    assert [(tensor.begin, tensor.end) for tensor in header.tensors] == [(0, 4), (4, 8), (8, 12)]


@pytest.mark.parametrize("spelling", [b"1.0", b"true", b"1e0", b"01", b"1 ", b"-1"])
@pytest.mark.parametrize("of", [b'"b":{"dtype":"F32","shape":[', b'"a":{"dtype":"F32","shape":['])
def test_a_size_that_equals_an_earlier_one_but_is_spelled_otherwise_is_refused(spelling: bytes, of: bytes) -> None:
    text = TEXT.replace(of + b"1", of + spelling)
    assert text != TEXT
    with pytest.raises(FormatError):
        parse_header(text)
