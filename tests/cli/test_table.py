from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptfmt_cli.table import Cell, Column, table
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import cells

NAMES = st.text(max_size=60)


def test_numbers_stand_right_and_names_left() -> None:
    lines = table(
        [Column("name"), Column("size", "right")],
        [("a", "1 B"), ("bcdef", "10 MiB")],
        Terminal(),
        footer=("total", "10 MiB"),
    )
    assert lines == [
        "name     size",
        "a         1 B",
        "bcdef  10 MiB",
        "total  10 MiB",
    ]


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 10**9).map(str)), max_size=5), st.integers(40, 120))
def test_a_table_whose_columns_may_shrink_fits_the_terminal(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = [Column("component", shrinks_to=9), Column("tensor", shrinks_to=9), Column("bytes", "right")]
    lines = table(columns, rows, Terminal(width), indent=2)
    assert len(lines) == 1 + len(rows)
    for line in lines:
        assert cells(line) <= width
        assert line.isprintable()


def test_the_widest_column_gives_way_first() -> None:
    columns = [Column("a", shrinks_to=4), Column("b", shrinks_to=4)]
    assert table(columns, [("short", "x" * 40)], Terminal(20))[1] == f"short  {'x' * 6}…{'x' * 6}"


def test_no_column_shrinks_below_its_minimum() -> None:
    columns = [Column("a", shrinks_to=4), Column("b")]
    assert table(columns, [("abcdefgh", "x" * 40)], Terminal(10))[1] == f"ab…h  {'x' * 40}"


def test_where_shortening_is_not_enough_columns_leave_in_their_order() -> None:
    columns = [Column("a"), Column("b", leaves=2), Column("c", leaves=1), Column("d", "right")]
    row = ("xxxx", "yyyy", "zzzz", "1234")
    found = {width: table(columns, [row], Terminal(width))[1] for width in (22, 21, 16, 15, 10, 3)}
    assert found == {
        22: "xxxx  yyyy  zzzz  1234",
        21: "xxxx  yyyy  1234",
        16: "xxxx  yyyy  1234",
        15: "xxxx  1234",
        10: "xxxx  1234",
        3: "xxxx  1234",  # what is left never leaves
    }


def test_a_name_of_a_megabyte_is_no_trouble() -> None:
    (_, line) = table([Column("tensor", shrinks_to=8)], [("x" * 2**20,)], Terminal(30))
    assert len(line) == 30


def test_colour_does_not_move_columns() -> None:
    columns = [Column("state"), Column("file")]
    rows = [(Cell("damaged", "bad"), "a"), (Cell("ok", "good"), "b")]
    painted = table(columns, rows, Terminal(colour=True))
    plain = table(columns, rows, Terminal(colour=False))
    assert painted[2] == "\x1b[32mok\x1b[0m       b"
    assert plain[2] == "ok       b"


def test_an_escape_sequence_in_a_cell_is_not_passed_on() -> None:
    assert "\x1b" not in table([Column("x")], [("\x1b[31mred",)], Terminal(colour=False))[1]
