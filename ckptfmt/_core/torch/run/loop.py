"""State of a training loop over a DataLoader."""

from __future__ import annotations

from ckptfmt._core.torch.distributed.ranks import ranks
from ckptfmt._core.torch.live_objects import rng
from ckptfmt._core.torch.loader.position import EpochPosition, LoaderState, LoaderTracker
from ckptfmt._core.training.loop.loop_state import LoopState

__all__ = ["Loop"]


class Loop(LoopState[LoaderState, EpochPosition]):
    """State of a loop that draws from the generators of Python, NumPy and PyTorch."""

    def __init__(self) -> None:
        super().__init__(rng, LoaderTracker, ranks)
