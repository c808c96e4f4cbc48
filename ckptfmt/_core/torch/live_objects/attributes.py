"""What an object keeps in attributes, and what these keep in theirs, found without running any code of theirs."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from ckptfmt._core.torch.live_objects.contents import (
    attributes,
    has_attributes,
    is_a,
    items,
    put_attribute,
    put_item,
    size,
)

__all__ = ["RandomGenerator", "Slot", "holds_more", "is_dataloader", "is_generator", "is_plain", "is_scalar", "walk"]

RandomGenerator = np.random.Generator | np.random.RandomState | random.Random | torch.Generator

_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_MAX_OBJECTS = 1000
_MAX_DEPTH = 8
_MAX_ITEMS = 64
_MAX_PLAIN_DEPTH = 3
_MAX_BITS = 1 << 13  # of a number: Python writes no longer ones as text
_LOADER_PARTS = ("generator", "sampler", "batch_sampler", "dataset", "collate_fn", "base_dataloader")
# What a DataLoader notes for itself, such as that its length was asked for.
_LOADER_NOTES = frozenset({"_iterator", "_IterableDataset_len_called"})
# Progress bars around a loader count too, for the eye.
_DISPLAYS = ("tqdm", "rich")

# Those that can be made again from their items, as plain dicts.
_DICTS = (dict, OrderedDict, defaultdict, Counter)
_SCALARS = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class Slot:
    """One attribute of an object, or one item of a short list or dict.

    Attributes:
        path: Names of attributes that lead to it: `sampler.generator`, `dataset.parts['python']`.
        holder: The object, list or dict.
        key: Name of the attribute, index or key.
        value: What is there.
        owner: Path of the object that it belongs to: that of the holder, or of what keeps the holder in an attribute.
            In a data set, always that of the data set.
        in_dataset: Whether it belongs to a data set.
    """

    path: str
    holder: Any
    key: Any
    value: object
    owner: str
    in_dataset: bool

    def put(self, value: object) -> None:
        """Put another value there, if that is possible. No code of the holder's class runs."""
        if self.path.endswith("]"):
            put_item(self.holder, self.key, value)
        elif self.key in attributes(self.holder) or not is_dataloader(self.holder):
            put_attribute(self.holder, self.key, value)


@dataclass(frozen=True)
class _Place:
    path: str
    value: object
    depth: int
    owner: str
    in_dataset: bool


def walk(root: object) -> Iterator[Slot]:
    """Yield the attributes of an object, then those of what it keeps in them, and so on; each object once.

    A DataLoader is looked through for its samplers, data set and collate function. Attributes are read and no code
    of their owners is run. What cannot be read all the same is passed over. The search is bounded, so that it costs
    milliseconds however large a data set is.
    """
    waiting = deque([_Place("", root, 0, "", is_a(root, Dataset))])
    seen: dict[int, object] = {id(root): root}  # the objects themselves: an id is only good while its object lives
    while waiting:
        place = waiting.popleft()
        for slot in _slots(place):
            value = slot.value
            if id(value) in seen:
                continue
            if _is_generator_or_more(value):
                if len(seen) >= _MAX_OBJECTS and not is_generator(value):
                    continue
                seen[id(value)] = value
                if place.depth + 1 < _MAX_DEPTH and not is_generator(value):
                    waiting.append(_inside(slot, place.depth + 1))
            yield slot


def _is_generator_or_more(value: object) -> bool:
    try:
        return is_generator(value) or (not is_plain(value) and holds_more(value))
    except Exception:  # noqa: BLE001 - the class of a class is anybody's, too, and a look must not end the training
        return False


def _slots(place: _Place) -> list[Slot]:
    """Return what is at a place; nothing if it cannot be looked at."""
    try:
        parts = [(f"{place.path}[{key!r}]", key, part) for key, part in _items(place.value)]
        parts += [(_join(place.path, name), name, part) for name, part in _parts(place.value)]
        return [Slot(path, place.value, key, part, place.owner, place.in_dataset) for path, key, part in parts]
    except Exception:  # noqa: BLE001 - it is anybody's object, and a look must not end the training
        return []


def _inside(slot: Slot, depth: int) -> _Place:
    if slot.in_dataset:
        return _Place(slot.path, slot.value, depth, slot.owner, True)
    if is_a(slot.value, Dataset) or (slot.key == "dataset" and is_dataloader(slot.holder)):
        return _Place(slot.path, slot.value, depth, slot.path, True)
    contained = size(slot.value) is not None
    return _Place(slot.path, slot.value, depth, slot.owner if contained else slot.path, False)


def is_generator(value: object) -> TypeGuard[RandomGenerator]:
    """Say whether a value is a random generator with a state."""
    # SystemRandom is a Random that has none.
    return is_a(value, _GENERATORS) and not is_a(value, random.SystemRandom)


def is_scalar(value: object) -> bool:
    """Say whether a value is one number, text or None of Python's or NumPy's own types."""
    if is_a(value, int) and int.bit_length(value) > _MAX_BITS:  # type: ignore[arg-type]  # it is an int
        return False
    kind = type(value)
    return kind in _SCALARS or (issubclass(kind, np.number | np.bool_) and kind.__module__ == "numpy")


def is_plain(value: object, depth: int = 0) -> bool:
    """Say whether a value is a number, text, None, or a short list, tuple or dict of these."""
    if is_scalar(value):
        return True
    # Not a named tuple, which cannot be made again from its items alone.
    if depth >= _MAX_PLAIN_DEPTH or type(value) not in (list, tuple, *_DICTS) or not _is_short(value):
        return False
    keyed = is_a(value, dict)
    return all((not keyed or type(key) in (str, int)) and is_plain(part, depth + 1) for key, part in items(value))


def holds_more(value: object) -> bool:
    """Say whether `walk` would look into a value."""
    if is_a(value, _BaseDataLoaderIter):
        return False  # it leads to what its loader leads to, at some times only
    if is_a(value, deque):
        return _is_short(value) and not all(map(is_scalar, value))  # type: ignore[call-overload]  # it is one
    return _is_short(value) or is_a(value, (partial, MethodType)) or has_attributes(value)


def is_dataloader(value: object) -> bool:
    """Say whether a value is a DataLoader, or passes itself off as one."""
    try:
        return isinstance(value, DataLoader)
    except Exception:  # noqa: BLE001 - what it says of its class is its own code
        return False


def _is_short(value: object) -> bool:
    count = size(value)
    return count is not None and count <= _MAX_ITEMS


def _items(value: object) -> list[tuple[Any, object]]:
    return items(value) if _is_short(value) else []


def _parts(value: object) -> list[tuple[str, object]]:
    if is_a(value, partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]  # type: ignore[attr-defined]  # a partial
    if is_a(value, MethodType):
        return [("self", value.__self__)]  # type: ignore[attr-defined]  # it is a method
    if is_a(value, (torch.Tensor, np.ndarray)):
        return []
    if is_dataloader(value):
        parts = [(name, _loader_part(value, name)) for name in _LOADER_PARTS]
        own = [(name, part) for name, part in attributes(value).items() if name not in (*_LOADER_PARTS, *_LOADER_NOTES)]
        return [*parts, *((name, part) for name, part in own if is_scalar(part) or is_generator(part))]
    kept = list(attributes(value).items())
    if type(value).__module__.startswith(_DISPLAYS):
        return [(name, part) for name, part in kept if not is_plain(part)]
    return kept


def _loader_part(loader: object, name: str) -> object:
    try:
        return getattr(loader, name, None)
    except Exception:  # noqa: BLE001 - what passes itself off as a DataLoader looks its parts up by code of its own
        return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
