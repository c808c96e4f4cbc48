"""Snapshots of a loader's attributes: enough to detect later changes, without references to the values."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from io import IOBase
from typing import Any

import numpy as np
import torch

from ckptfmt._core.torch.live_objects.attributes import Slot, holds_more, is_generator, is_plain, is_scalar
from ckptfmt._core.torch.live_objects.contents import attributes as attributes_of
from ckptfmt._core.torch.live_objects.contents import has_attributes, is_a, namespace, size
from ckptfmt._core.torch.live_objects.fingerprints import fingerprint
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator, make_generator
from ckptfmt._core.torch.live_objects.iterators import place_of, put_place, saved_place

__all__ = [
    "ABSENT",
    "Kind",
    "Snapshot",
    "Snapshots",
    "content",
    "is_content",
    "is_next_seed",
    "mark_in",
    "put_content",
    "take_snapshots",
]

ABSENT = "nothing"
"""Mark of a missing attribute."""

_MAX_MARK = 80
_MAX_TEXT = 1 << 12
_MAX_ELEMENTS = 1 << 20
_MAX_LIST = 1 << 14
_WHOLE = 1 << 16
_ARRAYS = (np.ndarray, np.memmap)
_SETS = (set, frozenset)
_ITEMS: dict[type, str] = {deque: "deque", set: "set"}


class Kind(Enum):
    """How a value is saved."""

    GENERATOR = auto()
    """A random generator: its state is saved."""
    PLAIN = auto()
    """Numbers, text, None, and short lists and dicts of these: saved directly."""
    BULK = auto()
    """CPU tensors, arrays, and long lists, deques and sets of plain values: saved by value, up to a size limit. Also
    Enum members: saved by name.
    """
    OBJECT = auto()
    """A value that contains others."""
    ITERATOR = auto()
    """An iterator whose position cannot be restored. If each pass makes a new one, it does not affect the next pass."""
    OTHER = auto()
    """Anything else: a change is detected only by identity or length."""


@dataclass(frozen=True)
class Snapshot:
    """One attribute at one moment.

    Attributes:
        kind: How the value is saved.
        mark: Short text that differs for different values. Large values are sampled.
        owner: As in `Slot`.
        in_dataset: As in `Slot`.
        shared: As in `Slot`.
        plain: A copy of the value, if it is plain.
        place: Position of an iterator; empty for a count, which can be rebuilt.
    """

    kind: Kind
    mark: str
    owner: str
    in_dataset: bool
    shared: bool
    plain: Any = None
    place: str = ""


Snapshots = Mapping[str, Snapshot]
"""Path -> snapshot."""


def take_snapshots(slots: Iterable[Slot]) -> dict[str, Snapshot]:
    """Return a snapshot of each attribute."""
    return {slot.path: _snapshot(slot) for slot in slots}


def mark_in(snapshots: Snapshots, path: str) -> str:
    """Return the mark at a path; `ABSENT` without a snapshot there."""
    return snapshots[path].mark if path in snapshots else ABSENT


def is_next_seed(mark: str, before: str) -> bool:
    """Return whether the marks are those of PyTorch generators with consecutive seeds."""
    seeds = [int(words[2]) for words in (before.split(), mark.split()) if words[1:2] == ["seeded"]]
    return len(seeds) == 2 and seeds[1] == seeds[0] + 1


def content(value: object) -> dict[str, Any] | None:
    """Return a copy of a value, in values that the format supports; None if it is neither plain nor small enough."""
    try:
        return _content(value)
    except Exception:  # noqa: BLE001 - the object is arbitrary code, and inspection must not end training
        return None


def _content(value: Any) -> dict[str, Any] | None:
    if _is_plain(value):
        return {"plain": _copy(value)}
    if is_a(value, Enum):
        return {"member": attributes_of(value)["_name_"]}
    if is_generator(value):
        return {"generator": StatefulGenerator(value).state_dict()}
    if (place := saved_place(value)) is not None:
        return place
    count = _bulk(value)
    if count is None or count > _MAX_ELEMENTS:
        return None
    kind = type(value)
    if kind is torch.Tensor:
        return {"tensor": value.detach().clone()}
    if kind in _ARRAYS:
        return {"array": value.copy()}
    if kind is list and all(type(item) is int and -(1 << 63) <= item < 1 << 63 for item in value):
        return {"integers": np.array(value, dtype=np.int64)}
    if count <= _MAX_LIST and all(map(is_plain, value)):
        return {_ITEMS.get(kind, "plain"): [_copy(item) for item in value]}
    return None


def is_content(saved: Mapping[str, Any]) -> bool:
    """Return whether a value is from `content`, so that `put_content` can use it."""
    if len(saved) != 1:
        return False
    ((kind, value),) = saved.items()
    match kind:
        case "plain":
            return is_plain(value) or isinstance(value, list)
        case "member":
            return isinstance(value, str)
        case "generator":
            return isinstance(value, dict)
        case "place":
            return type(value) is int
        case "count":
            return isinstance(value, list) and len(value) in (1, 2) and all(type(item) is int for item in value)
        case "tensor":
            return isinstance(value, torch.Tensor)
        case "array":
            return isinstance(value, np.ndarray)
        case "integers":
            return isinstance(value, np.ndarray) and value.dtype == np.int64 and value.ndim == 1
        case "deque" | "set":
            return isinstance(value, list) and (kind == "deque" or all(map(is_scalar, value)))
    return False


def put_content(slot: Slot, saved: Mapping[str, Any]) -> None:
    """Put a copy from `content` back, in place into a list, dict, tensor or array where it fits."""
    ((kind, value),) = saved.items()
    there = slot.value
    match kind:
        case "member":
            members = namespace(type(there)).get("_member_map_", {}) if is_a(there, Enum) else {}
            if value in members:
                slot.put(members[value])
        case "generator":
            if is_generator(there) and StatefulGenerator(there).difference(value) is None:
                StatefulGenerator(there).load_state_dict(value)
            elif there is None and (made := make_generator(value)) is not None:
                slot.put(made.generator)
        case "place":
            put_place(there, value)
        case "count":
            slot.put(itertools.count(*value))
        case "deque":
            if type(there) is deque:
                there.clear()
                there.extend(_copy(value))
            else:
                slot.put(deque(_copy(value)))
        case "set":
            if type(there) is set:
                there.clear()
                there.update(value)
            else:
                slot.put(set(value))
        case _:
            _put_plain(slot, value.tolist() if kind == "integers" else value)


def _put_plain(slot: Slot, value: Any) -> None:
    match slot.value, value:
        case list() as there, list():
            list.__setitem__(there, slice(None), _copy(value))
        case dict() as there, dict():
            dict.clear(there)
            dict.update(there, _copy(value))
        case torch.Tensor() as there, torch.Tensor() if (there.shape, there.dtype) == (value.shape, value.dtype):
            with torch.no_grad():
                there.copy_(value)
        case np.ndarray() as there, np.ndarray() if (there.shape, there.dtype) == (value.shape, value.dtype):
            np.copyto(there, value)
        case _:
            slot.put(value.clone() if isinstance(value, torch.Tensor) else _copy(value))


def _snapshot(slot: Slot) -> Snapshot:
    try:
        return _seen(slot)
    except Exception:  # noqa: BLE001 - the object is arbitrary code, and inspection must not end training
        return Snapshot(Kind.OTHER, "unreadable", slot.owner, slot.in_dataset, slot.shared)


def _seen(slot: Slot) -> Snapshot:
    value = slot.value
    if is_generator(value):
        state = StatefulGenerator(value).state_dict()
        seed = f"seeded {value.initial_seed()} " if isinstance(value, torch.Generator) else ""
        mark = f"{state['kind']} {seed}{fingerprint(state, elements=_WHOLE)}"
        return Snapshot(Kind.GENERATOR, mark, slot.owner, slot.in_dataset, slot.shared)
    if _is_plain(value):
        text = repr(value)
        mark = text if len(text) <= _MAX_MARK else f"{type(value).__name__} {fingerprint(text, asks=False)}"
        return Snapshot(Kind.PLAIN, mark, slot.owner, slot.in_dataset, slot.shared, _copy(value))
    if is_a(value, Enum):
        mark = f"{type(value).__qualname__}.{attributes_of(value)['_name_']}"
        return Snapshot(Kind.BULK, mark, slot.owner, slot.in_dataset, slot.shared)
    if is_a(value, Iterator) and not has_attributes(value):
        return _seen_iterator(slot)
    count = _bulk(value)
    if count is not None:
        kind = Kind.BULK if count <= _MAX_ELEMENTS else Kind.OTHER
        items = sorted(map(repr, value)) if type(value) is set else value
        mark = f"{type(value).__name__} of {count} {fingerprint(items, asks=False)}"
        return Snapshot(kind, mark, slot.owner, slot.in_dataset, slot.shared)
    return Snapshot(*_other(value), slot.owner, slot.in_dataset, slot.shared)


def _seen_iterator(slot: Slot) -> Snapshot:
    value = slot.value
    name = f"a {type(value).__qualname__}"
    if is_a(value, IOBase):
        return Snapshot(Kind.OTHER, f"{name} at {id(value):x}", slot.owner, slot.in_dataset, slot.shared)
    saved = saved_place(value)
    if saved is not None:
        place = str(saved.get("place", ""))
        return Snapshot(Kind.BULK, f"{name} {saved}", slot.owner, slot.in_dataset, slot.shared, place=place)
    mark = f"{name} at {id(value):x}"
    return Snapshot(Kind.ITERATOR, mark, slot.owner, slot.in_dataset, slot.shared, place=place_of(value))


def _other(value: object) -> tuple[Kind, str]:
    name = f"a {type(value).__qualname__}"
    if type(value) is int:
        return Kind.OTHER, f"{name} {fingerprint(value)}"  # more digits than Python converts to text
    if is_a(value, int):
        return Kind.OTHER, f"{name} {int.__repr__(value)[:_MAX_MARK]}"
    if holds_more(value):
        return Kind.OBJECT, name
    count = len(value) if isinstance(value, set | frozenset) and type(value) in _SETS else size(value)
    length = "" if count is None else f" of {count}"
    return Kind.OTHER, f"{name}{length} at {id(value):x}"


def _is_plain(value: object) -> bool:
    return is_plain(value) and not (isinstance(value, str | bytes) and len(value) > _MAX_TEXT)


def _bulk(value: Any) -> int | None:
    """Return the number of elements of bulk data; None for anything else."""
    kind = type(value)
    if kind is torch.Tensor and value.layout is torch.strided:
        count: int = value.numel()
        return count if value.device.type == "cpu" and not value.is_quantized else None
    if kind in _ARRAYS and value.dtype.kind in "biufc":
        return int(value.size)
    if kind is list and value and is_plain(value[0]) and is_plain(value[-1]):
        return len(value)
    if kind is deque and (not value or (is_plain(value[0]) and is_plain(value[-1]))):
        return len(value)
    if kind is set and len(value) <= _MAX_LIST and all(map(is_scalar, value)):
        return len(value)
    return None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return type(value)(map(_copy, value)) if isinstance(value, list | tuple) else value
