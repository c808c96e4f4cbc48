"""What a component of a training run has to be able to do."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """Anything that gives its state and takes it back: modules, optimizers, schedulers, scalers, your own."""

    def state_dict(self) -> Any:
        """Return the state, in values that the format can express."""

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Take a state that `state_dict` returned."""
