"""Whether the state in memory is still that of the last finished step, when an exception has come since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ckptfmt.torch import rng
from ckptfmt.torch.progress import Progress
from ckptfmt.torch.stateful import Stateful

__all__ = ["LastStep"]


class LastStep:
    """What was true after the last step.

    Tensors are not copied: PyTorch counts the changes in place of each, and these counts are compared. A change through
    `tensor.data` or a view of another library is not counted.

    Args:
        components: The objects whose state counts.
    """

    def __init__(self, components: Mapping[str, Stateful]) -> None:
        self._components = components
        self._moment: tuple[Progress, rng.RandomState] | None = None
        self._marks: Any = None

    def note(self, progress: Progress) -> None:
        """Note the present moment: a step is done."""
        self._moment = (progress, rng.capture())
        self._marks = self._mark()

    def moment(self) -> tuple[Progress, rng.RandomState] | None:
        """Return place and random states of the last step, None if the components have changed since."""
        return self._moment if self._moment is not None and self._marks == self._mark() else None

    def _mark(self) -> Any:
        return {name: _marked(component.state_dict()) for name, component in self._components.items()}


def _marked(value: Any) -> Any:
    """Return a tree that is equal to the one of another moment as long as nothing in it was changed."""
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
