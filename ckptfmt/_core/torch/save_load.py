"""`save`, `open` and `load`: checkpoints of PyTorch states, in place of `torch.save` and `torch.load`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ckptfmt._core.container import module_versions as versions
from ckptfmt._core.container.planning import SavePlan, make_metadata, plan_save
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import SaveReport, write_plan
from ckptfmt._core.format.index import ROOT, Metadata
from ckptfmt._core.storage.local.paths import refuse_swapped
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt._core.torch.tensors.map_location import MapLocation, relocate

__all__ = ["load", "open", "plan_state", "read_state", "save"]


def save(
    obj: object,
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
    """Save a checkpoint, with the argument order of `torch.save`: atomically and with every byte under a digest.

    Tensors on any device are saved by value, strides and `requires_grad` are not; tied tensors stay tied within a
    component. The versions that `Module.state_dict()` notes are kept for each component (item of `obj`) that is
    such a state dict, and for `obj` itself.

    Args:
        obj: A dict such as `{"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}`, a bare
            state dict, or anything else that the spec's 11.6 can express.
        path: The file. One that is there already is replaced once the new one is durable.
        step: Optimizer steps done.
        epoch: Epochs finished. If None, told by `obj["epoch"]` as the documented loop has it beside its states: the
            number of the last one done, counted from 0, so one less.
        metrics: Measured values, e.g. `{"val_loss": 0.31}`.
        run_id: Which run this is.
        parent: Identity (64 hex digits) of the checkpoint that this run started from.
        user: Anything plain to note.
        created: Time to note, aware; now if None.
        codec: `none`, `zstd`, or a mapping of component name to one of them.

    Raises:
        UsageError: The arguments are swapped, or `path` is no path.
        StateError: `obj` holds something that cannot be expressed; the message names the path to it.
        StorageError: The file could not be written; what was at `path` is untouched.
    """
    refuse_swapped(obj, path, "save(obj, path)")
    metadata = make_metadata(
        obj, step=step, epoch=epoch, metrics=metrics, run_id=run_id, parent=parent, user=user, created=created
    )
    return write_plan(path, plan_state(obj, metadata=metadata, codec=codec))


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint; reads its index only. Tensors come as CPU tensors, each verified when it is read.

    Raises:
        FormatError: It is not a valid ckptfmt file, or of a newer version.
        StorageError: It cannot be read.
    """
    return Checkpoint.open(path, TORCH_ADAPTERS)


def load(path: str | os.PathLike[str], map_location: MapLocation = None, *, rank: int | None = None) -> Any:
    """Return what `save` was given, every byte of the file verified. No code from the file is run.

    Mappings come back as dicts, a module's state dict as an OrderedDict with the versions of its modules.

    Args:
        path: The file.
        map_location: Where tensors go, as in `torch.load`. A file holds values and no devices, so here every
            tensor comes from the CPU: None leaves it there; a device or its name moves it; a mapping is asked for
            `"cpu"`; a callable gets each tensor's storage and `"cpu"`, and returns a storage or None.
        rank: Of values that differ between the ranks of a data-parallel job, return those of this rank. None: return a
            `ckptfmt.PerRank` of all of them.

    Raises:
        MismatchError: There are values that differ, and none of that rank.
        FormatError: It is not a valid ckptfmt file; IntegrityError if a byte has changed.
        StorageError: It cannot be read.
    """
    with open(path) as checkpoint:
        return relocate(read_state(checkpoint, rank), map_location)


def plan_state(state: object, *, metadata: Metadata, codec: str | Mapping[str, str]) -> SavePlan:
    """Return the plan of a checkpoint of a state with PyTorch's tensors and the versions of its modules.

    Raises:
        StateError: The state, or an argument, cannot be expressed.
    """
    return plan_save(
        state,
        TORCH_ADAPTERS,
        metadata=metadata,
        codec=codec,
        text_metadata=versions.text_metadata(state),
    )


def read_state(checkpoint: Checkpoint, rank: int | None = None) -> Any:
    """Return the whole state of a checkpoint that `open` opened, with the versions of its modules (see `load`)."""
    state = checkpoint.load(rank)
    if ROOT in checkpoint:
        return versions.attach(state, checkpoint[ROOT].text_metadata)
    return {name: versions.attach(tree, checkpoint[name].text_metadata) for name, tree in state.items()}
