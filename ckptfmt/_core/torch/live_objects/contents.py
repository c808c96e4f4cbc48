"""What a value holds, read and written past all code of its class: no property, `__getattr__` or `__len__` runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from io import IOBase
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

__all__ = ["attributes", "bases", "has_attributes", "is_a", "items", "namespace", "put_attribute", "put_item", "size"]

_CONTAINERS = (dict, list, tuple, deque)
# Their attributes are nobody's state: a name, a value that never changes, or what is there once for all.
_CLOSED = (type, ModuleType, FunctionType, IOBase, Enum)
_namespace_of = type.__dict__["__dict__"].__get__
_bases_of = type.__dict__["__mro__"].__get__


def is_a(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Say whether a value is an instance of a class by its type; what its `__class__` says does not count."""
    return issubclass(type(value), kinds)


def bases(kind: type) -> tuple[type, ...]:
    """Return a class and those that it inherits from, in the order in which Python looks into them."""
    found: tuple[type, ...] = _bases_of(kind)
    return found


def namespace(kind: type) -> Mapping[str, Any]:
    """Return what a class itself defines, by name."""
    names: Mapping[str, Any] = _namespace_of(kind)
    return names


def size(value: object) -> int | None:
    """Return how many items a dict, list, tuple or deque has; None for anything else."""
    for kind in _CONTAINERS:
        if is_a(value, kind):
            return kind.__len__(value)  # type: ignore[arg-type]  # it is one of that kind
    return None


def items(value: object) -> list[tuple[Any, object]]:
    """Return the items of a dict, list, tuple or deque with their keys or positions; nothing for anything else."""
    if is_a(value, dict):
        return list(dict.items(value))  # type: ignore[arg-type]  # it is a dict
    for kind in (list, tuple, deque):
        if is_a(value, kind):
            return list(enumerate(kind.__iter__(value)))  # type: ignore[arg-type]  # it is one of that kind
    return []


def put_item(holder: object, key: Any, value: object) -> None:
    """Put an item into a dict, list or deque; nothing else can be changed."""
    kinds: tuple[Any, ...] = (dict, list, deque)
    for kind in kinds:
        if is_a(holder, kind):
            kind.__setitem__(holder, key, value)


def has_attributes(value: object) -> bool:
    """Say whether an object can have attributes of its own, be there any yet or none; not so types and functions."""
    if is_a(value, _CLOSED):
        return False
    own, slots = _stores(type(value))
    return own is not None or bool(slots)


def attributes(value: object) -> dict[str, Any]:
    """Return the attributes that an object keeps itself, in its `__dict__` or in slots; none of types and functions."""
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
    """Set an attribute that an object keeps itself, if it can have it."""
    if is_a(holder, _CLOSED):
        return
    own, slots = _stores(type(holder))
    if name in slots:
        slots[name].__set__(holder, value)
    elif own is not None:
        own.__get__(holder)[name] = value


def _stores(kind: type) -> tuple[GetSetDescriptorType | None, dict[str, MemberDescriptorType]]:
    """Return where instances of a class keep attributes: what gives their `__dict__`, and their slots by name."""
    own, slots = None, {}
    for base in bases(kind):
        names = namespace(base)
        if own is None and type(names.get("__dict__")) is GetSetDescriptorType:
            own = names["__dict__"]
        if "__slots__" in names:
            slots.update({name: part for name, part in names.items() if type(part) is MemberDescriptorType})
    return own, slots
