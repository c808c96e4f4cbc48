"""Values that differ between the ranks of a data-parallel job, in memory and in trees (spec 11.6 v)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ckptfmt._core.format.index import shown_name
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import PER_RANK, walk
from ckptfmt.errors import MismatchError, StateError

__all__ = ["PerRank", "Pick", "choose", "of_rank", "place_of"]

Pick = Callable[[str, Sequence[Any]], object]
"""Takes a place such as `net.avg` and the values of all ranks there; returns what to put there."""


@dataclass(frozen=True)
class PerRank:
    """A value that differs between the ranks of a data-parallel job, as `load` returns it.

    Attributes:
        values: The value of each rank, rank 0 first; at least two.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            found = f"the values of {len(self.values)} ranks"
            raise StateError("PerRank", found, "give those of two ranks or more; a single value needs no PerRank")


def place_of(component: str, path: Sequence[object]) -> str:
    """Return a path in a component as a person writes it: `optimizer.param_groups[0].lr`."""
    return shown_name(component) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def choose(component: str, tree: object, pick: Pick) -> object:
    """Return the tree of a component with what `pick` returns in place of each typed `per_rank`.

    Args:
        component: Name of the component.
        tree: Its tree, valid by `format.trees.validate_tree`. It is not changed.
        pick: Called once for each typed `per_rank`, in the order of the tree.
    """
    if not any(isinstance(node, Typed) and node.name == PER_RANK for node in walk(tree)):
        return tree

    def replaced(node: Any, path: tuple[object, ...]) -> object:
        match node:
            case Typed(name, values) if name == PER_RANK:
                return pick(place_of(component, path), values)
            case Typed(name, value):
                return Typed(name, replaced(value, path))
            case dict():
                return {key: replaced(value, (*path, key)) for key, value in node.items()}
            case list() | tuple():
                return type(node)(replaced(value, (*path, number)) for number, value in enumerate(node))
        return node

    return replaced(tree, ())


def of_rank(rank: int) -> Pick:
    """Return what picks the value of one rank.

    It raises MismatchError where that rank has no value.
    """

    def pick(place: str, values: Sequence[Any]) -> object:
        if not 0 <= rank < len(values):
            message = f"there is no rank {rank} in the checkpoint"
            raise MismatchError(message, [f"{place}: has the values of {len(values)} ranks"])
        return values[rank]

    return pick
