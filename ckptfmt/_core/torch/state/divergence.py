"""Differences of a component's state between ranks: located by digests of leaves, and merged into one tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ckptfmt._core.container.adapters import TensorLeaf
from ckptfmt._core.container.per_rank import place_of
from ckptfmt._core.container.state.flattening import FlatComponent, flatten_component
from ckptfmt._core.format.digest import digest_parts
from ckptfmt._core.format.packing import TensorRef, Typed, encode
from ckptfmt._core.format.trees import PER_RANK, replace_references, walk
from ckptfmt._core.format.unpacking import decode
from ckptfmt._core.torch.state.rank_digests import Subject
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS

__all__ = ["Difference", "Excerpt", "Node", "describe", "differences", "excerpt", "merged"]

_FEW = 64
_OVERHEAD_BYTES = 16  # of a typed value

Path = tuple[int, ...]
"""Indexes: of a value among those of a mapping, of an element in a list or tuple."""


class Leaf(NamedTuple):
    """A value compared as a whole."""

    digest: bytes
    nbytes: int


class Branch(NamedTuple):
    """A mapping, list or tuple whose values are compared individually."""

    kind: bytes
    """Its type, and its keys in order."""
    names: tuple[Hashable, ...]
    parts: tuple[Node, ...]


Node = Leaf | Branch
"""Description of a tree for other ranks, with digests in place of the values."""


class Difference(NamedTuple):
    """A value that differs between ranks.

    Attributes:
        place: Path for people: `net.avg`.
        path: Path in the tree of the component.
        sizes: Length of the value of each rank, in bytes.
    """

    place: str
    path: Path
    sizes: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Total length of the values of all ranks, in bytes."""
        return sum(self.sizes)


class Excerpt(NamedTuple):
    """Some values of a component of one rank, in the form sent to the rank that writes.

    Attributes:
        structure: The encoded array of the values, with references to tensors.
        tensors: The tensors by name: dtype, shape and data.
    """

    structure: bytes
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]


def describe(subject: Subject, *, large: bool) -> Node:
    """Return the description of a component.

    Args:
        subject: The component.
        large: Whether to include the data of its large tensors.
    """
    component = subject.component
    digests = subject.data_digests(large=large)

    def node_of(value: Any) -> Node:
        match value:
            case dict():
                parts = tuple(map(node_of, value.values()))
                return Branch(b"map" + encode(list(value)), tuple(value), parts)
            case list() | tuple() if _holds_parts(value):
                kind = f"{type(value).__name__} {len(value)}".encode()
                return Branch(kind, tuple(range(len(value))), tuple(map(node_of, value)))
        encoded = encode(value)
        names = [node.name for node in walk(value) if isinstance(node, TensorRef)]
        nbytes = len(encoded) + sum(component.tensors[name].nbytes for name in names)
        return Leaf(digest_parts(encoded, *(digests[name] for name in names)), nbytes)

    return node_of(_tree(component))


def differences(component: str, nodes: Sequence[Node]) -> list[Difference]:
    """Return the smallest values that differ between ranks.

    Args:
        component: Name of the component.
        nodes: Description from each rank.
    """
    return list(_differences(component, nodes, (), ()))


def excerpt(component: FlatComponent, paths: Sequence[Path]) -> Excerpt:
    """Return the values of a component at some paths, with copies of their tensors."""
    tree = _tree(component)
    values = [_at(tree, path) for path in paths]
    tensors = {}
    for node in walk(values):
        if isinstance(node, TensorRef) and node.name not in tensors:
            leaf = component.tensors[node.name]
            tensors[node.name] = (leaf.dtype, leaf.shape, leaf.read_copy())
    return Excerpt(encode(values), tensors)


def merged(component: FlatComponent, found: Sequence[Difference], others: Sequence[Excerpt]) -> FlatComponent:
    """Return a component of rank 0 with the values of all ranks where they differ (spec 11.6 v).

    Args:
        component: The component.
        found: Where it differs.
        others: The differing values of the other ranks, by rank.

    Raises:
        StateError: The format does not support the merged values.
    """
    ranks = [_values(other) for other in others]
    values: dict[Path, list[Any]] = {
        difference.path: [rank[number] for rank in ranks] for number, difference in enumerate(found)
    }
    tree = replace_references(_tree(component), component.tensors.__getitem__)
    return flatten_component(component.name, _grafted(tree, values), TORCH_ADAPTERS)


@dataclass(slots=True, eq=False)
class _Received(TensorLeaf):
    """A tensor of another rank."""

    data: bytes

    def read(self) -> memoryview:
        """See `TensorLeaf.read`."""
        return memoryview(self.data)


def _tree(component: FlatComponent) -> Any:
    if component.structure is None:
        return {name: TensorRef(name) for name in component.tensors}
    return decode(component.structure)


def _holds_parts(value: Any) -> bool:
    """Return whether a list or tuple contains mappings or tensors; numbers and text alone are compared as a whole."""
    match value:
        case dict() | TensorRef():
            return True
        case Typed(_, inner):
            return _holds_parts(inner)
        case list() | tuple():
            return any(map(_holds_parts, value))
    return False


def _differences(
    component: str, nodes: Sequence[Node], names: tuple[Hashable, ...], path: Path
) -> Iterator[Difference]:
    first = nodes[0]
    if all(node == first for node in nodes):
        return
    branches = [node for node in nodes if isinstance(node, Branch)]
    whole = Difference(place_of(component, names), path, tuple(map(_size, nodes)))
    if len(branches) < len(nodes) or any(branch.kind != branches[0].kind for branch in branches):
        yield whole
        return
    found = [
        difference
        for position, name in enumerate(branches[0].names)
        for difference in _differences(
            component, [branch.parts[position] for branch in branches], (*names, name), (*path, position)
        )
    ]
    # Where nearly everything differs, many separate values would take more space than a single one.
    if len(found) > _FEW and whole.nbytes < sum(2 * difference.nbytes + _OVERHEAD_BYTES for difference in found):
        yield whole
    else:
        yield from found


def _size(node: Node) -> int:
    return node.nbytes if isinstance(node, Leaf) else len(node.kind) + sum(map(_size, node.parts))


def _at(tree: Any, path: Path) -> Any:
    for position in path:
        tree = list(tree.values() if isinstance(tree, dict) else tree)[position]
    return tree


def _values(other: Excerpt) -> list[Any]:
    leaves = {name: _Received(dtype, shape, data) for name, (dtype, shape, data) in other.tensors.items()}
    values: list[Any] = replace_references(decode(other.structure), leaves.__getitem__)
    return values


def _grafted(tree: Any, values: Mapping[Path, list[Any]]) -> Any:
    """Return a tree with the values of other ranks merged in."""
    if () in values:
        return Typed(PER_RANK, [tree, *values[()]])
    inside: defaultdict[int, dict[Path, list[Any]]] = defaultdict(dict)
    for path, others in values.items():
        inside[path[0]][path[1:]] = others

    def part(position: int, value: Any) -> Any:
        return _grafted(value, inside[position]) if position in inside else value

    match tree:
        case dict():
            return {key: part(position, value) for position, (key, value) in enumerate(tree.items())}
        case list() | tuple():
            return type(tree)(part(position, value) for position, value in enumerate(tree))
    raise AssertionError(f"path into a {type(tree).__name__}")  # describe() creates no such node
