"""Saving the last finished step when an exception has come since, if its state is still there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ckptfmt._core.system.forks import let_go_in_children
from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.run.progress import Moment
from ckptfmt._core.torch.saving.saving import RunSaves
from ckptfmt._core.training.notices import notify
from ckptfmt._core.training.stateful import Stateful

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
        self._moment: Moment | None = None
        self._marks: Any = None
        let_go_in_children(self)

    def let_go(self) -> None:
        """Forget the step in a forked child: its exceptions are not those of the training."""
        self._moment = None

    def note(self, moment: Callable[[], Moment]) -> None:
        """Note the present moment: a step is done. It never raises."""
        try:
            self._moment, self._marks = moment(), self._mark()
        except Exception:  # noqa: BLE001 - training goes on without what would be used only if it fails
            self._moment = None

    def save(self, saves: RunSaves) -> None:
        """Save the last step, if its state is still there; otherwise say why not.

        Raises:
            CkptfmtError: The save failed, and that is to be raised.
        """
        if ranks.world().size > 1:
            notify("the last step is not saved: the other ranks may not have met with an exception")
            return
        moment = self._moment
        try:
            changed = self._mark() != self._marks
        except Exception as error:  # noqa: BLE001 - an exception is on its way up already
            notify(f"the last step is not saved: its state cannot be seen: {type(error).__name__}: {error}")
            return
        if moment is None or changed:
            notify("the last step is not saved: the state is no longer that of a finished step")
            return
        saves.save(moment.progress.step, lambda: moment, {})

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
