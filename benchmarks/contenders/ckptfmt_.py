"""ckptfmt itself: restored into live memory, and loaded anew as `torch.load` would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

import ckptfmt.torch
from benchmarks.contenders.base import AsyncContender, Contender, adopt, state_of
from benchmarks.workloads import Training
from ckptfmt.torch import Checkpointer

__all__ = ["Ckptfmt", "CkptfmtLoad"]


class Ckptfmt(AsyncContender):
    """`ckptfmt.torch.save` and `restore`; asynchronous saves by the Checkpointer."""

    name = "ckptfmt"
    verifies = True

    def __init__(self) -> None:
        self._checkpointers: WeakKeyDictionary[Training, Checkpointer] = WeakKeyDictionary()

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        ckptfmt.torch.save(state_of(training), path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        ckptfmt.torch.restore(path, {"net": training.model, "optimizer": training.optimizer})

    def begin(self, training: Training, path: Path) -> Callable[[], None]:
        """See `AsyncContender.begin`."""
        if training not in self._checkpointers:
            path.mkdir()
            made = Checkpointer(
                path, {"net": training.model, "optimizer": training.optimizer}, signals=(), on_failed_save="raise"
            )
            made.resume(quiet=True)
            self._checkpointers[training] = made
        checkpointer = self._checkpointers[training]
        checkpointer.save()
        return lambda: [checkpointer.wait()].clear()


class CkptfmtLoad(Contender):
    """The documented way: all is loaded, then taken over."""

    name = "ckptfmt.load"
    verifies = True
    saved_by = Ckptfmt.name

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        ckptfmt.torch.save(state_of(training), path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        adopt(training, ckptfmt.torch.load(path))
