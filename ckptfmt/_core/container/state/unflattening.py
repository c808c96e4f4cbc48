"""Structure and tensors to the tree of a training state; knows no framework (spec 11)."""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import date, datetime, time, timedelta
from typing import Any

from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.adapters import Adapter
from ckptfmt._core.container.per_rank import PerRank
from ckptfmt._core.format.packing import (
    LEAVES,
    TensorRef,
    Timestamp,
    Typed,
    datetime_of,
)
from ckptfmt._core.format.trees import PER_RANK


def tensor_uses(tree: object, adapters: AdapterSet, given: Container[str] = ()) -> list[tuple[str, Adapter]]:
    """Return which tensors a tree refers to, each with the adapter that has to make it, without repetition.

    Args:
        tree: The tree.
        adapters: The adapters.
        given: Names of tensors to leave out.
    """
    found: dict[tuple[str, Adapter], None] = {}

    def look(node: Any, adapter: Adapter) -> None:
        kind = type(node)
        if kind is TensorRef:
            if node.name not in given:
                found[node.name, adapter] = None
            return
        if kind in LEAVES:
            return
        match node:
            case Typed(name, value):
                look(value, adapters.maker(name, adapter))
            case dict():
                for value in node.values():
                    look(value, adapter)
            case list() | tuple():
                for value in node:
                    look(value, adapter)

    look(tree, adapters.primary)
    return list(found)


def unflatten(tree: object, tensor: Callable[[str, Adapter], object], adapters: AdapterSet) -> object:
    """Return the value of a validated tree.

    Args:
        tree: Valid by `format.trees.validate_tree`.
        tensor: Returns the tensor of a name as one of the adapter's: the same object each time it is asked,
            so that a tensor in several places is one again (11.2).
        adapters: Make the values of frameworks.
    """

    def decode(node: Any, adapter: Adapter) -> object:
        kind = type(node)
        if kind is TensorRef:
            return tensor(node.name, adapter)
        if kind in LEAVES:
            return node
        match node:
            case Typed(name, value):
                maker = adapters.maker(name, adapter)
                typed = Typed(name, decode(value, maker))
                return typed.value if adapters.is_marker(name) else _decode_typed(typed, adapters, maker)
            case Timestamp():
                return datetime_of(node)
            case dict():
                return {key: decode(value, adapter) for key, value in node.items()}
            case list():
                return [decode(value, adapter) for value in node]
            case tuple():
                return tuple(decode(value, adapter) for value in node)
        return node

    return decode(tree, adapters.primary)


def _decode_typed(typed: Typed, adapters: AdapterSet, adapter: Adapter) -> object:
    match typed.name:
        case "frozenset":
            return frozenset(typed.value)
        case "datetime":
            return datetime.fromisoformat(typed.value)
        case "date":
            return date.fromisoformat(typed.value)
        case "time":
            return time.fromisoformat(typed.value)
        case "timedelta":
            return timedelta(*typed.value)
        case name if name == PER_RANK:
            return PerRank(tuple(typed.value))
    return adapters.decode(typed, adapter)
