from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt_cli.chart import Line, chart, chart_height, ticks


def parsed(*lines: Line, title: str = "loss") -> ElementTree.Element:
    """Return a chart as XML, after a look that nothing lies outside it."""
    text = chart(title, "step", list(lines), width=600)
    root = ElementTree.fromstring(f"<svg>{text}</svg>")
    for x, y in places(root):
        assert 0 <= x <= 600
        assert 0 <= y <= chart_height(list(lines), 600)
    return root


def places(root: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for line in root.iter("polyline") for pair in line.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def labels(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter("text")]


def test_a_line_goes_from_left_to_right_and_down_as_the_values_fall() -> None:
    root = parsed(Line("a", [(0, 4.0), (50, 2.0), (100, 1.0)]))
    found = places(root)
    assert found == sorted(found)
    assert [y for _, y in found] == sorted(y for _, y in found)
    assert {"loss", "step", "0", "20", "100"} <= set(labels(root))


def test_what_is_not_finite_leaves_a_gap() -> None:
    root = parsed(Line("a", [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 3.0)]))
    assert [len(line.attrib["points"].split()) for line in root.iter("polyline")] == [2, 1, 1]


def test_several_lines_have_a_legend_and_colours_of_their_own() -> None:
    root = parsed(*(Line(f"layer {number}", [(0, number), (1, number + 1)]) for number in range(1, 11)))
    assert {f"layer {number}" for number in range(1, 11)} <= set(labels(root))
    looks = {(line.attrib["class"], line.attrib.get("stroke-dasharray")) for line in root.iter("polyline")}
    assert len(looks) == 10


def test_lines_far_apart_are_drawn_by_their_logarithms() -> None:
    root = parsed(Line("large", [(0, 1000.0), (1, 1000.0)]), Line("small", [(0, 1.0), (1, 2.0)]))
    assert {"1", "10", "100", "1000"} <= set(labels(root))
    heights = [y for _, y in places(root)]
    assert abs(heights[2] - heights[3]) > 10, "a change of the small one can be seen"


def test_names_cannot_act() -> None:
    text = chart("<script>&", "step", [Line('"><b>', [(0, 1.0)]), Line("\x1b\u202e" * 99, [(0, 2.0)])], width=600)
    ElementTree.fromstring(f"<svg>{text}</svg>")
    assert "<script" not in text
    assert "<b>" not in text
    assert "\x1b" not in text


NUMBERS = st.floats(width=64) | st.integers(-5, 5).map(float)


@given(st.lists(st.lists(st.tuples(st.integers(0, 10**9), NUMBERS), max_size=6), max_size=10))
def test_any_values_make_a_picture(drawn: list[list[tuple[int, float]]]) -> None:
    text = chart("t", "step", [Line("n", sorted(points)) for points in drawn], width=600)
    root = ElementTree.fromstring(f"<svg>{text}</svg>")
    assert not re.search(r"nan|inf", " ".join(line.attrib["points"] for line in root.iter("polyline")))
    for x, y in places(root):
        assert -1 <= x <= 601
        assert -1 <= y <= chart_height([Line("n", points) for points in drawn], 600)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (5, 40, [10, 20, 30, 40]), (3, 3, [3])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 6
    assert all(low - span * 1e-6 <= value <= low + span * (1 + 1e-6) for value in found)
