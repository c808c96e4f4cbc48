"""torch.distributed.checkpoint in one process: a directory of files, and a restore in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from benchmarks.contenders.base import AsyncContender
from benchmarks.workloads import Training

__all__ = ["Dcp"]


class Dcp(AsyncContender):
    """`dcp.save`, `dcp.load` and `dcp.async_save`; its files are synced by default."""

    name = "DCP"

    def __init__(self) -> None:
        self._stager = DefaultStager(StagingOptions(False, False, False, False))  # its memory is used again

    def save(self, training: Training, path: Path) -> None:
        """See `Contender.save`."""
        with _quiet():
            save(_state_of(training), checkpoint_id=path)

    def restore(self, training: Training, path: Path) -> None:
        """See `Contender.restore`."""
        with _quiet():
            state = _state_of(training)
            load(state, checkpoint_id=path)
            set_state_dict(
                training.model, training.optimizer, model_state_dict=state["net"], optim_state_dict=state["optimizer"]
            )

    def begin(self, training: Training, path: Path) -> Callable[[], None]:
        """See `AsyncContender.begin`."""
        with _quiet():
            future = async_save(_state_of(training), checkpoint_id=path, async_stager=self._stager)
        assert isinstance(future, Future)  # the stager copies at once
        return lambda: [future.result()].clear()


def _state_of(training: Training) -> dict[str, Any]:
    model, optimizer = get_state_dict(training.model, training.optimizer)
    return {"net": model, "optimizer": optimizer}


@contextmanager
def _quiet() -> Iterator[None]:
    """It warns that there is one process only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
