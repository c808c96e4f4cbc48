"""Snapshots of what a loader keeps in attributes: enough to see later what has changed, and no reference to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import torch

from ckptfmt._core.torch.live_objects.attributes import Slot, holds_more, is_generator, is_plain
from ckptfmt._core.torch.live_objects.fingerprints import fingerprint
from ckptfmt._core.torch.live_objects.generators import StatefulGenerator

__all__ = [
    "ABSENT",
    "Kind",
    "Snapshot",
    "Snapshots",
    "content",
    "is_next_seed",
    "mark_in",
    "put_content",
    "take_snapshots",
]

ABSENT = "nothing"
"""Mark of an attribute that is not there."""

_MAX_MARK = 80
_MAX_TEXT = 1 << 12
_MAX_ELEMENTS = 1 << 20
_MAX_LIST = 1 << 14
_WHOLE = 1 << 16


class Kind(Enum):
    """What can be done with a value."""

    GENERATOR = auto()
    """A random generator: its state is saved."""
    PLAIN = auto()
    """Numbers, text, None, and short lists and dicts of these: saved as they are."""
    BULK = auto()
    """Tensors on the CPU, arrays, and long lists of plain values: saved by value, up to a size."""
    OBJECT = auto()
    """Something that holds more."""
    ITERATOR = auto()
    """An iterator of a sampler: how far it is cannot be seen. One made anew in each pass has no say in the next."""
    OTHER = auto()
    """Anything else: that it changed is seen, where it is another object now or has another length."""


@dataclass(frozen=True)
class Snapshot:
    """One attribute at one moment.

    Attributes:
        kind: What it is.
        mark: Short text that is another one when the value is another one. Of large values a sample is looked at.
        owner: As in `Slot`.
        in_dataset: As in `Slot`.
        plain: A copy of the value, if it is plain.
    """

    kind: Kind
    mark: str
    owner: str
    in_dataset: bool
    plain: Any = None


Snapshots = Mapping[str, Snapshot]
"""Path -> what is there."""


def take_snapshots(slots: Iterable[Slot]) -> dict[str, Snapshot]:
    """Return a snapshot of each of these attributes."""
    return {slot.path: _snapshot(slot) for slot in slots}


def mark_in(snapshots: Snapshots, path: str) -> str:
    """Return the mark of what is at a path, `ABSENT` if nothing is."""
    return snapshots[path].mark if path in snapshots else ABSENT


def is_next_seed(mark: str, before: str) -> bool:
    """Say whether the marks are those of PyTorch generators, seeded by two numbers one after the other."""
    seeds = [int(words[2]) for words in (before.split(), mark.split()) if words[1:2] == ["seeded"]]
    return len(seeds) == 2 and seeds[1] == seeds[0] + 1


def content(value: object) -> dict[str, Any] | None:
    """Return a copy of a value in what the format expresses; None if it is neither plain nor small enough bulk."""
    if _is_plain(value):
        return {"plain": _copy(value)}
    size = _bulk(value)
    if size is None or size > _MAX_ELEMENTS:
        return None
    match value:
        case torch.Tensor():
            return {"tensor": value.detach().clone()}
        case np.ndarray():
            return {"array": value.copy()}
        case list() if all(type(item) is int and -(1 << 63) <= item < 1 << 63 for item in value):
            return {"integers": np.array(value, dtype=np.int64)}
        case list() if size <= _MAX_LIST and all(map(is_plain, value)):
            return {"plain": _copy(value)}
    return None


def put_content(slot: Slot, saved: Mapping[str, Any]) -> None:
    """Put back what `content` returned: into the list, dict, tensor or array that is there, where it fits."""
    ((kind, value),) = saved.items()
    if kind == "integers":
        value = value.tolist()
    there = slot.value
    match there, value:
        case list(), list():
            there[:] = _copy(value)
        case dict(), dict():
            there.clear()
            there.update(_copy(value))
        case torch.Tensor(), torch.Tensor() if (there.shape, there.dtype) == (value.shape, value.dtype):
            with torch.no_grad():
                there.copy_(value)
        case np.ndarray(), np.ndarray() if (there.shape, there.dtype) == (value.shape, value.dtype):
            np.copyto(there, value)
        case _:
            slot.put(value.clone() if isinstance(value, torch.Tensor) else _copy(value))


def _snapshot(slot: Slot) -> Snapshot:
    value = slot.value
    if is_generator(value):
        state = StatefulGenerator(value).state_dict()
        seed = f"seeded {value.initial_seed()} " if isinstance(value, torch.Generator) else ""
        mark = f"{state['kind']} {seed}{fingerprint(state, elements=_WHOLE)}"
        return Snapshot(Kind.GENERATOR, mark, slot.owner, slot.in_dataset)
    if _is_plain(value):
        text = repr(value)
        mark = text if len(text) <= _MAX_MARK else f"{type(value).__name__} {fingerprint(text)}"
        return Snapshot(Kind.PLAIN, mark, slot.owner, slot.in_dataset, _copy(value))
    size = _bulk(value)
    if size is not None:
        kind = Kind.BULK if size <= _MAX_ELEMENTS else Kind.OTHER
        return Snapshot(kind, f"{type(value).__name__} {fingerprint(value)}", slot.owner, slot.in_dataset)
    if holds_more(value):
        return Snapshot(Kind.OBJECT, f"a {type(value).__qualname__}", slot.owner, slot.in_dataset)
    if isinstance(value, Iterator) and not slot.in_dataset:
        return Snapshot(Kind.ITERATOR, f"a {type(value).__qualname__} at {id(value):x}", slot.owner, slot.in_dataset)
    length = f" of {len(value)}" if isinstance(value, list | tuple | dict | set | frozenset | deque) else ""
    return Snapshot(Kind.OTHER, f"a {type(value).__qualname__}{length} at {id(value):x}", slot.owner, slot.in_dataset)


def _is_plain(value: object) -> bool:
    return is_plain(value) and not (isinstance(value, str | bytes) and len(value) > _MAX_TEXT)


def _bulk(value: object) -> int | None:
    """Return how many elements bulk has; None for anything else."""
    match value:
        case torch.Tensor() if type(value) is torch.Tensor and value.layout is torch.strided:
            return value.numel() if value.device.type == "cpu" and not value.is_quantized else None
        case np.ndarray() if value.dtype.kind in "biufc":
            return value.size
        case list() if value and is_plain(value[0]) and is_plain(value[-1]):
            return len(value)
    return None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return type(value)(map(_copy, value)) if isinstance(value, list | tuple) else value
