"""Attributes of an object, followed recursively without running any of its code."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any, TypeGuard

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
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
from ckptfmt._core.torch.live_objects.references import (
    class_attributes,
    functions_of,
    is_users,
    references,
    users_classes,
)

__all__ = ["RandomGenerator", "Slot", "holds_more", "is_dataloader", "is_generator", "is_plain", "is_scalar", "walk"]

RandomGenerator = np.random.Generator | np.random.RandomState | random.Random | torch.Generator

_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_MAX_OBJECTS = 1000
_MAX_DEPTH = 8
_MAX_REFERENCES = 256
_MAX_ITEMS = 64
_MAX_PLAIN_DEPTH = 3
_MAX_BITS = 1 << 13  # of a number: Python converts no longer ones to text
_LOADER_PARTS = ("generator", "sampler", "batch_sampler", "dataset", "collate_fn", "base_dataloader")
_PASS_PARTS = ("_dataset", "_index_sampler", "_collate_fn")
# Internal notes of a DataLoader, such as that its length was requested.
_LOADER_NOTES = frozenset({"_iterator", "_IterableDataset_len_called"})
# Progress bars around a loader have counters too, for display only.
_DISPLAYS = ("tqdm", "rich")

# Types that can be rebuilt from their items, as plain dicts.
_DICTS = (dict, OrderedDict, defaultdict, Counter)
_SCALARS = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class Slot:
    """One attribute of an object, or one item of a short list or dict.

    Attributes:
        path: Attribute names that lead to it: `sampler.generator`, `dataset.parts['python']`. A class attribute has the
            name of the class in between: `sampler.Shuffled.epoch`. A variable that code refers to is in parentheses:
            `collate_fn(generator)`, `sampler(EPOCHS)['now']`.
        holder: The object, list or dict.
        key: Name of the attribute, index or key.
        value: The value.
        owner: Path of the object that it belongs to: the holder, or the object with the holder in an attribute. In a
            data set, always the path of the data set.
        in_dataset: Whether it belongs to a data set.
        shared: Whether objects outside the loader may use it: a class attribute, or a variable that code refers to.
    """

    path: str
    holder: Any
    key: Any
    value: object
    owner: str
    in_dataset: bool
    shared: bool = False

    def put(self, value: object) -> None:
        """Replace the value, if possible. No code of the holder's class runs."""
        if is_a(self.holder, CellType):
            self.holder.cell_contents = value
        elif is_a(self.holder, type):
            type.__setattr__(self.holder, self.key, value)
        elif self.path.endswith(("]", ")")):
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
    shared: bool = False
    strange: bool = False
    """Whether it is an object that code refers to: only its generators belong to the loader."""


def walk(root: object, *, code: bool = True, repeated: bool = False) -> Iterator[Slot]:
    """Yield the attributes of an object, then those of their values, and so on; each object once.

    A DataLoader is searched for its samplers, data set and collate function; a list of batches is not searched.
    Attributes are read without running code of their owners. Unreadable ones are skipped. The search is bounded: it
    takes
    milliseconds for a data set of any size.

    Args:
        root: The object.
        code: Whether to follow what the user's code refers to: class attributes, closure variables and globals.
        repeated: Yield only values that can be changed in place, but each as often as something leads to it, items of
            plain lists and dicts included.
    """
    if not repeated:
        yield from _Walk(root, code=code).slots()
        return
    for slot in _Walk(root, code=code).all_slots():
        if _is_changeable(slot.value):
            yield slot
            if is_plain(slot.value):
                yield from _plain_inside(slot)


class _Walk:
    def __init__(self, root: object, *, code: bool) -> None:
        self._code = code
        self._waiting = deque([_Place("", root, 0, "", is_a(root, Dataset))])
        # The objects themselves: an id is valid only during the lifetime of its object.
        self._seen: dict[int, object] = {id(root): root}
        self._functions: deque[_Place] = deque()
        self._rest = _MAX_REFERENCES

    def slots(self) -> Iterator[Slot]:
        """Yield the slots of values that were not seen before."""
        return (slot for slot, is_new in self._visit() if is_new)

    def all_slots(self) -> Iterator[Slot]:
        """Yield all slots."""
        return (slot for slot, _ in self._visit())

    def _visit(self) -> Iterator[tuple[Slot, bool]]:
        while self._waiting or self._functions:
            while self._waiting:
                place = self._waiting.popleft()
                for slot in (*_slots(place), *self._of_class(place)):
                    is_new = self._is_new(slot, place)
                    if not (place.strange and not is_generator(slot.value)):
                        yield slot, is_new
            if self._functions:
                for slot in self._referred_to(self._functions.popleft()):
                    yield slot, self._is_new(slot, None)

    def _is_new(self, slot: Slot, place: _Place | None) -> bool:
        """Return whether a value is new, and queue its contents."""
        value = slot.value
        if id(value) in self._seen:
            return False
        if self._code and is_a(value, FunctionType):
            self._add_function(slot.path, value, place.depth if place is not None else 0, slot.in_dataset)
        if _is_generator_or_more(value):
            if len(self._seen) >= _MAX_OBJECTS and not is_generator(value):
                return False
            self._seen[id(value)] = value
            depth = place.depth + 1 if place is not None else 1
            if depth < _MAX_DEPTH and not is_generator(value):
                strange = place.strange if place is not None else _is_strange(value)
                self._waiting.append(_inside(slot, depth, strange=strange))
        return True

    def _of_class(self, place: _Place) -> list[Slot]:
        """Return the attributes of an object's classes, and queue their functions."""
        if not self._code or place.strange or not has_attributes(place.value):
            return []
        found = []
        try:
            for kind in users_classes(type(place.value)):
                if id(kind) not in self._seen:
                    self._seen[id(kind)] = kind
                    found += self._in_class(kind, _join(place.path, kind.__name__), place)
                    for function in functions_of(kind):
                        self._add_function(place.path, function, place.depth, place.in_dataset)
        except Exception:  # noqa: BLE001 - as in _slots
            return []
        return found

    def _in_class(self, kind: type, path: str, place: _Place) -> list[Slot]:
        return [
            Slot(_join(path, one.name), kind, one.key, one.value, place.owner, place.in_dataset, True)
            for one in class_attributes(kind)
        ]

    def _add_function(self, path: str, function: Any, depth: int, in_dataset: bool) -> None:
        if id(function) not in self._seen and depth < _MAX_DEPTH and is_users(function):
            self._seen[id(function)] = function
            self._functions.append(_Place(path, function, depth + 1, path, in_dataset))

    def _referred_to(self, place: _Place) -> list[Slot]:
        """Return the variables that a function refers to."""
        found: list[Slot] = []
        try:
            for one in references(place.value):  # type: ignore[arg-type]  # only functions are queued
                path = f"{place.path}({one.name})"
                if is_a(one.value, FunctionType):
                    self._add_function(path, one.value, place.depth, place.in_dataset)
                elif is_a(one.value, type):
                    if id(one.value) not in self._seen and is_users(one.value):
                        self._seen[id(one.value)] = one.value
                        found += self._in_class(one.value, path, place)  # type: ignore[arg-type]  # it is a class
                else:
                    found.append(Slot(path, one.holder, one.key, one.value, path, place.in_dataset, True))
        except Exception:  # noqa: BLE001 - as in _slots
            return []
        self._rest -= len(found)
        return found if self._rest > 0 else []


def _is_changeable(value: object) -> bool:
    try:
        if is_scalar(value) or is_a(value, (tuple, frozenset, str, bytes, MethodType)):
            return False
        return size(value) is not None or is_a(value, (set, torch.Tensor, np.ndarray)) or _is_generator_or_more(value)
    except Exception:  # noqa: BLE001 - as in _is_generator_or_more
        return False


def _plain_inside(slot: Slot) -> Iterator[Slot]:
    for key, part in _items(slot.value):
        if _is_changeable(part):
            inner = replace(slot, path=f"{slot.path}[{key!r}]", holder=slot.value, key=key, value=part)
            yield inner
            yield from _plain_inside(inner)


def _is_strange(value: object) -> bool:
    """Return whether an object that code refers to may be independent of the loader, such as a trainer."""
    return size(value) is None and not is_a(value, (DataLoader, Sampler, Dataset))


def _is_generator_or_more(value: object) -> bool:
    try:
        return is_generator(value) or (not is_plain(value) and holds_more(value))
    except Exception:  # noqa: BLE001 - a metaclass is arbitrary code too, and inspection must not end training
        return False


def _slots(place: _Place) -> list[Slot]:
    """Return the attributes of a place; empty if it cannot be inspected."""
    try:
        # A list of batches is data, not state.
        inside = _items(place.value) if place.path else []
        parts = [(f"{place.path}[{key!r}]", key, part) for key, part in inside]
        parts += [(_join(place.path, name), name, part) for name, part in _parts(place.value)]
        return [
            Slot(path, place.value, key, part, place.owner, place.in_dataset, place.shared) for path, key, part in parts
        ]
    except Exception:  # noqa: BLE001 - the object is arbitrary code, and inspection must not end training
        return []


def _inside(slot: Slot, depth: int, *, strange: bool) -> _Place:
    owner, in_dataset = slot.owner, slot.in_dataset
    if not in_dataset:
        in_dataset = is_a(slot.value, Dataset) or (slot.key == "dataset" and is_dataloader(slot.holder))
        if in_dataset or size(slot.value) is None:
            owner = slot.path
    return _Place(slot.path, slot.value, depth, owner, in_dataset, slot.shared, strange)


def is_generator(value: object) -> TypeGuard[RandomGenerator]:
    """Return whether a value is a random generator with a state."""
    # SystemRandom is a Random without a state.
    return is_a(value, _GENERATORS) and not is_a(value, random.SystemRandom)


def is_scalar(value: object) -> bool:
    """Return whether a value is a single number, text or None of Python's or NumPy's own types."""
    if is_a(value, int) and int.bit_length(value) > _MAX_BITS:  # type: ignore[arg-type]  # it is an int
        return False
    kind = type(value)
    return kind in _SCALARS or (issubclass(kind, np.number | np.bool_) and kind.__module__ == "numpy")


def is_plain(value: object, depth: int = 0) -> bool:
    """Return whether a value is a number, text, None, or a short list, tuple or dict of these."""
    if is_scalar(value):
        return True
    # Not a named tuple, which cannot be rebuilt from its items alone.
    if depth >= _MAX_PLAIN_DEPTH or type(value) not in (list, tuple, *_DICTS) or not _is_short(value):
        return False
    keyed = is_a(value, dict)
    return all((not keyed or type(key) in (str, int)) and is_plain(part, depth + 1) for key, part in items(value))


def holds_more(value: object) -> bool:
    """Return whether `walk` would descend into a value."""
    if is_a(value, _BaseDataLoaderIter):
        return False  # it sometimes leads to what its loader leads to
    if is_a(value, deque):
        return _is_short(value) and not all(map(is_scalar, value))  # type: ignore[call-overload]  # it is one
    return _is_short(value) or is_a(value, (partial, MethodType)) or has_attributes(value)


def is_dataloader(value: object) -> bool:
    """Return whether a value is a DataLoader, or claims to be one."""
    try:
        return isinstance(value, DataLoader)
    except Exception:  # noqa: BLE001 - its `__class__` may be arbitrary code
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
    if is_a(value, _BaseDataLoaderIter):
        return [(name, part) for name, part in kept if name in _PASS_PARTS]
    if type(value).__module__.startswith(_DISPLAYS):
        return [(name, part) for name, part in kept if not is_plain(part)]
    return kept


def _loader_part(loader: object, name: str) -> object:
    try:
        return getattr(loader, name, None)
    except Exception:  # noqa: BLE001 - a proxy of a DataLoader looks up its parts by arbitrary code
        return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
