"""Marks that tell whether a state has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ckptfmt._core.training.stateful import Stateful

__all__ = ["mark"]


def mark(components: Mapping[str, Stateful]) -> Any:
    """Return a value that is equal to the one of another moment as long as nothing in the states was changed.

    Tensors are not copied: PyTorch counts the changes in place of each, and these counts are compared. A change through
    `tensor.data` or a view of another library is not counted.
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
