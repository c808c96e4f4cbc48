"""Tables of text that fit into a given width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ckptfmt._escaping import escape
from ckptfmt_cli.terminal import Style, Terminal
from ckptfmt_cli.text import cells, shorten, shorten_alike

__all__ = ["GAP", "Cell", "Column", "table"]

GAP = 2
"""Blanks between two columns."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Its heading.
        align: Alignment of its cells; `right` for numbers.
        shrinks_to: Width to which it may be shortened if the table is too wide; None: never.
        leaves: If that is not enough, columns are left out in the order of these numbers, 1 first; 0: never.
        alike: Whether its cells are names that begin alike, and are shortened there.
        within: Title of a column: only cells with the same text there begin alike.
    """

    title: str
    align: Literal["left", "right"] = "left"
    shrinks_to: int | None = None
    leaves: int = 0
    alike: bool = False
    within: str | None = None


@dataclass(frozen=True)
class Cell:
    """A text with a style. A plain string is a cell in plain style."""

    text: str
    style: Style = "plain"


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str | Cell]],
    terminal: Terminal,
    *,
    indent: int = 0,
    footer: Sequence[str | Cell] | None = None,
) -> list[str]:
    """Return the lines of a table: headings, rows, and a dim last row.

    Headings and cells are escaped. If the table is wider than the terminal, the widest columns that may shrink are
    shortened; if that is not enough, some columns are left out.
    """
    head = [Cell(escape(column.title), "bold") for column in columns]
    body = [[_cell(item) for item in row] for row in rows]
    last = [] if footer is None else [[Cell(_cell(item).text, "dim") for item in footer]]
    lines = [head, *body, *last]
    widths = [max(cells(line[position].text) for line in lines) for position in range(len(columns))]
    room = terminal.width - indent
    kept = _kept(widths, columns, room)
    columns = [columns[position] for position in kept]
    widths = _fit([widths[position] for position in kept], columns, room - GAP * (len(kept) - 1))
    for position, column, width in zip(kept, columns, widths, strict=True):
        for group in _alike(column, columns, kept, body):
            shortened = shorten_alike([line[position].text for line in group], width, terminal.ellipsis)
            for line, text in zip(group, shortened, strict=True):
                line[position] = replace(line[position], text=text)
    return [" " * indent + _line([line[position] for position in kept], columns, widths, terminal) for line in lines]


def _alike(
    column: Column, columns: Sequence[Column], kept: Sequence[int], body: Sequence[list[Cell]]
) -> Iterable[list[list[Cell]]]:
    """Return the lines of which the cells in a column begin alike, in groups."""
    if not column.alike:
        return []
    by = next((at for at, other in zip(kept, columns, strict=True) if other.title == column.within), None)
    groups: dict[str, list[list[Cell]]] = {}
    for line in body:
        groups.setdefault("" if by is None else line[by].text, []).append(line)
    return groups.values()


def _cell(item: str | Cell) -> Cell:
    return Cell(escape(item)) if isinstance(item, str) else Cell(escape(item.text), item.style)


def _least(width: int, column: Column) -> int:
    return width if column.shrinks_to is None else min(width, column.shrinks_to)


def _kept(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Return the positions of the columns to show."""
    kept = list(range(len(columns)))
    for leaving in sorted(
        (position for position in kept if columns[position].leaves), key=lambda at: columns[at].leaves
    ):
        if sum(_least(widths[position], columns[position]) + GAP for position in kept) - GAP <= room:
            break
        kept.remove(leaving)
    return kept


def _fit(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Return the widths after taking from the widest that may shrink, one by one, until they fit into `room`."""
    floors = [
        width if column.shrinks_to is None else column.shrinks_to for width, column in zip(widths, columns, strict=True)
    ]
    fitted = [min(width, max(floor, room)) for width, floor in zip(widths, floors, strict=True)]
    for _ in range(sum(fitted) - room):
        shrinkable = [position for position, floor in enumerate(floors) if fitted[position] > floor]
        if not shrinkable:
            break
        fitted[max(shrinkable, key=fitted.__getitem__)] -= 1
    return fitted


def _line(line: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], terminal: Terminal) -> str:
    parts = []
    final = len(columns) - 1
    for position, (cell, column, width) in enumerate(zip(line, columns, widths, strict=True)):
        text = shorten(cell.text, width, terminal.ellipsis)
        pad = " " * (width - cells(text))
        painted = terminal.paint(text, cell.style)
        if column.align == "right":
            parts.append(pad + painted)
        else:
            parts.append(painted if position == final else painted + pad)
    return (" " * GAP).join(parts).rstrip()
