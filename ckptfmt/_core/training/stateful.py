"""Protocol of the components of a training run."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """An object that returns and loads its state: a module, optimizer, scheduler, scaler, or a class of your own."""

    def state_dict(self) -> Any:
        """Return the state, in values that the format supports."""

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Load a state from `state_dict`."""
