from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from ckptfmt._escaping import escape
from ckptfmt_cli.text import age, ago, cells, count, metric, shape, shorten, shorten_alike, size, timestamp

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1126, "1.1 KiB"),
        (102_348, "99.9 KiB"),
        (102_400, "100 KiB"),
        (1_048_575, "1.0 MiB"),  # not 1024 KiB
        (1_472_896, "1.4 MiB"),
        (10 * 2**30, "10.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (2**63 - 1, "8.0 EiB"),
    ],
)
def test_sizes_are_in_readable_units(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


@pytest.mark.parametrize(
    ("before", "text", "sentence"),
    [
        (timedelta(0), "0 s", "0 s ago"),
        (timedelta(seconds=59), "59 s", "59 s ago"),
        (timedelta(minutes=59, seconds=59), "59 min", "59 min ago"),
        (timedelta(hours=47), "47 h", "47 h ago"),
        (timedelta(days=2), "2 d", "2 d ago"),
        (timedelta(days=900), "2.5 y", "2.5 y ago"),
        (timedelta(hours=-3), "in 3 h", "in 3 h"),
    ],
)
def test_ages_use_their_largest_unit(before: timedelta, text: str, sentence: str) -> None:
    assert age(NOW - before, NOW) == text
    assert ago(NOW - before, NOW) == sentence


def test_counts_agree_with_their_noun() -> None:
    assert [count(number, "file") for number in (0, 1, 2, 12_000)] == ["0 files", "1 file", "2 files", "12,000 files"]


def test_numbers_of_the_field_look_as_in_the_field() -> None:
    assert metric(0.31251234) == "0.31251"
    assert metric(float("nan")) == "nan"
    assert shape((768, 3072)) == "[768, 3072]"
    assert shape(()) == "[]"
    assert timestamp(datetime(2026, 3, 1, 9, 5, 7, 999_999, tzinfo=UTC)) == "2026-03-01 09:05:07 UTC"


@given(st.text().map(escape), st.integers(0, 30), st.sampled_from(["…", "..."]))
def test_shortened_text_fits_and_keeps_both_ends(text: str, width: int, ellipsis: str) -> None:
    short = shorten(text, width, ellipsis)
    assert cells(short) <= width
    if cells(text) <= width:
        assert short == text
    elif width > len(ellipsis):
        head, _, tail = short.partition(ellipsis)
        assert text.startswith(head)
        assert text.endswith(tail)


def test_the_middle_goes_first() -> None:
    assert shorten("transformer.h.0.attn.c_attn.weight", 20) == "transforme…tn.weight"


def test_wide_and_combining_characters_are_measured_as_shown() -> None:
    assert cells("重み") == 4
    assert cells("e\N{COMBINING ACUTE ACCENT}") == 1
    assert shorten("重み重み重み", 7) == "重…重み"[:2] + "重み"  # four columns, an ellipsis, two more
    assert cells("👩\N{ZERO WIDTH JOINER}👧") == 2, "which every terminal of today draws as one picture"


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF) | st.sampled_from("…▁█░")).map(escape))
def test_text_that_needs_no_tables_is_measured_like_any_other(text: str) -> None:
    assert cells(text) == wcswidth(text)


@pytest.mark.parametrize(
    ("texts", "width", "expected"),
    [
        (["run-000.pth", "run-001.pth"], 11, ["run-000.pth", "run-001.pth"]),
        (["run-000.pth", "run-001.pth"], 10, ["…000.pth", "…001.pth"]),  # cut at the end of a word
        (["run-000.pth", "run-001.pth"], 7, ["…00.pth", "…01.pth"]),
        (["net.a.weight", "net.b.weight", ""], 9, ["…a.weight", "…b.weight", ""]),
        (["alpha", "beta"], 4, ["al…a", "beta"]),  # nothing in common
        (["alone-and-long"], 7, ["alo…ong"]),
        (["same-name", "same-name"], 5, ["sa…me", "sa…me"]),
        (["ab" * 9 + "1", "ab" * 9 + "2"], 3, ["…b1", "…b2"]),
        ([], 3, []),
    ],
)
def test_names_are_cut_where_they_begin_alike(texts: list[str], width: int, expected: list[str]) -> None:
    assert shorten_alike(texts, width) == expected


@given(st.lists(st.text("ab.-é", max_size=8).map("same-".__add__), max_size=5), st.integers(3, 14))
def test_names_cut_alike_fit_and_stay_apart_where_there_is_room(names: list[str], width: int) -> None:
    cut = shorten_alike(names, width)
    assert all(cells(text) <= width for text in cut)
    if width >= 9:  # the longest without its beginning, and the mark
        assert len(set(cut)) == len(set(names))
