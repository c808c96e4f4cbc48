"""Progress of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Position", "Progress", "RandomState"]

RandomState = dict[str, Any]
"""Name of a generator -> its state, in values that the format supports."""


class Position(Protocol):
    """A position in an unfinished epoch."""

    @property
    def consumed(self) -> int:
        """Number of batches done in the epoch."""

    @property
    def epoch_random(self) -> RandomState:
        """States of the global generators at the start of the epoch."""


S = TypeVar("S")
"""State of a loader."""
P = TypeVar("P", bound=Position)


@dataclass(frozen=True)
class Progress(Generic[S, P]):
    """Progress of a run.

    Attributes:
        step: Optimizer steps done since the start of the run.
        epoch: Number of epochs finished.
        loader: State of the loader now; None before the first pass.
        position: The position in the unfinished epoch; None between two epochs.
    """

    step: int = 0
    epoch: int = 0
    loader: S | None = None
    position: P | None = None

    @property
    def consumed(self) -> int:
        """Number of batches done in the unfinished epoch."""
        return self.position.consumed if self.position is not None else 0
