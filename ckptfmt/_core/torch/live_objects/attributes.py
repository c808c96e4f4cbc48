"""What an object keeps in attributes, and what these keep in theirs, found without running any code of theirs."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import IOBase
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

__all__ = ["RandomGenerator", "Slot", "attributes", "holds_more", "is_dataloader", "is_generator", "is_plain", "walk"]

RandomGenerator = np.random.Generator | np.random.RandomState | random.Random | torch.Generator

_MAX_OBJECTS = 1000
_MAX_DEPTH = 8
_MAX_ITEMS = 64
_MAX_PLAIN_DEPTH = 3
_LOADER_PARTS = ("generator", "sampler", "batch_sampler", "dataset", "collate_fn", "base_dataloader")
# What a DataLoader notes for itself, such as that its length was asked for.
_LOADER_NOTES = frozenset({"_iterator", "_IterableDataset_len_called"})
# Progress bars around a loader count too, for the eye.
_DISPLAYS = ("tqdm", "rich")

_SCALARS = (bool, int, float, complex, str, bytes, type(None), np.number, np.bool_)


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
        """Put another value there, if that is possible. No `__setattr__` is called."""
        own = attributes(self.holder)
        if isinstance(self.holder, dict | list):
            self.holder[self.key] = value
        elif self.key in own or (own and not is_dataloader(self.holder)):
            own[self.key] = value


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
    of their owners is run. The search is bounded, so that it costs milliseconds however large a data set is.
    """
    waiting = deque([_Place("", root, 0, "", isinstance(root, Dataset))])
    seen: dict[int, object] = {id(root): root}  # the objects themselves: an id is only good while its object lives
    while waiting:
        place = waiting.popleft()
        for key, value in _parts(place.value):
            path = f"{place.path}[{key!r}]" if isinstance(place.value, dict | list | tuple) else _join(place.path, key)
            if id(value) in seen:
                continue
            slot = Slot(path, place.value, key, value, place.owner, place.in_dataset)
            if is_generator(value):
                seen[id(value)] = value
            elif not is_plain(value) and holds_more(value):
                if len(seen) >= _MAX_OBJECTS:
                    continue
                seen[id(value)] = value
                if place.depth + 1 < _MAX_DEPTH:
                    waiting.append(_inside(slot, place.depth + 1))
            yield slot


def _inside(slot: Slot, depth: int) -> _Place:
    if slot.in_dataset:
        return _Place(slot.path, slot.value, depth, slot.owner, True)
    if isinstance(slot.value, Dataset) or (slot.key == "dataset" and is_dataloader(slot.holder)):
        return _Place(slot.path, slot.value, depth, slot.path, True)
    contained = isinstance(slot.value, dict | list | tuple)
    return _Place(slot.path, slot.value, depth, slot.owner if contained else slot.path, False)


def is_generator(value: object) -> TypeGuard[RandomGenerator]:
    """Say whether a value is a random generator with a state."""
    # SystemRandom is a Random that has none.
    return isinstance(value, RandomGenerator) and not isinstance(value, random.SystemRandom)


def is_plain(value: object, depth: int = 0) -> bool:
    """Say whether a value is a number, text, None, or a short list, tuple or dict of these."""
    if isinstance(value, _SCALARS):
        return True
    if depth >= _MAX_PLAIN_DEPTH or not _is_short(value):
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and is_plain(part, depth + 1) for key, part in value.items())
    # Not a named tuple, which cannot be made again from its items alone.
    return isinstance(value, list | tuple) and type(value) in (list, tuple) and _are_plain(value, depth)


def _are_plain(values: list[Any] | tuple[Any, ...], depth: int) -> bool:
    return all(is_plain(value, depth + 1) for value in values)


def holds_more(value: object) -> bool:
    """Say whether `walk` would look into a value."""
    if isinstance(value, _BaseDataLoaderIter):
        return False  # it leads to what its loader leads to, at some times only
    return _is_short(value) or isinstance(value, partial | MethodType) or bool(attributes(value))


def is_dataloader(value: object) -> bool:
    """Say whether a value is a DataLoader, or passes itself off as one."""
    return isinstance(value, DataLoader)


def _is_short(value: object) -> bool:
    return isinstance(value, dict | list | tuple) and len(value) <= _MAX_ITEMS


def _parts(value: object) -> list[tuple[Any, object]]:
    if isinstance(value, dict):
        return list(value.items()) if _is_short(value) else []
    if isinstance(value, list | tuple):
        return list(enumerate(value)) if _is_short(value) else []
    if isinstance(value, partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, MethodType):
        return [("self", value.__self__)]
    if isinstance(value, torch.Tensor | np.ndarray):
        return []
    if is_dataloader(value):
        parts = [(name, getattr(value, name, None)) for name in _LOADER_PARTS]
        own = [(name, part) for name, part in attributes(value).items() if name not in (*_LOADER_PARTS, *_LOADER_NOTES)]
        return [*parts, *((name, part) for name, part in own if isinstance(part, _SCALARS) or is_generator(part))]
    kept = list(attributes(value).items())
    if type(value).__module__.startswith(_DISPLAYS):
        return [(name, part) for name, part in kept if not is_plain(part)]
    return kept


def attributes(value: object) -> dict[str, object]:
    """Return the attributes that an object keeps itself, by no code of its own; none of types and functions."""
    if isinstance(value, type | ModuleType | FunctionType | IOBase):
        return {}
    try:
        # Not getattr: a __getattr__ of the user's must not be called.
        attributes: dict[str, object] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return attributes


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
