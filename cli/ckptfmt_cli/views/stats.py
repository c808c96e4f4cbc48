"""Statistics of tensors, and the values of one, as text."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfmt._core.ops.inspection.stats import TensorStats
from ckptfmt._core.ops.inspection.tensor_preview import TensorView
from ckptfmt._escaping import escape
from ckptfmt_cli.sparkline import sparkline
from ckptfmt_cli.table import Cell, Column, table
from ckptfmt_cli.terminal import Terminal
from ckptfmt_cli.text import shape, shorten, size
from ckptfmt_cli.views.component_names import tensor_name

__all__ = ["stats_lines", "value_lines"]

_CELLS = 8  # of a histogram; JSON has all bins


def stats_lines(stats: Sequence[TensorStats], terminal: Terminal) -> list[str]:
    """Return one row for each tensor: range, mean, deviation, share of zeros, what is not finite, and a histogram."""
    several = len({item.tensor.component for item in stats}) > 1
    unusual = any(item.nan or item.inf for item in stats)
    columns = [
        Column("tensor", shrinks_to=12, alike=True),
        *(Column(title, "right") for title in ("min", "max")),
        *(Column(title, "right", leaves=order) for order, title in ((4, "mean"), (3, "std"), (2, "zeros"))),
        *([Column("nan", "right"), Column("inf", "right")] if unusual else []),
        Column("histogram", leaves=1),
    ]
    return table(columns, [_row(item, terminal, several=several, unusual=unusual) for item in stats], terminal)


def _row(item: TensorStats, terminal: Terminal, *, several: bool, unusual: bool) -> list[str | Cell]:
    name = tensor_name(item.tensor, ".") if several else item.tensor.name
    numbers = (item.minimum, item.maximum, item.mean, item.std)
    share = item.zeros / item.tensor.elements if item.tensor.elements else 0.0
    bad = [Cell(f"{number:,}", "bad" if number else "plain") for number in (item.nan, item.inf)]
    return [
        name,
        *("-" if number is None else f"{number:.3g}" for number in numbers),
        f"{share:.0%}" if item.zeros == 0 or share >= 0.005 else "<1%",
        *(bad if unusual else []),
        "" if item.histogram is None else sparkline(_coarse(item.histogram.counts), _CELLS, terminal),
    ]


def _coarse(counts: Sequence[int]) -> list[float]:
    width = len(counts) // _CELLS
    return [float(sum(counts[start : start + width])) for start in range(0, len(counts), width)]


def value_lines(view: TensorView, terminal: Terminal) -> list[str]:
    """Return a tensor's name and type, and its values as NumPy prints them."""
    info = view.tensor
    title = f"{escape(tensor_name(info, ' '))}: {info.dtype} {shape(info.shape)}, {size(info.nbytes)}"
    return [shorten(title, terminal.width, terminal.ellipsis), *view.text(terminal.width).splitlines()]
