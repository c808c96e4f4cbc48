"""Tensors as a table or as a tree of modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from ckptfmt._core.interop.base import TensorInfo
from ckptfmt._core.ops.inspection.module_tree import Module
from ckptfmt._escaping import escape
from ckptfmt_cli.table import Cell, Column, table
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import cells, shape, size
from ckptfmt_cli.views.component_names import is_unnamed

__all__ = ["SHOWN_TENSORS", "tensor_lines", "tree_lines"]

SHOWN_TENSORS = 40
"""Tensors shown unless all are asked for: about a screen."""

_NAMED_COMPONENTS, _NAMED_CELLS = 4, 45


def tensor_lines(tensors: Sequence[TensorInfo], terminal: Terminal, *, all_tensors: bool) -> list[str]:
    """Return one row for each tensor, the first few unless all are asked for."""
    named = not any(is_unnamed(tensor.component) for tensor in tensors)
    columns = [
        *([Column("component", shrinks_to=9)] if named else []),
        Column("tensor", shrinks_to=16, alike=True, within="component"),
        Column("dtype", leaves=2),
        Column("shape", shrinks_to=12, leaves=1),
        Column("size", "right"),
    ]
    shown = tensors if all_tensors else tensors[:SHOWN_TENSORS]
    rows = [
        [*([tensor.component] if named else []), tensor.name, tensor.dtype, shape(tensor.shape), size(tensor.nbytes)]
        for tensor in shown
    ]
    lines = table(columns, rows, terminal)
    if len(shown) < len(tensors):
        rest = Counter(tensor.component for tensor in tensors[len(shown) :])
        lines += [terminal.paint(line, "dim") for line in wrap(terminal.ellipsis + _rest(rest), terminal.width)]
    return lines


def _rest(rest: Counter[str]) -> str:
    """Return how many tensors are not shown, and of which components if there are few."""
    where = ", ".join(f"{escape(name)} {left:,}" for name, left in rest.items() if not is_unnamed(name))
    few = f" ({where})" if where and len(rest) <= _NAMED_COMPONENTS and cells(where) <= _NAMED_CELLS else ""
    return f" {rest.total():,} more{few}; --all shows them"


def tree_lines(trees: Sequence[Module], terminal: Terminal) -> list[str]:
    """Return modules as a table with indented names; equal modules share a row with their number."""
    columns = [
        Column("module", shrinks_to=20),
        Column("tensors", "right", leaves=2),
        Column("elements", "right"),
        Column("size", "right"),
        Column("dtype", leaves=3),
        Column("shape", shrinks_to=12, leaves=1),
    ]
    rows = [row for tree in trees for row in _rows(tree, 0)]
    return table(columns, rows, terminal)


def _rows(module: Module, depth: int) -> Iterator[list[str | Cell]]:
    name = "  " * depth + escape(module.name)
    facts = [f"{module.tensors:,}", f"{module.elements:,}", size(module.nbytes)]
    yield [
        Cell(name, "bold" if depth == 0 else "plain"),
        *facts,
        module.dtype or "",
        "" if module.shape is None else shape(module.shape),
    ]
    for child in module.children:
        yield from _rows(child, depth + 1)
