from __future__ import annotations

from datetime import timedelta

import pytest

from ckptfmt_cli.param_types import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("200GB", 200 * 10**9),
        ("200G", 200 * 10**9),
        ("1.5TiB", 3 * 2**39),
        ("1kb", 1000),
        ("1 KiB", 1024),
        ("42", 42),
        ("42B", 42),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("12h", timedelta(hours=12)),
        ("30min", timedelta(minutes=30)),
        ("90s", timedelta(seconds=90)),
        ("1.5d", timedelta(hours=36)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "1e9", "nan", "1GB2", "٣GB", "9" * 50])
def test_what_is_no_size(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7m", "1y", "9" * 50 + "d", "999999999d"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None
