"""Phases of a training loop: between which calls it is."""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["Phase"]


class Phase(Enum):
    """Phase of the loop."""

    UNRESUMED = auto()
    """`resume()` was not called."""
    BETWEEN = auto()
    """Between two epochs, or before the first."""
    STEP = auto()
    """The loop over `steps()` is working on a step."""
    EPOCH = auto()
    """In an epoch, before its pass over the data."""
    BATCH = auto()
    """The loop is working on a batch."""
    ACCUMULATING = auto()
    """The batch or step is done, but its gradients wait for an optimizer step."""
    STEPPED = auto()
    """The batch or step is done: `step()` was called."""
    PASSED = auto()
    """In an epoch, after its pass over the data."""
