"""PyTorch's own files."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.contenders.base import Contender, adopt, state_of, sync
from benchmarks.workloads import Training

__all__ = ["TorchMmap", "TorchSave"]


class TorchSave(Contender):
    """`torch.save` and fsync; `torch.load`."""

    name = "torch.save"

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        torch.save(state_of(training), path)
        sync(path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        adopt(training, torch.load(path))


class TorchMmap(TorchSave):
    """The same files, mapped."""

    name = "torch, mmap"
    saved_by = TorchSave.name

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        adopt(training, torch.load(path, mmap=True))
