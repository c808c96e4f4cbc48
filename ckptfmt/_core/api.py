"""`save`, `open` and `load` for states of arrays of any framework; tensors come back as NumPy arrays.

PyTorch tensors can be saved here, too. `ckptfmt.torch.load` gives them back as tensors.
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
    """Save a training state as one file, atomically: whole and durable, or not at all (spec 15).

    Args:
        state: A mapping of component names to trees, e.g. `{"net": weights, "optimizer": {...}, "epoch": 3}`;
            any other tree is stored whole. Trees hold what the spec's 11.6 lists.
        path: The file. One that is there already is replaced once the new one is durable.
        step: Optimizer steps done.
        epoch: Epochs finished. If None, told by `state["epoch"]` as the documented loop has it beside its states: the
            number of the last one done, counted from 0, so one less.
        metrics: Measured values, e.g. `{"val_loss": 0.31}`.
        run_id: Which run this is.
        parent: Identity (64 hex digits) of the checkpoint that this run started from.
        user: Anything plain to note: str keys; values of None, bool, int, float, str, bytes, list, dict.
        created: Time to note, aware; now if None.
        codec: `none`, `zstd`, or a mapping of component name to one of them.

    Returns:
        What was written, with its identity.

    Raises:
        UsageError: The arguments are swapped, or `path` is no path.
        StateError: The state holds something that cannot be expressed; the message names the path to it.
        StorageError: The file could not be written; what was at `path` is untouched.
    """
    refuse_swapped(state, path, "save(state, path)")
    metadata = make_metadata(
        state, step=step, epoch=epoch, metrics=metrics, run_id=run_id, parent=parent, user=user, created=created
    )
    return write_plan(path, plan_save(state, _ADAPTERS, metadata=metadata, codec=codec))


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint; reads its index only. Tensors come as NumPy arrays, each verified when it is read.

    Raises:
        FormatError: It is not a valid ckptfmt file, or of a newer version.
        StorageError: It cannot be read.
    """
    return Checkpoint.open(path, _ADAPTERS)


def load(path: str | os.PathLike[str], *, rank: int | None = None) -> Any:
    """Return the whole state of a checkpoint with NumPy arrays, every byte of the file verified.

    Args:
        path: The file.
        rank: Of values that differ between the ranks of a data-parallel job, return those of this rank. None: return a
            `PerRank` of all of them.

    Raises:
        MismatchError: There are values that differ, and none of that rank.
        FormatError: It is not a valid ckptfmt file; IntegrityError if a byte has changed.
        StorageError: It cannot be read.
    """
    with open(path) as checkpoint:
        return checkpoint.load(rank)
