"""The loader's own `state_dict()`: whether it is reliable, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptfmt._core.container.state.flattening import flatten_state
from ckptfmt._core.torch.loader.kinds import has_workers, is_known_sampler, is_torchdata, streams
from ckptfmt._core.torch.loader.recall import lost
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt._core.training.stateful import Stateful

__all__ = ["load_own", "own_state"]

_PLACES = ("dataset_state", "dataset_iter_state")  # where torchdata keeps the position of a data set


def own_state(loader: object) -> Any:
    """Return the position in a loader's own state; None without a usable one.

    A loader with `state_dict` need not be stateful: wrappers have the method for any inner loader, and it raises or
    returns
    None if that one is not stateful. A wrapper that claims to be the inner loader runs a batch ahead of it: that
    batch's
    draws would happen twice. A state that the format does not support is useless too. In all these cases the pass is
    repeated.
    """
    if not isinstance(loader, Stateful) or loader.__class__ is not type(loader):
        return None
    try:
        own = loader.state_dict()
        for _ in flatten_state({"own": own}, TORCH_ADAPTERS):
            pass
    except Exception:  # noqa: BLE001 - the loader's code must not end training
        return None
    return own if not is_torchdata(loader) or _knows_place(loader, own) else None


def _knows_place(loader: object, own: object) -> bool:
    """Return whether the state of a torchdata loader restores its position exactly.

    It does not

    - over a stream without a position of its own: the loader would count skipped batches twice, and skip too many next
        time;
    - with worker processes: they start with new random states at any position, unless the state of the data set, as
      assumed here, contains its generators;
    - with an unknown sampler: to load its state, the loader starts to iterate twice, which a sampler may count.
    """
    if _has_place(own):
        return True
    samplers = (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return not streams(loader) and not has_workers(loader) and all(map(is_known_sampler, samplers))


def load_own(loader: object, own: Any) -> None:
    if not isinstance(loader, Stateful):
        raise lost("has a state of its own in the checkpoint, but no load_state_dict() now")
    try:
        loader.load_state_dict(own)
    except Exception as error:
        raise lost(f"its load_state_dict() refuses the state in the checkpoint: {error!r}") from error


def _has_place(own: object) -> bool:
    """Return whether the state of a torchdata loader contains that of its data set or of its data set's iterator."""
    if not isinstance(own, Mapping):
        return False
    return any(own.get(key) is not None for key in _PLACES) or any(map(_has_place, own.values()))
