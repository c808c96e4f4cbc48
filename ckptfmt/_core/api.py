"""`save`, `open` and `load` for arrays of any framework; tensors are returned as NumPy arrays.

PyTorch tensors can be saved here, too; `ckptfmt.torch.load` returns them as tensors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.adapters import Adapter
from ckptfmt._core.container.numpy_adapter import NumpyAdapter
from ckptfmt._core.container.planning import make_metadata, plan_save
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import SaveReport, write_plan
from ckptfmt._core.storage.local.paths import refuse_swapped


def _torch_adapter() -> Adapter:
    from ckptfmt._core.torch.tensors.adapter import TorchAdapter

    return TorchAdapter()


_ADAPTERS = AdapterSet(NumpyAdapter(), packages={"torch": _torch_adapter})
"""For states of any framework; what they hold is loaded as NumPy's."""


def save(
    state: object,
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    epoch: int | None = None,
    metrics: Mapping[str, float] | None = None,
    run_id: str | None = None,
    parent: str | None = None,
    user: Mapping[str, Any] | None = None,
    created: datetime | None = None,
    codec: str | Mapping[str, str] = "none",
) -> SaveReport:
    """Save a state as one file, atomically: completely and durably, or not at all (spec 15).

    Args:
        state: A mapping of component names to trees, such as `{"net": weights, "optimizer": {...}, "epoch": 3}`; any
            other tree is stored whole. Section 11.6 of the specification lists what trees may contain.
        path: The file. An existing one is replaced once the new one is durable.
        step: Optimizer steps done.
        epoch: Epochs finished. None: taken from `state["epoch"]`, where the documented PyTorch loop puts the number of
            the last finished epoch, counted from 0; one is added.
        metrics: Measured values, such as `{"val_loss": 0.31}`.
        run_id: Id of the run.
        parent: Identity (64 hex digits) of the checkpoint that the run started from.
        user: Plain values to record: str keys; None, bool, int, float, str, bytes, list or dict as values.
        created: Time to record, aware; None: now.
        codec: `none`, `zstd`, or a mapping of component names to these.

    Returns:
        Report of the save, with the identity of the checkpoint.

    Raises:
        UsageError: The arguments are swapped, or `path` is not a path.
        StateError: The state contains something that cannot be expressed; the message names the path to it.
        StorageError: The file could not be written; an existing one is untouched.
    """
    refuse_swapped(state, path, "save(state, path)")
    metadata = make_metadata(
        state, step=step, epoch=epoch, metrics=metrics, run_id=run_id, parent=parent, user=user, created=created
    )
    return write_plan(path, plan_save(state, _ADAPTERS, metadata=metadata, codec=codec))


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint; only its index is read. Tensors are NumPy arrays, each verified when it is read.

    Raises:
        FormatError: The file is not valid, or needs a newer version.
        StorageError: The file cannot be read.
    """
    return Checkpoint.open(path, _ADAPTERS)


def load(path: str | os.PathLike[str], *, rank: int | None = None) -> Any:
    """Return the state of a checkpoint with NumPy arrays, every byte of the file verified.

    Args:
        path: The file.
        rank: Rank of which to return values that differ between the ranks of a data-parallel job. None: a `PerRank` of
            all their values.

    Raises:
        MismatchError: Some values differ between ranks, and that rank has none.
        FormatError: The file is not valid; IntegrityError if a byte has changed.
        StorageError: The file cannot be read.
    """
    with open(path) as checkpoint:
        return checkpoint.load(rank)
