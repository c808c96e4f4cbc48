"""Values that differ between ranks, where a single state is wanted: those of rank 0, and which ones they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ckptfmt._core.container.per_rank import choose
from ckptfmt._core.format.packing import TensorRef, Typed
from ckptfmt._core.format.tensors import METADATA_KEY
from ckptfmt._core.format.trees import replace_references, walk
from ckptfmt._core.interop.base import ComponentSource, RankedValue

__all__ = ["as_rank_0", "ranked_values", "with_rank_0"]


def as_rank_0(component: str, tree: object) -> tuple[object, tuple[RankedValue, ...]]:
    """Return the tree of a component with the values of rank 0, and which these are."""
    found = []

    def pick(place: str, values: Sequence[Any]) -> object:
        found.append(RankedValue(place, len(values)))
        return values[0]

    return choose(component, tree, pick), tuple(found)


def ranked_values(component: str, tree: object) -> tuple[RankedValue, ...]:
    """Return which values of a component differ between ranks."""
    return as_rank_0(component, tree)[1]


class _RankZeroComponent(ComponentSource):
    """A component with the values of rank 0 only, for formats that hold a single state.

    Its tensors have the names that they would have in a checkpoint of one process (spec 11.4).

    Args:
        component: The component.
    """

    def __init__(self, component: ComponentSource) -> None:
        tree, self.ranked = as_rank_0(component.name, component.tree())
        shared = set(_references(choose(component.name, component.tree(), lambda _place, _values: None)))
        names = _plain_names(tree, shared)
        super().__init__(
            component.name,
            {name: component.tensors[original] for original, name in names.items()},
            codec=component.codec,
            stored_bytes=component.stored_bytes,
            logical_bytes=component.logical_bytes,
            text_metadata=component.text_metadata,
        )
        self.has_digests = component.has_digests
        self._tree = replace_references(tree, lambda name: TensorRef(names[name]))
        self._flat = isinstance(self._tree, dict) and all(
            isinstance(key, str) and value == TensorRef(key) for key, value in self._tree.items()
        )

    @property
    def flat(self) -> bool:
        """See `ComponentSource.flat`."""
        return self._flat

    def tree(self) -> object:
        """See `ComponentSource.tree`."""
        return None if self._flat else self._tree


def with_rank_0(component: ComponentSource) -> ComponentSource:
    """Return a component with the values of rank 0 only; itself if there are no others."""
    return _RankZeroComponent(component) if ranked_values(component.name, component.tree()) else component


def _references(tree: object) -> Iterator[str]:
    return (node.name for node in walk(tree) if isinstance(node, TensorRef))


def _plain_names(tree: object, shared: Collection[str]) -> dict[str, str]:
    """Return the names of the tensors of a tree, in its order: that of the path for those that only one rank has."""
    names: dict[str, str] = {}
    taken = set(shared)
    for original, path in _places(tree, ()):
        if original in names:
            continue
        wanted = ".".join(path)
        free = original not in shared and wanted and wanted != METADATA_KEY and wanted not in taken
        names[original] = wanted if free else original
        taken.add(names[original])
    return names


def _places(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    match tree:
        case TensorRef(name):
            yield name, path
        case Typed(_, value):
            yield from _places(value, path)
        case dict():
            for number, (key, value) in enumerate(tree.items()):
                part = str(key) if type(key) in (str, int) else f"#{number}"
                yield from _places(value, (*path, part))
        case list() | tuple():
            for number, value in enumerate(tree):
                yield from _places(value, (*path, str(number)))
