"""The two readers agree on changed files: some thousands always, as many as ten minutes allow in the slow part."""

from __future__ import annotations

import time

import pytest

from tests.readers.campaign import run, seeds
from tests.readers.files import Changer

CASES = 2000
TEN_MINUTES = 600.0


def test_the_readers_agree_on_changed_files() -> None:
    report = run(seed=1, first=0, cases=CASES, seconds=TEN_MINUTES)
    assert report.findings == {}
    assert 0 < report.valid < report.cases
    assert len(report.codes) > 20


def test_a_number_makes_the_same_file_again() -> None:

    one, other, another = Changer(seeds(), 1), Changer(seeds(), 1), Changer(seeds(), 2)
    numbers = range(100)
    assert [one.case(number) for number in numbers] == [other.case(number) for number in reversed(numbers)][::-1]
    assert [one.case(number) for number in numbers] != [another.case(number) for number in numbers]


@pytest.mark.slow
def test_the_readers_agree_for_ten_minutes() -> None:
    seed = time.time_ns()
    report = run(seed, first=0, cases=None, seconds=TEN_MINUTES)
    assert report.findings == {}, f"seed {seed}"
