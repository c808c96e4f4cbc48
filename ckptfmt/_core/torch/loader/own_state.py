"""The state that a loader has of its own: whether it can be relied on, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptfmt._core.container.state import flatten_state
from ckptfmt._core.torch.loader.kinds import has_workers, is_known_sampler, is_torchdata, streams
from ckptfmt._core.torch.loader.recall import lost
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt._core.training.stateful import Stateful

__all__ = ["load_own", "own_state"]

_PLACES = ("dataset_state", "dataset_iter_state")  # where torchdata keeps what a data set says of its place


def own_state(loader: object) -> Any:
    """Return what a loader says of its place; None if it says nothing.

    Having `state_dict` is not being stateful: wrappers have it whatever they wrap, and where that is no stateful
    loader, it raises or returns None. One that passes itself off as the loader inside runs a batch ahead of it: what
    that batch drew would be drawn again. Nor is a state of use that the format cannot express. In all these cases the
    pass will be repeated.
    """
    if not isinstance(loader, Stateful) or loader.__class__ is not type(loader):
        return None
    try:
        own = loader.state_dict()
        for _ in flatten_state({"own": own}, TORCH_ADAPTERS):
            pass
    except Exception:  # noqa: BLE001 - it is the loader's code, and must not end the training
        return None
    return own if not is_torchdata(loader) or _knows_place(loader, own) else None


def _knows_place(loader: object, own: object) -> bool:
    """Say whether the state of a loader of torchdata brings it to its place exactly.

    It does not over a stream that says nothing of its own place: it would count the batches that it skips twice, and
    the next time skip too many. Nor with worker processes: those begin with new random states, whatever their place;
    of a data set that has a state, it is to be hoped that its generators are in it. Nor with a sampler that knows
    nothing of it: to take its state in, the loader begins to iterate twice, which a sampler may count.
    """
    if _has_place(own):
        return True
    samplers = (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return not streams(loader) and not has_workers(loader) and all(map(is_known_sampler, samplers))


def load_own(loader: object, own: Any) -> None:
    if not isinstance(loader, Stateful):
        raise lost("with a state of its own in the checkpoint, without load_state_dict() now")
    try:
        loader.load_state_dict(own)
    except Exception as error:
        raise lost(f"its load_state_dict() refuses the state in the checkpoint: {error!r}") from error


def _has_place(own: object) -> bool:
    """Say whether a state of torchdata's loader holds one of its data set or of an iterator over that."""
    if not isinstance(own, Mapping):
        return False
    return any(own.get(key) is not None for key in _PLACES) or any(map(_has_place, own.values()))
