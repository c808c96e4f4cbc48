"""Objects in a state that are kept as inert data, because only code could rebuild them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ckptfmt._core.container.per_rank import PerRank, place_of
from ckptfmt._core.format.packing import Typed

__all__ = ["inert_objects"]

_MOST_NAMED = 5


def inert_objects(component: str, tree: object, besides: Collection[str] = ()) -> tuple[str, ...]:
    """Return a line for each of the first few inert objects in the state of a component.

    Args:
        component: Name of the component.
        tree: Its state.
        besides: Names of classes whose objects are not listed.
    """
    found: list[str] = []
    seen: set[int] = set()  # by id: the whole tree stays alive

    def look(node: object, path: tuple[object, ...]) -> None:
        if isinstance(node, Typed):
            if node.name in besides:
                return
            place = place_of(component, path)
            found.append(f"{place}: an object of {node.name}, kept as inert data, which cannot be restored")
        elif isinstance(node, Mapping | list | tuple | PerRank) and id(node) not in seen:
            seen.add(id(node))
            inside = node.values if isinstance(node, PerRank) else node
            for part, item in inside.items() if isinstance(inside, Mapping) else enumerate(inside):
                look(item, (*path, part))

    look(tree, ())
    rest = len(found) - _MOST_NAMED
    return (*found[:_MOST_NAMED], *([f"{component}: and {rest} more such objects"] if rest > 0 else []))
