"""Datetimes in the user's notes: what is saved comes back, and what no timestamp can say is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from spec.minimal_reader import read

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def through_a_file(folder: Path, user: dict[str, Any]) -> Any:
    path = folder / "a.ckptfmt"
    ckptfmt.save({"epoch": 1}, path, user=user)
    with ckptfmt.open(path) as checkpoint:
        return checkpoint.metadata.user


def test_datetimes_come_back_wherever_they_stand(tmp_path: Path) -> None:
    user = {"at": NOON, "marks": [NOON, {"first": datetime.min.replace(tzinfo=UTC), 7: [None, NOON]}], "step": 3}
    found = through_a_file(tmp_path, user)
    assert found == user
    assert found["at"].tzinfo is UTC
    assert type(found["marks"][1][7][1]) is datetime


def test_datetimes_are_timestamps_in_the_file(tmp_path: Path) -> None:
    """5.3: the index has no other form for them."""
    through_a_file(tmp_path, {"at": NOON})
    user = read(tmp_path / "a.ckptfmt")["metadata"]["user"]
    assert user == {"map": [["at", {"timestamp": [int(NOON.timestamp()), 250_000_000]}]]}


@given(st.lists(st.datetimes(timezones=st.just(UTC)), max_size=3))
def test_every_datetime_in_utc_comes_back(tmp_path_factory: pytest.TempPathFactory, moments: list[datetime]) -> None:
    assert through_a_file(tmp_path_factory.getbasetemp(), {"moments": moments}) == {"moments": moments}


class Exact(datetime):
    """A datetime with more than a datetime holds, such as the nanoseconds of pandas."""


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (datetime(2026, 3, 1), "astimezone"),
        (datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=2))), "astimezone"),
        (date(2026, 3, 1), "date"),
        (Exact(2026, 3, 1, tzinfo=UTC), "Exact"),
    ],
)
def test_other_times_are_refused_before_anything_is_written(tmp_path: Path, value: object, named: str) -> None:
    with pytest.raises(ckptfmt.StateError, match=named) as caught:
        through_a_file(tmp_path, {"notes": [value]})
    assert caught.value.path == "metadata"
    assert list(tmp_path.iterdir()) == []
