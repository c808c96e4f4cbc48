"""moonclip: a directory of packs, compressed by default, with XXH3 digests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders.base import AsyncContender, require
from benchmarks.workloads import Training

__all__ = ["Moonclip"]


class Moonclip(AsyncContender):
    """`CheckpointManager`, whose background work `flush` waits for until it is durable."""

    name = "moonclip"
    verifies = True

    def __init__(self) -> None:
        require("moonclip.moonclip")
        self._library = require("moonclip.pytorch")
        self._managers: dict[Path, Any] = {}

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        self.begin(training, path)()

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        self._manager(path).load_latest(model=training.model, optimizer=training.optimizer)

    def begin(self, training: Training, path: Path) -> Callable[[], None]:
        """See `AsyncContender.begin`."""
        manager = self._manager(path)
        manager.save(step=1, model=training.model, optimizer=training.optimizer)
        return lambda: [manager.flush()].clear()

    def _manager(self, path: Path) -> Any:
        return self._library.CheckpointManager(str(path))
