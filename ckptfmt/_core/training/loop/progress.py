"""Progress of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

__all__ = ["CycleProgress", "LoopKind", "Position", "Progress", "RandomState"]

RandomState = dict[str, Any]
"""Name of a generator -> its state, in values that the format supports."""

LoopKind = Literal["epochs", "steps"]
"""The method of the Checkpointer that a loop iterates over."""


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
class CycleProgress(Generic[S, P]):
    """Progress of an endless series of rounds over a loader.

    Attributes:
        rounds: Number of rounds finished.
        loader: State of the loader now; None before the first batch.
        position: The position in the current round; None before the first batch.
    """

    rounds: int = 0
    loader: S | None = None
    position: P | None = None


@dataclass(frozen=True)
class Progress(Generic[S, P]):
    """Progress of a run.

    Attributes:
        step: Optimizer steps done since the start of the run.
        epoch: Number of epochs finished.
        loader: State of the loader now; None before the first pass.
        position: The position in the unfinished epoch; None between two epochs.
        loop: The kind of the loop; None before the first step.
        cycles: Progress of each `cycle`, in the order of their creation.
        stopped: Whether `stop` ended the loop.
        target: Number of epochs or steps that was asked for when `stop` ended the loop; None: any number.
    """

    step: int = 0
    epoch: int = 0
    loader: S | None = None
    position: P | None = None
    loop: LoopKind | None = None
    cycles: tuple[CycleProgress[S, P], ...] = ()
    stopped: bool = False
    target: int | None = None

    @property
    def consumed(self) -> int:
        """Number of batches done in the unfinished epoch."""
        return self.position.consumed if self.position is not None else 0
