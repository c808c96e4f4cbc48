"""Headers of safetensors members: tensors of one dtype and shape are looked at once, whatever else a number spells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


PIECES = [
    '},"',
    '":{',
    ',"data_offsets":[',
    '"dtype":"F32","shape":[1]',
    "\\",
    '"',
    "\n",
    "\x7f",
    "\u2028",
    "é",
    "a",
    "__metadata__",
    "}}",
    "[]",
    "/",
]
NAMES = st.lists(st.sampled_from(PIECES), max_size=5).map("".join).filter(lambda name: name != "__metadata__")
FACTS = st.dictionaries(
    NAMES,
    st.tuples(st.sampled_from(["F32", "I8", "BOOL"]), st.lists(st.integers(0, 9), max_size=3).map(tuple)),
    min_size=1,
    max_size=5,
)


@given(FACTS, st.dictionaries(NAMES, NAMES, max_size=2))
def test_what_is_written_is_read_whatever_the_names_look_like(
    facts: dict[str, tuple[str, tuple[int, ...]]], text_metadata: dict[str, str]
) -> None:
    header = plan_header([(name, *kind) for name, kind in facts.items()], text_metadata)
    assert parse_header(header.text) == header


@given(FACTS, st.data())
def test_what_is_written_otherwise_is_refused(
    facts: dict[str, tuple[str, tuple[int, ...]]], data: st.DataObject
) -> None:
    text = plan_header([(name, *kind) for name, kind in facts.items()]).text
    place = data.draw(st.integers(0, len(text) - 1))
    changed = (
        text[:place]
        + data.draw(st.sampled_from([b"", b" ", b"0", b'"', b"}", text[place:], text[place : place + 9] * 2]))
        + text[place + 1 :]
    )
    try:
        header = parse_header(changed)
    except FormatError:
        return
    assert header.text == changed
    assert plan_header(((it.name, it.dtype, it.shape) for it in header.tensors), header.text_metadata).text == changed
    assert len({tensor.name for tensor in header.tensors}) == len(header.tensors)


def test_a_name_that_stands_twice_is_refused() -> None:
    twice = plan_header([("a", "F32", (1,)), ("b", "F32", (1,))]).text.replace(b'"b"', b'"a"')
    with pytest.raises(FormatError) as caught:
        parse_header(twice)
    assert [problem.code for problem in caught.value.problems] == ["tensor-duplicate"]
