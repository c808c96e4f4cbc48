"""Contents of a value, read and written without code of its class: no property, `__getattr__` or `__len__` runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from io import IOBase
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

__all__ = ["attributes", "bases", "has_attributes", "is_a", "items", "namespace", "put_attribute", "put_item", "size"]

_CONTAINERS = (dict, list, tuple, deque)
# Their attributes are not state: names, constants, or singletons.
_CLOSED = (type, ModuleType, FunctionType, IOBase, Enum)
_namespace_of = type.__dict__["__dict__"].__get__
_bases_of = type.__dict__["__mro__"].__get__


def is_a(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Return whether a value is an instance of a class by its type, regardless of its `__class__`."""
    return issubclass(type(value), kinds)


def bases(kind: type) -> tuple[type, ...]:
    """Return a class and its base classes, in method resolution order."""
    found: tuple[type, ...] = _bases_of(kind)
    return found


def namespace(kind: type) -> Mapping[str, Any]:
    """Return the names that a class itself defines, with their values."""
    names: Mapping[str, Any] = _namespace_of(kind)
    return names


def size(value: object) -> int | None:
    """Return the number of items of a dict, list, tuple or deque; None for anything else."""
    for kind in _CONTAINERS:
        if is_a(value, kind):
            return kind.__len__(value)  # type: ignore[arg-type]  # it is one of that kind
    return None


def items(value: object) -> list[tuple[Any, object]]:
    """Return the items of a dict, list, tuple or deque with their keys or positions; empty for anything else."""
    if is_a(value, dict):
        return list(dict.items(value))  # type: ignore[arg-type]  # it is a dict
    for kind in (list, tuple, deque):
        if is_a(value, kind):
            return list(enumerate(kind.__iter__(value)))  # type: ignore[arg-type]  # it is one of that kind
    return []


def put_item(holder: object, key: Any, value: object) -> None:
    """Set an item of a dict, list or deque; do nothing for anything else."""
    kinds: tuple[Any, ...] = (dict, list, deque)
    for kind in kinds:
        if is_a(holder, kind):
            kind.__setitem__(holder, key, value)


def has_attributes(value: object) -> bool:
    """Return whether an object can have instance attributes, even if it has none; false for types and functions."""
    if is_a(value, _CLOSED):
        return False
    own, slots = _stores(type(value))
    return own is not None or bool(slots)


def attributes(value: object) -> dict[str, Any]:
    """Return the instance attributes of an object, from `__dict__` or slots; none for types and functions."""
    if is_a(value, _CLOSED):
        return {}
    own, slots = _stores(type(value))
    found = {}
    for name, slot in slots.items():
        try:
            found[name] = slot.__get__(value)
        except AttributeError:  # it is empty
            continue
    return found if own is None else {**found, **own.__get__(value)}


def put_attribute(holder: object, name: str, value: object) -> None:
    """Set an instance attribute of an object, if it can have it."""
    if is_a(holder, _CLOSED):
        return
    own, slots = _stores(type(holder))
    if name in slots:
        slots[name].__set__(holder, value)
    elif own is not None:
        own.__get__(holder)[name] = value


def _stores(kind: type) -> tuple[GetSetDescriptorType | None, dict[str, MemberDescriptorType]]:
    """Return where instances of a class keep attributes: the descriptor of `__dict__`, and the slots by name."""
    own, slots = None, {}
    for base in bases(kind):
        names = namespace(base)
        if own is None and type(names.get("__dict__")) is GetSetDescriptorType:
            own = names["__dict__"]
        if "__slots__" in names:
            slots.update({name: part for name, part in names.items() if type(part) is MemberDescriptorType})
    return own, slots
