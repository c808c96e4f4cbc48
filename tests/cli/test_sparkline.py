from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ckptfmt_cli.sparkline import sparkline
from ckptfmt_cli.terminal import PLAIN, Terminal

ASCII = Terminal(unicode=False)


def test_a_curve_goes_where_the_values_go() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 40, PLAIN) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 6, 5, 4, 3, 2, 1, 0], 40, ASCII) == "#*+=~-._"
    assert sparkline([1, math.nan, 2], 40, PLAIN) == "▁ █"
    assert len(set(sparkline([5, 5, 5], 40, PLAIN))) == 1
    assert sparkline([], 40, PLAIN) == ""


@given(st.lists(st.floats(), max_size=200), st.integers(1, 60))
def test_any_values_fit(values: list[float], width: int) -> None:
    for terminal in (PLAIN, ASCII):
        curve = sparkline(values, width, terminal)
        assert len(curve) == min(len(values), width)
        assert curve.isprintable()


def test_more_values_than_room_are_averaged() -> None:
    assert sparkline([0, 0, 4, 4, 8, 8], 3, PLAIN) == "▁▅█"
