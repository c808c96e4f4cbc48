"""Devices of loaded tensors: `map_location` as in `torch.load`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ckptfmt._core.container.per_rank import PerRank

__all__ = ["MapLocation", "relocate"]

MapLocation = (
    str
    | torch.device
    | Mapping[str, str]
    | Callable[[torch.UntypedStorage, str], torch.UntypedStorage | torch.TypedStorage | None]
    | None
)
"""Argument of `relocate`."""

_SAVED = "cpu"  # a file contains values, not devices: every tensor comes from the CPU


def relocate(state: Any, map_location: MapLocation) -> Any:
    """Return a loaded state with its tensors moved to their devices.

    Tied tensors stay tied. NumPy arrays and plain values are unchanged.

    Args:
        state: The loaded state.
        map_location: None: the CPU. A device or its name: that device. A mapping: its entry for `"cpu"`. A callable: it
            is called with each tensor's storage and `"cpu"`, and returns the storage to use, or None for the given one.
    """
    if map_location is None:
        return state
    if isinstance(map_location, Mapping):
        map_location = map_location.get(_SAVED, _SAVED)
    if isinstance(map_location, str | torch.device):
        device = torch.device(map_location)
        return _replace(state, lambda tensor: tensor.to(device), {})
    function = map_location

    def place(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is not torch.strided:  # it has no storage of its own
            raise TypeError("map_location as a function needs dense tensors; pass a device for sparse ones")
        storage = function(tensor.untyped_storage(), _SAVED)
        if storage is None:
            return tensor
        if isinstance(storage, torch.TypedStorage):
            storage = storage.untyped()  # type: ignore[no-untyped-call]  # it has no annotations
        moved = torch.empty(0, dtype=tensor.dtype, device=storage.device)
        return moved.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())

    return _replace(state, place, {})


def _replace(value: Any, place: Callable[[torch.Tensor], torch.Tensor], placed: dict[int, tuple[Any, Any]]) -> Any:
    """Return a tree with each tensor replaced, always by the same one for the same tensor."""
    match value:
        case torch.Tensor():
            # The original is kept with the new one: its id stays unique during its lifetime.
            if id(value) not in placed:
                placed[id(value)] = (value, place(value))
            return placed[id(value)][1]
        case dict():
            for key, item in value.items():
                value[key] = _replace(item, place, placed)
            return value
        case list():
            return [_replace(item, place, placed) for item in value]
        case tuple() if type(value) is tuple:
            return tuple(_replace(item, place, placed) for item in value)
        case PerRank(values):
            return PerRank(_replace(values, place, placed))
    return value
