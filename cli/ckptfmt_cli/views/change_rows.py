"""Tensors that differ, as rows of a table: one for each, or one for each module that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptfmt._core.interop.base import TensorInfo
from ckptfmt._core.ops.comparison.tensor_changes import Change, TensorChange
from ckptfmt._core.ops.inspection.layers import layers_of

__all__ = ["MOST_TENSORS", "ChangeRow", "fold_changes", "info_of", "shown_name"]

MOST_TENSORS = 20
"""Tensors shown one by one."""
_MOST_MODULES = 12  # of a component


@dataclass(frozen=True)
class ChangeRow:
    """A row.

    Attributes:
        changes: The tensors, of one component and with one kind of change.
        name: Name of the tensor or module.
        parts: Last parts of the names of the tensors, such as `weight` and `bias`, or `exp_avg` in an optimizer.
    """

    changes: tuple[TensorChange, ...]
    name: str
    parts: tuple[str, ...] = ()


def info_of(change: TensorChange) -> TensorInfo:
    """Return the tensor before the change, or else after it."""
    info = change.before or change.after
    assert info is not None  # a change has at least one side
    return info


def shown_name(change: TensorChange) -> str:
    """Return the name of a tensor; of an optimizer's, that of the parameter if it is known, and what it is to it."""
    name = info_of(change).name
    return name if change.parameter is None else f"{change.parameter} {name.rpartition('.')[2]}"


def fold_changes(changes: Sequence[TensorChange]) -> list[ChangeRow]:
    """Return a row for each module, in the order of their first tensors."""
    groups: dict[tuple[str, Change, str], list[TensorChange]] = {}
    layers = {
        component: layers_of(
            dict.fromkeys(_path(change) for change in changes if info_of(change).component == component), _MOST_MODULES
        )
        for component in dict.fromkeys(info_of(change).component for change in changes)
    }
    for change in changes:
        component = info_of(change).component
        groups.setdefault((component, change.change, layers[component][_path(change)]), []).append(change)
    return [ChangeRow(tuple(found), name, _parts(found)) for (_, _, name), found in groups.items()]


def _path(change: TensorChange) -> str:
    return info_of(change).name if change.parameter is None else change.parameter


def _parts(changes: Sequence[TensorChange]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(info_of(change).name.rpartition(".")[2] for change in changes))
