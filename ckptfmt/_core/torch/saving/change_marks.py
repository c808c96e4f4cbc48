"""Marks that show whether a state has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ckptfmt._core.training.stateful import Stateful

__all__ = ["mark"]


def mark(components: Mapping[str, Stateful]) -> Any:
    """Return a mark of the states, equal to an earlier one only if nothing has changed since.

    Tensors are not copied: PyTorch counts the in-place changes of each one, and the marks contain these counts. Changes
    through `tensor.data` or a view of another library are not counted.
    """
    return {name: _marked(component.state_dict()) for name, component in components.items()}


def _marked(value: Any) -> Any:
    match value:
        case torch.Tensor():
            return (value.data_ptr(), tuple(value.shape), value._version)
        case Mapping():
            return {key: _marked(item) for key, item in value.items()}
        case list() | tuple():
            return [_marked(item) for item in value]
        case str() | bytes() | bool() | int() | float() | None:
            return value
    return repr(value)
