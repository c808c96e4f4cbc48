"""`save` and `open`: checkpoints of PyTorch states, in place of `torch.save`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO

from ckptfmt._core.container import module_versions as versions
from ckptfmt._core.container.planning import SavePlan, make_metadata, plan_save
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import SaveReport, write_plan, write_plan_to
from ckptfmt._core.format.index import ROOT, Metadata
from ckptfmt._core.storage.local.paths import refuse_swapped
from ckptfmt._core.storage.open_files import OpenedSink, is_open_file
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS

__all__ = ["open", "plan_state", "read_state", "save"]


def save(
    obj: object,
    path: str | os.PathLike[str] | BinaryIO,
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
    """Save a checkpoint atomically, every byte under a digest; a drop-in for `torch.save`.

    Tensors on any device are saved by value, without strides and `requires_grad`; tied tensors stay tied within a
    component. The versions in `Module.state_dict()` are kept for `obj` and for each component (item of `obj`) that is a
    module's state dict.

    Args:
        obj: A dict such as `{"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}`, a bare
            state dict, or anything else that section 11.6 of the specification lists.
        path: The file. An existing one is replaced once the new one is durable. Or a file open for writing, such as
            `io.BytesIO`: the checkpoint is written from its position on, neither atomically nor durably, and the
            position is then at its end.
        step: Optimizer steps done.
        epoch: Epochs finished. None: taken from `obj["epoch"]`, where the documented PyTorch loop puts the number of
            the last finished epoch, counted from 0; one is added.
        metrics: Measured values, such as `{"val_loss": 0.31}`.
        run_id: Id of the run.
        parent: Identity (64 hex digits) of the checkpoint that the run started from.
        user: Plain values to record: str keys; None, bool, int, float, str, bytes, list or dict as values.
        created: Time to record, with a time zone; None: now.
        codec: `none`, `zstd`, or a mapping of component names to these.

    Raises:
        UsageError: The arguments are swapped, or `path` is neither a path nor a file open for writing bytes.
        StateError: `obj` contains a value that the format does not support; the message names the path to it.
        StorageError: The file could not be written; an existing one is untouched.
    """
    if not is_open_file(path):
        refuse_swapped(obj, path, "save(obj, path)")
    metadata = make_metadata(
        obj, step=step, epoch=epoch, metrics=metrics, run_id=run_id, parent=parent, user=user, created=created
    )
    plan = plan_state(obj, metadata=metadata, codec=codec)
    if not is_open_file(path):
        return write_plan(path, plan)
    sink = OpenedSink(path)
    report = write_plan_to(sink, sink.path, plan)
    sink.finish()
    return report


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint; only its index is read. Tensors are CPU tensors, each verified when it is read.

    Raises:
        FormatError: The file is not valid, or needs a newer version.
        StorageError: The file cannot be read.
    """
    return Checkpoint.open(path, TORCH_ADAPTERS)


def plan_state(state: object, *, metadata: Metadata, codec: str | Mapping[str, str]) -> SavePlan:
    """Return the plan of a checkpoint of a state with PyTorch's tensors and the versions of its modules.

    Raises:
        StateError: The format does not support the state or an argument.
    """
    return plan_save(
        state,
        TORCH_ADAPTERS,
        metadata=metadata,
        codec=codec,
        text_metadata=versions.text_metadata(state),
    )


def read_state(checkpoint: Checkpoint, rank: int | None = None) -> Any:
    """Return the whole state of an open checkpoint, with the versions of its modules (see `loading.load`)."""
    state = checkpoint.load(rank)
    if ROOT in checkpoint:
        return versions.attach(state, checkpoint[ROOT].text_metadata)
    return {name: versions.attach(tree, checkpoint[name].text_metadata) for name, tree in state.items()}
